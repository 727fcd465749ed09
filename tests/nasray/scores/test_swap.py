import math

import pytest
import torch
from torch import nn

from nasray.models import build
from nasray.scores import swap
from nasray.scores.swap import size_weight, swap_score
from nasray.scores.weights import random_images, redrawn
from tests.nasray.scores.common import generator, small

pytestmark = pytest.mark.usefixtures("one_thread")


class Codes(nn.Module):
    """Shows its rectifiers fixed codes of four images, whatever these are."""

    def __init__(self, *codes):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.codes = [torch.tensor(code) for code in codes]
        self.layers = nn.ModuleList(nn.ReLU() for _ in codes)

    def forward(self, images):
        return [layer(code) for layer, code in zip(self.layers, self.codes, strict=True)][-1]


def count_by_hand(network, images):
    """Number of different patterns, unit by unit."""
    seen = set()

    def note(_, __, output):
        for unit in output.flatten(1).T.tolist():
            seen.add(tuple(value > 0 for value in unit))

    for layer in network.modules():
        if isinstance(layer, nn.ReLU | nn.ReLU6):
            layer.register_forward_hook(note)
    with torch.no_grad():
        network(images)
    return len(seen)


def test_swap_by_hand():
    # Columns are units: 1100, 0011 and 1001 in the first layer; 1100 again and 0000 in the second.
    first = [[1.0, -1, 1], [1, -1, -1], [-1, 1, -1], [-1, 1, 1]]
    second = [[2.0, -1], [3, -2], [-1, 0], [0, -3]]
    options = {"generator": generator(), "image_hw": (4, 4), "batch_size": 4}
    assert swap_score(Codes(first), **options) == 3
    assert swap_score(Codes(first, second), **options) == 4, "patterns of all layers are one set"
    with pytest.raises(ValueError, match="Conv2d has none"):
        swap_score(nn.Conv2d(3, 8, 3), **options)


@pytest.mark.parametrize("family", ["basic", "inverted-se"])
@pytest.mark.parametrize("word", [62, 3])
def test_swap_is_counted_unit_by_unit(family, word, monkeypatch):
    monkeypatch.setattr(swap, "WORD", word)  # patterns of more images than fit into a number
    network = build(small(family))
    draws = generator(4)
    drawn = redrawn(network, draws)
    expected = count_by_hand(drawn, random_images(drawn, draws, 7, (16, 16)))
    assert swap_score(network, generator=generator(4), image_hw=(16, 16), batch_size=7) == expected


def test_swap_does_not_depend_on_the_order_of_images_or_on_scale():
    codes = torch.randn(6, 40, generator=generator(1))
    options = {"generator": generator(), "image_hw": (4, 4), "batch_size": 6}
    found = swap_score(Codes(codes.tolist()), **options)
    assert 1 < found <= 40
    assert swap_score(Codes(codes.flip(0).tolist()), **options) == found
    assert swap_score(Codes((codes * 7).tolist()), **options) == found
    assert swap_score(Codes(codes.tolist(), codes.tolist()), **options) == found


def test_networks_of_the_same_patterns_differ_by_their_size():
    assert size_weight(4.0, 4.0, 2.0) == 1.0
    assert size_weight(6.0, 4.0, 2.0) == size_weight(2.0, 4.0, 2.0) == pytest.approx(math.exp(-1))
    assert size_weight(9.0, 4.0, 2.0) < size_weight(6.0, 4.0, 2.0)
