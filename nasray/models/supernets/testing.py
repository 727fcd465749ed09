"""Conformance of supernets: run `check_supernet` on a space of your own from your own tests.

Plain functions that raise `AssertionError` with what was wrong. They build the supernet of the space several times, so
hand them a small space.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nasray.architectures import slot_of
from nasray.models import build
from nasray.models.supernets import build_supernet, space_of_supernet, supernet_architecture
from nasray.models.supernets.base import Supernet, supernet_of
from nasray.models.supernets.recalibration import STATISTICS, kept_statistics, recalibrate
from nasray.spaces import Population, Space

State = dict[str, Tensor]


class Case(NamedTuple):
    """What a supernet is checked with.

    Attributes:
        paths: (N, G) paths.
        images: What runs through it.
        options: What it was built with beside its space.
    """

    paths: Population
    images: Tensor
    options: Mapping[str, Any]


Check = Callable[[Supernet, Case], None]


OF_HEAD = {"in_channels": 16, "num_levels": 5}
"""What a detector would build a supernet of heads with."""


def check_supernet(
    space: Space,
    *,
    image_hw: tuple[int, int] = (64, 64),
    num_paths: int = 4,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Run every check of `SUPERNET_CHECKS` on a fresh supernet of a space.

    Args:
        space: Space of the paths, of a family in `nasray.models.supernets.SUPERNETS`.
        image_hw: Height and width of the images that run through it; of a head those of a level.
        num_paths: Number of random paths that a check looks at, at least 2.
        seed: Seed of weights, paths and images.
        options: Options of the supernet. What a relaxed one has that no standalone network has is switched off by them.

    Raises:
        AssertionError: Naming the first broken rule.
    """
    for check in SUPERNET_CHECKS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            given = {**(options or {}), **_of_slot(space)}
            supernet = build_supernet(space, **given)
            _enliven(supernet)
            images = torch.randn(4, given.get("in_channels", 3), *image_hw)
        paths = supernet.space.sample(num_paths, np.random.default_rng(seed))
        check(supernet, Case(paths, images, given))


def check_extraction(supernet: Supernet, case: Case) -> None:
    """Check that a path computes what its extracted network computes, to the bit, in training and in inference mode.

    Where the path's maps have fewer channels, the supernet's are padded with zeros. A pyramid has the path's strides.
    """
    for index, row in enumerate(case.paths):
        supernet.train(index % 2 == 1)
        network = supernet.extract(row)
        _is(network.training == supernet.training, f"extract({row.tolist()}) has not the supernet's mode")
        supernet.set_path(row)
        with torch.no_grad():
            ours, theirs = _outputs(supernet, case.images), _outputs(network, case.images)
        strides = [getattr(one, "strides", None) for one in (supernet, network)]
        _is(strides[0] == strides[1], f"strides are {strides[0]}, those of path {row.tolist()} {strides[1]}")
        _is(list(ours) == list(theirs), f"maps are {list(ours)}, those of path {row.tolist()} {list(theirs)}")
        channels = _channels(supernet, len(ours))
        _is([x.shape[1] for x in ours.values()] == channels, f"maps of {row.tolist()} are not those of feature_info")
        for name, x in ours.items():
            num = theirs[name].shape[1]
            _is(torch.equal(x[:, :num], theirs[name]), f"path {row.tolist()} and its network differ in map {name}")
            _is(not x[:, num:].any(), f"map {name} of path {row.tolist()} is not padded with zeros")


def check_path_state(supernet: Supernet, case: Case) -> None:
    """Check that `path_state` holds the supernet's own memory, named and shaped as the architecture's network.

    Zeros may stand for what the network alone has, such as a bias.
    """
    own = {value.untyped_storage().data_ptr() for value in supernet.state_dict(keep_vars=True).values()}
    for row in case.paths:
        state = supernet.path_state(row)
        foreign = {name: value for name, value in state.items() if value.untyped_storage().data_ptr() not in own}
        copies = [name for name, value in foreign.items() if value.any()]
        _is(not copies, f"path_state({row.tolist()}) copies {copies[:3]}")
        architecture = supernet.space.to_architecture(row)
        with torch.device("meta"):
            expected = _shapes(build(architecture, **_of_slot(supernet.space)).state_dict())
        _is(_shapes(state) == expected, f"path_state({row.tolist()}) is no state of {architecture.text}")


def check_off_path(supernet: Supernet, case: Case) -> None:
    """Check that a step changes nothing of what its path does not use.

    Parameters no part of which is on the path, and statistics of norms that do not run, stay the same to the bit, with
    weight decay and momentum. Where a part of a parameter is on the path, the gradient of the rest is 0, and there is
    one, by which several workers know what they have to exchange.
    """
    supernet.train()
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    for row in case.paths:
        supernet.set_path(row)
        regions: dict[int, list[tuple[slice, ...]]] = {}
        for parameter, region in supernet.path_parameters(row):
            regions.setdefault(id(parameter), []).append(region)
        buffers = {value.untyped_storage().data_ptr() for value in supernet.path_state(row).values()}
        before = {name: value.clone() for name, value in supernet.state_dict().items()}
        optimizer.zero_grad()
        sum((x.square().mean() for x in _outputs(supernet, case.images).values()), torch.zeros(())).backward()
        optimizer.step()
        for name, parameter in supernet.named_parameters():
            if id(parameter) not in regions:
                _is(torch.equal(parameter, before[name]), f"{name} is off the path {row.tolist()} and has moved")
            else:
                assert parameter.grad is not None, f"{name} is on the path {row.tolist()} and has no gradient"
                outside = torch.ones_like(parameter, dtype=torch.bool)
                for region in regions[id(parameter)]:
                    outside[region] = False
                _is(not parameter.grad[outside].any(), f"{name} has a gradient off the path {row.tolist()}")
        for name, value in supernet.named_buffers():
            if value.untyped_storage().data_ptr() not in buffers:
                _is(torch.equal(value, before[name]), f"buffer {name} is off the path {row.tolist()} and has changed")


