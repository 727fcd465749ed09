"""The command `predict`, and that the same picture is the same in training, evaluation and prediction."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint, make_network
from nasray.cli import main
from nasray.data import EvaluationLoader, TrainLoader, open_data
from nasray.data.image_files.pixels import PixelRules
from nasray.data.shapes import CLASSES, draw_image
from nasray.evaluation.predictions import predict
from nasray.models.detectors import DETECTORS
from nasray.options import options_of
from nasray.predicting import find_images, picture_name, picture_paths, predict_images, predictions_folder
from nasray.recipe import Recipe
from nasray.recipe_options import AugmentationOptions, LoaderOptions
from nasray.spaces import NasrayError
from tests.nasray.data.pictures import as_stored, containers, deep_png, encode, tiff

pytestmark = pytest.mark.usefixtures("one_thread")

PIXELS, BOXES, LABELS = draw_image(np.random.default_rng(0), (120, 200))
PICTURE = np.asarray(Image.fromarray(PIXELS.transpose(1, 2, 0)).quantize(32, dither=0).convert("RGB"))  # for palettes


@pytest.fixture(scope="module")
def checkpoint():
    """An untrained detector that is sure of something."""
    recipe = Recipe(
        name="test", backbone="basic-tiny", detector=options_of(DETECTORS, "fcos", channels=16, num_convs=1),
        augmentation=AugmentationOptions(short_side=(96,), long_side=160, flip=0.0),
        loader=LoaderOptions(processes=0),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = make_network(recipe, ARCHITECTURES["basic-tiny"], 3)
        for parameter in detector.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(1.5)
            elif parameter.min() < -2:
                parameter.data.fill_(-1.0)
    return Checkpoint(recipe, ARCHITECTURES["basic-tiny"], CLASSES, (1, 2, 3), detector.state_dict())


@pytest.fixture
def run(checkpoint, tmp_path):
    """A training's folder with this checkpoint."""
    folder = tmp_path / "run" / "train"
    (folder / "checkpoints").mkdir(parents=True)
    checkpoint.save(folder / "checkpoints" / "last.pt")
    return folder


@pytest.fixture
def photos(tmp_path):
    """Two folders with images of the same names, one of another size, and what is no image."""
    for name, pixels in (("a/1.png", PICTURE), ("a/2.PNG", PICTURE[:60]), ("b/1.png", 255 - PICTURE)):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(np.ascontiguousarray(pixels), "PNG"))
    for name in ("1.txt", "1.xml", "._1.png", "sub.png/x"):
        path = tmp_path / "photos/a" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("no image")
    return tmp_path / "photos"


def boxes_of(result):
    return np.array([one["box"] for one in result["detections"]])


# ---- one picture, one result -------------------------------------------------------------------------------------


def write_forms(folder, orientation):
    """Write a COCO set of one picture in many containers and depths; return its paths, and which are lossless."""
    (folder / "images").mkdir()
    forms = list(containers(PICTURE, orientation).values())
    names = [f"{number:02}.png" for number in range(len(forms))]  # a name's suffix says nothing of a container
    for name, (content, _) in zip(names, forms, strict=True):
        (folder / "images" / name).write_bytes(content)
    records = [{"id": number, "file_name": name, "height": 120, "width": 200} for number, name in enumerate(names)]
    annotations = [
        {"id": number * 100 + place, "image_id": number, "category_id": label + 1,
         "bbox": [left, top, right - left, bottom - top]}
        for number in range(len(forms))
        for place, ((left, top, right, bottom), label) in enumerate(zip(BOXES.tolist(), LABELS.tolist(), strict=True))
    ]  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    content = {"images": records, "annotations": annotations, "categories": categories}
    (folder / "train.json").write_text(json.dumps(content))
    (folder / "data.yaml").write_text("format: coco\ntrain: {images: images, annotations: train.json}\n")
    return [folder / "images" / name for name in names], [tolerance == 0 for _, tolerance in forms]


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_picture_is_the_same_in_training_evaluation_and_prediction(checkpoint, tmp_path, orientation):
    paths, lossless = write_forms(tmp_path, orientation)
    assert sum(lossless) >= 12
    dataset = open_data(str(tmp_path)).split("train")
    recipe, detector = checkpoint.recipe, checkpoint.detector()

    train = TrainLoader(dataset, recipe.augmentation, batch_size=len(paths), stride=32, seed=0, options=recipe.loader)
    batch = next(train.epoch(0))
    first = batch.indices.tolist().index(0)
    for place, index in enumerate(batch.indices.tolist()):
        assert torch.equal(batch.targets[place]["boxes"], batch.targets[first]["boxes"])
        difference = (batch.images[place].int() - batch.images[first].int()).abs().max()
        assert difference <= (0 if lossless[index] else 12), paths[index]

    loader = EvaluationLoader(dataset, recipe.augmentation, batch_size=4, stride=detector.stride, options=recipe.loader)
    evaluated = predict(detector, loader, channels_last=recipe.channels_last)
    results = predict_images(checkpoint, paths, picture_paths(paths, tmp_path / "out"), threshold=0.05, batch_size=4)
    expected = boxes_of(results[0])
    assert len(expected) >= 3
    for index, result in enumerate(results):
        chosen = (evaluated.image_index == index) & (evaluated.scores >= 0.05)
        np.testing.assert_allclose(boxes_of(result), evaluated.boxes[chosen], atol=1e-3)
        if lossless[index]:
            np.testing.assert_allclose(boxes_of(result), expected, atol=1e-3)


