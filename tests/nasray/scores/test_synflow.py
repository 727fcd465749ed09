import math

import pytest
import torch
from torch import nn

from nasray.scores.synflow import synflow_score
from nasray.spaces import NasrayError
from tests.nasray.scores.common import generator

pytestmark = pytest.mark.usefixtures("one_thread")


def test_synflow_conserves_the_flow():
    # In a chain without biases every layer's saliencies sum to the output (Tanaka et al., Theorem 1).
    chain = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.ReLU6(), nn.Conv2d(5, 4, 1, bias=False))
    score = synflow_score(chain, generator=generator(), image_hw=(6, 6))
    draws = generator()
    first = torch.randn(5, 3, 3, 3, generator=draws).double().abs() * math.sqrt(2 / 27)
    second = torch.randn(4, 5, 1, 1, generator=draws).double().abs() * math.sqrt(2 / 5)
    ones = torch.ones(1, 3, 6, 6, dtype=torch.float64)
    flow = nn.functional.conv2d(nn.functional.conv2d(ones, first), second).sum()
    assert score == pytest.approx(math.log(2 * float(flow)), rel=1e-6)


def test_synflow_reports_overflow():
    layers = [nn.Conv2d(64, 64, 1, bias=False) for _ in range(400)]  # each multiplies the flow by about 9
    with pytest.raises(NasrayError, match="overflows"):
        synflow_score(nn.Sequential(nn.Conv2d(3, 64, 1), *layers), generator=generator(), image_hw=(1, 1))
