"""What a space of one's own is held to."""

import numpy as np
import pytest
from pair_space import PairSpace

from nasray.models.cost import backbone_cost
from nasray.spaces.testing import check_space


def test_the_space_keeps_the_contract():
    """As every space of nasray's does."""
    check_space(PairSpace())


def test_costs_are_those_of_the_built_networks():
    """Of eight random ones."""
    space = PairSpace()
    rows = space.sample(8, np.random.default_rng(0))
    for row, gmacs, params_m in zip(rows, *space.cost(rows).values(), strict=True):
        counted = backbone_cost(space.to_architecture(row), space.image_hw)
        assert gmacs == pytest.approx(counted["gmacs"])
        assert params_m == pytest.approx(counted["params_m"])
