"""All ways to pool a region agree with torchvision's."""

from collections import OrderedDict

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from nasray.models.detectors import pooling

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE_HW = (96, 160)
GROUPS = pooling.Groups((4, 8, 16, 32))
SCALES = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
WAYS = {"by level": pooling._pool_by_level, "everywhere": pooling._pool_everywhere, "table": pooling._pool_from_table}


def make_maps(seed=0, images=2, channels=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(images, channels, round(IMAGE_HW[0] * scale), round(IMAGE_HW[1] * scale)) for scale in SCALES]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def make_boxes(num, seed=1):
    """Boxes within the image, of all sizes: points, slivers, some that touch the border, and the whole image."""
    generator = torch.Generator().manual_seed(seed)
    height, width = IMAGE_HW
    corners = torch.rand(num, 2, 2, generator=generator) * 1.4 - 0.2
    corners = corners.sort(dim=1).values.clamp(0, 1) * torch.tensor([width, height])
    corners[0] = torch.tensor([[0, 0], [width, height]])
    corners[1] = torch.tensor([[width, height], [width, height]])
    corners[2, 1] = corners[2, 0] + torch.tensor([50.0, 1e-3])
    return corners.flatten(1)


@pytest.mark.parametrize("way", WAYS)
def test_groups_that_share_a_map_pool_as_from_copies_of_it(way, monkeypatch):
    seen = []
    monkeypatch.setattr(
        pooling, "_pool_from_table", lambda maps, *rest: seen.append(len(maps)) or WAYS[way](maps, *rest)
    )
    fine, coarse = make_maps()[1:3]
    groups = pooling.Groups((8, 8, 16, 16))
    regions = torch.nn.functional.pad(make_boxes(60) * 4, (1, 0))
    assert pooling.region_groups(regions[:, 1:], GROUPS).unique().tolist() == [0, 1, 2, 3]
    shared = pooling.pool_regions([fine, fine, coarse, coarse], regions, 7, groups)
    copies = pooling.pool_regions([fine, fine.clone(), coarse, coarse.clone()], regions, 7, groups)
    assert seen == [2, 4]
    torch.testing.assert_close(shared, copies, rtol=0, atol=1e-6)
    weights = torch.randn(shared.shape, generator=torch.Generator().manual_seed(3))
    ours, theirs = (torch.autograd.grad((pooled * weights).sum(), [fine, coarse]) for pooled in (shared, copies))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def theirs(maps, boxes, size):
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], size, 2)
    pool.scales, pool.map_levels = SCALES, LevelMapper(2, 5)
    return pool(OrderedDict((str(level), x) for level, x in enumerate(maps)), boxes, [IMAGE_HW])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [7, 14])
def test_pools_as_torchvision_does(way, size, monkeypatch):
    monkeypatch.setattr(pooling, "_pool_from_table", WAYS[way])  # what a CPU takes
    maps, boxes = make_maps(), [make_boxes(60), make_boxes(40, seed=2)]
    regions = torch.cat([torch.nn.functional.pad(part, (1, 0), value=image) for image, part in enumerate(boxes)])
    assert pooling.region_groups(regions[:, 1:], GROUPS).unique().tolist() == [0, 1]
    scale = 4.0  # larger boxes, so that all levels are used
    for factor in (1.0, scale):
        pooled = pooling.pool_regions(maps, regions * torch.tensor([1.0] + [factor] * 4), size, GROUPS)
        expected = theirs(maps, [part * factor for part in boxes], size)
        torch.testing.assert_close(pooled, expected, rtol=0, atol=2e-4)
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(3))
        gradients = torch.autograd.grad((pooled * weights).sum(), maps, allow_unused=True, materialize_grads=True)
        wanted = torch.autograd.grad((expected * weights).sum(), maps, allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("way", WAYS)
def test_no_regions_and_still_gradients(way):
    maps = make_maps()
    regions, level = torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)
    pooled = WAYS[way](maps, regions, level, 7, SCALES)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert all(x.grad is not None and not x.grad.any() for x in maps)


def test_levels_are_those_of_the_paper():
    # Lin et al., CVPR 2017, equation 1: 224 pixels belong to P4; twice the edge is one level up.
    edges = torch.tensor([0.0, 55.9, 112, 223.9, 224, 447.9, 448, 5000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), edges, edges], dim=1)
    assert pooling.region_groups(boxes, GROUPS).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert pooling.region_groups(boxes, pooling.Groups((8, 16, 32), 3)).tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_groups_of_a_pyramid():
    """MSNAS, Figure 2: k < 2, 2, 3, 4 and at least 5, where k is 4 for boxes of 224 pixels."""
    edges = torch.tensor([8.0, 55, 56, 111, 112, 223, 224, 447, 448, 2000])
    boxes = torch.stack([torch.zeros(10), torch.zeros(10), edges, edges], dim=1)
    groups = pooling.Groups((4, 8, 16, 32, 64), 1)
    assert pooling.region_groups(boxes, groups).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    half = groups._replace(base=112.0)
    assert pooling.region_groups(boxes / 2, half).tolist() == pooling.region_groups(boxes, groups).tolist()


def test_low_precision_maps():
    maps = [x.detach().bfloat16() for x in make_maps()]
    regions = torch.nn.functional.pad(make_boxes(20), (1, 0))
    pooled = pooling.pool_regions(maps, regions, 7, GROUPS)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, pooling.pool_regions([x.float() for x in maps], regions, 7, GROUPS))


@pytest.mark.parametrize("exporting", [False, True])
def test_padding_is_zero_and_costs_nothing(exporting, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    maps, boxes = make_maps(), torch.stack([make_boxes(12), make_boxes(12, seed=2)])
    valid = torch.arange(12) < torch.tensor([[5], [9]])
    seen = []

    def head(pooled, regions):
        seen.append(len(pooled))
        assert torch.equal(pooling.pool_regions(maps, regions, 7, GROUPS), pooled)
        return pooled.mean(dim=1), pooled.sum(dim=(1, 2, 3))

    maps_of, sums = pooling.apply_to_boxes(head, maps, boxes, valid, 7, GROUPS)
    assert seen == [24 if exporting else 14]
    assert maps_of.shape == (2, 12, 7, 7)
    assert not maps_of[~valid].any()
    assert not sums[~valid].any()
    regions = torch.nn.functional.pad(boxes[1, :9], (1, 0), value=1)
    torch.testing.assert_close(maps_of[1, :9], pooling.pool_regions(maps, regions, 7, GROUPS).mean(dim=1))
