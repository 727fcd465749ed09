"""Golden figures are those of the released modules at 96 channels, of one edge's transformations."""

import pytest
import torch
from torch import nn

from nasray.models.supernets.representations import Mixture
from nasray.spaces import FADSpace
from nasray.spaces.transformations import DARTS, TRANSFORMATIONS


def representations(mixture):
    """Number of convolutions with norm: what is kept for the backward pass of each edge."""
    return sum(isinstance(module, nn.GroupNorm) for module in mixture.modules())


def macs(mixture):
    """Multiply-adds a pixel."""
    return sum(module.weight.numel() for module in mixture.modules() if isinstance(module, nn.Conv2d))


def test_shared_representations_are_12_instead_of_26_and_cost_what_the_released_ones_do():
    shared, separate = Mixture(96, TRANSFORMATIONS), Mixture(96, TRANSFORMATIONS, shared=False)
    assert (representations(shared), representations(separate)) == (12, 26)
    counts = [sum(parameter.numel() for parameter in mixture.parameters()) for mixture in (shared, separate)]
    assert counts == [380_448, 998_784]
    assert macs(separate) / macs(shared) == pytest.approx(2.632, abs=0.0005)


@pytest.mark.parametrize("every", [TRANSFORMATIONS, DARTS], ids=["fad", "darts"])
@pytest.mark.parametrize("options", [{}, {"decouple": False}, {"shared": False}], ids=str)
def test_a_mixture_is_the_weighted_sum_of_its_transformations(options, every):
    torch.manual_seed(0)
    mixture, x = Mixture(8, every, **options), torch.randn(2, 8, 9, 7)
    weights, before = torch.rand(len(every)), x.clone()
    each = torch.stack([mixture.one(x, transformation) for transformation in every])
    torch.testing.assert_close(mixture(x, weights), (each * weights[:, None, None, None, None]).sum(dim=0))
    assert len({out.sum().item() for out in each}) == len(every)  # no two are the same
    assert torch.equal(x, before)


def test_operations_of_darts_share_nothing():
    mixture = Mixture(96, DARTS)
    assert representations(mixture) == 2 + 2 + 1 + 1
    assert sum(parameter.numel() for parameter in mixture.parameters()) == sum(each.cost(96)[1] for each in DARTS)
    assert macs(mixture) == sum(each.cost(96)[0] for each in DARTS)


def test_a_subset_has_the_convolutions_that_it_needs():
    chosen = FADSpace(operations="rf-5").chosen
    mixture = Mixture(96, chosen)
    assert representations(mixture) == 4
    assert set(mixture.streams) == {"standard", "separable"}
    assert set(Mixture(96, FADSpace(operations="separable").chosen).streams) == {"separable"}
    x = torch.randn(1, 96, 4, 4)
    weights = torch.tensor([1.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(mixture(x, weights), mixture.one(x, chosen[0]))
