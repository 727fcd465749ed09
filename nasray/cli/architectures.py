"""Single architectures: their costs, their latency, their export."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.architectures import resolution_of
from nasray.cli.common import (
    ARCHITECTURE,
    CHECKPOINT,
    IMAGE_SIZE,
    WITHIN,
    add_setting,
    command,
    given_setting,
    number_text,
    print_json,
    print_table,
)
from nasray.cli.parsing import image_hw, read_budget, whole
from nasray.cluster.files import check_output
from nasray.cluster.progress import say
from nasray.spaces import NasrayError
from nasray.spaces.resolutions import size_text

if TYPE_CHECKING:
    from torch import nn

    from nasray.recipe import Recipe
    from nasray.spaces import Architecture, Budget


NUM_CLASSES = 80
"""Of COCO: what a detector that was not trained is counted with."""
IMAGE_HW = (800, 1280)
DEFAULT_SIZE = "default 800x1280; an architecture's own resolution"


def add_commands(commands: Any) -> None:
    """Declare `cost`, `latency`, `export`."""
    sub = command(commands, "cost", _cost, "multiply-adds and parameters of a backbone, or of a whole detector")
    sub.add_argument("architecture", nargs="+", help=ARCHITECTURE)
    sub.add_argument("--image-size", type=image_hw, help=f"{IMAGE_SIZE} ({DEFAULT_SIZE})")
    sub.add_argument("--detector", help="count a whole detector, part by part; a name from `nasray list detectors`")
    sub.add_argument("--head", help=f"architecture in the detector's slot for a head: {ARCHITECTURE}")
    sub.add_argument(
        "--classes",
        type=whole(1, 100_000),
        help=f"classes of the detector (default: those it was trained on, else {NUM_CLASSES})",
    )

    sub = command(
        commands,
        "latency",
        _latency,
        "measured latency of a backbone or a detector on this machine",
        takes_overrides=True,
    )
    sub.add_argument("architecture", help=f"{ARCHITECTURE}; or {CHECKPOINT}; {WITHIN}")
    sub.add_argument("--image-size", type=image_hw, help=f"{IMAGE_SIZE} ({DEFAULT_SIZE})")
    sub.add_argument("--detector", help="measure a whole detector of this name around the architecture")
    sub.add_argument("--head", help=f"architecture in the detector's slot for a head: {ARCHITECTURE}")
    add_setting(sub)
    sub.add_argument("--table", action="store_true", help="also predict it from the device's block table")

    text = "write a backbone or a head as plain PyTorch source, or a trained detector as ONNX or an exported program"
    sub = command(commands, "export", _export, text, takes_overrides=True)
    sub.add_argument("what", help=f"{ARCHITECTURE} (to .py); or {CHECKPOINT} (to any of them); {WITHIN}")
    sub.add_argument(
        "--to", required=True, metavar="FILE", help="the suffix chooses: .py, .onnx, .pt2; .db: the history for Optuna"
    )
    sub.add_argument(
        "--image-size", type=image_hw, help=f"{IMAGE_SIZE} of the example; other sizes work too (default: the recipe's)"
    )
    sub.add_argument("--raw", action="store_true", help="ONNX: what the network computes, without choosing detections")


def _cost(known: Any) -> None:
    _check_head(known)
    if known.detector:
        _detector_cost(known)
        return
    from nasray.architectures import PUBLISHED, slots
    from nasray.finding import find_architecture
    from nasray.spaces import SPACES

    rows, sizes, scopes = [], [], []
    for name in known.architecture:
        architecture = find_architecture(name)
        backbone = slots(architecture).get("backbone", architecture)
        sizes.append(_size(known, architecture))
        rows.append({"name": name, **_backbone_cost(backbone, sizes[-1]), "published": PUBLISHED.get(name)})
        scopes.append(SPACES[backbone.family].cost_scope if backbone.family in SPACES else "backbone")
    note = {
        "scope": "; ".join(dict.fromkeys(scopes)),
        "image_hw": _one_size(sizes),
        "gmacs": "multiply-adds of convolutions and fully connected layers / 1e9",
        "gmacs_mmcv": "as mmcv counts, and so the paper: also 2 per batch-norm output, 1 per pooling input",
    }
    if known.json:
        print_json({"convention": note, "architectures": rows})
        return
    each = sizes[:1] if note["image_hw"] else sizes
    print(f"{note['scope']} at {', '.join(map(size_text, each))} (height x width)")
    print(f"gmacs: {note['gmacs']}")
    print(f"gmacs_mmcv: {note['gmacs_mmcv']}\n")
    table_rows = []
    for row, size in zip(rows, sizes, strict=True):
        published = row["published"] if size in ((800, 1280), (1280, 800)) else None
        paper = [f"{published['gmacs']:g}", f"{published['params_m']:g}"] if published else ["", ""]
        keys = ("gmacs", "gmacs_mmcv", "params_m", "layers")
        figures = [number_text(row[key], ".0f" if key == "layers" else ".4g") for key in keys]
        table_rows.append([row["name"], *figures, *paper])
    print_table(["architecture", "gmacs", "gmacs_mmcv", "params_m", "layers", "paper: G", "paper: M"], table_rows)


def _backbone_cost(architecture: Architecture, image_hw: tuple[int, int]) -> dict[str, float | None]:
    """Return the costs of a backbone; None for those that only a layer table tells."""
    from nasray.architectures import FAMILIES, has_layers, layer_table

    if architecture.family in FAMILIES and not has_layers(architecture):
        from nasray.models.cost import backbone_cost

        return {**backbone_cost(architecture, image_hw), "layers": None, "gmacs_mmcv": None}
    table = layer_table(architecture, image_hw)
    return {**{key: float(value[0]) for key, value in table.cost().items()}, "gmacs_mmcv": float(table.gmacs_mmcv()[0])}


def _detector_cost(known: Any) -> None:
    architectures = {name: _with_head(name, known.head) for name in known.architecture}
    from nasray.models.cost import CONVENTIONS, PUBLISHED_PARTS, compare_published, detector_cost
    from nasray.models.detectors import DETECTORS

    DETECTORS.check(known.detector)
    sizes = {name: _size(known, architecture) for name, architecture in architectures.items()}
    costs, classes = {}, {}
    for name, size in sizes.items():
        options, num_trained = _trained_detector(name, known.detector)
        classes[name] = known.classes or num_trained or NUM_CLASSES
        costs[name] = detector_cost(known.detector, architectures[name], size, num_classes=classes[name], **options)
    published = [
        compare_published(one)
        for one in PUBLISHED_PARTS
        if (one.detector, one.head) == (known.detector, known.head) and one.architecture in known.architecture
        if (known.classes or NUM_CLASSES) == NUM_CLASSES
        if sizes[one.architecture] in (one.image_hw, one.image_hw[::-1])
    ]
    if known.json:
        note = {
            "scope": f"detector {known.detector}",
            "image_hw": _one_size(sizes.values()),
            "classes": classes,
            **CONVENTIONS,
        }
        print_json({"convention": note, "detectors": costs, "published": published})
        return
    for name, parts in costs.items():
        print(f"{known.detector} on {name} at {size_text(sizes[name])} (height x width), {classes[name]} classes")
        rows = [[part, *(f"{value:.4g}" for value in figures.values())] for part, figures in parts.items()]
        print_table(["part", *next(iter(parts.values()))], rows)
        print()
    for text, convention in CONVENTIONS.items():
        print(f"{text}: {convention}")
    for row in published:
        params = f", {row['params_m']:.2f} M ({row['published_params_m']:g})" if "params_m" in row else ""
        print(
            f"\n{row['name']}: {row['gmacs']:.2f} G ({row['published_gmacs']:g}, {row['difference']:+.2%}){params}\n"
            f"  {' + '.join(row['parts'])}, {row['convention']}; published: {row['source']}"
        )


def _size(known: Any, architecture: Architecture) -> tuple[int, int]:
    """Return the size of images that is asked for, or else the architecture's own."""
    size: tuple[int, int] = known.image_size or resolution_of(architecture) or IMAGE_HW
    return size


