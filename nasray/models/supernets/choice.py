"""Supernets that share whole blocks: in every place several, of which one runs.

Reference: Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from nasray.models.supernets.base import Genes, Supernet


class OneOf(nn.ModuleList):
    """Modules for the same place, of which one runs.

    Attributes:
        chosen: Index of the chosen module; None before the first choice.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__(modules)
        self.chosen: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return what the chosen module makes of x."""
        if self.chosen is None:
            raise RuntimeError("no path is set: call set_path(genes) of the supernet first")
        out: Tensor = self[self.chosen](x)
        return out


class ChoiceSupernet(Supernet):
    """A supernet that is a network with a `OneOf` in every place, one for each gene, in their order.

    The network of a path has the chosen module where the supernet has the `OneOf`. Subclasses implement `standalone`,
    and set `network`, `feature_info` and `out_channels`. No `OneOf` stands within another.

    Attributes:
        network: Network from images to an ordered dictionary of maps.
    """

    network: nn.Module

    def places(self) -> dict[str, OneOf]:
        """Return the places by their names within `network`, in the order of the genes."""
        return dict(_places(self.network, ""))

    def select(self, row: NDArray[np.int64]) -> None:
        """Let every place run the module that its gene names."""
        for place, choice in zip(self.places().values(), row.tolist(), strict=True):
            place.chosen = choice

    def path_state(self, row: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return the state of everything outside the places, and of every place the chosen module's."""
        places = self.places()
        within = tuple(f"{name}." for name in places)
        whole = self.network.state_dict(keep_vars=True)
        state: dict[str, Tensor] = {name: value for name, value in whole.items() if not name.startswith(within)}
        for (name, place), choice in zip(places.items(), row.tolist(), strict=True):
            place[choice].state_dict(destination=state, prefix=f"{name}.", keep_vars=True)
        return state

    def path_parameters(self, genes: Genes) -> Iterator[tuple[nn.Parameter, tuple[slice, ...]]]:
        """See `Supernet.path_parameters`; nothing off the path is looked at, since workers ask in every step."""
        for _, module in self.path_modules(self._checked(genes)):
            for parameter in module.parameters(recurse=False):
                yield parameter, tuple(slice(0, size) for size in parameter.shape)

    def path_modules(self, row: NDArray[np.int64]) -> Iterator[tuple[str, nn.Module]]:
        """Yield what runs on a path and gets gradients, by its name in the path's network."""
        places = zip(self.places().values(), row.tolist(), strict=True)
        yield from _on_path(self.network, "", {id(place): place[choice] for place, choice in places})

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, 3, H, W) images to an ordered dictionary of maps, along the path that is set."""
        maps: OrderedDict[str, Tensor] = self.network(images)
        return maps


def _on_path(module: nn.Module, name: str, chosen: dict[int, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Yield a module and all below it, by their names; of a place what is chosen there."""
    module = chosen.get(id(module), module)
    yield name, module
    for key, child in module.named_children():
        yield from _on_path(child, f"{name}.{key}" if name else key, chosen)


def _places(module: nn.Module, prefix: str) -> Iterator[tuple[str, OneOf]]:
    for name, child in module.named_children():
        if isinstance(child, OneOf):
            yield prefix + name, child
        else:
            yield from _places(child, f"{prefix}{name}.")
