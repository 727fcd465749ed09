"""OpenVINO on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nasray.configuration import install_command
from nasray.runtimes.base import Program, Runtime
from nasray.runtimes.onnx_file import onnx_file
from nasray.spaces import NasrayError
from nasray.tracing import check_onnx

PRECISIONS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "f32"}
"""What computes what is not quantized, by data type."""
CAPABILITIES = {"FP16": "float16", "BF16": "bfloat16", "INT8": "int8"}


class OpenVino(Runtime):
    """OpenVINO, which reads the file that `nasray export` writes."""

    def version(self) -> str:
        """Return the version of OpenVINO."""
        check_onnx("runtime openvino")
        try:
            import openvino
        except ImportError as error:
            raise NasrayError(f"runtime openvino needs openvino: {install_command('openvino')}") from error
        return str(openvino.__version__).partition("-")[0]

    def dtypes(self) -> tuple[str, ...]:
        """Return float32, and others that the processor has instructions for."""
        import openvino

        found = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ("float32", *(dtype for name, dtype in CAPABILITIES.items() if name in found))

    def prepare(
        self,
        network: nn.Module,
        inputs: tuple[Tensor, ...],
        *,
        dtype: str,
        threads: int,
        calibration: Sequence[Tensor] = (),
    ) -> Program:
        """Return a compiled model's call; weights go over as float32 and are computed with as `dtype` says."""
        import openvino

        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        }
        content = onnx_file(network, inputs, dtype, calibration)
        core = openvino.Core()
        try:
            compiled = core.compile_model(core.read_model(content), "CPU", options)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise NasrayError(f"OpenVINO cannot run this network: {lines[-1]}. Take runtime onnxruntime") from error

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            found: Any = compiled([tensor.numpy() for tensor in tensors])
            return tuple(torch.from_numpy(found[output]) for output in compiled.outputs)

        return run
