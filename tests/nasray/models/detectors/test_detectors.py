"""Architectures that fill slots of detectors: heads and pyramids that none of nasray's own modules knows."""

import hashlib

import pytest
import torch

from nasray.architectures import compose
from nasray.checkpoint import Checkpoint
from nasray.models.cost import detector_cost
from nasray.models.detectors import DETECTORS, assemble_detector, build_detector, check_slots, faster_rcnn
from nasray.models.detectors.pooling import Groups
from nasray.options import options_of
from nasray.recipe import Recipe
from nasray.spaces import NasrayError
from tests.nasray.models.detectors.common import (
    TINY,
    EndToEnd,
    detect,
    overfit,
    shapes_batch,
    tiny_backbone,
    tiny_detector,
    total_loss,
)
from tests.nasray.models.detectors.toys import FPN_PYRAMID, HEAD, PYRAMID, TWIN, exported, toys  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread", "toys")
SMALL = {"fcos": {}, "retinanet": {"base_size": 16}, "gfl": {}, "mask-rcnn": {}}
IMAGE_HW = (128, 128)


def assembled(name, architecture, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        detector = assemble_detector(name, architecture, 3, **{"channels": 16} | SMALL.get(name, {}) | options)
    if hasattr(detector, "region_samples"):
        detector.region_samples = 64
    return detector


@pytest.fixture(scope="module")
def batch():
    return shapes_batch(2, IMAGE_HW)


def place(detector, slot):
    return detector.get_submodule(detector.slots[slot])


@pytest.mark.parametrize("name", SMALL)
def test_a_head_that_fills_the_slot_learns_and_exports(name, batch):
    detector = assembled(name, compose({"backbone": TINY, "head": HEAD}))
    head = place(detector, "head")
    assert type(head).__name__ == "ToyHead"
    assert (head.num_levels, head.convs[0].in_channels) == (1 if name == "mask-rcnn" else 5, 16)
    loss = total_loss(detector.train(), *batch)
    loss.backward()
    used = [p for key, p in head.named_parameters()]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in used)
    losses = overfit(detector, *batch, steps=50 if name == "gfl" else 12)  # whose losses rise with the scores at first
    assert sum(losses[-3:]) < sum(losses[:3])
    images = batch[0][:1].float()
    module = EndToEnd(detector.eval())
    with torch.no_grad():
        expected = module(images)
    for ours, theirs in zip(expected, exported(module, images), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["fcos", "retinanet", "gfl"])
