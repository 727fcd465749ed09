"""Latency of the best architectures of a run, each measured on this device as it would be exported.

Of a run whose architectures are paths of a supernet that is the whole network, such as a detector with the choice of
detections, taken out of the supernet; of one whose costs are a detector's that detector, with fresh weights; of any
other the architecture by itself. What the search evaluated is what PyTorch computes in float32: where something else is
measured of a trained detector, so is the mAP of that. What was measured is kept in
RUN/latency/, a file for each setting, so that an interrupted measurement goes on.

Shapes: N entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from nasray.architectures import resolution_of
from nasray.cluster import RunFolder, write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.leaders import Entry
from nasray.cluster.progress import ProgressLine
from nasray.cluster.records import check_record, read_record
from nasray.latency.measuring import measure_program, prepared, without_drawing
from nasray.latency.setting import Setting
from nasray.latency.steadiness import Look, Steadiness, judge
from nasray.runtimes import EAGER
from nasray.searchers import Objective, pareto_front
from nasray.spaces import Architecture, NasrayError

if TYPE_CHECKING:
    from torch import nn

    from nasray.counting import CountedOptions
    from nasray.runtimes.base import Program

ImageSize = tuple[int, int]

FOLDER = "latency"
"""Folder of a run's measurements."""
FORMAT = 2
FIGURES = ("median_ms", "spread_ms", "min_ms", "fps", "reference_ms")
REMEDY = "Remove it: everything is measured again"


class Row(TypedDict):
    """What was measured of an entry: as of `measure_program`, and the mAP of just that where it is another."""

    median_ms: float
    spread_ms: float
    min_ms: float
    fps: float
    reference_ms: list[list[float]]
    mAP: NotRequired[float]


class Measured(TypedDict):
    """What is in a file of measurements."""

    format: int
    what: str
    setting: dict[str, Any]
    rows: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class FrontLatency:
    """Measured latency of entries of best.json.

    Attributes:
        what: What was measured of each: "detector fcos", "backbone".
        setting: Device, data type, batch and image size, the largest of several.
        rows: What was measured by the id of an entry.
        path: File in which they are kept; the folder of the files where image sizes differ, as each has its own.
        num_before: How many were measured by an earlier call.
        steadiness: What the machine was like, from the first to the last of them.
        sizes: Height and width in pixels by the id of an entry, where they differ.
    """

    what: str
    setting: Setting
    rows: Mapping[str, Row]
    path: Path
    num_before: int
    steadiness: Steadiness
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return all but the rows as a JSON-serializable dict."""
        steadiness = self.steadiness.figures()
        del steadiness["reference_ms"]  # each row has its own
        about = {"what": self.what, **self.setting.description(), **steadiness, "file": str(self.path)}
        return {**about, "image_hws": {name: list(size) for name, size in self.sizes.items()}} if self.sizes else about


def measure_front(
    run: RunFolder,
    entries: Sequence[Entry],
    image_hw: tuple[int, int] | None = None,
    **setting: Any,
) -> FrontLatency:
    """Measure entries of a run's best.json one after the other, those alone that were not measured before.

    Args:
        run: Run.
        entries: Entries.
        image_hw: Height and width in pixels; by default each one's resolution, or without the size that an export takes
            for its example, or of architectures by themselves the one that their costs are counted at.
        setting: `batch_size`, `device`, `dtype`, `runtime`, `threads` of `Setting.here`; what is left out is as in the
            experiment's `latency`.

    Raises:
        NasrayError: For what the device or the runtime cannot do, a run whose supernet is not there, or a damaged file.
    """
    setting = _bounded_setting(run) | setting
    if image_hw is not None:
        Setting.here(image_hw, **setting)  # refuses what this device cannot do before a network is built
    what, own_hw, network_of = deployed(run)
    sizes: dict[str, ImageSize] = {}
    for entry in entries:
        size = image_hw or resolution_of(entry.architecture) or own_hw
        if size is None:
            raise NasrayError(f"{run.path} counts no costs at an image size: give one with --image-size 800x1280")
        sizes[entry.id] = size
    settings = {size: Setting.here(size, **setting) for size in sorted({*sizes.values()})}
    files = {size: run.path / FOLDER / f"{here.slug}.json" for size, here in settings.items()}
    kept = {size: _read(files[size], what, here) for size, here in settings.items()}
    missing = [entry for entry in entries if entry.id not in kept[sizes[entry.id]]]
    looks = [Look(*one) for rows in kept.values() for row in rows.values() for one in row["reference_ms"]]
    progress = ProgressLine("latency", len(entries), done=len(entries) - len(missing))
    for number, entry in enumerate(missing, start=len(entries) - len(missing) + 1):
        size = sizes[entry.id]
        here, rows = settings[size], kept[size]
        if _has_own_accuracy(run, what, here):
            rows[entry.id] = _measured(run, entry, here)
        else:
            rows[entry.id] = _figures(prepared(network_of(entry), here), here)
        looks += [Look(*one) for one in rows[entry.id]["reference_ms"]]
        content = {"format": FORMAT, "what": what, "setting": here.description(), "rows": rows}
        _write(files[size], content)
        progress.update(number, f"{entry.id} {rows[entry.id]['median_ms']:.4g} ms", final=number == len(entries))
    found = {entry.id: kept[sizes[entry.id]][entry.id] for entry in entries}
    largest, is_one = max(settings), len(settings) == 1
    path = files[largest] if is_one else run.path / FOLDER
    return FrontLatency(
        what, settings[largest], found, path, len(entries) - len(missing), judge(looks), {} if is_one else sizes
    )


def fast_front(entries: Sequence[Entry], objective: Objective, latency: FrontLatency) -> NDArray[np.bool_]:
    """Return (N,) whether an entry is on the Pareto front of the objective and the latency.

    Args:
        entries: Entries.
        objective: Objective, usually the score; where mAP was measured with the latency, that is taken instead.
        latency: Their latency.
    """
    rows = [latency.rows[entry.id] for entry in entries]
    values = [
        [row.get("mAP", entry.figures[objective.name] * objective.sign), -row["median_ms"]]
        for entry, row in zip(entries, rows, strict=True)
    ]
    found = np.zeros(len(entries), dtype=bool)
    found[pareto_front(np.array(values))] = True
    return found


def deployed(run: RunFolder) -> tuple[str, ImageSize | None, Callable[[Entry], nn.Module]]:
    """Return what is deployed of a run's architectures, its images' size if known, and what makes one's network."""
    from nasray.subnets import has_supernet, path_networks

    if has_supernet(run.path):
        described, network_of = path_networks(run)
        recipe = described.recipe
        if recipe.task == "classification":
            side = recipe.augmentation.square or 224
            return "classifier", (side, side), network_of
        from nasray.detector_export import evaluation_hw

        return f"detector {recipe.detector.name}", evaluation_hw(described), network_of
    from nasray.architectures import slots
    from nasray.loading import known_plan
    from nasray.models import build

    best, plan = run.read_best(), known_plan(run)
    size = (best.get("cost_scope") or {}).get("image_hw")
    own_hw = None if size is None else (int(size[0]), int(size[1]))
    if plan is not None and plan.experiment.costs == "detector":
        counted = plan.experiment.counted
        assert counted.detector is not None
        return f"detector {counted.detector.name}", own_hw, partial(_counted_detector, counted)
    scope = " and ".join(slots(run.read_entries()[0].architecture))
    return scope, own_hw, lambda entry: without_drawing(build, entry.architecture)


