"""Detections in images that belong to no data set: which files are meant, what is found in them, and pictures of it."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.checkpoint import Checkpoint
from nasray.cluster import write_atomic
from nasray.cluster.files import explained_disk_errors
from nasray.cluster.reading import read_text, shown
from nasray.data.image_files.decoding import decode_image, is_image_name, read_header
from nasray.data.image_files.images import no_file, open_image_file
from nasray.data.image_files.pixels import PixelRules
from nasray.drawing import draw_detections, picture_bytes
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from torch import Tensor

    from nasray.data.loader import Batch
    from nasray.evaluation.predictions import Predictions

PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
"""Kinds of pictures that are written, by suffix."""
MAX_STEM = 150  # bytes of an image's name that its picture's takes over


# ---- which images ------------------------------------------------------------------------------------------------


def find_images(given: Sequence[str]) -> list[Path]:
    """Return the image files that a user means, each once, in the order given.

    Args:
        given: Files; folders (their images, by name, without subfolders); globs; and text files with one of these a
            line, relative to the text file.

    Raises:
        NasrayError: if something does not exist, or nothing is found.
    """
    paths = [path for item in given for path in _expanded(item, Path())]
    return list(dict.fromkeys(paths))


def _expanded(item: str, root: Path, *, in_list: bool = False) -> Iterator[Path]:
    path = root / os.path.expanduser(item)
    if not item:
        raise NasrayError(
            "an image's name is empty. Pass an image, a folder, a glob in quotes, or a .txt file of these"
        )
    if path.suffix.lower() == ".txt" and os.path.lexists(path) and not in_list:
        lines = [line for line in read_text(path).splitlines() if line.strip()]
        if not lines:
            raise NasrayError(f"list of images {shown(path)} is empty. Write one image a line")
        for line in lines:
            name = line if os.path.lexists(path.parent / line) else line.strip()
            yield from _expanded(name, path.parent, in_list=True)
    elif os.path.isdir(path):
        yield from _listed(path)
    elif os.path.lexists(path):
        yield path
    elif glob.has_magic(item):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        images = [file for file in found if is_image_name(file) and not os.path.isdir(file)]
        if not images:
            raise NasrayError(f"no image matches {shown(path)}. Check the pattern")
        yield from images
    else:
        raise NasrayError(f"no image {shown(path)}. Pass an image, a folder, a glob in quotes, or a .txt file of these")


def _listed(folder: Path) -> list[Path]:
    try:
        images = sorted(path for path in folder.iterdir() if is_image_name(path) and not os.path.isdir(path))
    except OSError as error:
        raise NasrayError(f"folder {shown(folder)} cannot be read: {error.strerror}. Check its permissions") from error
    if not images:
        raise NasrayError(
            f"folder {shown(folder)} has no images itself. For those of its subfolders pass '{shown(folder)}/**/*.jpg'"
        )
    return images


# ---- where pictures go -------------------------------------------------------------------------------------------


def predictions_folder(checkpoint: Path) -> Path:
    """Return `predictions` in the training's folder of a checkpoint file, beside the file where it is in none."""
    folder = checkpoint.absolute().parent
    return (folder.parent if folder.name == "checkpoints" else folder) / "predictions"


def picture_paths(images: Sequence[Path], to: Path) -> list[Path]:
    """Return where the picture of each image goes.

    Args:
        images: Image files.
        to: Folder, or with one image a file with the suffix of a picture.

    Raises:
        NasrayError: if the suffix is not a picture's, a folder is a file, or an image would be overwritten.
    """
    is_folder = os.path.isdir(to)
    as_file = to.suffix.lower() in PICTURES and not is_folder
    if as_file and len(images) > 1:
        raise NasrayError(f"--to {shown(to)} is one file, and there are {len(images):,} images. Pass a folder")
    if not as_file and len(images) == 1 and to.suffix and not is_folder:
        raise NasrayError(f"a picture is a file of kind {', '.join(PICTURES)}, or --to is a folder; got {shown(to)}")
    if not as_file and os.path.lexists(to) and not is_folder:
        raise NasrayError(f"{shown(to)} is a file, not a folder. Choose another with --to")
    pictures = [to] if as_file else [to / picture_name(image) for image in images]
    sources = {os.path.realpath(image) for image in images}
    for picture in pictures:
        if os.path.realpath(picture) in sources:
            raise NasrayError(f"--to {shown(picture)} is one of the images. Choose another file or a folder")
    return pictures


def picture_name(image: Path) -> str:
    """Return a picture's name: the image's, and eight digits of its whole path, so that no other image has it."""
    path = os.path.realpath(image)
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    stem = os.fsencode(image.stem)[:MAX_STEM].decode("utf-8", "ignore")
    stem = "".join(letter if letter.isprintable() else "_" for letter in stem)
    return f"{stem}-{digest}.png"


# ---- predictions -------------------------------------------------------------------------------------------------


@dataclass
class _Item:
    """An image with its position in what was given and its size after resizing and padding."""

    index: int
    path: Path
    padded_hw: tuple[int, int]


