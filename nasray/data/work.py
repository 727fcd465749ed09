"""Work on batches in processes of their own, ahead of time, in order.

Loader processes are forked where the system can. The rule of thumb that a process with threads must not fork is about
locks that another thread holds at that moment and that the child would wait for. A loader process takes none of those:
it decodes and transforms on one thread (PyTorch sets that), reads files or shards of its own, and leaves CUDA and Ray
alone; the C library, the logging module and Arrow make their own locks usable in children. In return the data set's
arrays are shared instead of copied, and a process starts in milliseconds instead of importing PyTorch again, and the
user's script needs no `if __name__ == "__main__"`.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nasray.spaces import NasrayError

Packed = dict[str, Tensor]
"""A batch as few tensors, since each costs a file handle on its way between processes."""


class Work(Protocol):
    """What makes a batch of keys, in whichever process."""

    def __call__(self, keys: Any) -> Packed:
        """Return the packed batch."""
        ...


class WorkQueue:
    """Does work in this process, or in others ahead of time, and yields the results in order.

    Args:
        work: Function from keys to tensors; it is sent to each process once.
        processes: Number of processes that work side by side; 0 for this one.
    """

    def __init__(self, work: Work, processes: int) -> None:
        self.sampler = _Sampler()
        self.loader: DataLoader[Packed | NasrayError] = DataLoader(
            _Caught(work),
            batch_size=None,
            sampler=self.sampler,
            num_workers=processes,
            collate_fn=_same,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=_start_method() if processes else None,
            persistent_workers=processes > 0,
            generator=torch.Generator(),  # else it would draw from the global one, and change what follows
        )

    def __call__(self, keys: Sequence[Any]) -> Iterator[Packed]:
        """Yield the results of these keys.

        Raises:
            NasrayError: that the work raised, in whichever process; or if a process was ended from outside.
        """
        self.sampler.keys = keys
        try:
            for packed in self.loader:
                if isinstance(packed, NasrayError):
                    raise packed
                yield packed
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise NasrayError(
                f"a loader process died: {str(error).splitlines()[0]} It most often wants memory or, in a container, "
                "shared memory (/dev/shm); choose fewer loader processes (loader.processes), or 0"
            ) from error


class _Sampler:
    """The keys that a queue has to do now."""

    keys: Sequence[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class _Caught(Dataset[Any]):
    """Work that returns a user's mistake as a value: raised, PyTorch would wrap it into a traceback as text."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __getitem__(self, keys: Any) -> Packed | NasrayError:
        try:
            return self.work(keys)
        except NasrayError as error:
            return error.with_traceback(None)


def _same(value: Any) -> Any:
    return value


def _start_method() -> str | None:
    """Return fork where the system has it (see the top of this file), but never on macOS, whose libraries forbid it."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin" else None
