"""A detection data set in memory: images by reference, annotations as flat arrays, defects as values."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.files import to_json
from nasray.data.images import ImageSource, SelectedImages, decode_image
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from torch import Tensor

DEFECTS: dict[str, tuple[Literal["error", "warning"], str]] = {
    "missing-image": ("error", "image files that are not there"),
    "unreadable-image": ("error", "image files that are torn, or no images"),
    "duplicate-image": ("error", "image ids that occur twice"),
    "unknown-image": ("error", "annotations to images that are not listed"),
    "unknown-category": ("error", "annotations of classes that are not listed"),
    "duplicate-category": ("error", "category ids or names that occur twice"),
    "missing-annotation": ("error", "images whose annotation file is not there"),
    "categories-differ": ("error", "splits whose categories are not those of the others"),
    "empty": ("error", "sets without images or boxes"),
    "image-size": ("warning", "images without width and height; read from the file"),
    "duplicate-annotation": ("warning", "annotation ids that occur twice; both are kept"),
    "bad-box": ("warning", "boxes that are missing, or not four finite numbers; left out"),
    "zero-box": ("warning", "boxes without width or height; left out"),
    "outside-box": ("warning", "boxes wholly outside their image; left out"),
    "clipped-box": ("warning", "boxes partly outside their image; cut at its edge"),
    "no-outline": ("warning", "boxes without segmentation where others have one; the whole box is the mask"),
    "class-left-out": ("warning", "annotations of classes that are not among those chosen; left out"),
}
"""Every kind: whether it stops a training, and what it is."""


@dataclass(frozen=True)
class Defect:
    """Something wrong with a data set.

    Attributes:
        kind: of `DEFECTS`.
        message: names file, image and annotation.
    """

    kind: str
    message: str

    @property
    def severity(self) -> Literal["error", "warning"]:
        """An error stops a training; what a warning says has been mended."""
        return DEFECTS[self.kind][0]


@dataclass(frozen=True, eq=False)
class Segmentations:
    """COCO segmentations (polygons or run lengths) of N boxes as JSON, one after the other; decoded when asked for.

    Attributes:
        content: all texts.
        offsets: (N + 1,) where each begins and the last ends; an empty text where there is none.
    """

    content: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, segmentations: Iterable[Any]) -> Segmentations:
        """From what COCO's files hold; anything false is none."""
        texts = [to_json(item, compact=True).encode() if item else b"" for item in segmentations]
        return cls(np.frombuffer(b"".join(texts), dtype=np.uint8), np.cumsum([0, *map(len, texts)]))

    def select(self, rows: NDArray[np.int64]) -> Segmentations:
        """Those of some boxes."""
        bounds = zip(self.offsets[rows].tolist(), self.offsets[rows + 1].tolist(), strict=True)
        parts = [self.content[begin:end] for begin, end in bounds]
        lengths = [len(part) for part in parts]
        return Segmentations(np.concatenate([self.content[:0], *parts]), np.cumsum([0, *lengths]))

    def value(self, index: int) -> Any:
        """Polygons or run lengths as in COCO's files, or None."""
        text = self.content[self.offsets[index] : self.offsets[index + 1]].tobytes()
        return json.loads(text) if text else None

    def mask(self, index: int, image_hw: tuple[int, int]) -> NDArray[np.uint8] | None:
        """(H, W) zeros and ones, or None."""
        from pycocotools import mask

        value = self.value(index)
        if value is None:
            return None
        height, width = (int(edge) for edge in image_hw)
        if isinstance(value, list):
            value = mask.merge(mask.frPyObjects(value, height, width))
        elif isinstance(value["counts"], list):
            value = mask.frPyObjects(value, height, width)
        return mask.decode(value)


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """I images with N boxes in all. Flat arrays, so that it is sent and shared between processes cheaply.

    Attributes:
        name: of the split, such as "train".
        classes: names in the order of labels.
        category_ids: the data set's own ids, in the order of labels.
        files: the images.
        image_ids: (I,) the data set's own ids.
        image_hw: (I, 2) heights and widths in pixels.
        offsets: (I + 1,): the boxes of image i are those from offsets[i] up to offsets[i + 1].
        boxes: (N, 4) xyxy in pixels, within their image and with an area.
        labels: (N,)
        areas: (N,) of the object in pixels (of its box, where the data set does not say).
        ignored: (N,) crowds of COCO, difficult objects of VOC: not learnt, neither right nor wrong in evaluation.
        annotation_ids: (N,) the data set's own ids.
        segmentations: of the N boxes; None where there are none at all.
        defects: what was wrong. Boxes that are no boxes are left out of the arrays.
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

    def __len__(self) -> int:
        return len(self.image_ids)

    def describe(self, index: int) -> str:
        """File and id of an image, for messages."""
        return f"{self.files.name(index)} (image id {self.image_ids[index]})"

    def read_image(self, index: int) -> Tensor:
        """The (3, H, W) uint8 RGB pixels of an image.

        Raises:
            NasrayError: if it cannot be read or has not the annotated size; the message names file and image id.
        """
        try:
            content = self.files.read(index)
        except OSError as error:
            raise NasrayError(f"cannot read image {self.describe(index)}: {error.strerror or error}") from error
        height, width = self.image_hw[index].tolist()
        return decode_image(content, self.describe(index), (height, width))

    def target(self, index: int, *, with_masks: bool = False) -> dict[str, Tensor]:
        """What is to be learnt of an image: without ignored boxes.

        Returns:
            `boxes` (n, 4) float32 xyxy, `labels` (n,) int64, and `masks` (n, H, W) uint8 if they are asked for.

        Raises:
            NasrayError: if masks are asked for and there are none.
        """
        import torch

        begin, end = self.offsets[index : index + 2].tolist()
        learnt = begin + np.flatnonzero(~self.ignored[begin:end])
        target = {
            "boxes": torch.from_numpy(self.boxes[learnt].astype(np.float32)),
            "labels": torch.from_numpy(self.labels[learnt]),
        }
        if with_masks:
            target["masks"] = torch.from_numpy(self._masks(index, learnt))
        return target

    def select(self, indices: NDArray[np.int64]) -> DetectionSet:
        """Some of the images, (J,) positions, with their boxes. Defects stay behind."""
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
            defects=(),
        )

    def _masks(self, index: int, learnt: NDArray[np.intp]) -> NDArray[np.uint8]:
        if self.segmentations is None:
            raise NasrayError(
                f"the data set's {self.name!r} split has no segmentations, and masks are to be learnt; annotate "
                "outlines, or choose a detector of boxes, such as faster-rcnn"
            )
        height, width = self.image_hw[index].tolist()
        masks = np.zeros((len(learnt), height, width), dtype=np.uint8)
        for row, annotation in enumerate(learnt.tolist()):
            mask = self.segmentations.mask(annotation, (height, width))
            if mask is not None:
                masks[row] = mask
            else:
                left, top, right, bottom = np.rint(self.boxes[annotation]).astype(int)
                masks[row, top:bottom, left:right] = 1
        return masks

    def to_coco(self) -> dict[str, Any]:
        """The set as COCO's JSON, for pycocotools.

        Image and category ids are the data set's own. Annotations are numbered from 1: pycocotools takes a match with
        annotation 0 for none. Difficult objects of VOC have `iscrowd` too, since it ignores no others.
        """
        heights, widths = self.image_hw.T.tolist() if len(self) else ([], [])
        images = [
            {"id": int(self.image_ids[index]), "file_name": self.files.name(index),
             "height": heights[index], "width": widths[index]}
            for index in range(len(self))
        ]  # fmt: skip
        owners = np.repeat(self.image_ids, np.diff(self.offsets))
        wholes = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        columns = zip(owners.tolist(), self.labels.tolist(), wholes.tolist(), self.areas.tolist(),
                      self.ignored.tolist(), strict=True)  # fmt: skip
        annotations = [
            {"id": number, "image_id": image_id, "category_id": self.category_ids[label], "bbox": box,
             "area": area, "iscrowd": int(ignored), "ignore": int(ignored)}
            for number, (image_id, label, box, area, ignored) in enumerate(columns, start=1)
        ]  # fmt: skip
        if self.segmentations is not None:
            for index, annotation in enumerate(annotations):
                if (value := self.segmentations.value(index)) is not None:
                    annotation["segmentation"] = value
        categories = [
            {"id": number, "name": name} for number, name in zip(self.category_ids, self.classes, strict=True)
        ]
        return {"images": images, "annotations": annotations, "categories": categories}


# ---- boxes and defects -------------------------------------------------------------------------------------------


def mend_boxes(
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
        finite = np.isfinite(boxes).all(axis=1)
        solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        inside = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
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
    """The defect of a set from which nothing can be learnt."""
    if not num_images:
        return [Defect("empty", f"{where}: the {name!r} split has no images")]
    if ignored.all():
        return [Defect("empty", f"{where}: the {name!r} split has {num_images:,} images but no box that counts")]
    return []


def refuse_errors(dataset: DetectionSet, source: str) -> None:
    """Stop at errors in one message, and tell how many warnings there are in one line on standard error.

    Raises:
        NasrayError: if there are errors; it counts them by kind and shows the first of each.
    """
    errors = [defect for defect in dataset.defects if defect.severity == "error"]
    advice = f"`nasray data check {source}` lists all"
    if errors:
        raise NasrayError(
            f"data set {source}, split {dataset.name!r}, cannot be used: {summary(errors)}. "
            + "; ".join(first_of_each_kind(errors))
            + f". Mend them; {advice}"
        )
    if dataset.defects:
        print(f"data set {source}, split {dataset.name!r}: {summary(dataset.defects)}; {advice}", file=sys.stderr)


def summary(defects: Sequence[Defect]) -> str:
    """Counts by kind."""
    counts = Counter(defect.kind for defect in defects)
    return ", ".join(f"{count:,} {DEFECTS[kind][1]}" for kind, count in counts.items())


def first_of_each_kind(defects: Sequence[Defect]) -> list[str]:
    """The message of the first defect of every kind, in order of appearance."""
    return list({defect.kind: defect.message for defect in reversed(defects)}.values())[::-1]
