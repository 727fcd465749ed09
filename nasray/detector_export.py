"""Trained detectors for other programs: ONNX, and PyTorch's exported programs, both held against the original.

What is exported takes images (1, 3, H, W) of RGB values in 0 to 255 as float32, of any height and width, and gives
`boxes` (K, 4) xyxy in pixels, `scores` (K,) and `labels` (K,), best first; entries of score 0 are padding. Mask R-CNN
also gives `masks` (K, 28, 28). A raw export gives what `forward_raw` does, for any number of images.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nasray.cluster import write_atomic
from nasray.data.shapes import draw_image, image_generator
from nasray.data.transforms import EvaluationTransform
from nasray.models.detectors.base import Detector
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from nasray.checkpoint import Checkpoint

BOX_TOLERANCE, SCORE_TOLERANCE = 1e-3, 1e-4
"""Most difference from the original, in pixels and in score. Raw outputs: relative to the largest, the latter."""
OPSET = 20
TRACED_HW = (1088, 1344)
"""Of the example: no level is one pixel high or wide, which an export takes for a fixed size."""

Outputs = list[Tensor]


class EndToEnd(nn.Module):
    """Images (1, 3, H, W) to boxes, scores, labels, and masks where there are any, of the one image."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detections without their batch dimension."""
        return tuple(part[0] for part in self.detector(images) if part is not None)


class RawOutputs(nn.Module):
    """Images (B, 3, H, W) to what `forward_raw` gives, as one flat tuple."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """All tensors in order."""
        return tuple(tensor for _, tensor in named_outputs(self.detector.forward_raw(images)))


def named_outputs(raw: Any) -> list[tuple[str, Tensor]]:
    """Names and tensors: `logits_0`, `logits_1`, ... for a list."""
    flat: list[tuple[str, Tensor]] = []
    for name, value in raw.items():
        parts = [(name, value)] if isinstance(value, Tensor) else [(f"{name}_{i}", x) for i, x in enumerate(value)]
        flat += parts
    return flat


def export_checkpoint(
    checkpoint: Checkpoint, path: Path, *, image_hw: tuple[int, int] | None = None, raw: bool = False
) -> dict[str, Any]:
    """Write a trained detector as ONNX (.onnx) or as PyTorch's exported program (.pt2), and check it.

    Args:
        checkpoint: what to export.
        path: its suffix chooses.
        image_hw: one of the two sizes of the check (the other is larger); the recipe's evaluation size if None.
        raw: ONNX: only what the network computes.

    Returns:
        `file`, `params_m`, `max_difference` (of boxes in pixels; of raw outputs relative), `max_score_difference`,
        `detections` that were compared, `image_sizes` of the check.

    Raises:
        NasrayError: if it cannot be exported, or the export does not compute the same; nothing is written then.
    """
    if path.suffix not in (".onnx", ".pt2") or not path.absolute().parent.is_dir():
        raise NasrayError(
            "a detector is exported to an .onnx or .pt2 file in an existing folder (backbones to .py); got "
            f"{str(path)!r}"
        )
    if raw and path.suffix != ".onnx":
        raise NasrayError("--raw is for .onnx files")
    detector = checkpoint.detector()
    height, width = image_hw or evaluation_hw(checkpoint)
    sizes = [(height, width), (height + 45, width + 22)]
    module = (RawOutputs if raw else EndToEnd)(detector).eval()
    names = _output_names(module)
    content, run = (_to_onnx if path.suffix == ".onnx" else _to_program)(module, names, checkpoint, raw)
    differences = check(module, run, sizes, raw)
    write_atomic(path, content)
    return {
        "file": str(path),
        "params_m": sum(parameter.numel() for parameter in detector.parameters()) / 1e6,
        **differences,
        "image_sizes": [f"{h}x{w}" for h, w in sizes],
    }


def evaluation_hw(checkpoint: Checkpoint) -> tuple[int, int]:
    """The size to which the recipe's evaluation brings an image of 480x640 pixels."""
    resized = EvaluationTransform(checkpoint.recipe.augmentation)(torch.zeros(3, 480, 640, dtype=torch.uint8))
    return int(resized.shape[-2]), int(resized.shape[-1])


def _output_names(module: nn.Module) -> list[str]:
    detector = module.detector
    assert isinstance(detector, Detector)
    if isinstance(module, RawOutputs):
        with torch.no_grad():
            return [name for name, _ in named_outputs(detector.forward_raw(torch.zeros(1, 3, 128, 128)))]
    return ["boxes", "scores", "labels"] + ["masks"] * detector.learns_masks


