"""The contract of a supernet: one network that holds every architecture of a space as a path with shared weights.

Training is path-wise: in every step `set_path`, forward, backward, and the optimizer's step. What is not on the path
does not run, so its gradients stay what `zero_grad()` left: None, for which PyTorch's optimizers pass a parameter over.
It gets no gradient, no weight decay and no momentum, and is the same to the bit after the step. Therefore:

- Leave `zero_grad` at its default `set_to_none=True`. Zeros instead of None would be decayed.
- Several workers draw the same path in every step (`PathSampler.draw` depends on seed and iteration alone) and average
  the gradients of its `path_parameters`, see `nasray.training.exchange`. Buffers off the path need no care: no worker
  changes them.
- Paths may be set one after another between two `zero_grad()`; the step then moves what any of them used.

A supernet is itself a backbone, with `feature_info` and an ordered dictionary of maps, so it stands in any detector.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasray.spaces import Space

Genes = Sequence[int] | NDArray[np.int64]


class Supernet(nn.Module):
    """A network of which `set_path` chooses what runs.

    Subclasses implement `select`, `standalone`, `path_state` and `forward`. The path is no part of the state
    dictionary; a copy of the module keeps it. `nasray.models.supernets.testing.check_supernet` checks a subclass.

    Args:
        space: Space whose architectures are the paths.

    Attributes:
        space: Space of the paths.
        path: The (G,) genes of the path that `forward` takes; None before the first `set_path`.
        feature_info: Maps, the same on every path; see `nasray.models.backbone.Backbone`. A supernet whose paths
            have maps of fewer channels pads them with zeros.
        out_channels: Channels of the maps.
    """

    feature_info: list[dict[str, Any]]
    out_channels: list[int]

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space = space
        self.path: NDArray[np.int64] | None = None

    def set_path(self, genes: Genes) -> None:
        """Let `forward` take this path from now on.

        Raises:
            ValueError: for genes that are no architecture of the space.
        """
        row = self._checked(genes)
        self.select(row)
        self.path = row

    def extract(self, genes: Genes) -> nn.Module:
        """Return the standalone network of a path, with a copy of its weights and statistics; whatever path is set.

        It is on the supernet's device, in its dtype and mode, and computes to the last bit what the path computes.

        Raises:
            ValueError: for genes that are no architecture of the space.
        """
        row = self._checked(genes)
        with torch.device("meta"):  # no memory and no time for weights that are replaced at once
            network = self.standalone(row)
        state = {name: value.detach().clone() for name, value in self.path_state(row).items()}
        network.load_state_dict(state, assign=True)
        return network.train(self.training)

    def path_parameters(self, genes: Genes) -> Iterator[tuple[nn.Parameter, tuple[slice, ...]]]:
        """Yield the parameters that get gradients from a path, each with the region of it, a slice for every dimension.

        It is found from `path_state`, whose tensors are parameters or views into them. A supernet that computes weights
        from others overrides this. So does one whose path has weights that its maps do not depend on, or that can tell
        without the path's network: several workers ask in every step.

        Raises:
            ValueError: for genes that are no architecture of the space.
        """
        owners = {parameter.untyped_storage().data_ptr(): parameter for parameter in self.parameters()}
        for value in self.path_state(self._checked(genes)).values():
            owner = owners.get(value.untyped_storage().data_ptr())
            if owner is not None and value.numel():
                yield owner, _region(value, owner)

    def _checked(self, genes: Genes) -> NDArray[np.int64]:
        row = np.array(genes, dtype=np.int64)
        if row.shape != (self.space.num_genes,):
            raise ValueError(f"a path of this supernet has {self.space.num_genes} genes, got shape {row.shape}")
        return self.space.checked_row(row)

    @abstractmethod
    def select(self, row: NDArray[np.int64]) -> None:
        """Let `forward` take the path of this valid (G,) row."""

    @abstractmethod
    def standalone(self, row: NDArray[np.int64]) -> nn.Module:
        """Return the network of a path by itself, on the current default device, with any weights."""

    @abstractmethod
    def path_state(self, row: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return a state dictionary of `standalone(row)` that holds the supernet's own tensors, or views into them.

        No copies: what is written into one of these tensors is written into the supernet.
        """

    @abstractmethod
    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, 3, H, W) images to an ordered dictionary of maps, along the path that is set."""


def supernet_of(network: nn.Module) -> Supernet | None:
    """Return the supernet inside a network, in whatever slot; None if there is none."""
    return next((module for module in network.modules() if isinstance(module, Supernet)), None)


def _region(view: Tensor, whole: Tensor) -> tuple[slice, ...]:
    """Return which entries of a tensor a view of the same number of dimensions shows, as a slice for each dimension."""
    left, strides = int(view.storage_offset() - whole.storage_offset()), whole.stride()
    first = [0] * whole.dim()
    for dim in sorted(range(whole.dim()), key=lambda dim: strides[dim], reverse=True):
        if whole.shape[dim] > 1:
            first[dim], left = divmod(left, strides[dim])
    return tuple(slice(begin, begin + size) for begin, size in zip(first, view.shape, strict=True))
