"""Trained detectors for other programs: ONNX, and PyTorch's exported programs, both held against the original.

What is exported takes images (1, 3, H, W) of RGB values in 0 to 255 as float32, of any height and width, and returns
the `Detections` of the contract: `boxes` (1, K, 4) xyxy in pixels, `scores` (1, K) and `labels` (1, K), best first;
entries of score 0 are padding. Mask R-CNN also returns `masks` (1, K, 28, 28). A raw export returns what `forward_raw`
does, for any number of images. Beside the network the file says how images are resized, and what the outputs are.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nasray.cluster import write_atomic
from nasray.cluster.files import check_output, to_json
from nasray.cluster.reading import shown
from nasray.data.transforms import EvaluationTransform
from nasray.export_check import THRESHOLD, Outputs, Run, check
from nasray.models.detectors.base import Detector
from nasray.spaces import NasrayError
from nasray.spaces.ranges import check_image_hw
from nasray.tracing import EndToEnd, any_size, check_onnx, onnx_content, quietly

if TYPE_CHECKING:
    from nasray.checkpoint import Checkpoint


class RawOutputs(nn.Module):
    """Images (B, 3, H, W) to what `forward_raw` returns, as one flat tuple."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return all tensors in order."""
        return tuple(tensor for _, tensor in named_outputs(self.detector.forward_raw(images)))


def named_outputs(raw: Any) -> list[tuple[str, Tensor]]:
    """Return names and tensors: `logits_0`, `logits_1`, ... for a list."""
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
        checkpoint: Checkpoint to export.
        path: Path of the file, whose suffix chooses.
        image_hw: One of the two sizes of the check (the other is larger); the recipe's evaluation size if None.
        raw: ONNX: only what the network computes.

    Returns:
        `file`, `params_m`, `max_difference` (of boxes in pixels; of raw outputs relative), `max_score_difference`,
        `detections` that were compared (images, if raw), `undecided_images` that were set aside, `image_sizes` of the
        check.

    Raises:
        NasrayError: if it cannot be exported, or the export does not compute the same; nothing is written then.
    """
    check_target(path, raw)
    detector = checkpoint.detector()
    height, width = check_image_hw(image_hw) if image_hw else evaluation_hw(checkpoint)
    sizes = [(height, width), (height + 45, width + 22)]
    module = (RawOutputs if raw else EndToEnd)(detector).eval()
    outputs = _outputs(module)
    content, run = (_to_onnx if path.suffix == ".onnx" else _to_program)(module, outputs, checkpoint, raw)
    differences = check(module, run, sizes, raw)
    write_atomic(path, content)
    return {
        "file": str(path),
        "params_m": sum(parameter.numel() for parameter in detector.parameters()) / 1e6,
        **differences,
        "image_sizes": [f"{h}x{w}" for h, w in sizes],
    }


def check_target(path: Path, raw: bool = False) -> None:
    """Refuse what cannot be written, or not here, before a checkpoint is read.

    Raises:
        NasrayError: naming the path, or the command that installs what is missing.
    """
    check_output(path, (".onnx", ".pt2"))
    if raw and path.suffix != ".onnx":
        raise NasrayError(f"--raw is for .onnx files; got {shown(path)}. Leave it out, or write an .onnx file")
    if path.suffix == ".onnx":
        check_onnx("an export to ONNX")


def file_description(checkpoint: Checkpoint, outputs: dict[str, str], raw: bool) -> dict[str, str]:
    """Return what a program that uses an export must know, for the file's metadata.

    Args:
        checkpoint: Checkpoint that is exported.
        outputs: Names and meanings of the outputs.
        raw: Whether they are those of `forward_raw`.

    Returns:
        `classes` in the order of labels, `outputs`, and `resize` as JSON. `resize` is either `height` and `width`, or
        `short_side` and `long_side`: the shorter side becomes `short_side` unless the longer one would then exceed
        `long_side`. `orientation` is "upright" where EXIF's rotation is applied to images before, else "stored". And
        `detector`, `architecture`, and `images`, which says what the network takes.
    """
    options = checkpoint.recipe.augmentation
    short_side, long_side = options.evaluation_sides or (options.short_side[-1], options.long_side)
    resize = {"short_side": short_side, "long_side": long_side}
    if options.square is not None and options.evaluation_sides is None:
        resize = {"height": options.square, "width": options.square}
    return {
        "classes": to_json(list(checkpoint.classes)),
        "outputs": to_json(outputs),
        "resize": to_json(resize),
        "orientation": checkpoint.pixel_rules.orientation,
        "images": f"({'B' if raw else 1}, 3, H, W) float32, RGB, 0 to 255, resized as `resize` says",
        "detector": checkpoint.recipe.detector.name,
        "architecture": checkpoint.architecture.text,
    }


def evaluation_hw(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return the size to which the recipe's evaluation brings an image of 480x640 pixels."""
    resized = EvaluationTransform(checkpoint.recipe.augmentation)(torch.zeros(3, 480, 640, dtype=torch.uint8))
    return int(resized.shape[-2]), int(resized.shape[-1])


