import pytest
import torch

from nasray.latency import (
    Setting,
)
from nasray.spaces import NasrayError
from tests.nasray.latency.common import HW


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "float32, float16, bfloat16, int8; got 'int4'"),
        ({"dtype": "int8"}, "runtime eager has float32, float16, bfloat16 here; got dtype 'int8'"),
        ({"runtime": "onnx"}, "unknown runtime 'onnx'.*There are: eager, compile, onnxruntime, openvino"),
        ({"runtime": "onnxruntime", "dtype": "bfloat16"}, "runtime onnxruntime has float32, int8 here"),
        ({"runtime": "onnxruntime", "channels_last": True}, "leave channels_last out"),
        ({"threads": 0}, "threads is a whole number from 1"),
        ({"device": "tpu"}, "auto, cpu, cuda; got 'tpu'"),
        ({"batch_size": 0}, "batch size is a whole number from 1"),
        ({"batch_size": 65_536, "image_hw": (4096, 4096)}, "one pass takes at most"),
    ],
)
def test_says_what_is_allowed(options, message):
    with pytest.raises(NasrayError, match=message):
        Setting.here(**{"image_hw": HW, **options})


def test_says_that_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NasrayError, match="'cuda' is not available"):
        Setting.here(HW, device="cuda")
