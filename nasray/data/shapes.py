"""The embedded data set: colored shapes on textured grounds, drawn from a seed, the same on every machine.

Three classes that differ in outline alone: color, size, place and, for triangles, rotation tell nothing about them.
Thin strokes of the same colors lie between them and belong to no class. Shapes never cover each other, their boxes
may overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster import write_atomic
from nasray.cluster.files import to_json
from nasray.data.dataset import DetectionSet
from nasray.data.image_files.images import ImagesInMemory, encode_png
from nasray.data.outlines import Segmentations
from nasray.spaces import NasrayError

CLASSES = ("rectangle", "circle", "triangle")
MOST_SHAPES = 6
SHAPES = {"train": range(160), "val": range(160, 200)}
"""The splits of the set in memory: positions in the sequence of images of seed 0."""
TRIES = 20  # to find a free place for a shape; it is left out then

Image = NDArray[np.uint8]
Polygon = NDArray[np.float64]


def draw_image(
    generator: np.random.Generator,
    image_hw: tuple[int, int],
    *,
    classes: Sequence[str] = CLASSES,
    with_masks: bool = False,
) -> tuple[Any, ...]:
    """Return an image with one to six shapes.

    Args:
        generator: Generator of everything drawn.
        image_hw: Height and width in pixels, each at least 32.
        classes: Classes, some of `CLASSES`, in the order of labels.
        with_masks: Whether to return the shapes' pixels too.

    Returns:
        Image (3, H, W) uint8 RGB; boxes (N, 4) float32 xyxy; labels (N,) int64; and, `with_masks`, (N, H, W) bool.

    Raises:
        ValueError: for a class that cannot be drawn, or an image that is too small.
    """
    image, polygons, labels = draw_polygons(generator, image_hw, classes=classes)
    boxes = np.array([polygon_box(polygon) for polygon in polygons], dtype=np.float32).reshape(-1, 4)
    if not with_masks:
        return image, boxes, labels
    masks = np.array([polygon_mask(polygon, image_hw) for polygon in polygons])
    return image, boxes, labels, masks


def draw_polygons(
    generator: np.random.Generator, image_hw: tuple[int, int], *, classes: Sequence[str] = CLASSES
) -> tuple[Image, list[Polygon], NDArray[np.int64]]:
    """Return the image, and of each shape the (P, 2) outline in pixels, x before y, and label; see `draw_image`."""
    if unknown := [name for name in classes if name not in CLASSES]:
        raise ValueError(f"cannot draw {unknown}; shapes are {CLASSES}")
    if min(image_hw) < 32:
        raise ValueError(f"images of shapes are at least 32 pixels high and wide, got {image_hw}")
    image = _ground(generator, image_hw)
    for _ in range(generator.integers(0, 4)):
        stroke = _place(_stroke(generator, min(image_hw)), generator, image_hw)
        _fill(image, polygon_mask(stroke, image_hw), generator)
    taken = np.zeros(image_hw, dtype=bool)
    polygons, labels = [], []
    for _ in range(generator.integers(1, MOST_SHAPES + 1)):
        label = int(generator.integers(len(classes)))
        outline = _outline(classes[label], generator, min(image_hw))
        for _ in range(TRIES):
            polygon = _place(outline, generator, image_hw)
            mask = polygon_mask(polygon, image_hw)
            if not (mask & taken).any():
                _fill(image, mask, generator)
                taken |= mask
                polygons.append(polygon)
                labels.append(label)
                break
    noise = generator.integers(-20, 21, size=image.shape)
    pixels = (image + noise).clip(0, 255).astype(np.uint8)
    return pixels, polygons, np.array(labels, dtype=np.int64)


def draw_shape(generator: np.random.Generator, image_hw: tuple[int, int], name: str) -> Image:
    """Return an image (3, H, W) uint8 RGB with one shape of this class, twice as large as those to be detected."""
    image = _ground(generator, image_hw)
    polygon = _place(_outline(name, generator, 2 * min(image_hw)), generator, image_hw)
    _fill(image, polygon_mask(polygon, image_hw), generator)
    return (image + generator.integers(-20, 21, size=image.shape)).clip(0, 255).astype(np.uint8)


def polygon_box(polygon: Polygon) -> NDArray[np.float64]:
    """Return the xyxy box around a (P, 2) polygon."""
    return np.concatenate([polygon.min(axis=0), polygon.max(axis=0)])


def polygon_area(polygon: Polygon) -> float:
    """Return the area of a (P, 2) polygon in pixels, rounded to hundredths."""
    x, y = polygon.T
    return round(float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2), 2)


def polygon_mask(polygon: Polygon, image_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the (H, W) pixels whose center is in a convex polygon of (P, 2) corners, clockwise on the screen."""
    mask = np.zeros(image_hw, dtype=bool)
    left, top = np.floor(polygon.min(axis=0)).astype(int).clip(0)
    right, bottom = np.ceil(polygon.max(axis=0)).astype(int)
    y, x = np.mgrid[top : min(bottom, image_hw[0]), left : min(right, image_hw[1])] + 0.5
    inside = np.ones(x.shape, dtype=bool)
    for begin, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        along = end - begin
        inside &= along[0] * (y - begin[1]) - along[1] * (x - begin[0]) >= 0
    mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return mask