def test_a_detector_predicts_by_the_rules_of_its_training(checkpoint, tmp_path):
    deep = np.rint(as_stored(PICTURE, 6) / 255 * 4095).astype(np.uint16)
    for name, content in (("a.png", deep_png(deep, 6)), ("b.tif", tiff(deep, orientation=6))):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "c.png").write_bytes(encode(as_stored(PICTURE, 6), "PNG"))
    (tmp_path / "d.png").write_bytes(encode(PICTURE, "PNG"))
    stored = dataclasses.replace(checkpoint, pixel_rules=PixelRules("stored", (0, 4095)))
    stored.save(tmp_path / "stored.pt")
    stored = Checkpoint.load(tmp_path / "stored.pt")
    paths = [tmp_path / name for name in ("a.png", "b.tif", "c.png")]
    results = predict_images(stored, paths, picture_paths(paths, tmp_path), threshold=0.05)
    for result in results[:2]:
        np.testing.assert_allclose(boxes_of(result), boxes_of(results[2]), atol=1e-3)
    rules = PixelRules(value_range=(0, 4095))
    paths = [tmp_path / name for name in ("a.png", "d.png")]
    upright, expected = predict_images(stored, paths, picture_paths(paths, tmp_path), threshold=0.05, rules=rules)
    np.testing.assert_allclose(boxes_of(upright), boxes_of(expected), atol=1e-3)
    with pytest.raises(NasrayError, match="it is of 12 bits or very dark"):
        predict_images(checkpoint, paths[:1], picture_paths(paths[:1], tmp_path))


def test_what_is_found_does_not_depend_on_the_other_images(checkpoint, photos, tmp_path):
    paths = find_images([f"{photos}/**/*.png", f"{photos}/a"])
    together = predict_images(checkpoint, paths, picture_paths(paths, tmp_path / "out"), threshold=0.05)
    assert [os.fspath(path) for path in paths] == [result["image"] for result in together]
    for path, result in zip(paths, together, strict=True):
        alone = predict_images(checkpoint, [path], picture_paths([path], tmp_path / "out"), threshold=0.05)[0]
        np.testing.assert_allclose(boxes_of(result), boxes_of(alone), atol=1e-3)
        assert Image.open(result["picture"]).size == Image.open(path).size
        scores = [one["score"] for one in result["detections"]]
        assert scores == sorted(scores, reverse=True)
        assert min(scores) >= 0.05


# ---- which images, and where pictures go -------------------------------------------------------------------------


def test_files_folders_globs_and_lists(photos, monkeypatch):
    monkeypatch.chdir(photos)
    names = lambda *given: [os.fspath(path) for path in find_images(given)]  # noqa: E731
    assert names("a") == ["a/1.png", "a/2.PNG"]
    assert names("b/1.png", "a", "b/*.png") == ["b/1.png", "a/1.png", "a/2.PNG"]
    assert names("**/*.png") == ["a/1.png", "b/1.png"]
    (photos / "a/list.txt").write_text("1.png\n\n../b/*\n  2.PNG\n")
    assert names("a/list.txt") == ["a/1.png", "a/../b/1.png", "a/2.PNG"]
    (photos / "a/[1].png").write_bytes((photos / "a/1.png").read_bytes())
    (photos / "a/ 1 .png").write_bytes((photos / "a/1.png").read_bytes())
    assert names("a/[1].png", "a/ 1 .png") == ["a/[1].png", "a/ 1 .png"]


