import json

import numpy as np
import pytest
import torch

from nasray.architectures import ARCHITECTURES
from nasray.latency import (
    LatencyTable,
    Setting,
    measure_architecture,
    measure_detector,
    table_error,
)
from nasray.models import build
from nasray.models.detectors import build_detector
from nasray.spaces import Architecture, NasrayError
from tests.nasray.latency.common import HW, small_space


def test_real_blocks_predict_a_real_network(monkeypatch, tmp_path):
    monkeypatch.setenv("NASRAY_CACHE", str(tmp_path))
    monkeypatch.setattr("nasray.latency.blocks.ENTRY_SECONDS", 0.001)
    stages = [{"depth": 1, "expansion": 3, "kernel": 3, "stride": 2, "width": 8} for _ in range(4)]
    architecture = Architecture.create("inverted-se", {"stem": {"kernel": 3, "width": 8}, "stages": stages})
    state = torch.get_rng_state()
    result = measure_architecture(architecture, image_hw=HW, device="cpu", with_table=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert json.loads(json.dumps(result)) == result
    assert result["predicted_ms"] > 0
    assert result["error_percent"] == pytest.approx(100 * (result["predicted_ms"] / result["median_ms"] - 1))


def test_table_error_is_complete(cache):
    result = table_error(small_space(), LatencyTable(Setting.here(HW, device="cpu")), num=3, repeats=1)
    assert len(result["measured_ms"]) == len(result["predicted_ms"]) == result["num"] == 3
    assert json.loads(json.dumps(result)) == result
    assert -1 <= result["kendall"] <= 1
    assert len(result["reference_ms"]) == 6, "before and after each network"
    ratios = np.array(result["measured_ms"]) / result["predicted_ms"]
    assert result["scale"] == pytest.approx(np.median(ratios))


@pytest.mark.parametrize("name", ["fcos", "mask-rcnn"])
def test_measures_detectors_in_half_precision(name):
    with torch.random.fork_rng(devices=[]):
        detector = build_detector(name, build(ARCHITECTURES["basic-tiny"]), 3, channels=16)
    result = measure_detector(detector, HW, device="cpu", dtype="bfloat16", warmup=1, repeats=2)
    assert result["scope"] == "detector"
    assert result["dtype"] == "bfloat16"
    assert result["median_ms"] > 0
    assert next(detector.parameters()).dtype == torch.float32


def test_the_table_is_of_eager_alone():
    with pytest.raises(NasrayError, match="the block table is of runtime eager, got onnxruntime"):
        measure_architecture(ARCHITECTURES["basic-tiny"], image_hw=HW, runtime="onnxruntime", with_table=True)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_measures_on_a_gpu(dtype):
    result = measure_architecture(ARCHITECTURES["resnet18"], image_hw=HW, device="cuda", dtype=dtype)
    assert result["device"] == "cuda"
    assert result["threads"] == 0
    assert result["median_ms"] > 0
