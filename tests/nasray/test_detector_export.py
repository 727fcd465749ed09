"""Exports compute what the detector does, without nasray, at sizes that were not traced."""

import json
import subprocess
import sys

import pytest
import torch

from nasray import detector_export
from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint, make_detector
from nasray.detector_export import detection_difference, export_checkpoint
from nasray.drawing import predict_image
from nasray.recipe import AugmentationOptions, DetectorOptions, Recipe
from nasray.spaces import NasrayError

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ("rectangle", "circle", "triangle")


@pytest.fixture(scope="module")
def checkpoint():
    return make_checkpoint("fcos", channels=16, num_convs=1)


def make_checkpoint(name, **options):
    """An untrained detector whose scores are high enough to be detections."""
    recipe = Recipe(
        name="test", backbone="basic-tiny", detector=DetectorOptions(name=name, **options),
        augmentation=AugmentationOptions(short_side=(96,), long_side=160),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = make_detector(recipe, ARCHITECTURES["basic-tiny"], 3)
        for parameter in detector.parameters():  # scores that differ from place to place
            if parameter.dim() > 1:
                parameter.data.mul_(1.5)
            elif parameter.min() < -2:
                parameter.data.fill_(-1.0)
    return Checkpoint(recipe, ARCHITECTURES["basic-tiny"], CLASSES, (1, 2, 3), detector.state_dict())


@pytest.fixture(scope="module")
def onnx_file(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return path, export_checkpoint(checkpoint, path)


def test_onnx(onnx_file):
    import onnx

    path, result = onnx_file
    assert result["max_difference"] <= 1e-3
    assert result["max_score_difference"] <= 1e-4
    assert result["detections"] >= 20
    assert len(set(result["image_sizes"])) == 2
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert [output.name for output in model.graph.output] == ["boxes", "scores", "labels"]
    assert [one.name for one in path.parent.iterdir()] == ["model.onnx"]


def test_program_loads_without_nasray(checkpoint, tmp_path):
    path = tmp_path / "model.pt2"
    assert export_checkpoint(checkpoint, path)["max_difference"] <= 1e-3
    images = torch.linspace(0, 255, 3 * 90 * 130).reshape(1, 3, 90, 130)
    with torch.no_grad():
        boxes, scores, labels, _ = checkpoint.detector()(images)
    torch.save([images, boxes[0], scores[0], labels[0]], tmp_path / "expected.pt")
    code = (
        "import sys\n"
        "sys.modules['nasray'] = None\n"  # importing it fails
        "import torch, torchvision\n"
        "images, *expected = torch.load('expected.pt')\n"
        "extra = {'classes.json': ''}\n"
        "module = torch.export.load('model.pt2', extra_files=extra).module(check_guards=False)\n"
        "for ours, theirs in zip(module(images), expected, strict=True):\n"
        "    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)\n"
        "assert 'triangle' in extra['classes.json']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet", "gfl", "faster-rcnn", "mask-rcnn", "centernet", "ssdlite", "yolof"])
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_every_detector(name, suffix, tmp_path):
    result = export_checkpoint(make_checkpoint(name), tmp_path / f"model{suffix}")
    assert result["max_difference"] <= 1e-3
    assert result["detections"] > 0


@pytest.mark.slow
def test_raw(checkpoint, tmp_path):
    assert export_checkpoint(checkpoint, tmp_path / "raw.onnx", raw=True)["max_difference"] <= 1e-4


def test_a_wrong_export_is_not_written(checkpoint, tmp_path, monkeypatch):
    right = detector_export._to_program

    def wrong(*arguments):
        content, run = right(*arguments)
        return content, lambda images: [run(images)[0] + 0.01, *run(images)[1:]]

    monkeypatch.setattr(detector_export, "_to_program", wrong)
    with pytest.raises(NasrayError, match=r"boxes differ by 0\.01\d* pixels \(allowed 0\.001\)"):
        export_checkpoint(checkpoint, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_mistakes(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(NasrayError, match=r"\.onnx or \.pt2"):
        export_checkpoint(checkpoint, tmp_path / "model.txt")
    with pytest.raises(NasrayError, match="existing folder"):
        export_checkpoint(checkpoint, tmp_path / "no" / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NasrayError, match=r"nasray\[onnx\]"):
        export_checkpoint(checkpoint, tmp_path / "model.onnx")


def test_detection_difference():
    boxes, scores = (
        torch.tensor([[0.0, 0, 9, 9], [5, 5, 20, 20], [1, 1, 4, 4], [0, 0, 1, 1]]),
        torch.tensor([0.9, 0.8, 0.8, 0]),
    )
    labels = torch.tensor([0, 1, 1, 0])
    swapped = [x[[0, 2, 1, 3]] for x in (boxes, scores, labels)]
    assert detection_difference([boxes, scores, labels], swapped) == (0.0, 0.0, 3)
    moved = [boxes + torch.tensor([0.5]), scores, labels]
    assert detection_difference([boxes, scores, labels], moved)[0] == pytest.approx(0.5)
    other = [boxes, scores, torch.tensor([2, 1, 1, 0])]
    assert detection_difference([boxes, scores, labels], other)[0] == float("inf")


def test_predict_image(checkpoint, tmp_path):
    import numpy as np
    from PIL import Image

    from nasray.data.shapes import draw_image

    pixels = draw_image(np.random.default_rng(0), (120, 200))[0]
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "image.png")
    found = predict_image(checkpoint, tmp_path / "image.png", to=tmp_path / "boxes.png", threshold=0.05)
    assert found
    assert all(one["class"] in CLASSES and one["score"] >= 0.05 for one in found)
    assert np.array([one["box"] for one in found]).max() <= 200
    assert Image.open(tmp_path / "boxes.png").size == (200, 120)
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    with pytest.raises(NasrayError, match="no image"):
        predict_image(checkpoint, tmp_path / "none.png", to=tmp_path / "boxes.png")
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    with pytest.raises(NasrayError, match=r"torn\.jpg"):
        predict_image(checkpoint, tmp_path / "torn.jpg", to=tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()
    with pytest.raises(NasrayError, match=r"\.png, \.jpg"):
        predict_image(checkpoint, tmp_path / "image.png", to=tmp_path / "boxes.gif")
