import json

import pytest

from nasray.cli import main
from nasray.data import check_data
from nasray.recipe import load_recipe
from nasray.reports.dataset import dataset_figures, write_dataset_page
from nasray.spaces import NasrayError
from tests.nasray.data.layout_sets import (
    made_images,
    write_coco_set,
    write_hugging_face_set,
    write_voc_set,
    write_yolo_set,
)

SPLITS = {"train": made_images(5), "val": made_images(2, seed=1)}


def test_every_layout_has_the_same_figures_and_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    figures = []
    for write in (write_coco_set, write_voc_set, write_yolo_set, write_hugging_face_set):
        name = write.__name__.split("_")[1]
        write(tmp_path / name, SPLITS)
        assert main(["data", "show", name, "--json"]) == 0
        figures.append(json.loads(capsys.readouterr().out))
        assert figures[-1].pop("source") == name
    assert all(other == figures[0] for other in figures[1:])
    assert main(["data", "show", "yolo", "--images", "2"]) == 0
    assert capsys.readouterr().out == "yolo-report/report.html\n"
    page = (tmp_path / "yolo-report" / "report.html").read_text()
    for part in ("<h1>yolo</h1>", "<h2>Classes</h2>", "<h2>Sizes of boxes</h2>", "<h2>Images without boxes</h2>",
                 "2 of 4 images of train", "data:image/jpeg"):  # fmt: skip
        assert part in page, part
    assert "<script" not in page
    pictures = {path.name for path in (tmp_path / "yolo-report").glob("*.png")}
    assert pictures == {"classes.png", "box-sizes.png", "aspect-ratios.png"}


@pytest.mark.slow
def test_a_page_is_the_same_to_the_byte(tmp_path):
    write_yolo_set(tmp_path / "set", SPLITS)
    for name in ("one", "other", "other"):
        write_dataset_page(str(tmp_path / "set"), tmp_path / name, num_images=2)
    one, other = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "other"))
    assert one == other


def test_a_recipe_brings_its_size_and_levels(tmp_path):
    write_yolo_set(tmp_path, SPLITS)
    source = str(tmp_path)
    plain = dataset_figures(source)["box_sizes"]["train"]
    recipe = load_recipe("shapes-fcos")
    scaled = dataset_figures(source, recipe=recipe)["box_sizes"]["train"]
    short, long = recipe.augmentation.short_side[-1], recipe.augmentation.long_side
    factor = min(short / 64, long / 128)
    assert scaled["edge_quantiles"]["0.5"] == pytest.approx(factor * plain["edge_quantiles"]["0.5"])
    assert [level["stride"] for level in scaled["levels"]] == [8, 16, 32, 64, 128]


def test_flawed_sets_are_shown_too(tmp_path):
    write_yolo_set(tmp_path, SPLITS)
    (tmp_path / "labels/train/000.txt").write_text("7 0.5 0.5 0.5 0.5")
    (tmp_path / "labels/val/000.txt").write_text("\0")
    figures = dataset_figures(str(tmp_path))
    assert [(row["split"], row["severity"]) for row in figures["defects"]] == [
        ("train", "error"), ("val", "error"), ("val", "error")
    ]  # fmt: skip
    assert check_data(str(tmp_path))["errors"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--split", "test"), "has no split 'test'. It has: train, val"),
        (("--to", "set"), "set holds other files than a page. Choose a new folder with --to"),
        (("--recipe", "shapes-classify"), "is of classification. Name one of detection"),
        (("--images", "0"), "--images is a whole number from 1"),
        (("--to", "set/data.yaml"), "is a file, not a folder"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_yolo_set(tmp_path / "set", SPLITS)
    assert main(["data", "show", "set", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_what_is_missing_is_said_before_it_is_read(tmp_path):
    with pytest.raises(NasrayError, match="does not exist"):
        write_dataset_page(str(tmp_path / "gone"), tmp_path / "page")
    assert not (tmp_path / "page").exists()
