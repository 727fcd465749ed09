"""Pooling regions of any size from a feature pyramid.

References: He et al., "Mask R-CNN", ICCV 2017, section 3 (RoIAlign); Lin et al., "Feature pyramid networks for object
detection", CVPR 2017, section 4.2 (the level of a region).

Differs from the papers in: 2 x 2 points of each bin are averaged, and they are not shifted by half a pixel of the map
(as in torchvision, so that its weights fit).

Shapes: B images, P boxes of one image, R regions of all images, S x S bins. Boxes are xyxy in absolute pixels; a region
is (image, x1, y1, x2, y2). Objects are grouped by size, each group pools from a map, and several groups may share one.
The levels of a feature pyramid are such groups: level P4 is group 4, the boxes of about `base` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from nasray.models.detectors.options import REGION_BASE

POINTS = 2
"""Samples of a bin in each direction."""


class Groups(NamedTuple):
    """Which map each group of objects pools from.

    Attributes:
        strides: Pixels between two locations of each group's map, smallest objects first.
        first: Number of the first group; one more is for boxes of twice the edge, and `base` is of group 4.
        base: Edge in pixels of a square of group 4.
    """

    strides: Sequence[int]
    first: int = 2
    base: float = REGION_BASE


def pool_regions(maps: Sequence[Tensor], regions: Tensor, size: int, groups: Groups) -> Tensor:
    """Pool each region from the map of its group: (R, channels, S, S).

    Args:
        maps: (B, channels, H, W) of each group.
        regions: (R, 5) float32.
        size: S.
        groups: Groups that the maps are of.
    """
    level = region_groups(regions[:, 1:], groups)
    scales = [1.0 / stride for stride in groups.strides]
    places = [next(place for place, other in enumerate(maps) if other is x) for x in maps]
    if places != list(range(len(maps))):  # each map once, so that none is copied or pooled twice
        single = sorted(set(places))
        index = torch.tensor([single.index(place) for place in places])
        level = index.to(level.device, non_blocking=True)[level]
        maps, scales = [maps[place] for place in single], [scales[place] for place in single]
    if without_values(regions):
        return _pool_everywhere(maps, regions, level, size, scales)
    if regions.device.type == "cpu":
        return _pool_from_table(maps, regions, level, size, scales)
    return _pool_by_level(maps, regions, level, size, scales)


def without_values(x: Tensor) -> bool:
    """Return whether shapes must not depend on values: in an export, and on the meta device for counting operations."""
    return torch.compiler.is_exporting() or x.is_meta


def region_groups(boxes: Tensor, groups: Groups) -> Tensor:
    """Return the group of each of (R, 4) boxes, as its index (R,) int64 among the groups.

    A square of `groups.base` pixels is of group 4, one of twice the edge of the next; smaller ones than the first group
    has are of the first, larger ones than the last has of the last.

    Args:
        boxes: (R, 4).
        groups: Groups.
    """
    edge = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    last = groups.first + len(groups.strides) - 1
    number = torch.floor(4 + torch.log2(edge / groups.base) + 1e-6).clamp(groups.first, last)
    return number.long() - groups.first


def group_sizes(group: Tensor, num: int) -> list[int]:
    """Return how many regions each of `num` groups has, from (R,) their groups.

    As `bincount`, which makes the host wait three times for a GPU, not once.
    """
    sizes: list[int] = (group[:, None] == torch.arange(num, device=group.device)).sum(dim=0).tolist()
    return sizes


def apply_to_boxes(
    head: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    maps: Sequence[Tensor],
    boxes: Tensor,
    valid: Tensor,
    size: int,
    groups: Groups,
) -> tuple[Tensor, ...]:
    """Return what a head says of boxes: tensors (B, P, ...), 0 for boxes that are padding.

    Args:
        head: Function from (R, channels, S, S) and their (R, 5) regions to tensors of R rows.
        maps: (B, channels, H, W) of each group.
        boxes: (B, P, 4).
        valid: (B, P) bool, false for padding.
        size: S.
        groups: Groups that the maps are of.
    """
    image = torch.arange(boxes.shape[0], device=boxes.device).to(boxes)
    regions = torch.cat([image[:, None, None].expand(-1, boxes.shape[1], 1), boxes], dim=-1).flatten(0, 1)
    flags = valid.flatten()
    if without_values(boxes):
        outputs = head(pool_regions(maps, regions, size, groups), regions)
        outputs = tuple(x * flags.to(x).view(-1, *[1] * (x.dim() - 1)) for x in outputs)
    else:
        regions = regions[flags]
        outputs = head(pool_regions(maps, regions, size, groups).to(maps[0].dtype), regions)
        outputs = tuple(x.new_zeros(len(flags), *x.shape[1:]).index_put((flags,), x) for x in outputs)
    return tuple(x.unflatten(0, boxes.shape[:2]) for x in outputs)


def _pool_by_level(
    maps: Sequence[Tensor], regions: Tensor, level: Tensor, size: int, scales: Sequence[float]
) -> Tensor:
    """Return the regions of each level together."""
    order = level.argsort()
    parts = regions[order].split(group_sizes(level, len(maps)))
    pooled = [
        roi_align(x.float(), part, size, scale, POINTS).to(x.dtype)  # in half precision boxes would be off by pixels
        for x, part, scale in zip(maps, parts, scales, strict=True)
    ]
    return torch.cat(pooled).index_select(0, order.argsort())


def _pool_everywhere(
    maps: Sequence[Tensor], regions: Tensor, level: Tensor, size: int, scales: Sequence[float]
) -> Tensor:
    """Return all regions from all levels, so that no shape depends on values."""
    pooled: Tensor = roi_align(maps[0], regions, size, scales[0], POINTS)
    for index in range(1, len(maps)):
        other = roi_align(maps[index], regions, size, scales[index], POINTS)
        pooled = torch.where((level == index)[:, None, None, None], other, pooled)
    return pooled


def _pool_from_table(
    maps: Sequence[Tensor], regions: Tensor, level: Tensor, size: int, scales: Sequence[float]
) -> Tensor:
    """Return the same as sums over rows of a table: all pixels of all levels, (pixels, channels).

    On CPUs the gradient of torchvision's `roi_align` runs on one core and jumps through memory; this takes less than a
    third of its time. Bilinear interpolation and mean make each bin a weighted sum of 4 x 4 pixels.
    """
    num_channels = maps[0].shape[1]
    table = torch.cat([x.float().permute(0, 2, 3, 1).reshape(-1, num_channels) for x in maps])
    rows = torch.tensor([len(x) * x.shape[2] * x.shape[3] for x in maps])
    height, width = torch.tensor([x.shape[2:] for x in maps])[level].unbind(1)
    boxes = regions[:, 1:] * torch.tensor(scales)[level, None]
    x, x_weight = _pixels(boxes[:, 0], boxes[:, 2], width, size)
    y, y_weight = _pixels(boxes[:, 1], boxes[:, 3], height, size)
    first = (rows.cumsum(0) - rows)[level] + regions[:, 0].long() * height * width
    row = first[:, None, None] + y * width[:, None, None]
    index = row[:, :, None, :, None] + x[:, None, :, None, :]
    weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
    num_pixels = (2 * POINTS) ** 2
    # The gradient sorts indices; 32 bits are sorted in half the time.
    pooled = F.embedding_bag(
        index.view(-1, num_pixels).int(), table, per_sample_weights=weight.view(-1, num_pixels), mode="sum"
    )
    # Laid out as the fully connected layers take it, so that no second copy is kept for them.
    return pooled.view(len(regions), size, size, num_channels).permute(0, 3, 1, 2).contiguous()


def _pixels(start: Tensor, end: Tensor, extent: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return, along one axis, the pixels that each bin averages and their weights, both (R, S, 2 * POINTS).

    Args:
        start: (R,) lower edges of the boxes in pixels of their map.
        end: (R,) upper edges; a box is at least one pixel long.
        extent: (R,) pixels of the map.
        size: S.
    """
    steps = (torch.arange(POINTS * size) + 0.5) / (POINTS * size)
    at = start[:, None] + (end - start).clamp(min=1)[:, None] * steps
    extent = extent[:, None]
    inside = (at >= -1) & (at <= extent)
    at = at.clamp(min=0).minimum(extent - 1)
    low = at.floor()
    pixels = torch.stack([low, (low + 1).minimum(extent - 1)], dim=-1).long()
    weights = torch.stack([low + 1 - at, at - low], dim=-1) * inside[..., None] / POINTS
    shape = (len(start), size, 2 * POINTS)
    return pixels.view(shape), weights.view(shape)
