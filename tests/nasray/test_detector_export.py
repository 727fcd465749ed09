"""Exports compute what the detector does, without nasray, at sizes that were not traced."""

import json
import subprocess
import sys

import pytest
import torch

from nasray import detector_export
from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint, make_network
from nasray.detector_export import EndToEnd, check, detection_differences, export_checkpoint
from nasray.recipe import AugmentationOptions, DetectorOptions, Recipe
from nasray.spaces import NasrayError

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = ("rectangle", "circle", "triangle")


@pytest.fixture(scope="module")
def checkpoint():
    return make_checkpoint("fcos", channels=16, num_convs=1)


def make_checkpoint(name, *, sure=True, **options):
    """An untrained detector, whose scores are high enough to be detections if it is sure."""
    recipe = Recipe(
        name="test", backbone="basic-tiny", detector=DetectorOptions(name=name, **options),
        augmentation=AugmentationOptions(short_side=(96,), long_side=160),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = make_network(recipe, ARCHITECTURES["basic-tiny"], 3)
        for parameter in detector.parameters() if sure else ():  # scores that differ from place to place
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


@pytest.fixture(scope="module")
def program_file(tmp_path_factory):
    """Of a detector that is sure of nothing."""
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    checkpoint = make_checkpoint("faster-rcnn", sure=False, channels=16, score_threshold=0.9)
    return path, checkpoint, export_checkpoint(checkpoint, path)


def test_program_loads_without_nasray(program_file):
    path, checkpoint, result = program_file
    assert result["max_difference"] <= 1e-3
    images = torch.linspace(0, 255, 3 * 90 * 130).reshape(1, 3, 90, 130)
    with torch.no_grad():
        boxes, scores, labels, _ = checkpoint.detector()(images)
    torch.save([images, boxes[0], scores[0], labels[0]], path.with_name("expected.pt"))
    code = (
        "import sys\n"
        "sys.modules['nasray'] = None\n"  # importing it fails
        "import torch, torchvision\n"
        "images, *expected = torch.load('expected.pt')\n"
        "extra = {'classes.json': ''}\n"
        "module = torch.export.load('model.pt2', extra_files=extra).module()\n"
        "for ours, theirs in zip(module(images), expected, strict=True):\n"
        "    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)\n"
        "assert 'triangle' in extra['classes.json']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=path.parent)


def test_program_takes_any_size_and_finds_nothing(program_file):
    """Nor does it matter that no box survives suppression, and that coarse levels are a single pixel."""
    path, _, result = program_file
    assert result["detections"] >= 40, "compared at a lower threshold"
    module = torch.export.load(path).module()
    for image_hw in ((33, 40), (96, 300), (300, 70)):
        boxes, scores, _ = module(torch.full((1, 3, *image_hw), 120.0))
        assert boxes.shape == (100, 4)
        assert not scores.any()
        module.get_buffer("detector.score_threshold").fill_(0.0)
        assert module(torch.full((1, 3, *image_hw), 120.0))[1].any()
        module.get_buffer("detector.score_threshold").fill_(0.9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retinanet", "gfl", "faster-rcnn", "mask-rcnn", "centernet", "ssdlite", "yolof"])
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_every_detector(name, suffix, tmp_path):
    result = export_checkpoint(make_checkpoint(name, sure=False), tmp_path / f"model{suffix}")
    assert result["max_difference"] <= 1e-3
    assert result["max_score_difference"] <= 1e-4
    assert result["detections"] >= 30


@pytest.mark.slow
def test_raw(checkpoint, tmp_path):
    assert export_checkpoint(checkpoint, tmp_path / "raw.onnx", raw=True)["max_difference"] <= 1e-4


def test_a_wrong_export_is_not_written(checkpoint, tmp_path, monkeypatch):
    run = shifted(checkpoint, lambda boxes, _: boxes.add_(0.01))[1]
    monkeypatch.setattr(detector_export, "_to_program", lambda *_: (b"a program", run))
    with pytest.raises(NasrayError, match=r"boxes differ by 0\.01\d* pixels \(allowed 0\.001\)"):
        export_checkpoint(checkpoint, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_mistakes(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(NasrayError, match=r"\.onnx or \.pt2"):
        export_checkpoint(checkpoint, tmp_path / "model.txt")
    with pytest.raises(NasrayError, match="there is no folder"):
        export_checkpoint(checkpoint, tmp_path / "no" / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NasrayError, match=r'uv pip install -e "\.\[onnx\]"'):
        export_checkpoint(checkpoint, tmp_path / "model.onnx")


BOXES = torch.tensor([[0.0, 0, 9, 9], [5, 5, 20, 20], [1, 1, 4, 4], [0, 0, 1, 1]])
SCORES = torch.tensor([0.9, 0.8, 0.8, 0])
LABELS = torch.tensor([0, 1, 1, 0])


def test_detection_differences():
    ours = [BOXES, SCORES, LABELS]
    swapped = [x[[0, 2, 1, 3]] for x in ours]
    distances, score = detection_differences(ours, swapped)
    assert (distances.tolist(), score) == ([0, 0, 0], 0)
    assert detection_differences(ours, [BOXES + torch.tensor([0.5]), *ours[1:]])[0].tolist() == [0.5] * 3
    other = torch.tensor([2, 1, 1, 0])
    assert detection_differences(ours, [BOXES, SCORES, other])[0].tolist() == [float("inf"), 0, 0]
    lower = SCORES - torch.tensor([2e-4, 0, 0, 0])
    distances, score = detection_differences(ours, [BOXES, lower, LABELS])
    assert distances[0] == float("inf")
    assert score == pytest.approx(2e-4, rel=1e-3)
    masks = torch.zeros(4, 2, 2)
    swapped_masks = masks.index_fill(0, torch.tensor([2]), 0.25)  # of the second of ours
    distances, score = detection_differences([*ours, masks], [*swapped, swapped_masks])
    assert distances.tolist() == [0, 0, 0]
    assert score == 0.25
    nothing = [torch.zeros(4, 4), torch.zeros(4), LABELS]
    assert len(detection_differences(nothing, nothing)[0]) == 0


def shifted(checkpoint, shift):
    """The end-to-end module, and a run of it whose boxes of the n-th image `shift(boxes, n)` changes."""
    module = EndToEnd(checkpoint.detector()).eval()
    calls = []

    def run(images, threshold):
        calls.append(threshold)
        module.get_buffer("detector.score_threshold").fill_(threshold)
        with torch.no_grad():
            boxes, scores, labels = module(images)
        shift(boxes, len(calls))
        return [boxes, scores, labels]

    return module, run


@pytest.mark.parametrize("wrong_images", [0, 1, 2, 3])
def test_a_box_may_differ_on_some_images_only(checkpoint, wrong_images):
    """Where two boxes tie, rounding decides which of them suppresses the other; hardly ever on three images."""
    module, run = shifted(checkpoint, lambda boxes, call: boxes[0].add_(7 * (call <= wrong_images)))
    if wrong_images < 3:
        assert check(module, run, [(64, 96)], raw=False)["undecided_images"] == wrong_images
    else:
        with pytest.raises(NasrayError, match="boxes differ by 7 pixels"):
            check(module, run, [(64, 96)], raw=False)


def test_boxes_may_not_differ(checkpoint):
    module, run = shifted(checkpoint, lambda boxes, call: boxes.add_(0.5 * (call == 1)))
    with pytest.raises(NasrayError, match="boxes differ by"):
        check(module, run, [(64, 96)], raw=False)
