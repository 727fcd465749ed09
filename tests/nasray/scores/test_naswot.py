import math

import numpy as np
import pytest
import torch
from torch import nn

from nasray.scores.naswot import naswot_score
from tests.nasray.scores.common import generator

pytestmark = pytest.mark.usefixtures("one_thread")


def test_naswot_by_hand():
    class Codes(nn.Module):
        """Shows its rectifier fixed codes, of which images 0 and 2 share half."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.relu = nn.ReLU()

        def forward(self, images):
            return self.relu(torch.tensor([[1.0, 1, -1, -1], [-1, -1, 1, 1], [1, -1, -1, 1]]))

    agreeing = np.array([[4.0, 0, 2], [0, 4, 2], [2, 2, 4]])
    score = naswot_score(Codes(), generator=generator(), image_hw=(4, 4), batch_size=3)
    assert score == pytest.approx(math.log(np.linalg.det(agreeing)))
    with pytest.raises(ValueError, match="has none"):
        naswot_score(nn.Conv2d(3, 8, 3), generator=generator(), image_hw=(8, 8))