def check_statistics(supernet: Supernet, case: Case) -> None:
    """Check that statistics of one path are those of its network by itself, and are put back to the bit."""
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    for row in case.paths:
        network = supernet.extract(row)
        supernet.set_path(row)
        with kept_statistics(supernet):
            for one in (supernet, network):
                recalibrate(one, case.images.split(2), len(case.images), forward=partial(_outputs, one))
            found, expected = supernet.extract(row).state_dict(), network.state_dict()
            for name, value in expected.items():
                if name.rpartition(".")[2] in STATISTICS:
                    _is(torch.equal(found[name], value), f"{name} of path {row.tolist()}, recalibrated, is another")
        changed = [name for name, value in supernet.state_dict().items() if not torch.equal(value, before[name])]
        _is(not changed, f"kept_statistics does not put back {changed[:3]}")


def check_round_trip(supernet: Supernet, case: Case) -> None:
    """Check that space and weights come back from what checkpoints keep; the path is no part of it, nor of a copy."""
    architecture = supernet_architecture(supernet.space)
    twin = build_supernet(space_of_supernet(architecture), **case.options)
    _is(supernet_architecture(twin.space) == architecture, f"{architecture.text} comes back as another supernet")
    sink = io.BytesIO()
    supernet.set_path(case.paths[0])
    torch.save(supernet.state_dict(), sink)
    sink.seek(0)
    twin.load_state_dict(torch.load(sink, weights_only=True))
    _is(twin.path is None, "the path is a part of the state")
    kept = copy.deepcopy(supernet)
    supernet.set_path(case.paths[1])
    for other, row in ((twin, case.paths[1]), (kept, case.paths[0])):
        if other is twin:
            other.set_path(row)
        _is(np.array_equal(_path(other), row), "a copy has not the path that it had")
    with torch.no_grad():
        found = [_outputs(one.eval(), case.images).values() for one in (supernet, twin)]
        pairs = zip(*found, strict=True)
        _is(all(torch.equal(ours, theirs) for ours, theirs in pairs), "a supernet with the same state computes another")


def check_refusals(supernet: Supernet, case: Case) -> None:
    """Check that rows that are no architecture are refused with `ValueError`, and leave the path as it is."""
    supernet.set_path(case.paths[0])
    invalid = supernet.space.sample(1, np.random.default_rng(0))[0].copy()
    invalid[0] = max(supernet.space.genes[0].values) + 1
    for row in (case.paths[0][:-1], invalid):
        for call in (supernet.set_path, supernet.extract):
            try:
                call(row)
                happened = "takes it"
            except ValueError:
                continue
            except Exception as error:
                happened = f"raises {type(error).__name__} instead of ValueError"
            raise AssertionError(f"{row.tolist()} is no architecture of the space, and {call.__name__} {happened}")
    _is(np.array_equal(_path(supernet), case.paths[0]), "a refused row has changed the path")
    _is(supernet_of(nn.Sequential(nn.Identity(), supernet)) is supernet, "supernet_of does not find it in a network")


SUPERNET_CHECKS: tuple[Check, ...] = (
    check_extraction,
    check_path_state,
    check_off_path,
    check_statistics,
    check_round_trip,
    check_refusals,
)


def _of_slot(space: Space) -> dict[str, int]:
    """Return what a network is built with for the slot that the space's architectures fill, beside its spec."""
    return OF_HEAD if slot_of(supernet_architecture(space)) == "head" else {}


def _outputs(network: nn.Module, images: Tensor) -> Mapping[str, Tensor]:
    """Return by name what a network makes of images: a backbone's maps, a pyramid's by group, a head's features."""
    network_of: Any = network
    if hasattr(network, "towers") and getattr(network, "purpose", "boxes") == "boxes":
        return dict(zip(("classes", "boxes"), network_of.towers(images, 0), strict=True))
    found = network_of(images)
    if isinstance(found, Tensor):
        return {"features": found}
    return found if isinstance(found, Mapping) else {str(group): x for group, x in enumerate(found)}


def _channels(supernet: Supernet, num_maps: int) -> list[int]:
    """Return the channels that a supernet says its maps have."""
    if hasattr(supernet, "feature_info"):
        return [info["num_chs"] for info in supernet.feature_info]
    return [supernet.out_channels] * num_maps  # type: ignore[list-item]  # of a head: one number


def _is(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _path(supernet: Supernet) -> Population:
    assert supernet.path is not None
    return supernet.path


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _enliven(supernet: Supernet) -> None:
    """Give the statistics of norms values that differ, so that one taken for another shows."""
    for name, value in supernet.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0.0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
