"""Detectors: their data, training, evaluation and predictions."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.cli.common import (
    ARCHITECTURE,
    CHECKPOINT,
    IMAGE_SIZE,
    WITHIN,
    check_device,
    check_folder,
    command,
    number_text,
    print_json,
    print_options,
    print_table,
    resume_hint,
    run_folder,
)
from nasray.cli.parsing import image_hw, number, read_budget, seed, split_bounds, whole
from nasray.cluster.files import check_output
from nasray.cluster.reading import shown
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from nasray.recipe import Recipe
    from nasray.spaces import Architecture

SOURCE = "a data set: a YAML file, a folder (COCO, VOC, YOLO or Hugging Face), or shapes"


def add_commands(commands: Any) -> None:
    """Declare `data`, `train`, `evaluate`, `predict`."""
    data = commands.add_parser("data", help="check, make or pack a data set", description="Data sets.")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    sub = command(actions, "check", _data_check, "what is in a data set, and what is wrong with it")
    sub.add_argument("source", help=SOURCE)
    sub.add_argument("--decode", action="store_true", help="also read every image, to find those that are damaged")
    sub = command(
        actions, "show", _data_show, "write report.html of a data set: annotated images, classes, sizes of boxes"
    )
    sub.add_argument("source", help=SOURCE)
    text = (
        "the recipe whose size of images and detector the boxes are held against; as stored, and a pyramid, if left out"
    )
    sub.add_argument("--recipe", help=text)
    sub.add_argument(
        "--split", choices=["train", "val", "test"], help="of the images that are shown; the first one if left out"
    )
    sub.add_argument("--images", type=whole(1, 1000), default=12, help="that are shown (default 12)")
    sub.add_argument("--seed", type=seed, default=0, help="of their choice")
    sub.add_argument("--to", metavar="FOLDER", help="the page's folder; DATA-report in the present one if left out")
    sub = command(actions, "shapes", _data_shapes, "generate a set of colored shapes in COCO format")
    sub.add_argument("folder")
    sub.add_argument("--images", type=whole(2, 10**6), default=200, help="at least 2 (default 200)")
    sub.add_argument("--image-size", type=image_hw, default="128x128", help=f"{IMAGE_SIZE} (default 128x128)")
    sub.add_argument("--seed", type=seed, default=0)
    text = "pack a data set into Parquet files as Hugging Face has them, for clusters without a fast disk"
    sub = command(actions, "pack", _data_pack, text)
    sub.add_argument("source", help=SOURCE)
    sub.add_argument("folder")

    text = "train a detector; any key of the recipe is an option too, see --options"
    sub = command(commands, "train", _train, text, takes_overrides=True, when_interrupted=resume_hint)
    text = f"a recipe (a name from `nasray list recipes`, or a YAML file); or {ARCHITECTURE}; {WITHIN}"
    sub.add_argument("what", help=text)
    sub.add_argument("--recipe", help="the recipe to train an architecture by; nasray's defaults if left out")
    sub.add_argument("--detector", help="what stands on the backbone; a name from `nasray list detectors`")
    sub.add_argument("--schedule", help="a usual length: 1x, 2x, 3x, 4x or 6x")
    sub.add_argument("--folder", help="the training's folder; RUN/train of a run, else runs/NAME")
    sub.add_argument("--options", action="store_true", help="print the options of the recipe and stop")

    sub = command(
        commands,
        "evaluate",
        _evaluate,
        "COCO's twelve numbers, AP of every class, and VOC's AP50",
        takes_overrides=True,
    )
    sub.add_argument("checkpoint", help=f"{CHECKPOINT}; {WITHIN}")
    sub.add_argument("--data", help=f"{SOURCE}; the training's own if left out")
    text = "held: images of the training set that a search compared paths on"
    sub.add_argument("--split", default="val", choices=["train", "val", "test", "held"], help=text)
    text = "images at a time (default 8; for --split held as many as the search took)"
    sub.add_argument("--batch-size", type=whole(1, 1024), help=text)
    sub.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    sub.add_argument("--to", metavar="FILE.parquet", help="also write all detections to this file")

    sub = command(commands, "predict", _predict, "find objects in images, and draw them", takes_overrides=True)
    sub.add_argument("checkpoint", help=f"{CHECKPOINT}; {WITHIN}")
    sub.add_argument(
        "images", nargs="+", metavar="IMAGE", help="images, folders, globs in quotes, or .txt lists of these"
    )
    sub.add_argument(
        "--to", metavar="PATH", help="folder of the pictures (of one image also a file); predictions/ of the training"
    )
    sub.add_argument(
        "--threshold", type=number(0, 1), default=0.3, help="least score of a box that is drawn (default 0.3)"
    )
    sub.add_argument("--batch-size", type=whole(1, 1024), default=8, help="images at a time (default 8)")
    sub.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    text = "turn pixels as EXIF says, or leave them as stored; as in the training if left out"
    sub.add_argument("--orientation", choices=["upright", "stored"], help=text)
    text = "black and white of images with more than 8 bits; as in the training if left out"
    sub.add_argument("--value-range", nargs=2, type=number(-1e308, 1e308), metavar=("LOW", "HIGH"), help=text)


# ---- data --------------------------------------------------------------------------------------------------------


def _data_check(known: Any) -> None:
    from nasray.data.check import check_data, describe_check

    report = check_data(known.source, decode=known.decode)
    if known.json:
        print_json(report)
    else:
        print(describe_check(report))
    if report["errors"]:
        raise NasrayError(f"{known.source} cannot be trained on: {report['errors']} errors, listed above")


def _data_show(known: Any) -> None:
    from nasray.recipe import load_recipe
    from nasray.reports.dataset import dataset_figures, write_dataset_page

    recipe = load_recipe(known.recipe) if known.recipe else None
    if recipe is not None and recipe.task != "detection":
        raise NasrayError(f"recipe {recipe.name} is of {recipe.task}. Name one of detection, such as maedet-fcos-3x")
    if known.json:
        print_json(dataset_figures(known.source, recipe=recipe))
        return
    folder = Path(known.to or f"{Path(known.source).absolute().name.removesuffix('.yaml') or 'data'}-report")
    check_folder(folder, "--to")
    page = write_dataset_page(
        known.source, folder, recipe=recipe, split=known.split, num_images=known.images, seed=known.seed
    )
    print(page)


def _data_shapes(known: Any) -> None:
    from nasray.data.shapes import write_shapes

    path = Path(known.folder) / "data.yaml"
    write_shapes(path.parent, known.images, seed=known.seed, image_hw=known.image_size)
    _tell_data(path, known)


def _data_pack(known: Any) -> None:
    from nasray.data import open_data
    from nasray.data.formats.packing import pack_data

    path = Path(known.folder)
    pack_data(open_data(known.source).all_splits(), path)
    _tell_data(path, known)


def _tell_data(path: Path, known: Any) -> None:
    if known.json:
        print_json({"data": path}, indent=None)
    else:
        print(f"{path}\nnasray data check {path}")


# ---- training ----------------------------------------------------------------------------------------------------


def _train(known: Any) -> None:
    from nasray.recipe import override_recipe

    bounds, others = split_bounds(known.overrides)
    chosen = _best_within(known.what, bounds) if bounds else None
    recipe = override_recipe(train_recipe(known, chosen), others, declared=known.declared)
    if known.options:
        print_options(recipe, known.json)
        return
    _check_slot_is_free(known, recipe)
    inside_run = (Path(known.what) / "experiment.yaml").is_file()
    inside = str(Path(known.what) / (f"train-{chosen.id}" if chosen else "train"))
    known.folder = known.folder or (inside if inside_run else run_folder(recipe.name))

    check_folder(known.folder)
    from nasray.training import begin_training

    begin = time.monotonic()
    _tell_training(begin_training(recipe, known.folder, chosen), known, time.monotonic() - begin, "from start to end")


def _best_within(run: str, bounds: list[str]) -> Architecture:
    from nasray.finding import find_within

    return find_within(run, read_budget(bounds)).architecture


def _check_slot_is_free(known: Any, recipe: Recipe) -> None:
    """Refuse an option that names another architecture for the slot of the one that is to be trained."""
    from nasray.recipe import is_recipe

    if not is_recipe(known.what) and known.what not in (recipe.backbone, recipe.head):
        slot = "head" if train_recipe(known).head == known.what else "backbone"
        raise NasrayError(
            f"{known.what} and --{slot} {getattr(recipe, slot)} fill the same slot. Leave one of the two out"
        )


def train_recipe(known: Any, chosen: Architecture | None = None) -> Recipe:
    """Return the recipe that a `train` command means, before the options that are its keys.

    Args:
        known: What was given.
        chosen: Architecture that it means, if it is not the one that `what` names.
    """
    from nasray.training.choosing import training_recipe

    return training_recipe(
        known.what, recipe=known.recipe, detector=known.detector, schedule=known.schedule, architecture=chosen
    )


def resume_training_command(known: Any) -> None:
    """Run `nasray resume` of a training."""
    from nasray.recipe import override_workers
    from nasray.training import recipe_of_training, resume_training

    resources = None
    if known.overrides:
        given = recipe_of_training(Path(known.folder)).resources
        resources = override_workers(given, known.overrides, declared=known.declared)
    begin = time.monotonic()
    _tell_training(resume_training(known.folder, resources), known, time.monotonic() - begin, "since it was resumed")


def _tell_training(summary: dict[str, Any], known: Any, seconds: float, span: str) -> None:
    if known.json:
        print_json({**summary, "seconds": round(seconds, 2), "folder": known.folder})
        return
    print(f"\n{summary['iterations']:,} iterations; {seconds:.1f} s {span}")
    best = {name: value for name, value in summary["best"].items() if name in ("mAP", "AP50", "AP75", "top1", "top5")}
    if best:
        print("best validation: " + "  ".join(f"{name} {value:.3f}" for name, value in best.items()))
    folder = Path(known.folder)
    if "mAP" in best:
        quoted = shlex.quote(str(folder))
        print(f"\nnasray evaluate {quoted}\nnasray export {quoted} --to model.onnx")
    else:
        weights = shlex.quote(str(folder / "checkpoints" / "last.pt"))
        print(f"\nnasray train ... --weights {weights}    # a detector of the same backbone")


# ---- what was trained --------------------------------------------------------------------------------------------


def _evaluate(known: Any) -> None:
    from nasray.checkpoint import Checkpoint
    from nasray.evaluation import evaluate_checkpoint
    from nasray.subnets import trained_checkpoint

    check_device(known.device)
    if known.to:
        check_output(known.to, [".parquet"])
    file = trained_checkpoint(known.checkpoint, read_budget(known.overrides, known.declared))
    result = evaluate_checkpoint(
        Checkpoint.load(file),
        data=known.data,
        split=known.split,
        batch_size=known.batch_size,
        device=known.device,
        to=Path(known.to) if known.to else None,
    )
    if known.json:
        print_json(result)
        return
    print_table(["metric", "value"], [[name, number_text(value, ".4f")] for name, value in result["coco"].items()])
    print()
    print_table(["metric", "value"], [[name, number_text(value, ".4f")] for name, value in result["voc"].items()])
    print()
    print_table(
        ["class", "mAP", "AP50", "boxes"],
        [
            [row["class"], number_text(row["mAP"], ".4f"), number_text(row["AP50"], ".4f"), str(row["boxes"])]
            for row in result["classes"]
        ],
    )
    print(f"\n{result['images']} images of {known.split} in {result['seconds']:.1f} s", file=sys.stderr)


def _predict(known: Any) -> None:
    from nasray.checkpoint import Checkpoint
    from nasray.cluster.progress import ProgressLine
    from nasray.data.image_files.pixels import PixelRules
    from nasray.predicting import find_images, picture_paths, predict_images, predictions_folder
    from nasray.subnets import trained_checkpoint

    check_device(known.device)
    value_range = tuple(known.value_range) if known.value_range else None
    PixelRules(known.orientation or "upright", value_range)  # which refuses a range that is none
    images = find_images(known.images)
    file = trained_checkpoint(known.checkpoint, read_budget(known.overrides, known.declared))
    pictures = picture_paths(images, Path(known.to).expanduser() if known.to else predictions_folder(file))
    check_folder(pictures[0].parent, "--to")
    checkpoint = Checkpoint.load(file)
    trained = checkpoint.pixel_rules
    rules = PixelRules(known.orientation or trained.orientation, value_range or trained.value_range)
    line = ProgressLine("predict", len(images)) if len(images) > 1 else None
    results = predict_images(
        checkpoint,
        images,
        pictures,
        threshold=known.threshold,
        rules=rules,
        device=known.device,
        batch_size=known.batch_size,
        progress=(lambda done: line.update(done, final=done == len(images))) if line else None,
    )
    if known.json:
        print_json({"images": results})
    else:
        _print_detections(results)
    errors = [result["error"] for result in results if "error" in result]
    if errors:
        raise NasrayError(f"{len(errors):,} of {len(images):,} images cannot be read; the first: {errors[0]}")


def _print_detections(results: list[dict[str, Any]]) -> None:
    many = len(results) > 1
    for result in results:
        picture = shown(result["picture"]) if "picture" in result else result["error"]
        if many:  # one line an image, and one a detection
            print(f"{shown(result['image'])} -> {picture}" if "picture" in result else picture)
        for one in result.get("detections", ()):
            print(f"{one['class']:20} {one['score']:.3f}  " + " ".join(f"{value:.0f}" for value in one["box"]))
        if not many:
            print(picture)
