"""A detection data set in memory: images by reference, annotations as flat arrays, defects as values."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.reading import shown
from nasray.data.fields import FieldError
from nasray.data.image_files.decoding import ImageHeader
from nasray.data.image_files.images import ImageSource, SelectedImages, load_header, load_image
from nasray.data.image_files.pixels import DEFAULT_RULES, PixelRules
from nasray.data.outlines import Segmentations
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from torch import Tensor

Severity = Literal["error", "warning"]

DEFECTS: dict[str, tuple[Severity, str]] = {
    "missing-image": ("error", "image files not found"),
    "unreadable-image": ("error", "image files that cannot be read"),
    "duplicate-image": ("error", "images listed twice"),
    "unknown-image": ("error", "annotations of images that are not listed"),
    "unknown-category": ("error", "annotations of classes that are not listed"),
    "duplicate-category": ("error", "class ids or names that occur twice"),
    "missing-annotation": ("error", "images without their annotation file"),
    "bad-annotation": ("error", "annotation files that cannot be read"),
    "categories-differ": ("error", "splits with other classes than the first"),
    "empty": ("error", "splits without images or boxes"),
    "bad-field": ("error", "fields that hold something else than they should"),
    "bad-box": ("error", "boxes that are not four finite numbers"),
    "bad-outline": ("error", "segmentations that are no outlines (detectors of boxes train without them)"),
    "other-size": ("error", "images of another size than annotated"),
    "value-range": ("error", "images of more than 8 bits whose black and white no file states"),
    "image-size": ("warning", "images without width and height (read from the file)"),
    "split-overlap": ("warning", "images that another split has too (its metrics are not those of new images)"),
    "duplicate-annotation": ("warning", "annotations that occur twice, by their id or as a whole line (both are kept)"),
    "similar-class": ("warning", "class names that differ in case or spaces alone (taken for different classes)"),
    "other-boxes": ("warning", "boxes that look like those of another format"),
    "zero-box": ("warning", "boxes without width or height (left out)"),
    "outside-box": ("warning", "boxes wholly outside their image (left out)"),
    "clipped-box": ("warning", "boxes partly outside their image (cut at its edge)"),
    "no-outline": ("warning", "boxes without segmentation where others have one (the whole box is the mask)"),
    "class-left-out": ("warning", "boxes of classes that are not among those chosen (left out)"),
    "frames": ("warning", "image files with several pages or frames (the first is read)"),
    "odd-field": ("warning", "fields that nasray does not use, with values that it cannot read"),
}
"""Every kind: whether it stops a training, and what it is."""


@dataclass(frozen=True)
class Defect:
    """Something wrong with a data set.

    Attributes:
        kind: Kind of defect, one of `DEFECTS`.
        message: Message that names file, image and annotation.
        count: Number of images or annotations that it is about.
    """

    kind: str
    message: str
    count: int = 1

    @property
    def severity(self) -> Severity:
        """An error stops a training; problems reported as warnings have been fixed automatically."""
        return DEFECTS[self.kind][0]


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """I images with N boxes in all. Flat arrays, so that it is sent and shared between processes cheaply.

    Attributes:
        name: Name of the split, such as "train".
        classes: Names in the order of labels.
        category_ids: The data set's own ids, in the order of labels.
        files: The images.
        image_ids: (I,) the data set's own ids.
        image_hw: (I, 2) heights and widths in pixels.
        offsets: (I + 1,): the boxes of image i are those from offsets[i] up to offsets[i + 1].
        boxes: (N, 4) xyxy in pixels, within their image and with an area.
        labels: (N,)
        areas: (N,) of the object in pixels (of its box, where the data set does not say).
        ignored: (N,) crowds of COCO, difficult objects of VOC: not learned, neither right nor wrong in evaluation.
        annotation_ids: (N,) the data set's own ids.
        segmentations: Segmentations of the N boxes; None where there are none at all.
        defects: What was wrong. Boxes that are no boxes are left out of the arrays.
        pixel_rules: How its images are read.
    """

    name: str
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    files: ImageSource
    image_ids: NDArray[np.int64]
    image_hw: NDArray[np.int64]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    annotation_ids: NDArray[np.int64]
    segmentations: Segmentations | None = None
    defects: tuple[Defect, ...] = ()
    pixel_rules: PixelRules = DEFAULT_RULES

    def __len__(self) -> int:
        return len(self.image_ids)

    def describe(self, index: int) -> str:
        """Return the file and id of an image, for messages."""
        return f"{shown(self.files.name(index))} (image id {self.image_ids[index]})"

    def read_image(self, index: int) -> Tensor:
        """Return the (3, H, W) uint8 RGB pixels of an image.

        Raises:
            ImageError: if it cannot be read or has not the annotated size; the message names file and image id.
        """
        height, width = self.image_hw[index].tolist()
        return load_image(self.files, index, self.describe(index), (height, width), self.pixel_rules)

    def read_header(self, index: int) -> ImageHeader:
        """Return what an image's file says before its pixels.

        Raises:
            ImageError: if it is no image; the message names file and image id.
        """
        return load_header(self.files, index, self.describe(index))

    def target(self, index: int, *, with_masks: bool = False) -> dict[str, Tensor]:
        """Return the training target of an image: its boxes without ignored ones.

        Returns:
            `boxes` (n, 4) float32 xyxy, `labels` (n,) int64, and `masks` (n, H, W) uint8 if they are asked for.

        Raises:
            NasrayError: if masks are asked for and there are none.
        """
        import torch

        begin, end = self.offsets[index : index + 2].tolist()
        learned = begin + np.flatnonzero(~self.ignored[begin:end])
        target = {
            "boxes": torch.from_numpy(self.boxes[learned].astype(np.float32)),
            "labels": torch.from_numpy(self.labels[learned]),
        }
        if with_masks:
            target["masks"] = torch.from_numpy(self._masks(index, learned))
        return target

    def states(self, *, with_targets: bool, with_masks: bool) -> Iterator[bytes | str | NDArray[np.generic]]:
        """Yield what tells the pixels of all images, and their targets if they are asked for, from any others."""
        yield from self.files.states(np.arange(len(self)))
        yield from (repr(self.pixel_rules), self.image_hw)
        if with_targets:
            yield from (self.offsets, self.boxes, self.labels, self.ignored)
        if with_masks:
            assert self.segmentations is not None
            yield from map(self.segmentations.text, range(len(self.boxes)))

    def select(self, indices: NDArray[np.int64]) -> DetectionSet:
        """Return some of the images, (J,) positions, with their boxes. Defects stay behind, but for what bars masks."""
        counts = np.diff(self.offsets)[indices]
        first = np.repeat(self.offsets[indices] - np.r_[0, counts.cumsum()[:-1]], counts)
        rows = first + np.arange(counts.sum())
        segmentations = None
        if self.segmentations is not None:
            segmentations = self.segmentations.select(rows)
        return dataclasses.replace(
            self,
            files=SelectedImages(self.files, indices),
            image_ids=self.image_ids[indices],
            image_hw=self.image_hw[indices],
            offsets=np.r_[0, counts.cumsum()],
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            areas=self.areas[rows],
            ignored=self.ignored[rows],
            annotation_ids=self.annotation_ids[rows],
            segmentations=segmentations,
            defects=tuple(defect for defect in self.defects if defect.kind == "bad-outline"),
        )

    def require_outlines(self) -> None:
        """Refuse what masks cannot be learned from.

        Raises:
            NasrayError: if there are no segmentations, or some are no outlines; it names the first.
        """
        advice = "choose a detector of boxes, such as faster-rcnn"
        if self.segmentations is None:
            raise NasrayError(
                f"the data set's {self.name!r} split has no segmentations, and masks are to be trained; annotate "
                f"outlines, or {advice}"
            )
        if bad := [defect for defect in self.defects if defect.kind == "bad-outline"]:
            raise NasrayError(
                f"masks are to be trained, and the {self.name!r} split has {summary(bad)}; "
                f"the first: {bad[0].message}. Correct or remove them, or {advice}"
            )

    def _masks(self, index: int, learned: NDArray[np.intp]) -> NDArray[np.uint8]:
        self.require_outlines()
        assert self.segmentations is not None
        height, width = self.image_hw[index].tolist()
        masks = np.zeros((len(learned), height, width), dtype=np.uint8)
        for row, annotation in enumerate(learned.tolist()):
            try:
                mask = self.segmentations.mask(annotation, (height, width))
            except FieldError as error:
                where = f"annotation {self.annotation_ids[annotation]} of image {self.describe(index)}"
                raise NasrayError(f"{where}: segmentation {error}. `nasray data check` finds all such") from None
            if mask is not None:
                masks[row] = mask
            else:
                left, top, right, bottom = np.rint(self.boxes[annotation]).astype(int)
                masks[row, top:bottom, left:right] = 1
        return masks

    def to_coco(self) -> dict[str, Any]:
        """Return the set as COCO's JSON, for pycocotools.

        Image and category ids are the data set's own. Annotations are numbered from 1: pycocotools takes a match with
        annotation 0 for none. Difficult objects of VOC have `iscrowd` too, since it ignores no others.
        """
        heights, widths = self.image_hw.T.tolist() if len(self) else ([], [])
        images = [
            {
                "id": int(self.image_ids[index]),
                "file_name": shown(self.files.name(index)),
                "height": heights[index],
                "width": widths[index],
            }
            for index in range(len(self))
        ]
        owners = np.repeat(self.image_ids, np.diff(self.offsets))
        wholes = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        columns = zip(
            owners.tolist(),
            self.labels.tolist(),
            wholes.tolist(),
            self.areas.tolist(),
            self.ignored.tolist(),
            strict=True,
        )
        annotations = [
            {
                "id": number,
                "image_id": image_id,
                "category_id": self.category_ids[label],
                "bbox": box,
                "area": area,
                "iscrowd": int(ignored),
                "ignore": int(ignored),
            }
            for number, (image_id, label, box, area, ignored) in enumerate(columns, start=1)
        ]
        if self.segmentations is not None:
            for index, annotation in enumerate(annotations):
                if (value := self.segmentations.value(index)) is not None:
                    annotation["segmentation"] = value
        categories = [
            {"id": number, "name": name} for number, name in zip(self.category_ids, self.classes, strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}


# ---- boxes and defects -------------------------------------------------------------------------------------------


def fix_boxes(
    boxes: NDArray[np.float64], image_hw: NDArray[np.int64]
) -> tuple[NDArray[np.float64], list[tuple[str, int, str]]]:
    """Clip boxes to their images and find those that are none.

    Args:
        boxes: (N, 4) xyxy as annotated, NaN where they are missing.
        image_hw: (N, 2) of each box's image.

    Returns:
        The clipped boxes, and (kind, position, reason) of each that is wrong. What lies outside by less than a pixel
        is rounding and clipped without a word.
    """
    highest = np.concatenate([image_hw[:, ::-1], image_hw[:, ::-1]], axis=1)
    with np.errstate(invalid="ignore"):
        clipped = boxes.clip(0, highest)
        learned = clipped.astype(np.float32)  # as detectors see them
        finite = np.isfinite(boxes).all(axis=1)
        solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
        solid &= ~inside | (learned[:, 2:] > learned[:, :2]).all(axis=1)
        cut = abs(clipped - boxes).max(axis=1, initial=0) >= 1
    kinds = np.select([~finite, ~solid, ~inside, cut], [1, 2, 3, 4], 0)
    names = {1: "bad-box", 2: "zero-box", 3: "outside-box", 4: "clipped-box"}
    found = []
    for index in np.flatnonzero(kinds):
        height, width = image_hw[index]
        reason = f"box xyxy {[round(float(edge), 2) for edge in boxes[index]]} of a {width}x{height} image"
        found.append((names[int(kinds[index])], int(index), reason))
    return clipped, found


def emptiness(name: str, num_images: int, ignored: NDArray[np.bool_], where: object) -> list[Defect]:
    """Return the defect of a set that nothing can be trained on."""
    if not num_images:
        return [Defect("empty", f"{where}: the {name!r} split has no images")]
    if ignored.all():
        return [Defect("empty", f"{where}: the {name!r} split has {num_images:,} images but no box that counts")]
    return []


def class_defects(classes: Sequence[str], where: object) -> list[Defect]:
    """Return the names that a person takes for one class, but a program for two."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault("".join(name.casefold().split()), []).append(name)
    return [
        Defect("similar-class", f"{where}: {' and '.join(map(repr, names))}", len(names))
        for names in alike.values()
        if len(names) > 1
    ]