def test_the_default_head_in_the_slot_is_the_default(name, batch):
    """Bit by bit, in what is drawn at first, computed and learned."""
    norm = {"norm": "group"} if name == "retinanet" else {}
    own = assembled(name, TINY, num_convs=1, **norm)
    given = assembled(name, compose({"backbone": TINY, "head": TWIN}), **norm)
    results = []
    for detector in (own, given):
        losses = detector.train()(*batch, generator=torch.Generator().manual_seed(0))
        sum(losses.values()).backward()
        results.append([*losses.values(), *(p.grad for p in detector.parameters()), *detect(detector, batch[0])[:3]])
    assert own.state_dict().keys() == given.state_dict().keys()
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["faster-rcnn", "mask-rcnn"])
def test_a_pyramid_in_the_slot_computes_as_a_feature_pyramid_does(name, batch, monkeypatch):
    """With the groups of a feature pyramid, which pools no region from P6; a pyramid has one more for small boxes."""
    own, given = assembled(name, TINY), assembled(name, FPN_PYRAMID)
    assert given.groups == Groups((4, 8, 16, 32, 64), 1)
    monkeypatch.setattr(faster_rcnn, "FIRST_GROUP", 2)
    given.num_pooled = 4
    assert given.groups == own.groups == Groups((4, 8, 16, 32), 2)
    names = {key.replace("backbone.", "backbone.body.").replace("neck.", "backbone.fpn."): value
             for key, value in own.state_dict().items()}  # fmt: skip
    given.load_state_dict(names)
    assert given.stride == own.stride == 32
    results = []
    for detector in (own, given):
        losses = detector.train()(*batch, generator=torch.Generator().manual_seed(0))
        results.append([*losses.values(), *(x for x in detect(detector, batch[0]) if x is not None)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["faster-rcnn", pytest.param("mask-rcnn", marks=pytest.mark.slow)])
def test_groups_that_share_a_map_learn_and_export(name, batch):
    detector = assembled(name, PYRAMID, base_size=16)
    assert detector.stride == 64
    assert detector.strides == (8, 8, 16, 16, 64)
    levels = detector.pyramid(batch[0])
    assert levels[0] is levels[1]
    anchors = detector.anchors(levels, detector.strides)
    assert [len(level) for level in anchors] == [3 * 16 * 16] * 2 + [3 * 8 * 8] * 2 + [3 * 2 * 2]
    edges = [(level[:, 2:] - level[:, :2]).prod(dim=1).sqrt().mean() for level in anchors]
    assert [round(float(edge)) for edge in edges] == [16, 32, 64, 128, 256]
    losses = overfit(detector, *batch, steps=12)
    assert sum(losses[-3:]) < sum(losses[:3])
    images = batch[0][:1].float()
    module = EndToEnd(detector.eval())
    with torch.no_grad():
        expected = module(images)
    for ours, theirs in zip(expected, exported(module, images), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("name", "digest"), [("faster-rcnn", "3c220b20571fd0e6"), ("mask-rcnn", "954917b814bec53d")])
def test_names_and_shapes_of_a_feature_pyramids_state_stay(name, digest):
    """SHA-256, from before there were pyramids of another kind: checkpoints load."""
    state = build_detector(name, tiny_backbone(), 3).state_dict()
    lines = "\n".join(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("architecture", [TINY, PYRAMID], ids=["feature pyramid", "pyramid"])
def test_groups_have_heads_of_their_own_where_asked_for(architecture, batch):
    options = {"separate_heads": True, "box_head": "2conv1fc", "norm": "batch"}
    detector = assembled("faster-rcnn", architecture, **options)
    num_pooled = 4 if architecture == TINY else 5
    assert (len(detector.rpn), len(detector.box_head)) == (5, num_pooled)
    total_loss(detector.train(), *batch).backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())
    images = batch[0].float()
    before = detector.eval().forward_raw(images)
    edges = (before["proposals"][..., 2:] - before["proposals"][..., :2]).prod(dim=-1).sqrt()
    is_small = (before["proposal_scores"] > 0) & (edges < (112 if architecture == TINY else 56))  # of the first group
    with torch.no_grad():
        detector.box_head[0].classes.bias[0] += 1
    difference = (detector.forward_raw(images)["logits"] - before["logits"])[..., 0]
    assert is_small.any()
    assert not is_small.all()
    torch.testing.assert_close(difference, is_small.float())
    levels = detector.pyramid(images)
    then = detector.objectness(levels)[0]
    with torch.no_grad():
        detector.rpn[2].cls_logits.bias += 1
    pairs = zip(detector.objectness(levels)[0], then, strict=True)
    assert [float((now - before).detach().mean()) for now, before in pairs] == pytest.approx([0, 0, 1, 0, 0])


def test_separate_heads_export(batch):
    module = EndToEnd(assembled("faster-rcnn", PYRAMID, separate_heads=True).eval())
    images = batch[0][:1].float()
    with torch.no_grad():
        expected = module(images)
    for ours, theirs in zip(expected, exported(module, images), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-3)


def test_channels_are_those_of_the_pyramid(batch):
    with torch.random.fork_rng(devices=[]):
        detector = assemble_detector("mask-rcnn", PYRAMID, 3)
    assert detector.rpn.cls_logits.in_channels == 16
    assert build_detector("faster-rcnn", tiny_backbone(), 3).rpn.cls_logits.in_channels == 256


def test_costs_count_what_fills_the_slots():
    own = detector_cost("fcos", TINY, (128, 128), num_classes=3, channels=16)
    costs = detector_cost("fcos", compose({"backbone": TINY, "head": HEAD}), (128, 128), num_classes=3, channels=16)
    assert costs["backbone"] == own["backbone"]
    cells = sum((128 // stride) ** 2 for stride in (8, 16, 32, 64, 128))
    assert costs["head"]["gmacs"] == pytest.approx(cells * 9 * (2 * 16 * 24 + 24 * (3 + 5)) / 1e9)


def test_a_checkpoint_holds_all_slots(tmp_path, batch):
    recipe = Recipe(name="x", detector=options_of(DETECTORS, "gfl", channels=16))
    both = compose({"backbone": TINY, "head": HEAD})
    detector = assembled("gfl", both)
    Checkpoint(recipe, both, ("a", "b", "c"), (1, 2, 3), detector.state_dict()).save(tmp_path / "x.pt")
    loaded = Checkpoint.load(tmp_path / "x.pt")
    assert loaded.architecture == both
    ours, theirs = (detect(one, batch[0]) for one in (detector, loaded.detector()))
    assert all(torch.equal(one, other) for one, other in zip(ours[:3], theirs[:3], strict=True))


@pytest.mark.parametrize("name", ["fcos", "gfl", "retinanet"])
def test_checkpoints_of_earlier_versions_load(name, tmp_path):
    """They lack the part `trunk` of the names, and RetinaNet's the whole `head`."""
    detector = tiny_detector(name)
    recipe = Recipe(name="x", detector=options_of(DETECTORS, name, channels=32, num_convs=1))
    former = {key.replace("head.trunk.", "" if name == "retinanet" else "head."): value
              for key, value in detector.state_dict().items()}  # fmt: skip
    if name == "retinanet":
        former = {key.removeprefix("head."): value for key, value in former.items()}
    assert former.keys() != detector.state_dict().keys()
    path = tmp_path / "x.pt"
    Checkpoint(recipe, TINY, ("a", "b", "c"), (1, 2, 3), former, training={"weights": former}).save(path)
    loaded = Checkpoint.load(path)
    for state in (loaded.model, loaded.training["weights"], loaded.detector().state_dict()):
        assert list(state) == list(detector.state_dict())
        assert all(torch.equal(state[key], value) for key, value in detector.state_dict().items())


@pytest.mark.parametrize(
    ("name", "parts", "options", "message"),
    [
        ("centernet", {"backbone": TINY, "head": HEAD}, {},
         "'centernet' has no slot for a head; its slots: backbone. Detectors that have one: fcos, retinanet, gfl, "
         "mask-rcnn"),
        ("fcos", {"pyramid": PYRAMID}, {},
         "'fcos' has no slot for a pyramid; its slots: backbone, head. Detectors that have one: faster-rcnn"),
        ("fcos", {"head": HEAD}, {}, "a head alone is no detector: name a backbone beside toy-head"),
        ("fcos", {"backbone": TINY, "head": HEAD}, {"num_convs": 2}, "num_convs is an option of its own head"),
        ("mask-rcnn", {"backbone": TINY, "head": TWIN}, {}, "TwinHead has no `forward`"),
        ("faster-rcnn", {"pyramid": PYRAMID}, {"first_level": 3}, "this pyramid has its own. Leave it out"),
        ("faster-rcnn", {"pyramid": PYRAMID}, {"channels": 32}, "channels is that of the pyramid's maps, 16; got 32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(name, parts, options, message):
    with pytest.raises(NasrayError, match=message):
        assembled(name, compose(parts), **options)


def test_a_head_without_towers_is_refused():
    with pytest.raises(NasrayError, match="Conv2d has no `towers`"):
        build_detector(
            "fcos", tiny_detector("fcos").backbone, 3, lambda in_channels, num_levels: torch.nn.Conv2d(1, 1, 1)
        )


def test_every_place_of_a_slot_is_there():
    for name in DETECTORS:
        check_slots(name, ["backbone"])
        detector = tiny_detector(name)
        assert all(place(detector, slot) is not None for slot in DETECTORS[name].slots)