def _ground(generator: np.random.Generator, image_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Return (3, H, W): a smooth change of colors with stripes across it."""
    knots = generator.integers(40, 216, size=(3, 4, 4)).astype(np.float64)
    rows, columns = (np.linspace(0, 3, length) for length in image_hw)
    weights = [np.maximum(1 - abs(line[:, None] - np.arange(4)), 0) for line in (rows, columns)]
    smooth = np.einsum("yi,cij,xj->cyx", weights[0], knots, weights[1])
    y, x = np.mgrid[: image_hw[0], : image_hw[1]]
    slope_y, slope_x = generator.integers(-3, 4, size=2)
    stripes = (slope_y * y + slope_x * x) // 8 % 2 * generator.integers(-30, 31, size=(3, 1, 1))
    pixels: NDArray[np.int64] = np.rint(smooth).astype(np.int64) + stripes
    return pixels


def _fill(image: NDArray[np.int64], mask: NDArray[np.bool_], generator: np.random.Generator) -> None:
    """Paint these pixels in a color that stands out against what is there."""
    ground = image[:, mask].mean(axis=1) if mask.any() else image.mean(axis=(1, 2))
    color = generator.integers(0, 256, size=3)
    while abs(color - ground).max() < 70:
        color = generator.integers(0, 256, size=3)
    image[:, mask] = color[:, None]


def _outline(name: str, generator: np.random.Generator, edge: int) -> Polygon:
    """Return corners of a shape around the origin, clockwise on the screen."""
    size = edge * 0.12 * 4 ** generator.random()  # 0.12 to 0.48 of the image's shorter edge
    if name == "circle":
        turns = np.arange(24) / 24
        return np.array([(math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)) for turn in turns]) * size / 2
    if name == "rectangle":
        aspect = 2 ** (2 * generator.random() - 1)
        return _rotate(_rectangle(size * min(aspect, 1), size / max(aspect, 1)), (generator.random() - 0.5) / 8)
    height = size * (0.75 + generator.random() / 4)
    corners = np.array([(0, -height / 2), (size / 2, height / 2), (-size / 2, height / 2)])
    return _rotate(corners, generator.random())


def _stroke(generator: np.random.Generator, edge: int) -> Polygon:
    return _rotate(_rectangle(edge * (0.2 + 0.4 * generator.random()), 2), generator.random())


def _rectangle(width: float, height: float) -> Polygon:
    return np.array([(-width, -height), (width, -height), (width, height), (-width, height)]) / 2


def _rotate(corners: Polygon, turns: float) -> Polygon:
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    return np.stack(
        [corners[:, 0] * cosine - corners[:, 1] * sine, corners[:, 0] * sine + corners[:, 1] * cosine], axis=1
    )


def _place(outline: Polygon, generator: np.random.Generator, image_hw: tuple[int, int]) -> Polygon:
    """Return the outline somewhere in the image, wholly inside where it fits.

    Rounded to hundredths of a pixel: the last bits of sine and cosine differ between machines.
    """
    low, high = outline.min(axis=0), outline.max(axis=0)
    room = np.maximum(np.array(image_hw[::-1]) - (high - low), 0)
    placed: Polygon = np.round(outline - low + generator.random(2) * room, 2).clip(0, image_hw[::-1])
    return placed


# ---- as a data set in memory and on disk --------------------------------------------------------------------------


def image_generator(seed: int, index: int) -> np.random.Generator:
    """Return the generator that draws image `index` of the set of this seed."""
    return np.random.default_rng(np.random.SeedSequence([seed, index]))


def shapes_set(split: str) -> DetectionSet:
    """Return the embedded set: 160 images of 128 x 128 pixels for train, 40 for val, as `write_shapes` with seed 0."""
    image_hw, indices = (128, 128), SHAPES[split]
    drawn = [draw_polygons(image_generator(0, index), image_hw) for index in indices]
    polygons = [polygon for _, outlines, _ in drawn for polygon in outlines]
    return DetectionSet(
        name=split,
        classes=CLASSES,
        category_ids=tuple(range(1, len(CLASSES) + 1)),
        files=ImagesInMemory.of(f"shapes {split}", [encode_png(pixels) for pixels, _, _ in drawn]),
        image_ids=np.array(indices, dtype=np.int64) + 1,
        image_hw=np.tile(np.array(image_hw, dtype=np.int64), (len(drawn), 1)),
        offsets=np.cumsum([0, *(len(labels) for _, _, labels in drawn)]),
        boxes=np.array([polygon_box(polygon) for polygon in polygons]),
        labels=np.concatenate([labels for _, _, labels in drawn]),
        areas=np.array([polygon_area(polygon) for polygon in polygons]),
        ignored=np.zeros(len(polygons), dtype=bool),
        annotation_ids=np.arange(1, len(polygons) + 1),
        segmentations=Segmentations.of([polygon.ravel().tolist()] for polygon in polygons),
    )


def write_shapes(
    folder: Path, num_images: int, *, seed: int = 0, image_hw: tuple[int, int] = (128, 128), val_share: float = 0.2
) -> None:
    """Write a set in COCO's format: images/*.png, annotations/{train,val}.json with outlines, and data.yaml.

    Args:
        folder: Output folder, empty or not there yet.
        num_images: Number of images of train and val together; image i is the same whatever their number.
        seed: Same seed, same images.
        image_hw: Height and width in pixels.
        val_share: Share of the images that are for validation, rounded; each split has at least one.

    Raises:
        NasrayError: if the folder holds anything, or a number does not fit.
    """
    if num_images < 2:
        raise NasrayError(f"shapes needs 2 images or more, one for each of train and val; got {num_images}")
    if not 0 < val_share < 1:
        raise NasrayError(f"the share of val lies between 0 and 1, got {val_share}")
    if folder.exists() and any(folder.iterdir()):
        raise NasrayError(f"{folder} is not empty; choose a new folder for the shapes")
    num_val = min(max(round(num_images * val_share), 1), num_images - 1)
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    splits = {"train": range(num_images - num_val), "val": range(num_images - num_val, num_images)}
    for split, indices in splits.items():
        content = _write_split(folder, indices, seed, image_hw)
        write_atomic(folder / "annotations" / f"{split}.json", to_json(content).encode())
    lines = ["# Shapes, drawn by nasray", "format: coco", "root: ."]
    lines += [f"{split}: {{images: images, annotations: annotations/{split}.json}}" for split in splits]
    write_atomic(folder / "data.yaml", ("\n".join(lines) + "\n").encode())


def _write_split(folder: Path, indices: range, seed: int, image_hw: tuple[int, int]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in indices:
        pixels, polygons, labels = draw_polygons(image_generator(seed, index), image_hw)
        file_name = f"{index:06d}.png"
        write_atomic(folder / "images" / file_name, encode_png(pixels))
        images.append({"id": index + 1, "file_name": file_name, "height": image_hw[0], "width": image_hw[1]})
        for polygon, label in zip(polygons, labels, strict=True):
            annotations.append(_annotation(len(annotations) + 1, index + 1, int(label) + 1, polygon))
    categories = [{"id": label + 1, "name": name, "supercategory": "shape"} for label, name in enumerate(CLASSES)]
    return {
        "info": {"description": f"nasray shapes, seed {seed}"},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def _annotation(annotation_id: int, image_id: int, category_id: int, polygon: Polygon) -> dict[str, Any]:
    left, top, right, bottom = polygon_box(polygon).tolist()
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
        "area": polygon_area(polygon),
        "iscrowd": 0,
        "segmentation": [polygon.ravel().tolist()],
    }
