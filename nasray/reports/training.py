"""The report of a training: what it reached, its curves, and on the split val what its detector finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from markupsafe import Markup

from nasray.architectures import slots
from nasray.checkpoint import Checkpoint, checkpoint_path
from nasray.comparison import architecture_name
from nasray.reports.data import finite_or_none
from nasray.reports.figures import require_matplotlib
from nasray.reports.page import joined_figures, write_page
from nasray.reports.pieces import NONE, answers, commands, duration, facts, paragraph, shortest_path
from nasray.reports.section import Section
from nasray.reports.sections import BY_FAMILY, PLAIN
from nasray.reports.sections.curves import curves
from nasray.reports.sections.detections import class_section, picture_section
from nasray.spaces import NasrayError
from nasray.training.folder import (
    Description,
    TrainingLog,
    is_finished,
    read_description,
    read_log,
    read_summary,
)

SHOWN = ("mAP", "AP50", "AP75", "mask_mAP", "top1", "top5")


def training_figures(folder: Path, *, device: str = "auto") -> dict[str, Any]:
    """Return the figures of a training's report as a JSON-serializable dict.

    Args:
        folder: The training, finished or not.
        device: Where its detector runs on the split val: "auto", "cpu" or "cuda".

    Raises:
        NasrayError: if the folder is no training, or damaged.
    """
    return joined_figures(training_sections(folder, device=device))


def write_training_report(folder: Path, *, device: str = "auto") -> Path:
    """Write <training>/report/report.html with its figures, and return its path; see `training_figures`.

    Raises:
        NasrayError: if matplotlib is missing, the folder is no training, or damaged.
    """
    require_matplotlib()
    description = read_description(folder)
    recipe = description.recipe
    about = [("recipe", recipe.name), ("data", recipe.data), ("seed", str(recipe.seed))]
    if recipe.task == "detection":
        about.insert(1, ("detector", recipe.detector.name))
    place = folder.absolute()
    title = f"{place.parent.name}/{place.name}" if (place.parent / "experiment.yaml").is_file() else place.name
    return write_page(folder / "report", title, about, training_sections(folder, device=device))


def training_sections(folder: Path, *, device: str = "auto") -> list[Section]:
    """Return the sections of a training's report; figures of a detector need its data and a checkpoint."""
    description, log = read_description(folder), read_log(folder)
    sections = [_outcome(folder, description, log)]
    if plots := curves(log):
        sections.append(Section("Over time", drawings=plots))
    if description.recipe.task == "detection":
        sections += _on_val(folder, device)
    return sections


def _on_val(folder: Path, device: str) -> list[Section]:
    from nasray.evaluation import detection_figures, find_detections

    try:
        checkpoint = Checkpoint.load(checkpoint_path(folder))
        dataset, found = find_detections(checkpoint, device=device)
    except NasrayError as error:
        return [Section("Class by class", paragraph(f"Not measured: {error}.", "note"))]
    figures, coco = detection_figures(dataset, found)
    return [class_section(figures, coco, dataset.classes), picture_section(dataset, found)]


def _outcome(folder: Path, description: Description, log: TrainingLog) -> Section:
    """Return the opening: what was reached, of what, how far it went, and what comes next."""
    summary = read_summary(folder) if is_finished(folder) else None
    best = summary["best"] if summary else _best(log)
    iterations = summary["iterations"] if summary else max((line["iteration"] for line in log.steps), default=0)
    shown = {name: best[name] for name in SHOWN if best.get(name) is not None}
    speeds = [line["images_per_s"] for line in log.steps if line.get("images_per_s")]
    tiles = [(f"{name} on val", f"{value:.4f}") for name, value in shown.items()]
    tiles.append(("iterations", f"{iterations:,}"))
    if speeds:
        tiles.append(("images a second", f"{sorted(speeds)[len(speeds) // 2]:.3g}"))
    rows: list[tuple[str, str | Markup]] = [
        ("What did I get?", _reached(best, shown)),
        ("Of what?", NONE.join(paragraph(text) for text in _parts(description))),
        ("How far did it go?", paragraph(_progress(summary, log, description))),
        ("What next?", _next(folder, description, finished=summary is not None)),
    ]
    figures = {
        "training": {
            "folder": str(folder),
            "finished": summary is not None,
            "iterations": iterations,
            "best": {name: finite_or_none(float(value)) for name, value in best.items()},
            "recipe": description.recipe.name,
            "architecture": description.architecture.id,
        },
        "validations": log.validations,
    }
    return Section("", facts(tiles) + answers(rows), figures=figures)


def _best(log: TrainingLog) -> dict[str, Any]:
    """Return the metrics of the best validation so far; empty before the first."""
    lines = [line for line in log.validations if line["metrics"]]
    if not lines:
        return {}
    best = max(lines, key=lambda line: line["metrics"].get("mAP", line["metrics"].get("top1")) or -1.0)
    return {"iteration": best["iteration"], **{k: v for k, v in best["metrics"].items() if v is not None}}


def _reached(best: dict[str, Any], shown: dict[str, float]) -> Markup:
    if not shown:
        return paragraph("Not known: it has not been validated.")
    reached = ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
    when = f"in the best of its validations, after {int(best['iteration']):,} iterations"
    parts = [paragraph(f"{reached} on the split val, {when}.")]
    if "mAP" in shown:
        meaning = (
            "mAP is COCO's: the mean over classes and over ten thresholds of overlap, .50 to .95; AP50 asks for half "
            "an overlap only. As the best of several validations on the same images it flatters a little, and another "
            "seed gives another figure."
        )
        parts.append(paragraph(meaning))
    return NONE.join(parts)


def _parts(description: Description) -> list[str]:
    recipe = description.recipe
    texts = []
    for slot, part in slots(description.architecture).items():
        name = architecture_name(part)
        describe = BY_FAMILY.get(part.family, PLAIN).describe
        text = describe(part) if name == part.id else f"{name}, {describe(part)}"
        texts.append(f"{slot.capitalize()} {text}.")
    if recipe.task == "detection":
        texts.append(f"Detector {recipe.detector.name}.")
    names = description.classes
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    texts.append(f"{len(names)} class{'es' * (len(names) != 1)} of {recipe.data}: {listed}.")
    return texts


def _progress(summary: dict[str, Any] | None, log: TrainingLog, description: Description) -> str:
    epochs = description.recipe.schedule.epochs
    if summary is not None:
        return f"All of its {epochs:g} epochs, {summary['iterations']:,} iterations."
    done = max((line["epoch"] for line in log.steps), default=0.0)
    seconds = sum(line.get("seconds") or 0.0 for line in log.validations)
    took = f"; its validations took {duration(seconds)}" if seconds else ""
    return f"{done:.3g} of {epochs:g} epochs{took}. The training is not finished."


def _next(folder: Path, description: Description, *, finished: bool) -> Markup:
    where = str(shortest_path(folder))
    lines: list[tuple[list[str], str]] = []
    if not finished:
        lines.append((["nasray", "resume", where], "finish it"))
    if description.recipe.task == "detection":
        lines += [
            (["nasray", "predict", where, "IMAGE"], "find objects in images"),
            (["nasray", "export", where, "--to", "model.onnx"], "for other programs"),
            (["nasray", "compare", where, "OTHER"], "is it better?"),
        ]
    else:
        weights = str(shortest_path(folder) / "checkpoints" / "last.pt")
        lines.append((["nasray", "train", "RECIPE", "--weights", weights], "a detector of the same backbone"))
    return commands(lines)
