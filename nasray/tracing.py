"""Networks as ONNX files: what every export, and every runtime that reads such a file, has in common."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasray.configuration import install_command
from nasray.models.detectors.base import Detector
from nasray.spaces import NasrayError

OPSET = 20
TRACED_HW = (1088, 1344)
"""Of the example: no level is one pixel high or wide, which an export takes for a fixed size."""


class EndToEnd(nn.Module):
    """Images (1, 3, H, W) to boxes, scores, labels, and masks where there are any.

    The threshold is a tensor, so that the check can lower that of the very program that is written.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector)
        threshold = torch.tensor(self.detector.score_threshold)
        del self.detector.score_threshold
        self.detector.register_buffer("score_threshold", threshold)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return detections as the contract has them, without the masks if there are none."""
        return tuple(part for part in self.detector(images) if part is not None)


def any_size(*, batch: int | None = 1) -> tuple[tuple[Tensor], tuple[dict[int, Any]]]:
    """Return example images, and which of their dimensions are free: height and width, without a `batch` that too."""
    free = torch.export.Dim.DYNAMIC
    axes = {2: free, 3: free} | ({0: free} if batch is None else {})
    return (torch.zeros(batch or 2, 3, *TRACED_HW),), (axes,)


def onnx_content(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    shapes: tuple[dict[int, Any], ...] | None = None,
    *,
    names: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """Return the content of an ONNX file.

    Args:
        module: Network in inference mode.
        inputs: Example; the first input is called `images`.
        shapes: Free dimensions of each input; those of the example are fixed if left out.
        names: Names of the outputs.
        metadata: Texts that the file carries.
    """
    with quietly(), tempfile.TemporaryDirectory(prefix="nasray-onnx-") as folder:
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            input_names=["images"],
            output_names=names,
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(metadata or {})
        program.save(str(Path(folder) / "model.onnx"), external_data=False)
        return (Path(folder) / "model.onnx").read_bytes()


def check_onnx(what: str) -> None:
    """Refuse what needs ONNX where it is not installed.

    Raises:
        NasrayError: with the command that installs it.
    """
    for name in ("onnxruntime", "onnxscript"):
        if find_spec(name) is None:
            raise NasrayError(f"{what} needs {name}: {install_command('onnx')}")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence the warnings and logs of exporters, which the user can do nothing about."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