def _counted_detector(counted: CountedOptions, entry: Entry) -> nn.Module:
    """Return the detector that a run counts, around the architecture of an entry."""
    from nasray.architectures import compose, slots
    from nasray.models.detectors import assemble_detector

    assert counted.classes is not None
    options = dict(vars(counted.detector))
    parts = slots(entry.architecture)
    if counted.head is not None:
        parts["head"] = Architecture.from_dict(counted.head)
    make = partial(assemble_detector, options.pop("name"), num_classes=counted.classes, **options)
    return without_drawing(make, compose(parts))


def _bounded_setting(run: RunFolder) -> dict[str, Any]:
    """Return what a run's budget of latency is of."""
    from nasray.loading import known_plan

    plan = known_plan(run)
    options = {} if plan is None else vars(plan.experiment.latency)
    return {name: value for name, value in options.items() if value is not None}


def _has_own_accuracy(run: RunFolder, what: str, setting: Setting) -> bool:
    """Return whether what is measured detects otherwise than what the search evaluated."""
    from nasray.subnets import has_supernet

    is_other = (setting.runtime, setting.dtype) != (EAGER, "float32")
    return is_other and what.startswith("detector") and has_supernet(run.path)


def _measured(run: RunFolder, entry: Entry, setting: Setting) -> Row:
    """Measure the very detector that `nasray export` writes of an entry, and its mAP."""
    from nasray.latency.artifact import calibration_images, mean_ap
    from nasray.subnets import FOLDER as SUBNETS
    from nasray.subnets import subnet

    checkpoint = subnet(run, entry, run.path / SUBNETS / f"{entry.id}.pt")
    calibration = calibration_images(checkpoint) if setting.dtype == "int8" else []
    program = prepared(checkpoint.detector(), setting, calibration)
    return {**_figures(program, setting), "mAP": mean_ap(checkpoint, program, setting)}


def _figures(program: Program, setting: Setting) -> Row:
    result = measure_program(program, setting)
    return {name: result[name] for name in FIGURES}  # type: ignore[return-value]


def _read(path: Path, what: str, setting: Setting) -> dict[str, Row]:
    """Return what is kept of a setting; nothing where something else was measured."""
    if not path.is_file():
        return {}
    content = read_record(path, Measured, REMEDY)
    is_same = (content["format"], content["what"]) == (FORMAT, what) and setting.is_described_by(content["setting"])
    return check_record(content["rows"], dict[str, Row], path, REMEDY) if is_same else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise NasrayError(f"cannot make {path.parent}: {error.strerror}. Check the permissions of the run") from error
    write_atomic(path, to_json(content, indent=1).encode())