def refuse_errors(dataset: DetectionSet, source: str) -> None:
    """Stop at errors in one message, and tell how many warnings there are in one line on standard error.

    What bars masks alone is refused where masks are learned, see `DetectionSet.require_outlines`.

    Raises:
        NasrayError: if there are errors; it counts them by kind and shows the first of each.
    """
    errors = [defect for defect in dataset.defects if defect.severity == "error" and defect.kind != "bad-outline"]
    advice = f"`nasray data check {source}` lists all"
    if errors:
        raise NasrayError(
            f"data set {source}, split {dataset.name!r}, cannot be used: {summary(errors)}. "
            + "; ".join(first_of_each_kind(errors))
            + f". Fix them; {advice}"
        )
    if dataset.defects:
        print(f"data set {source}, split {dataset.name!r}: {summary(dataset.defects)}; {advice}", file=sys.stderr)


def summary(defects: Sequence[Defect]) -> str:
    """Return the counts by kind."""
    kinds: dict[str, list[Defect]] = {}
    for defect in defects:
        kinds.setdefault(defect.kind, []).append(defect)
    return ", ".join(kind_summary(kind, found) for kind, found in kinds.items())


def kind_summary(kind: str, found: Sequence[Defect]) -> str:
    """Return what a kind is, and how many images or annotations it is about."""
    count = sum(defect.count for defect in found)
    classes = f" of {len(found):,} class{'es' * (len(found) > 1)}" if kind == "class-left-out" else ""
    return f"{DEFECTS[kind][1]}: {count:,}{classes}"


def first_of_each_kind(defects: Sequence[Defect]) -> list[str]:
    """Return the message of the first defect of every kind, in order of appearance."""
    return list({defect.kind: defect.message for defect in reversed(defects)}.values())[::-1]
