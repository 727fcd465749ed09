"""Exports compute what the detector does, without nasray, at sizes that were not traced."""

import copy
import dataclasses
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export.passes import move_to_device_pass
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from nasray import detector_export
from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint, make_network
from nasray.data.shapes import draw_image
from nasray.data.transforms import EvaluationTransform
from nasray.detector_export import export_checkpoint, file_description
from nasray.export_check import check, detection_differences
from nasray.models.detectors import DETECTORS
from nasray.options import options_of
from nasray.predicting import predict_images
from nasray.recipe import Recipe
from nasray.recipe_options import AugmentationOptions
from nasray.spaces import NasrayError
from nasray.tracing import EndToEnd

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLE = Path(__file__).parents[2] / "examples" / "detect_onnx.py"
CLASSES = ("rectangle", "circle", "triangle")


@pytest.fixture(scope="module")
def checkpoint():
    return make_checkpoint("fcos", channels=16, num_convs=1)


def make_checkpoint(name, *, sure=True, **options):
    """An untrained detector, whose scores are high enough to be detections if it is sure."""
    recipe = Recipe(
        name="test", backbone="basic-tiny", detector=options_of(DETECTORS, name, **options),
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
    assert list(json.loads(metadata["outputs"])) == ["boxes", "scores", "labels"]
    assert json.loads(metadata["resize"]) == {"short_side": 96, "long_side": 160}
    shapes = {
        output.name: [dim.dim_value for dim in output.type.tensor_type.shape.dim] for output in model.graph.output
    }
    assert shapes == {"boxes": [1, 100, 4], "scores": [1, 100], "labels": [1, 100]}, "those of the detector's contract"
    assert [one.name for one in path.parent.iterdir()] == ["model.onnx"]


def test_example_of_onnx_finds_what_predict_does(checkpoint, onnx_file, tmp_path):
    """Without nasray, in the pixels of an image that has another size."""
    pixels = draw_image(np.random.default_rng(0), (120, 200))[0].transpose(1, 2, 0)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    code = "import runpy, sys; sys.modules['nasray'] = sys.modules['torch'] = None; runpy.run_path(sys.argv.pop(1), "
    command = [sys.executable, "-c", code + "run_name='__main__')", EXAMPLE, onnx_file[0], "image.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    (shown,) = predict_images(checkpoint, [tmp_path / "image.png"], [tmp_path / "boxes.png"], threshold=0.3)
    expected = shown["detections"]
    assert len(found) > 3
    for (name, score, *box), one in zip(found[:3], expected, strict=False):  # later ones of an untrained detector tie
        assert name == one["class"]
        assert float(score) == pytest.approx(one["score"], abs=0.02)  # Pillow's resizing rounds otherwise than torch's
        assert [float(edge) for edge in box] == pytest.approx(one["box"], abs=3)


@pytest.mark.parametrize(("options", "expected"), [
    ({"short_side": (640, 800), "long_side": 1333}, {"short_side": 800, "long_side": 1333}),
    ({"short_side": (480, 960), "evaluation_sides": (640, 1000)}, {"short_side": 640, "long_side": 1000}),
    ({"square": 320}, {"height": 320, "width": 320}),
    ({"square": 320, "evaluation_sides": (300, 500)}, {"short_side": 300, "long_side": 500}),
])  # fmt: skip
def test_metadata_say_to_what_evaluation_resizes(checkpoint, options, expected):
    augmentation = AugmentationOptions(**options)
    other = dataclasses.replace(checkpoint, recipe=dataclasses.replace(checkpoint.recipe, augmentation=augmentation))
    rule = json.loads(file_description(other, {}, False)["resize"])
    assert rule == expected
    resized_size = runpy.run_path(str(EXAMPLE))["resized_size"]
    for height, width in ((480, 640), (1000, 300), (3, 5)):
        resized = EvaluationTransform(augmentation)(torch.zeros(3, height, width, dtype=torch.uint8))
        assert resized_size(width, height, rule) == (resized.shape[2], resized.shape[1])


@pytest.fixture(scope="module")
def program_file(tmp_path_factory):
    """Of a detector that is sure of nothing."""
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    checkpoint = make_checkpoint("faster-rcnn", sure=False, channels=16, score_threshold=0.9)
    return path, checkpoint, export_checkpoint(checkpoint, path)


@pytest.fixture(scope="module")
def program(program_file):
    """The file, loaded once, which takes seconds. Not to be changed: take a copy."""
    return torch.export.load(program_file[0])


@pytest.mark.slow
def test_program_loads_without_nasray(program_file):
    path, checkpoint, result = program_file
    assert result["max_difference"] <= 1e-3
    images = torch.linspace(0, 255, 3 * 90 * 130).reshape(1, 3, 90, 130)
    with torch.no_grad():
        boxes, scores, labels, _ = checkpoint.detector()(images)
    torch.save([images, boxes, scores, labels], path.with_name("expected.pt"))
    code = (
        "import sys\n"
        "sys.modules['nasray'] = None\n"  # importing it fails
        "import torch, torchvision\n"
        "images, *expected = torch.load('expected.pt')\n"
        "extra = {'classes.json': '', 'resize.json': ''}\n"
        "module = torch.export.load('model.pt2', extra_files=extra).module()\n"
        "for ours, theirs in zip(module(images), expected, strict=True):\n"
        "    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)\n"
        "assert 'triangle' in extra['classes.json']\n"
        "assert 'long_side' in extra['resize.json']\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=path.parent)


def test_program_takes_any_size_and_finds_nothing(program_file, program):
    """Nor does it matter that no box survives suppression, and that coarse levels are a single pixel."""
    assert program_file[2]["detections"] >= 40, "compared at a lower threshold"
    module = copy.deepcopy(program).module()
    for image_hw in ((33, 40), (96, 300), (300, 70)):
        boxes, scores, _ = module(torch.full((1, 3, *image_hw), 120.0))
        assert boxes.shape == (1, 100, 4)
        assert not scores.any()
        module.get_buffer("detector.score_threshold").fill_(0.0)
        assert module(torch.full((1, 3, *image_hw), 120.0))[1].any()
        module.get_buffer("detector.score_threshold").fill_(0.9)


@pytest.mark.parametrize("moved", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_program_moves_to_a_gpu(program, moved):
    """On fake tensors, which have a device but no memory. What a program makes itself would else stay on the CPU."""
    program = copy.deepcopy(program)
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()):
        module = move_to_device_pass(program, "cuda:0").module() if moved else program.module().to("cuda:0")
        images = torch.empty(1, 3, 90, 130, device="cuda:0")
        if moved:
            assert {str(output.device) for output in module(images)} == {"cuda:0"}
        else:
            with pytest.raises((AssertionError, RuntimeError), match="device"):
                module(images)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["fcos", "mask-rcnn"])
def test_program_computes_on_a_gpu_what_it_does_on_the_cpu(name, tmp_path, exact_on_gpus):
    export_checkpoint(make_checkpoint(name, sure=False), tmp_path / "model.pt2")
    images = torch.from_numpy(draw_image(np.random.default_rng(0), (120, 200))[0])[None].float()
    expected = torch.export.load(tmp_path / "model.pt2").module()(images)
    found = move_to_device_pass(torch.export.load(tmp_path / "model.pt2"), "cuda").module()(images.cuda())
    assert all(output.is_cuda for output in found)
    distances, score = detection_differences([x[0] for x in expected], [x[0].cpu() for x in found])
    assert score <= 1e-3
    assert (distances <= 0.1).float().mean() > 0.75  # which of two equal boxes suppresses the other is open


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
    module, run = shifted(checkpoint, lambda boxes, call: boxes[0, 0].add_(7 * (call <= wrong_images)))
    if wrong_images < 3:
        assert check(module, run, [(64, 96)], raw=False)["undecided_images"] == wrong_images
    else:
        with pytest.raises(NasrayError, match="boxes differ by 7 pixels"):
            check(module, run, [(64, 96)], raw=False)


def test_boxes_may_not_differ(checkpoint):
    module, run = shifted(checkpoint, lambda boxes, call: boxes.add_(0.5 * (call == 1)))
    with pytest.raises(NasrayError, match="boxes differ by"):
        check(module, run, [(64, 96)], raw=False)
