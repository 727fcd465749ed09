"""The device that a network runs on, in which precision, and how many threads compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from nasray.spaces import NasrayError
from nasray.spaces.ranges import Range

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16", "float16"]
Threads = Annotated[int, Range(1, 1024)]
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "bfloat16", "float16")


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


def choose_precision(name: Precision | None, device: torch.device, trained: Precision) -> Precision:
    """Return the precision to infer in; of none on a GPU that of the training, and on CPUs float32.

    Args:
        name: Precision that is asked for.
        device: Device of the network.
        trained: Precision of its training.
    """
    return name or (trained if device.type == "cuda" else "float32")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which a network computes in a precision; weights and statistics stay in float32."""
    import torch

    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")


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
