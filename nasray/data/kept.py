"""Batches that are loaded once: for all processes of a machine in a file that they map, or else in memory of their own.

Pixels are kept as networks take them before they are normalized: uint8, resized, padded to batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from nasray.cluster.progress import say
from nasray.data.mapped import Arrays, CacheError, Parts, Room, streamed_arrays

if TYPE_CHECKING:
    from torch import Tensor

KIND = "images"
"""Folder in the cache."""
LARGE = ("images", "masks")
"""Tensors that stay in the file; the others are copied."""


class Loader(Protocol):
    """What loads the same batches whenever it is asked."""

    @property
    def num_bytes(self) -> int:
        """Bytes that all batches take, nearly."""
        ...

    def packed(self) -> Iterator[dict[str, Tensor]]:
        """Yield the tensors of each batch, `images` among them."""
        ...

    def unpack(self, packed: dict[str, Tensor]) -> Any:
        """Return the batch of what `packed` yields."""
        ...

    def digest(self) -> str:
        """Return what tells all batches, to the bit, from any others."""
        ...


@dataclass
class CacheBudget:
    """Bytes for batches to be kept in.

    Attributes:
        left: Memory of this process that is left.
        disk: Disk for the files of all runs together; 0 for none.
    """

    left: int
    disk: int = 0


class KeptBatches:
    """Batches that are loaded once and kept: all of them, or none.

    The first process of a machine that asks for them writes a file, the others wait for it, and all map it. Where there
    is no disk for it, each process keeps them in memory as far as its budget goes; beyond that they are loaded anew.

    Args:
        loader: Loader of the batches. It is let go, with its processes, once they are in a file.
        budget: Memory and disk for this and others; the memory of what is kept is taken from it.

    Attributes:
        kept: All batches, once they are in a file, or were all loaded and there was memory for them.
        is_mapped: Whether they are in a file.
    """

    def __init__(self, loader: Loader, budget: CacheBudget) -> None:
        self.loader: Loader | None = loader
        self.budget = budget
        self.kept: list[Any] | None = None
        self.is_mapped = False

    def __iter__(self) -> Iterator[Any]:
        if self.kept is None and self.budget.disk and self.loader is not None:
            self._map(self.loader)
        if self.kept is not None:
            yield from self.kept
            return
        assert self.loader is not None
        batches: list[Any] = []
        used = 0
        iterator = map(self.loader.unpack, self.loader.packed())
        batch = next(iterator, None)
        while batch is not None:
            used += batch.images.nbytes
            if used <= self.budget.left:
                batches.append(batch)
            else:
                batches.clear()
            following = next(iterator, None)  # whoever has had the last batch may not ask again
            if following is None and batches:
                self.kept, self.budget.left = batches, self.budget.left - used
            yield batch
            batch = following

    def _map(self, loader: Loader) -> None:
        """Take the batches from their file, which is written first where there is none."""

        def parts() -> Parts:
            for number, packed in enumerate(loader.packed()):
                for name, value in packed.items():
                    yield f"{number}/{name}", value.numpy()

        try:
            arrays = streamed_arrays(KIND, loader.digest(), parts, Room(loader.num_bytes, self.budget.disk))
        except CacheError as error:
            self.budget.disk = 0  # what follows would fail as well, after as long a time
            say(f"images are kept by every process for itself (cache_gib), or loaded anew: {error}")
            return
        self.kept = [loader.unpack(packed) for packed in _tensors(arrays)]
        self.loader, self.is_mapped = None, True


def _tensors(arrays: Arrays) -> list[dict[str, Tensor]]:
    """Return the tensors of each batch; those of pixels are in the file, and nobody writes to them."""
    import torch

    found: dict[str, dict[str, Tensor]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch knows no tensors that are read alone
        for key, array in arrays.items():
            number, _, name = key.partition("/")
            found.setdefault(number, {})[name] = torch.from_numpy(array if name in LARGE else array.copy())
    return list(found.values())
