"""Every runtime computes what PyTorch computes; one that is not installed is refused with the command."""

import sys

import pytest
import torch
from torch import nn

from nasray.architectures import ARCHITECTURES
from nasray.latency import Setting
from nasray.latency.measuring import measure_program, prepared
from nasray.models import build
from nasray.models.detectors import build_detector
from nasray.runtimes import RUNTIMES
from nasray.spaces import NasrayError
from tests.nasray.latency.common import HW

pytestmark = pytest.mark.usefixtures("one_thread")
SLOW = {"compile"}
INSTALLED = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
every_runtime = pytest.mark.parametrize(
    "runtime", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in RUNTIMES]
)


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)]
        layers[1].running_var.uniform_(0.5, 2.0)
    return nn.Sequential(*layers).eval()


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def setting(runtime, **options):
    if runtime in INSTALLED:
        pytest.importorskip(INSTALLED[runtime])
    return Setting.here(HW, device="cpu", runtime=runtime, threads=1, **options)


@every_runtime
def test_the_same_outputs_as_eager(runtime):
    module, here, batch = network(), setting(runtime, batch_size=2), images(2, 3, *HW)
    program = prepared(module, here)
    with torch.inference_mode():
        wanted, found = module(batch), program(batch)
    torch.testing.assert_close(found if isinstance(found, torch.Tensor) else found[0], wanted, rtol=1e-4, atol=1e-5)
    result = measure_program(program, here, warmup=1, repeats=2)
    assert (result["runtime"], result["threads"]) == (runtime, 1)
    assert result["median_ms"] > 0
    assert module.training is False
    assert bool(result["runtime_version"]) == (runtime in INSTALLED)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_eight_bits_are_near(runtime):
    module, batch = network(), images(1, 3, *HW)
    here = setting(runtime, dtype="int8")
    (found,) = prepared(module, here, [batch])(batch)
    with torch.inference_mode():
        wanted = module(batch)
    error = float((found - wanted).abs().max() / wanted.abs().max())
    assert 1e-6 < error < 0.05, "quantized, and by the ranges of these images"
    (narrow,) = prepared(module, here, [0.1 * batch])(batch)
    assert float((narrow - wanted).abs().max() / wanted.abs().max()) > 2 * error, "ranges are those of the calibration"


def detector():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_detector("fcos", build(ARCHITECTURES["basic-tiny"]), 3, channels=16, score_threshold=0.001).eval()


@pytest.mark.slow
@every_runtime
def test_a_detector_takes_images_of_any_size(runtime):
    module = detector()
    program = prepared(module, setting(runtime))
    for size in (HW, (64, 101)):
        batch = 255 * images(1, 3, *size)
        with torch.inference_mode():
            wanted, found = module(batch), program(batch)
            assert int((wanted.scores > 0).sum()) > 10
        for ours, theirs in zip(wanted[:2], found[:2], strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-2)


def test_an_exported_detector_takes_one_image():
    with pytest.raises(
        NasrayError, match=r"one image at a time, got a batch of 2\. Take batch size 1, or runtime eager"
    ):
        prepared(detector(), setting("onnxruntime", batch_size=2))


@pytest.mark.parametrize(
    ("runtime", "missing", "extra"),
    [("onnxruntime", "onnxruntime", "onnx"), ("openvino", "openvino", "openvino"), ("openvino", "onnxscript", "onnx")],
)
def test_what_is_not_installed_is_named_with_the_command(runtime, missing, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(NasrayError, match=rf"runtime {runtime} needs {missing}: .*pip install .*\[{extra}\]"):
        Setting.here(HW, runtime=runtime)


def test_a_gpu_is_refused_where_a_runtime_has_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Setting.here(HW, runtime="onnxruntime").device == "cpu"
    with pytest.raises(NasrayError, match="runtime onnxruntime is measured on cpu; got --device cuda"):
        Setting.here(HW, runtime="onnxruntime", device="cuda")


def test_a_compiler_that_fails_is_a_line(monkeypatch):
    def fail(*_):
        raise torch._dynamo.exc.TorchDynamoException("no g++\nand a trace")

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    with pytest.raises(NasrayError, match=r"torch.compile cannot compile this network: no g\+\+\. On a CPU") as error:
        prepared(network(), setting("compile"))
    assert "\n" not in str(error.value)
