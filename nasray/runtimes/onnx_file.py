"""The ONNX file that runtimes read: of a detector the one that `nasray export` writes.

Reference of the 8-bit one: ONNX Runtime's static quantization. Convolutions alone are quantized, weights by channel,
activations by the range that they have over calibration images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nasray.models.detectors.base import Detector
from nasray.spaces import NasrayError
from nasray.tracing import EndToEnd, any_size, onnx_content, quietly


def onnx_file(network: nn.Module, inputs: tuple[Tensor, ...], dtype: str, calibration: Sequence[Tensor]) -> bytes:
    """Return the content of the ONNX file of a network: a detector's for images of any size, else for these inputs.

    Args:
        network: Network in inference mode.
        inputs: Example.
        dtype: "float32" or "int8".
        calibration: Images for the ranges of "int8"; the example if there are none.

    Raises:
        NasrayError: for a detector that is to take several images.
    """
    if isinstance(network, Detector):
        if len(inputs[0]) != 1:
            raise NasrayError(
                f"an exported detector takes one image at a time, got a batch of {len(inputs[0])}. Take batch size 1, "
                "or runtime eager"
            )
        content = onnx_content(EndToEnd(network).eval(), *any_size())
    else:
        content = onnx_content(network, inputs)
    return quantized(content, calibration or inputs[:1]) if dtype == "int8" else content


def quantized(content: bytes, images: Sequence[Tensor]) -> bytes:
    """Return an ONNX file with 8-bit convolutions, whose activations have the ranges of these images."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    with quietly(), tempfile.TemporaryDirectory(prefix="nasray-onnx-") as folder:
        path = Path(folder) / "int8.onnx"
        model = onnx.load_from_string(content)
        quantize_static(model, str(path), Reader(), op_types_to_quantize=["Conv"], per_channel=True)
        return path.read_bytes()
