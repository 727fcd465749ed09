import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from nasray.models.detectors.anchors import (
    BACKGROUND,
    IGNORED,
    Anchors,
    boxes_to_deltas,
    boxes_to_distances,
    deltas_to_boxes,
    distances_to_boxes,
    find,
    grid_points,
    match,
    positives,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")
MAPS = [torch.zeros(2, 1, 5, 7), torch.zeros(2, 1, 3, 4)]


def test_anchors_are_those_of_torchvision():
    sizes, ratios = ((32, 40), (64, 80)), (0.5, 1.0, 2.0)
    generator = AnchorGenerator(sizes, (ratios,) * 2)
    expected = generator.grid_anchors([level.shape[-2:] for level in MAPS], [[8, 8], [16, 16]])
    anchors = Anchors(sizes, ratios)
    assert anchors.num_per_location == 6
    for ours, theirs in zip(anchors(MAPS, (8, 16)), expected, strict=True):
        assert torch.equal(ours, theirs)
    assert not anchors.state_dict(), "anchors are no weights"


def test_points_are_in_the_middle_of_their_location_row_by_row():
    points = grid_points(MAPS[0], 8)
    assert points.shape == (35, 2)
    assert points[:2].tolist() == [[4, 4], [12, 4]]
    assert points[-1].tolist() == [52, 36]


def test_distances_are_the_inverse_of_boxes():
    points = torch.tensor([[10, 20], [5, 5.0]])
    boxes = torch.tensor([[8, 15, 13, 27], [6, 0, 9, 9.0]])
    distances = boxes_to_distances(points, boxes)
    assert distances.tolist() == [[2, 5, 3, 7], [-1, 5, 4, 4]]
    assert torch.equal(distances_to_boxes(points, distances), boxes)


@pytest.mark.parametrize("scales", [(1.0, 1.0), (10.0, 5.0)])
def test_deltas_are_those_of_torchvision(scales):
    generator = torch.Generator().manual_seed(0)
    anchors, boxes = (
        torch.cat([low, low + torch.rand(37, 2, generator=generator) * 60 + 1], dim=1)
        for low in torch.rand(2, 37, 2, generator=generator) * 100
    )
    coder = BoxCoder((scales[0], scales[0], scales[1], scales[1]))
    assert torch.equal(boxes_to_deltas(anchors, boxes, scales), coder.encode_single(boxes, anchors))
    deltas = torch.randn(3, 37, 4, generator=generator) * 8  # some of which enlarge beyond the limit
    expected = coder.decode_single(deltas.flatten(0, 1), anchors.repeat(3, 1)).view(3, 37, 4)
    assert torch.equal(deltas_to_boxes(anchors, deltas, scales), expected)


@given(st.integers(0, 10_000), st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_find_is_nonzero_of_each(seed, shapes):
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.rand(*shape, generator=generator) < torch.rand((), generator=generator) for shape in shapes]
    for found, mask in zip(find(masks), masks, strict=True):
        for one, other in zip(found, mask.nonzero(as_tuple=True), strict=True):
            assert torch.equal(one, other)


@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
@settings(max_examples=50, deadline=None)
def test_matches_are_those_of_torchvision(seed, num, every_box):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 40, (num, 2), generator=generator).float()
    boxes = torch.cat([corners, corners + torch.randint(4, 40, (num, 2), generator=generator)], dim=1)
    anchors = torch.cat(Anchors(((16, 24), (40, 48)), (0.5, 1.0, 2.0))(MAPS, (8, 16)))
    overlap = box_iou(boxes, anchors)
    matches = match(anchors, boxes, 0.4, 0.5, every_box=every_box)
    expected = Matcher(0.5, 0.4, allow_low_quality_matches=every_box)(overlap)
    touched = overlap.amax(dim=0) > 0  # torchvision gives a box that no anchor touches to all of them
    assert torch.equal(matches[touched], expected[touched])
    assert (matches[~touched] == BACKGROUND).all()


def test_no_boxes_match_nothing():
    assert match(torch.rand(5, 4), torch.zeros(0, 4), 0.4, 0.5).tolist() == [BACKGROUND] * 5


def test_positives_are_gathered_level_by_level():
    levels = [torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 1, 1)]  # two anchors a location: four and two
    matches = [torch.tensor([1, -1, -2, 0, -1, 1]), torch.tensor([-1, -1, 0, -1, -2, 0])]
    targets = [
        {"boxes": torch.tensor([[0, 0, 1, 1], [0, 0, 2, 2.0]]), "labels": torch.tensor([5, 6])},
        {"boxes": torch.tensor([[0, 0, 3, 3.0]]), "labels": torch.tensor([7])},
    ]
    chosen = positives(matches, targets, levels, per_location=2)
    assert chosen.image.tolist() == [0, 0, 1, 0, 1]
    assert chosen.anchor.tolist() == [0, 3, 2, 5, 5]
    assert chosen.labels.tolist() == [6, 5, 7, 6, 7]
    assert chosen.boxes[:, 3].tolist() == [2, 1, 3, 2, 3]
    assert [[part.tolist() for part in level] for level in chosen.where] == [[[0, 0, 1], [0, 3, 2]], [[0, 1], [1, 1]]]
    assert [[part.tolist() for part in level] for level in chosen.ignored] == [[[0], [2]], [[1], [0]]]
    assert IGNORED == -2