def predict_images(
    checkpoint: Checkpoint,
    images: Sequence[Path],
    pictures: Sequence[Path] | None,
    *,
    threshold: float = 0.3,
    rules: PixelRules | None = None,
    device: str = "auto",
    batch_size: int = 8,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Find objects in image files, and draw them; images are read and resized as in validation.

    Images of one size after resizing make a batch, so that what is found in an image does not depend on the others.

    Args:
        checkpoint: Checkpoint of a trained detector.
        images: Image files.
        pictures: File of each picture, whose suffix chooses the format; None draws none.
        threshold: Least score of what is returned and drawn.
        rules: How images are read; as those of the training if left out.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        batch_size: Images at a time.
        progress: Called with the number of images that are done.

    Returns:
        For each image `image`, `picture` where one is drawn, and `detections`: `class`, `score` and `box` (xyxy in
        pixels of the image as it is read) of each, best first. An image that cannot be read has `error` instead, if
        there are others.

    Raises:
        NasrayError: if no image can be read, or a picture cannot be written.
    """
    from nasray.devices import choose_device
    from nasray.evaluation.predictions import predict

    rules = rules or checkpoint.pixel_rules
    detector = checkpoint.detector()
    results: list[dict[str, Any]] = [{"image": os.fspath(image)} for image in images]
    items = list(_readable(checkpoint, detector.stride, images, rules, results))
    _refuse_if_none(results)
    on = choose_device(device)
    detector.to(on)
    done = len(images) - len(items)
    for group in _batches(items, batch_size):
        pixels = _pixels(group, rules, results)
        if pixels:
            batch = _batch(checkpoint, list(pixels.values()), detector.stride)
            found = predict(detector, [batch], device=on, channels_last=checkpoint.recipe.channels_last)
            for place, (index, one) in enumerate(pixels.items()):
                results[index] |= _draw(checkpoint, one, found, place, threshold, pictures[index] if pictures else None)
        done += len(group)
        if progress is not None:
            progress(done)
    _refuse_if_none(results)
    return results


def _readable(
    checkpoint: Checkpoint, stride: int, images: Sequence[Path], rules: PixelRules, results: list[dict[str, Any]]
) -> Iterator[_Item]:
    """Give the images whose headers can be read."""
    from nasray.data.transforms import EvaluationTransform

    transform = EvaluationTransform(checkpoint.recipe.augmentation)
    for index, path in enumerate(images):
        try:
            with open_image_file(path) as file:
                header = read_header(file, shown(path))
        except NasrayError as error:
            results[index]["error"] = str(error)
        except (OSError, ValueError) as error:
            results[index]["error"] = str(no_file(shown(path), error))
        else:
            height, width = transform.resized_hw(header.image_hw(rules.orientation))
            yield _Item(index, path, (-(-height // stride), -(-width // stride)))


def _batches(items: Iterable[_Item], batch_size: int) -> Iterator[list[_Item]]:
    """Give images of one size together."""
    groups: dict[tuple[int, int], list[_Item]] = {}
    for item in items:
        groups.setdefault(item.padded_hw, []).append(item)
    for group in groups.values():
        for first in range(0, len(group), batch_size):
            yield group[first : first + batch_size]


def _pixels(group: Sequence[_Item], rules: PixelRules, results: list[dict[str, Any]]) -> dict[int, Tensor]:
    """Return the (3, H, W) pixels of those that can be decoded, by position."""
    pixels = {}
    for item in group:
        try:
            with open_image_file(item.path) as file:
                pixels[item.index] = decode_image(file.read(), shown(item.path), rules=rules)
        except NasrayError as error:
            results[item.index]["error"] = str(error)
        except (OSError, ValueError) as error:
            results[item.index]["error"] = str(no_file(shown(item.path), error))
    return pixels


def _batch(checkpoint: Checkpoint, pixels: Sequence[Tensor], stride: int) -> Batch:
    """Return the batch that validation would make of these images."""
    import torch

    from nasray.data.loader import Batch, pad_images
    from nasray.data.transforms import EvaluationTransform

    transform = EvaluationTransform(checkpoint.recipe.augmentation)
    resized = [transform(one) for one in pixels]
    sizes = [torch.tensor([one.shape[-2:] for one in images]) for images in (resized, pixels)]
    return Batch(pad_images(resized, stride), [], sizes[0], sizes[1], torch.arange(len(pixels)))


def _draw(
    checkpoint: Checkpoint,
    pixels: Tensor,
    found: Predictions,
    place: int,
    threshold: float,
    picture: Path | None,
) -> dict[str, Any]:
    """Return what was found in one image of a batch, and write its picture."""
    chosen = np.flatnonzero((found.image_index == place) & (found.scores >= threshold))
    boxes, labels, scores = found.boxes[chosen], found.labels[chosen].tolist(), found.scores[chosen].tolist()
    columns = zip(labels, scores, boxes.tolist(), strict=True)
    detections = [{"class": checkpoint.classes[label], "score": score, "box": box} for label, score, box in columns]
    if not picture:
        return {"detections": detections}
    drawn = draw_detections(pixels.numpy(), boxes, labels, scores, checkpoint.classes)
    with explained_disk_errors(picture):
        picture.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(picture, picture_bytes(drawn, PICTURES[picture.suffix.lower()]))
    return {"picture": os.fspath(picture), "detections": detections}


def _refuse_if_none(results: Sequence[dict[str, Any]]) -> None:
    """Raise `NasrayError` if no image can be read, with the first reason."""
    errors = [result["error"] for result in results if "error" in result]
    if len(errors) == len(results):
        raise NasrayError(errors[0] if len(errors) == 1 else f"none of {len(errors):,} images can be read: {errors[0]}")