def _traced(module: nn.Module, raw: bool) -> tuple[tuple[Tensor], tuple[dict[int, Any]]]:
    """Example inputs, and which of their dimensions are free."""
    free = torch.export.Dim.DYNAMIC
    axes = {2: free, 3: free} | ({0: free} if raw else {})
    return (torch.zeros(2 if raw else 1, 3, *TRACED_HW),), (axes,)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings and logs of exporters, which the user can do nothing about."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _to_onnx(
    module: nn.Module, names: list[str], checkpoint: Checkpoint, raw: bool
) -> tuple[bytes, Callable[[Tensor], Outputs]]:
    """The content of the file, and what runs it."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise NasrayError(f"an export to ONNX needs {error.name}: pip install 'nasray[onnx]'") from error
    inputs, shapes = _traced(module, raw)
    with _quietly(), tempfile.TemporaryDirectory(prefix="nasray-onnx-") as folder:
        program = torch.onnx.export(
            module, inputs, dynamo=True, dynamic_shapes=shapes, opset_version=OPSET, input_names=["images"],
            output_names=names, verbose=False,
        )  # fmt: skip
        assert program is not None
        program.model.metadata_props.update(
            {
                "classes": json.dumps(list(checkpoint.classes)),
                "detector": checkpoint.recipe.detector.name,
                "architecture": checkpoint.architecture.text,
                "images": "RGB, 0 to 255, (1, 3, H, W)" if not raw else "RGB, 0 to 255, (B, 3, H, W)",
            }
        )
        program.save(str(Path(folder) / "model.onnx"), external_data=False)
        content = (Path(folder) / "model.onnx").read_bytes()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Outputs:
        return [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]

    return content, run


def _to_program(
    module: nn.Module, names: list[str], checkpoint: Checkpoint, raw: bool
) -> tuple[bytes, Callable[[Tensor], Outputs]]:
    inputs, shapes = _traced(module, raw)
    from torch.fx.experimental import _config as shape_config

    sink = io.BytesIO()
    # Else the program would refuse images whose coarsest level is one pixel high or wide.
    with _quietly(), shape_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(module, inputs, dynamic_shapes=shapes)
        extra = {"classes.json": json.dumps(list(checkpoint.classes)), "outputs.json": json.dumps(names)}
        torch.export.save(program, sink, extra_files=extra)
        sink.seek(0)
        # Nor are its guards true of smaller images, which it computes rightly all the same.
        again = torch.export.load(sink).module(check_guards=False)
    return sink.getvalue(), lambda images: list(again(images))


# ---- the check ---------------------------------------------------------------------------------------------------


def check(
    module: nn.Module, run: Callable[[Tensor], Outputs], sizes: list[tuple[int, int]], raw: bool
) -> dict[str, Any]:  # fmt: skip
    """Hold an export against its original on drawn images.

    Raises:
        NasrayError: if they differ by more than the tolerances.
    """
    worst, worst_score, compared = 0.0, 0.0, 0
    for number, image_hw in enumerate(sizes):
        pixels = np.stack([draw_image(image_generator(1, number + i), image_hw)[0] for i in range(1 + raw)])
        images = torch.from_numpy(pixels).float()
        with torch.no_grad():
            ours, theirs = list(module(images)), run(images)
        if raw:
            for x, y in zip(ours, theirs, strict=True):
                worst = max(worst, float((x.float() - y.float()).abs().max() / x.float().abs().max().clamp(min=1.0)))
            worst_score, compared = worst, compared + len(images)
            continue
        box, score, num = detection_difference(ours, theirs)
        worst, worst_score, compared = max(worst, box), max(worst_score, score), compared + num
    if not (worst <= (SCORE_TOLERANCE if raw else BOX_TOLERANCE) and worst_score <= SCORE_TOLERANCE):
        raise NasrayError(
            f"the export does not compute what the detector does: boxes differ by {worst:g} pixels (allowed "
            f"{BOX_TOLERANCE:g}), scores by {worst_score:g} (allowed {SCORE_TOLERANCE:g}). Nothing was written. This "
            "is a defect of nasray or of its exporter: report it with the checkpoint's recipe"
        )
    return {"max_difference": worst, "max_score_difference": worst_score, "detections": compared}


def detection_difference(ours: Outputs, theirs: Outputs) -> tuple[float, float, int]:
    """Largest difference of boxes (pixels) and scores between detections, and how many were compared.

    Detections of (nearly) equal score may stand in another order, so each of ours is held against the one of theirs,
    of its class and within the tolerance of its score, whose box is closest; infinity if there is none. The weakest
    detection may have a rival of the same score that is left out: those within the tolerance of it are not compared.
    """
    scores, their_scores = ours[1], theirs[1]
    score = float((scores - their_scores).abs().max())
    least = float(scores[-1]) + SCORE_TOLERANCE
    worst, num = 0.0, 0
    for place in range(len(scores)):
        if scores[place] <= least:
            break
        same = (theirs[2] == ours[2][place]) & ((their_scores - scores[place]).abs() <= SCORE_TOLERANCE)
        distance = (theirs[0] - ours[0][place]).abs().amax(dim=1)
        worst = max(worst, float(distance[same].min()) if same.any() else float("inf"))
        num += 1
    return worst, score, num
