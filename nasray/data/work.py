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

from nasray.cluster.resources import assigned_cpus, assigned_gpus
from nasray.recipe_options import LoaderOptions
from nasray.spaces import NasrayError

Packed = dict[str, Tensor]
"""A batch as few tensors, since each costs a file handle on its way between processes."""


MOST_PROCESSES = 16
"""Loader processes that are taken by themselves: each holds two batches in shared memory, of 8 images for detection
some 50 MB, which are 0.8 GB of 16."""
MOST_CACHES = 2
"""The same where each keeps all images that it has loaded."""


def num_processes(options: LoaderOptions) -> int:
    """Return how many processes load images for this process: as its options say, or else after its cores."""
    if options.processes is not None:
        return options.processes
    if not _has_gpu():  # what computes needs the cores
        return 1
    return min(max(int(assigned_cpus()) - 1, 1), MOST_CACHES if options.cache else MOST_PROCESSES)


def loading_text(options: LoaderOptions) -> str | None:
    """Return a line about loader processes beside a GPU: how many follow the cores, or that there are too few cores."""
    if not _has_gpu():
        return None
    num, cores = num_processes(options), f"{assigned_cpus():g}"
    if options.processes is None:
        return f"{num} of {cores} cores load images (loader.processes)"
    if num > 1 and num + 1 > assigned_cpus():
        return (
            f"loader.processes {num} and the worker itself share {cores} cores. Leave loader.processes out, so that it "
            "follows the cores, or raise resources.cpus"
        )
    return None


def _has_gpu() -> bool:
    return torch.cuda.is_available() and assigned_gpus() != []


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
