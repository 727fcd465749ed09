"""PyTorch as a runtime, as it is and compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nasray.runtimes.base import Program, Runtime
from nasray.spaces import NasrayError


class Eager(Runtime):
    """PyTorch, operation by operation."""

    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    takes_float32: ClassVar[bool] = False

    def version(self) -> str:
        """Return an empty string: it is PyTorch."""
        return ""

    def dtypes(self) -> tuple[str, ...]:
        """Return floating-point types."""
        return ("float32", "float16", "bfloat16")

    def prepare(
        self,
        network: nn.Module,
        inputs: tuple[Tensor, ...],
        *,
        dtype: str,
        threads: int,
        calibration: Sequence[Tensor] = (),
    ) -> Program:
        """Return the network itself."""
        return network


class Compiled(Eager):
    """torch.compile, which needs a C++ compiler on a CPU; one program at a time."""

    def prepare(
        self,
        network: nn.Module,
        inputs: tuple[Tensor, ...],
        *,
        dtype: str,
        threads: int,
        calibration: Sequence[Tensor] = (),
    ) -> Program:
        """Return the network compiled for these inputs; programs that were prepared before are compiled again.

        Networks of one class share a limit of compilations, behind which they would run uncompiled without a word.
        """
        torch.compiler.reset()
        program: Program = torch.compile(network)
        try:
            with torch.inference_mode():
                program(*inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise NasrayError(
                f"torch.compile cannot compile this network: {str(error).strip().splitlines()[0]}. On a CPU it needs a "
                "C++ compiler (g++); or take runtime eager"
            ) from error
        return program