def _one_size(sizes: Iterable[tuple[int, int]]) -> list[int] | None:
    """Return the size of images that all have; None where they differ."""
    distinct = set(sizes)
    return list(distinct.pop()) if len(distinct) == 1 else None


def _check_head(known: Any) -> None:
    if known.head and not known.detector:
        raise NasrayError("--head fills a slot of a detector: name the detector too, such as --detector fcos")


def _with_head(name: str, head: str | None) -> Architecture:
    """Return the architecture of a name, and a head in its slot if one is named."""
    from nasray.architectures import compose, slots
    from nasray.finding import find_architecture, find_part

    architecture = find_architecture(name)
    return compose({**slots(architecture), "head": find_part(head, "head")}) if head else architecture


def _trained_detector(name: str, detector: str) -> tuple[dict[str, Any], int | None]:
    """Return options and number of classes of the trained detector at a path; none if it is of another name."""
    recipe, num_classes = _trained_recipe(Path(name))
    if recipe is None or recipe.task != "detection" or recipe.detector.name != detector:
        return {}, None
    return {name: value for name, value in vars(recipe.detector).items() if name != "name"}, num_classes


def _trained_recipe(path: Path) -> tuple[Recipe | None, int]:
    """Return the recipe of a checkpoint, a training, or the training of a run's winner, and its number of classes."""
    from nasray.training.folder import is_training, read_description

    if path.suffix == ".pt" and path.is_file():
        from nasray.checkpoint import Checkpoint

        checkpoint = Checkpoint.load(path, shared=True)
        return checkpoint.recipe, len(checkpoint.classes)
    for folder in (path, path / "train"):
        if is_training(folder):
            description = read_description(folder)
            return description.recipe, len(description.classes)
    return None, 0


