"""Golden figures are those of the released modules at 96 channels, of one edge's transformations."""

import numpy as np
import pytest
import torch
from torch import nn

from nasray.models.supernets.fad import Mixture, RelaxedHead
from nasray.spaces import FADSpace, NasrayError
from nasray.spaces.transformations import DARTS, TRANSFORMATIONS

SMALL = {"channels": 8, "in_channels": 16, "cells": 1}


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


def with_copied_weights(head, row):
    """The derived head of one cell with the supernet's weights, and with biases of 0 where the supernet has none."""
    return head.extract(row).eval()


@pytest.mark.parametrize(
    ("operations", "options"),
    [("fad", {"decouple": False}), ("fad", {"shared": False}), ("darts", {})],
    ids=["not decoupled", "not shared", "darts"],
)
@pytest.mark.parametrize("seed", range(5))
def test_a_path_is_its_derived_head(operations, options, seed):
    torch.manual_seed(seed)
    space = FADSpace(operations=operations, **SMALL)
    head = RelaxedHead(space, **options).eval()
    row, level = space.sample(1, np.random.default_rng(seed))[0], torch.randn(2, 16, 10, 12)
    head.set_path(row)
    for ours, theirs in zip(head.towers(level, 0), with_copied_weights(head, row).towers(level, 0), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_decoupled_the_transformations_that_are_no_part_of_others_are_equal_too():
    """Those of three convolutions, and those with a dilated one: t3 to t6 of Figure 2."""
    torch.manual_seed(0)
    space, level = FADSpace(**SMALL), torch.randn(1, 16, 10, 12)
    head, rng = RelaxedHead(space).eval(), np.random.default_rng(0)
    rows = space.sample(400, rng)
    ends = [place for place, each in enumerate(TRANSFORMATIONS) if each.num_convs == 3 or each.dilation]
    operations = [column for column, gene in enumerate(space.genes) if not gene.name.endswith("inputs")]
    rows[:, operations] = rng.choice(ends, size=(len(rows), len(operations)))
    for row in rows[:5]:
        head.set_path(row)
        for ours, theirs in zip(head.towers(level, 0), with_copied_weights(head, row).towers(level, 0), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    rows[0, operations] = 0  # standard-1, behind which H is
    head.set_path(rows[0])
    assert not torch.allclose(head.towers(level, 0)[1], with_copied_weights(head, rows[0]).towers(level, 0)[1])


def test_a_path_of_a_head_of_masks():
    torch.manual_seed(0)
    space = FADSpace(groups=1, **SMALL)
    head = RelaxedHead(space, decouple=False).eval()
    row, regions = space.sample(1, np.random.default_rng(0))[0], torch.randn(3, 16, 14, 14)
    mixed = head(regions)
    head.set_path(row)
    torch.testing.assert_close(head(regions), with_copied_weights(head, row)(regions), rtol=1e-5, atol=1e-5)
    head.set_path(None)
    assert torch.equal(head(regions), mixed)


def test_with_all_the_mass_on_one_choice_of_each_edge_the_mixture_is_that():
    """And with all of it on `none`, an edge adds nothing."""
    torch.manual_seed(0)
    space, level = FADSpace(**SMALL), torch.randn(1, 16, 6, 6)
    head = RelaxedHead(space).eval()
    row = space.sample(1, np.random.default_rng(3))[0]
    with torch.no_grad():
        for name, edges in space.edges(row).items():
            head.alphas[name].fill_(-200.0)[:, -1] = 200.0
            for (node, state), place in edges.items():
                alphas = head.alphas[name][node * (node + 3) // 2 + state]
                alphas[-1], alphas[place] = -200.0, 200.0
    mixed = head.towers(level, 0)
    assert (head.derive() == row).all()
    head.set_path(row)
    for ours, theirs in zip(head.towers(level, 0), mixed, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_alphas_begin_small_and_their_shares_sum_to_one():
    torch.manual_seed(0)
    head = RelaxedHead(FADSpace(**SMALL))
    assert sum(alphas.numel() for alphas in head.alphas.values()) == 2 * 9 * 13 == 234
    assert all(alphas.abs().max() < 0.01 for alphas in head.alphas.values())
    for shares in head.shares().values():
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(9))
    subset = RelaxedHead(FADSpace(operations="separable", **SMALL))
    assert subset.alphas["box"].shape == (9, 7)
    assert FADSpace(operations="separable").is_valid(subset.derive()[None]).all()


def test_the_gradient_of_alphas_is_that_of_finite_differences():
    """In float64, along the gradient and other directions; steps so small that no ReLU turns over."""
    torch.manual_seed(0)
    head, level = RelaxedHead(FADSpace(**SMALL)).double(), torch.randn(1, 16, 5, 6, dtype=torch.float64)

    def loss():
        classes, boxes = head.towers(level, 0)
        return classes.square().mean() + boxes.square().mean()

    loss().backward()
    for alphas in head.alphas.values():
        gradient = alphas.grad
        for direction in (gradient, *torch.randn(5, *gradient.shape, dtype=torch.float64)):
            step = 1e-6 * direction / direction.norm()
            with torch.no_grad():
                above = loss_at(alphas, step, loss)
                below = loss_at(alphas, -step, loss)
            error = (above - below) / 2e-6 - float((gradient * step).sum()) / 1e-6
            assert abs(error) < 1e-6 * float(gradient.norm())


def loss_at(alphas, step, loss):
    """The loss with a step from the alphas, which are put back."""
    before = alphas.clone()
    alphas += step
    value = loss().item()
    alphas.copy_(before)
    return value


def test_genes_of_no_head_are_refused():
    head = RelaxedHead(FADSpace(**SMALL))
    with pytest.raises(ValueError, match="16 genes"):
        head.set_path([0, 1])
    with pytest.raises(NasrayError, match="operations is one of"):
        FADSpace(operations="x")