def _outputs(module: nn.Module) -> dict[str, str]:
    """Return the names of an export's outputs in order, and what each is."""
    detector = module.detector
    assert isinstance(detector, Detector)
    if isinstance(module, RawOutputs):
        with torch.no_grad():
            named = named_outputs(detector.forward_raw(torch.zeros(1, 3, 128, 128)))
        return dict.fromkeys((name for name, _ in named), "as the detector's forward_raw returns it")
    num = detector.max_detections
    outputs = {
        "boxes": f"(1, {num}, 4) float32, xyxy in pixels of the resized image",
        "scores": f"(1, {num}) float32 in [0, 1], best first, 0 for padding",
        "labels": f"(1, {num}) int64, positions in classes",
    }
    return outputs | (
        {"masks": f"(1, {num}, 28, 28) float32 in [0, 1], within each box"} if detector.learns_masks else {}
    )


def _to_onnx(module: nn.Module, outputs: dict[str, str], checkpoint: Checkpoint, raw: bool) -> tuple[bytes, Run]:
    """Return the content of the file, and what runs it."""
    inputs, shapes = any_size(batch=None if raw else 1)
    described = file_description(checkpoint, outputs, raw)
    content = onnx_content(module, inputs, shapes, names=list(outputs), metadata=described)
    return content, _onnx_runner(content)


def _onnx_runner(content: bytes) -> Run:
    import onnx
    from onnxruntime import InferenceSession

    model = onnx.load_from_string(content)
    thresholds = [tensor for tensor in model.graph.initializer if tensor.name == THRESHOLD]
    sessions: dict[float, Any] = {}

    def run(images: Tensor, threshold: float) -> Outputs:
        if threshold not in sessions:
            for tensor in thresholds:
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(threshold, np.float32), THRESHOLD))
            sessions[threshold] = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return [torch.from_numpy(output) for output in sessions[threshold].run(None, {"images": images.numpy()})]

    return run


def _to_program(module: nn.Module, outputs: dict[str, str], checkpoint: Checkpoint, raw: bool) -> tuple[bytes, Run]:
    inputs, shapes = any_size(batch=None if raw else 1)
    sink = io.BytesIO()
    with quietly():
        program = torch.export.export(module, inputs, dynamic_shapes=shapes)
        allow_any_size(program)
        described = file_description(checkpoint, outputs, raw)
        extra = {f"{name}.json": described[name] for name in ("classes", "outputs", "resize")}
        torch.export.save(program, sink, extra_files=extra)
        sink.seek(0)
        again = torch.export.load(sink).module()

    def run(images: Tensor, threshold: float) -> Outputs:
        again.get_buffer(THRESHOLD).fill_(threshold)
        with torch.no_grad():
            return list(again(images))

    return sink.getvalue(), run


def allow_any_size(program: torch.export.ExportedProgram) -> None:
    """Take away what a program demands of sizes; the check shows that it computes the others rightly.

    It demands that every level is more than one pixel high and wide, as in the example; and, since torchvision says so
    of its non-maximum suppression, that two boxes survive, which is wrong where there is one or none.
    """
    from torch.utils._sympy.value_ranges import ValueRanges

    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    for symbol, bounds in list(program.range_constraints.items()):
        program.range_constraints[symbol] = ValueRanges(0, bounds.upper)
    program._guards_code = []