def _latency(known: Any) -> None:
    from nasray.latency import Setting, measure_architecture, measure_detector
    from nasray.latency.steadiness import Look, judge

    _check_head(known)
    budget = read_budget(known.overrides, known.declared)
    setting = given_setting(known)
    # Refuse what this device cannot do before a network is built.
    Setting.here(known.image_size or IMAGE_HW, **setting)
    if budget.names and (known.detector or known.head):
        raise NasrayError(f"{budget} chooses among the best of a run; --detector and --head are for one of them alone")
    found = _deployed(known, budget)
    if found is not None:
        if known.table:
            raise NasrayError("--table is for backbones: the block table knows no heads. Leave it out")
        scope, detector, size = found
        result = measure_detector(detector, size, **setting) | {"scope": scope}
    else:
        from nasray.finding import find_architecture, find_within

        if budget.names:
            architecture = find_within(known.architecture, budget).architecture
        else:
            architecture = find_architecture(known.architecture)
        size = _size(known, architecture)
        result = measure_architecture(architecture, image_hw=size, with_table=known.table, **setting)
    if warning := judge([Look(*one) for one in result["reference_ms"]]).warning:
        say(f"latency: {warning}")
    if known.json:
        print_json(result)
        return
    for name, value in result.items():
        if name == "reference_ms":
            continue
        print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")


def _deployed(known: Any, budget: Budget) -> tuple[str, nn.Module, tuple[int, int]] | None:
    """Return what is deployed of what a user names, its network, and the size of its images.

    None of a backbone by itself, and of a run whose costs are those of backbones alone.
    """
    path = Path(known.architecture)
    if known.detector:
        from nasray.models.detectors import DETECTORS, assemble_detector

        DETECTORS.check(known.detector)
        options, num_classes = _trained_detector(known.architecture, known.detector)
        architecture = _with_head(known.architecture, known.head)
        detector = assemble_detector(known.detector, architecture, num_classes or NUM_CLASSES, **options)
        return f"detector {known.detector}", detector, _size(known, architecture)
    if path.suffix == ".pt" or (path / "checkpoints").is_dir():
        from nasray.checkpoint import Checkpoint

        checkpoint = Checkpoint.load(path)
        scope = f"detector {checkpoint.recipe.detector.name}"
        return scope, checkpoint.detector(), _size(known, checkpoint.architecture)
    if (path / "experiment.yaml").is_file():
        from nasray.cluster import RunFolder
        from nasray.cluster.leaders import best_within
        from nasray.latency.front import deployed

        run = RunFolder.open(path)
        what, own_hw, network_of = deployed(run)
        if what.startswith(("detector", "classifier")):
            entries = run.read_entries()
            entry = best_within(entries, budget) if budget.names else entries[0]
            return what, network_of(entry), known.image_size or resolution_of(entry.architecture) or own_hw or IMAGE_HW
    return None


def _export_study(known: Any, to: Path) -> None:
    from nasray.cluster import RunFolder
    from nasray.study import export_study

    if known.raw or known.image_size or known.overrides:
        raise NasrayError("a study for Optuna holds the whole history of a run: leave all options but --to out")
    result = export_study(RunFolder.open(known.what), to)
    if known.json:
        print_json(result)
    else:
        print(
            f"{known.to}: study {result['study']!r} of {result['trials']:,} trials: optuna-dashboard sqlite:///{known.to}"
        )


def _export(known: Any) -> None:
    to = check_output(known.to, (".py", ".onnx", ".pt2", ".db"))
    if to.suffix == ".db":
        _export_study(known, to)
        return
    if to.suffix == ".py":
        if known.raw or known.image_size:
            raise NasrayError("--raw and --image-size are for .onnx and .pt2 files: leave them out")
        from nasray.export import export_module

        result = export_module(known.what, to, read_budget(known.overrides, known.declared))
    else:
        from nasray.checkpoint import Checkpoint
        from nasray.detector_export import check_target, export_checkpoint
        from nasray.subnets import trained_checkpoint

        check_target(to, known.raw)
        checkpoint = Checkpoint.load(trained_checkpoint(known.what, read_budget(known.overrides, known.declared)))
        result = export_checkpoint(checkpoint, to, image_hw=known.image_size, raw=known.raw)
    if known.json:
        print_json(result)
    else:
        print(
            f"{known.to}: {result['params_m']:.4g} M parameters, "
            f"the same outputs as nasray's to {result['max_difference']:g}"
        )
        if result.get("weights"):
            print(f"{result['weights']}: its weights, of {result['checkpoint']}")
        elif to.suffix == ".py":
            print("no trained weights: nothing was trained of it")
    if undecided := result.get("undecided_images"):
        print(f"{undecided} images of the check were undecided and set aside: see docs/detectors.md", file=sys.stderr)
