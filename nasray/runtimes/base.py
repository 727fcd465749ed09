"""The contract of a runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, nn

Program = Callable[..., Any]
"""What was prepared: maps input tensors to the network's outputs; a detector's are in the order of `Detections`."""


class Runtime(ABC):
    """Runs networks, each prepared once.

    Attributes:
        devices: Devices that it can run on.
        takes_float32: Whether weights and images are handed to it as float32 whatever it computes in.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    takes_float32: ClassVar[bool] = True

    @abstractmethod
    def version(self) -> str:
        """Return the version of what runs, beside PyTorch; empty where that is PyTorch itself.

        Raises:
            NasrayError: with the command that installs it, if it is not there.
        """

    @abstractmethod
    def dtypes(self) -> tuple[str, ...]:
        """Return the data types that it has on this machine."""

    @abstractmethod
    def prepare(
        self,
        network: nn.Module,
        inputs: tuple[Tensor, ...],
        *,
        dtype: str,
        threads: int,
        calibration: Sequence[Tensor] = (),
    ) -> Program:
        """Return a network as this runtime runs it.

        Args:
            network: Network in inference mode, on the device where it is to run.
            inputs: Example inputs, of whose shapes it will be given others only if it is a detector.
            dtype: One of `dtypes`.
            threads: Number of threads that compute on a CPU.
            calibration: Images of which "int8" takes the ranges of activations; the example if there are none.

        Raises:
            NasrayError: if this runtime cannot run the network.
        """
