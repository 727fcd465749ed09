"""The device that a network runs on, and how many threads compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from nasray.spaces import NasrayError
from nasray.spaces.ranges import Range

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
Threads = Annotated[int, Range(1, 1024)]
DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU where there is one and, in a trial, Ray assigned it.

    Raises:
        NasrayError: for a name that is none, or `cuda` where there is no GPU or Ray assigned none.
    """
    import torch

    from nasray.cluster.resources import assigned_gpus

    if name not in DEVICES:
        raise NasrayError(f"device is one of {', '.join(DEVICES)}; got {name!r}")
    assigned = assigned_gpus()
    has_gpu = torch.cuda.is_available() and assigned != []
    if name == "cuda" and not has_gpu:
        why = (
            "Ray assigned no GPU to this trial, see --resources.gpus" if assigned == [] else "PyTorch finds no GPU here"
        )
        raise NasrayError(f"device 'cuda' is not available: {why}. Take --device cpu, or auto")
    return torch.device("cuda" if has_gpu else "cpu") if name == "auto" else torch.device(name)


@contextmanager
def computing_threads(num: int) -> Iterator[None]:
    """Let PyTorch compute with a number of threads within it: on CPUs the sum of many numbers depends on it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)
