"""Paths of a supernet as networks by themselves."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasray.architectures import compose, is_supernet, slots
from nasray.checkpoint import make_network
from nasray.models.supernets.base import Supernet, supernet_of
from nasray.recipe import Recipe
from nasray.spaces import Architecture, NasrayError


class Described(Protocol):
    """What a network around a supernet was built from; a checkpoint, or the description of a training."""

    @property
    def recipe(self) -> Recipe:
        """Recipe of its training."""
        ...

    @property
    def architecture(self) -> Architecture:
        """Architecture, which holds the supernet in one of its slots."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        ...


def extract_network(network: nn.Module, row: NDArray[np.int64], described: Described) -> nn.Module:
    """Return the standalone detector or classifier of a path, with a copy of its weights and statistics.

    Every tensor is that of the same name in the network around the supernet, cut to its leading entries where the
    standalone one is smaller, as that of a neck behind channels that the path does not have.

    Args:
        network: Detector or classifier around a supernet. It is only read, whatever path is set.
        row: (G,) genes of the path.
        described: What the network was built from.

    Returns:
        A network on the same device and in the same mode.

    Raises:
        NasrayError: If no standalone network computes what the path does.
        ValueError: If the genes are no architecture of the space, or a tensor is not part of the network's.
    """
    supernet = supernet_of(network)
    if supernet is None:
        raise ValueError("there is no supernet in this network: it has one path, itself")
    subnet = _fresh_network(supernet, row, described, on_meta=True)  # its first weights are replaced at once
    prefix = next(name for name, module in network.named_modules() if module is supernet) + "."
    within = {prefix + name: value for name, value in supernet.path_state(supernet.space.checked_row(row)).items()}
    around = {name: value for name, value in network.state_dict().items() if not name.startswith(prefix)}
    source = {**around, **within}
    state = {name: _leading(source[name], value, name) for name, value in subnet.state_dict().items()}
    subnet.load_state_dict(state, assign=True)
    return subnet.to(next(iter(state.values())).device).train(network.training)


def network_of_path(network: nn.Module, row: NDArray[np.int64], described: Described) -> nn.Module:
    """Return what `extract_network` does; of a path that cannot be taken out its network with fresh weights.

    Args:
        network: Detector or classifier around a supernet.
        row: (G,) genes of the path.
        described: What the network was built from.
    """
    try:
        return extract_network(network, row, described)
    except NasrayError:
        supernet = supernet_of(network)
        assert supernet is not None
        return _fresh_network(supernet, row, described).train(network.training)


def _fresh_network(
    supernet: Supernet, row: NDArray[np.int64], described: Described, *, on_meta: bool = False
) -> nn.Module:
    """Return the standalone detector or classifier of a path with its first weights."""
    path = supernet.space.to_architecture(supernet.space.checked_row(row))
    architecture = in_place_of_supernet(described.architecture, path)
    with torch.random.fork_rng(devices=[]):
        return make_network(described.recipe, architecture, len(described.classes), on_meta=on_meta)


def in_place_of_supernet(whole: Architecture, path: Architecture) -> Architecture:
    """Return an architecture with the one of a path in the slot where it has the supernet."""
    return compose({slot: path if is_supernet(part) else part for slot, part in slots(whole).items()})


def _leading(whole: Tensor, part: Tensor, name: str) -> Tensor:
    """Return a copy of the leading entries of a tensor, as many as `part` has."""
    shape = part.shape
    if whole.dim() != len(shape) or any(size > most for size, most in zip(shape, whole.shape, strict=True)):
        raise ValueError(f"{name} is {tuple(whole.shape)} around the supernet and {tuple(shape)} in the path's network")
    return whole.detach()[tuple(slice(size) for size in shape)].clone()
