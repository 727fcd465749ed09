"""ONNX Runtime on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nasray.runtimes.base import Program, Runtime
from nasray.runtimes.onnx_file import onnx_file
from nasray.tracing import check_onnx


class OnnxRuntime(Runtime):
    """ONNX Runtime, which reads the file that `nasray export` writes."""

    def version(self) -> str:
        """Return the version of ONNX Runtime."""
        check_onnx("runtime onnxruntime")
        import onnxruntime

        return str(onnxruntime.__version__)

    def dtypes(self) -> tuple[str, ...]:
        """Return float32 and int8: on CPUs it converts others to float32 and back."""
        return ("float32", "int8")

    def prepare(
        self,
        network: nn.Module,
        inputs: tuple[Tensor, ...],
        *,
        dtype: str,
        threads: int,
        calibration: Sequence[Tensor] = (),
    ) -> Program:
        """Return a session's run, with as many threads as are asked for and none beside."""
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        content = onnx_file(network, inputs, dtype, calibration)
        session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]

        def run(*tensors: Tensor) -> tuple[Tensor, ...]:
            feed: dict[str, Any] = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
            return tuple(torch.from_numpy(output) for output in session.run(None, feed))

        return run
