"""A relaxed head: paths that are the derived heads, in every detector; alphas and their gradient."""

from functools import partial

import numpy as np
import pytest
import torch

from nasray.models import build
from nasray.models.detectors import build_detector
from nasray.models.supernets.base import supernet_of
from nasray.models.supernets.fad import RelaxedHead
from nasray.spaces import FADSpace, NasrayError
from nasray.spaces.transformations import TRANSFORMATIONS
from tests.nasray.models.detectors.common import detect, shapes_batch, tiny_backbone

SMALL = {"channels": 8, "in_channels": 16, "cells": 1}


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
    with pytest.raises(NasrayError, match="standard-1 of this path has a function behind it"):
        head.extract(rows[0])
    on = {id(parameter) for parameter, _ in head.path_parameters(rows[0])}
    ends = [key for key, value in head.named_parameters() if id(value) in on and "1-d0" in key]
    assert len(ends) == 2 * 6  # one for each edge of the path: H is on it


def detector_with(name, make_head):
    options = {"retinanet": {"base_size": 16}}.get(name, {})
    torch.manual_seed(1)
    detector = build_detector(name, tiny_backbone(), 3, make_head, channels=16, **options)
    if name == "mask-rcnn":
        detector.region_samples = 16
    return detector


@pytest.mark.parametrize("name", ["fcos", "retinanet", "gfl", "mask-rcnn"])
def test_in_every_detector_a_path_is_the_derived_detector_with_copied_weights(name):
    """Losses to 1e-5, and detections."""
    space = FADSpace(**SMALL, groups=1 if name == "mask-rcnn" else 2)
    row = space.sample(1, np.random.default_rng(5))[0]
    relaxed = detector_with(name, partial(RelaxedHead, space, decouple=False))
    supernet = supernet_of(relaxed)
    derived = detector_with(name, partial(build, space.to_architecture(row)))
    place = derived.slots["head"]
    state = {key: value for key, value in relaxed.state_dict().items() if not key.startswith(f"{place}.")}
    state |= {f"{place}.{key}": value for key, value in supernet.path_state(row).items()}
    derived.load_state_dict(state)
    images, targets = shapes_batch(2, (64, 64))

    @torch.no_grad()
    def losses(detector):
        found = detector.eval().loss(images.float(), targets, torch.Generator().manual_seed(0))
        return torch.stack(list(found.values()))

    mixed = losses(relaxed)
    supernet.set_path(row)
    torch.testing.assert_close(losses(relaxed), losses(derived), rtol=1e-5, atol=1e-5)
    assert not torch.equal(losses(relaxed), mixed)
    for ours, theirs in zip(detect(relaxed, images), detect(derived, images), strict=True):
        assert (ours is None and theirs is None) or torch.allclose(ours, theirs, rtol=1e-5, atol=1e-4)
    supernet.set_path(None)
    assert torch.equal(losses(relaxed), mixed)


@pytest.mark.parametrize(
    ("name", "groups", "message"),
    [("fcos", 1, "features of boxes, and this one, FADHead, those of masks"),
     ("mask-rcnn", 2, "features of masks, and this one, FADHead, those of boxes")],
)  # fmt: skip
def test_a_head_for_something_else_is_refused(name, groups, message):
    space = FADSpace(**SMALL, groups=groups)
    head = space.to_architecture(space.sample(1, np.random.default_rng(0))[0])
    with pytest.raises(NasrayError, match=message):
        detector_with(name, partial(build, head))
    with pytest.raises(NasrayError, match=message.replace("FADHead", "RelaxedHead")):
        detector_with(name, partial(RelaxedHead, space))


def test_a_path_of_several_cells_is_not_taken_out():
    space = FADSpace(**{**SMALL, "cells": 2})
    head = RelaxedHead(space, decouple=False)
    with pytest.raises(NasrayError, match="have 2 cells a group, paths of their supernet one"):
        head.extract(space.sample(1, np.random.default_rng(0))[0])


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