@pytest.mark.parametrize(
    ("item", "message"),
    [("none.png", "no image .*none.png. Pass an image"), ("a/*.bmp", "no image matches"), ("", "name is empty"),
     (".", "has no images itself.*/\\*\\*/\\*.jpg"), ("zero\0byte", "no image"), ("n" * 9000, "no image"),
     ("empty.txt", "list of images .*empty.txt is empty"), ("latin.txt", "not UTF-8"), ("~nobody-here/a", "no image")],
)  # fmt: skip
def test_what_is_not_there_is_one_line(photos, monkeypatch, item, message):
    monkeypatch.chdir(photos)
    (photos / "empty.txt").write_text("\n")
    (photos / "latin.txt").write_bytes(b"caf\xe9.png\n")
    with pytest.raises(NasrayError, match=message) as info:
        find_images([item])
    assert "\n" not in str(info.value)


def test_pictures_of_one_name_do_not_meet(photos):
    images = find_images([f"{photos}/a/1.png", f"{photos}/b/1.png", f"{photos}/a/2.PNG"])
    names = {picture_name(image) for image in images}
    assert len(names) == 3
    assert picture_name(images[0]) == picture_name(photos / "b/../a/1.png")
    long = picture_name(photos / ("\u00e9" * 300 + os.fsdecode(b"\xff\n") + ".png"))
    assert len(os.fsencode(long)) < 200
    assert long.isprintable()


def test_pictures_go_to_the_training(run, tmp_path):
    assert predictions_folder(run / "checkpoints/last.pt") == run / "predictions"
    assert predictions_folder(tmp_path / "model.pt") == tmp_path / "predictions"


@pytest.mark.parametrize(
    ("to", "num", "message"),
    [("out.png", 2, "is one file, and there are 2 images"), ("out.gif", 1, "a picture is a file of kind .png, .jpg"),
     ("a/1.png", 1, "is one of the images"), ("a/1.txt", 2, "is a file, not a folder")],
)  # fmt: skip
def test_targets_that_cannot_be_are_refused(photos, monkeypatch, to, num, message):
    monkeypatch.chdir(photos)
    images = find_images(["a"])[:num]
    with pytest.raises(NasrayError, match=message):
        picture_paths(images, photos / to)


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_command_writes_nothing_beside_the_images(run, photos, capsys):
    before = sorted(photos.rglob("*"))
    arguments = ["predict", str(run.parent), str(photos / "a"), f"{photos}/b/*.png", "--threshold", "0.05"]
    assert main([*arguments, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["images"]
    assert [os.path.relpath(result["image"], photos) for result in results] == ["a/1.png", "a/2.PNG", "b/1.png"]
    assert all(result["detections"] for result in results)
    pictures = [result["picture"] for result in results]
    assert sorted(pictures) == sorted(map(str, (run / "predictions").iterdir()))
    assert sorted(photos.rglob("*")) == before
    assert main([*arguments[:3], "--to", str(run / "one")]) == 0
    text = capsys.readouterr().out
    assert all(str(run / "one" / picture_name(photos / "a" / name)) in text for name in ("1.png", "2.PNG"))


def test_images_that_cannot_be_read_are_said_and_the_others_done(run, photos, capsys):
    (photos / "a/0.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    (photos / "a/3.png").write_bytes((photos / "a/1.png").read_bytes()[:-300])
    assert main(["predict", str(run), str(photos / "a"), "--json"]) == 2
    output = capsys.readouterr()
    results = json.loads(output.out)["images"]
    assert ["error" in result for result in results] == [True, False, False, True]
    assert "2 of 4 images cannot be read; the first: cannot read image" in output.err
    assert main(["predict", str(run), str(photos / "a/0.jpg")]) == 2
    assert "0.jpg" in capsys.readouterr().err
    assert len(list((run / "predictions").iterdir())) == 2


@pytest.mark.parametrize(
    "options",
    [["--threshold", "nan"], ["--threshold", "1.5"], ["--device", "tpu"], ["--batch-size", "0"], ["--batch-size", "x"],
     ["--value-range", "1", "1"], ["--value-range", "0", "nan"], ["--orientation", "sideways"],
     ["--to", "/dev/null/x"], ["--to", "none.gif"]],
    ids=" ".join,
)  # fmt: skip
def test_options_out_of_range_are_one_line(run, photos, capsys, options):
    assert main(["predict", str(run), str(photos / "a/1.png"), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert not (run / "predictions").exists()
