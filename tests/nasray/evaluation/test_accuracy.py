"""Right is what is most probable, or among the five most probable, over all images."""

import math

import pytest
import torch
from torch import nn

from nasray.data.classification import ClassificationBatch
from nasray.evaluation.accuracy import accuracy


class Flat(nn.Module):
    """Scores that are the pixels themselves, of an image for each class."""

    def __init__(self, classes):
        super().__init__()
        self.linear = nn.Linear(classes, classes, bias=False)
        nn.init.eye_(self.linear.weight)
        self.dtypes = set()

    def forward(self, images):
        scores = self.linear(images[:, 0, 0].float())
        self.dtypes.add(scores.dtype)
        return scores


def batch(rows, labels):
    images = torch.tensor(rows, dtype=torch.uint8)[:, None, None].expand(-1, 3, 1, -1)
    return ClassificationBatch(images, torch.tensor(labels), torch.arange(len(rows)))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_first_and_among_five(precision):
    rising = [10, 20, 30, 40, 50, 60, 70]
    batches = [batch([rising, rising, rising], [6, 2, 1]), batch([rising[::-1]], [0])]
    network = Flat(7)
    assert accuracy(network, batches, precision=precision) == {"top1": 2 / 4, "top5": 3 / 4}
    assert network.dtypes == {getattr(torch, precision)}


def test_no_images():
    assert all(map(math.isnan, accuracy(Flat(3), []).values()))
