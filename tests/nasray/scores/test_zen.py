import math

import pytest
from torch import nn

from nasray.scores.zen import zen_score
from tests.nasray.scores.common import generator

pytestmark = pytest.mark.usefixtures("one_thread")


def test_zen_score_of_one_convolution():
    # Without norms or shortcuts f is linear: the score is the log of alpha times the mean norm of f(noise).
    conv = nn.Sequential(nn.Conv2d(3, 64, 3, bias=False))
    score = zen_score(conv, generator=generator(), image_hw=(34, 34), batch_size=8, alpha=0.01)
    assert score == pytest.approx(math.log(0.01 * math.sqrt(27 * 64 * 32 * 32)), abs=0.1)
    # A norm divides by the scale that is then added back: almost the same score.
    normed = nn.Sequential(nn.Conv2d(3, 64, 3, bias=False), nn.BatchNorm2d(64))
    assert zen_score(normed, generator=generator(), image_hw=(34, 34), batch_size=8) == pytest.approx(score, abs=0.1)
