"""Detection sets of Hugging Face as Parquet: a row for each image, with its objects; what nasray packs is one too.

Columns are `image` (bytes, path), `image_id`, `width`, `height` and `objects` with `bbox` (x, y, width, height in
pixels, as COCO has them), `category`, and where there are any `id`, `area`, `iscrowd` and `segmentation`; `objects` are
lists by field, or a list of records. Names of the classes are those of `category`'s ClassLabel. Of what nasray packed
everything comes back to the bit: `xyxy` are its boxes, which no sum has rounded.

Reference: Hugging Face, "Object detection" and "Dataset features" (docs of Datasets).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.reading import parse_json, shown
from nasray.data.dataset import Defect, DetectionSet
from nasray.data.fields import MAX_NUMBER, MAX_SIDE, FieldError, shown_value
from nasray.data.formats.choosing import complete
from nasray.data.formats.coco_table import other_format
from nasray.data.formats.columns import ranks
from nasray.data.formats.huggingface_columns import NO_LABEL, Features, Table, joined, read_features, read_table
from nasray.data.formats.parquet_images import ParquetImages, count_nulls, images_of, open_parquet
from nasray.data.formats.rows import Rows, assemble
from nasray.data.image_files.images import load_header
from nasray.data.image_files.pixels import DEFAULT_RULES, PixelRules
from nasray.data.image_files.sizes import kept_sizes
from nasray.data.mapped import Texts
from nasray.data.outlines import check_outline, read_outline
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    import pyarrow.parquet as pq


BAD_OUTLINE = b"null"
"""JSON in place of a segmentation that is none, which is a defect by itself: it is not missing too."""


@dataclass(frozen=True)
class Wishes:
    """What a YAML file says of a set.

    Attributes:
        names: Names of the classes, for files that have none.
        classes: Names to take, in the order of labels; all if None.
        rules: How the images are read; None for the default, or as nasray packed them.
    """

    names: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    rules: PixelRules | None = None


def read_huggingface(
    paths: Sequence[Path], name: str, wishes: Wishes, classes_of_train: Sequence[str] | None = None
) -> DetectionSet:
    """Read one split.

    Images without an `image_id` are numbered from 1, objects without an `id` likewise; sizes that are not there are
    read from the images.

    Args:
        paths: Its files in their order.
        name: Name of the split.
        wishes: What the user says of the set.
        classes_of_train: Names of the classes, where categories are texts.

    Returns:
        The set, with all defects that can be found without decoding images.

    Raises:
        NasrayError: if a file cannot be read, or a column is missing or of another type.
    """
    files = [open_parquet(path) for path in paths]
    features = _common_features(files, paths)
    table = joined([read_table(file, features, path) for file, path in zip(files, paths, strict=True)])
    images = images_of(paths, files, features.image, Texts.of(table.names), is_packed=features.is_packed)
    reading = _Reading(table, images, _rules(features, wishes, paths[0]))
    for file, path in zip(files, paths, strict=True):
        if count := count_nulls(file, features.image):
            message = f"{shown(path)}: {count:,} rows hold no image, only its name at most"
            reading.defects.append(Defect("missing-image", message, count))
    classes = _classes(table, features, wishes, classes_of_train, shown(paths[0]))
    image_ids, image_hw = reading.image_ids(), reading.image_hw()
    rows = reading.rows(classes, image_hw)
    dataset = assemble(name, classes, images, image_ids, image_hw, rows, reading.defects, reading.rules)
    if features.category_ids is not None:
        dataset = dataclasses.replace(dataset, category_ids=features.category_ids)
    return complete(dataset, wishes.classes, shown(paths[0]))


def has_text_categories(path: Path) -> bool:
    """Return whether the categories of a file are names, so that its classes are those that occur.

    Raises:
        NasrayError: if it is not a file of a detection set.
    """
    return read_features(open_parquet(path), path).is_text


def _common_features(files: Sequence[pq.ParquetFile], paths: Sequence[Path]) -> Features:
    first = read_features(files[0], paths[0])
    for file, path in zip(files[1:], paths[1:], strict=True):
        if (other := read_features(file, path)) != first:
            raise NasrayError(
                f"{shown(path)} has other features than {shown(paths[0])}: {shown_value(other)} and "
                f"{shown_value(first)}. Write both files alike"
            )
    return first


def _rules(features: Features, wishes: Wishes, path: Path) -> PixelRules:
    if not features.is_packed:
        return wishes.rules or DEFAULT_RULES
    if wishes.rules not in (None, features.rules):
        raise NasrayError(
            f"{shown(path)} was packed with how its images are read, {features.rules.to_json()}. Leave orientation and "
            "value_range out of the YAML file"
        )
    return features.rules


def _classes(
    table: Table, features: Features, wishes: Wishes, of_train: Sequence[str] | None, where: str
) -> tuple[str, ...]:
    """Return the names of the classes: of the files, of the user, or those that occur."""
    if features.is_text:
        return tuple(of_train or sorted({word for word in table.words or () if word}))
    if features.classes is None and wishes.names is None:
        raise NasrayError(
            f"{where}: the classes have no names: its metadata 'huggingface' hold no ClassLabel of objects.category. "
            "Name them in a YAML file: {format: huggingface, names: [cat, dog]}"
        )
    if features.classes is not None and wishes.names not in (None, features.classes):
        raise NasrayError(f"{where} names its classes {list(features.classes)}. Leave `names` out of the YAML file")
    return features.classes if features.classes is not None else wishes.names or ()


# ---- rows --------------------------------------------------------------------------------------------------------


class _Reading:
    """Makes a split of a table, and notes what is wrong with it.

    Attributes:
        defects: What is wrong.
        rules: How the images are read.
    """

    def __init__(self, table: Table, images: ParquetImages, rules: PixelRules) -> None:
        self.table, self.images, self.rules = table, images, rules
        self.owners = np.repeat(np.arange(len(table.counts)), table.counts)
        self.ranks = ranks(table.counts)
        self.defects = [Defect("odd-field", text) for text in table.odd]
        self.defects += [Defect("bad-field", f"{images.row(row)}: objects {text}") for row, text in table.problems]

    def describe(self, row: int) -> str:
        """Return the file, row and number of an object, as messages call it."""
        return f"{self.images.row(int(self.owners[row]))}, object {self.ranks[row] + 1}"

    def image_ids(self) -> NDArray[np.int64]:
        """Return the ids of the images, or their numbers."""
        ids = self.table.image_ids
        if ids is None:
            return np.arange(1, len(self.table.counts) + 1, dtype=np.int64)
        _, places, counts = np.unique(ids, return_index=True, return_counts=True)
        for place, count in zip(places[counts > 1].tolist(), counts[counts > 1].tolist(), strict=True):
            message = f"{self.images.row(place)}: image_id {ids[place]} is that of {count} rows"
            self.defects.append(Defect("duplicate-image", message, count - 1))
        return ids

    def image_hw(self) -> NDArray[np.int64]:
        """Return heights and widths; those that are not annotated are read from the images."""
        annotated = self.table.image_hw
        image_hw = np.zeros((len(self.table.counts), 2), dtype=np.int64) if annotated is None else annotated.copy()
        bad = ((image_hw < 0) | (image_hw > MAX_SIDE)).any(axis=1)
        for index in np.flatnonzero(bad).tolist():
            height, width = image_hw[index].tolist()
            message = f"{self.images.name(index)}: width {width} and height {height} must lie between 0 and {MAX_SIDE}"
            self.defects.append(Defect("bad-field", message))
        image_hw[bad] = 0
        unknown = np.flatnonzero(~image_hw.all(axis=1) & ~bad)
        if len(unknown):
            image_hw[unknown] = self._stored_sizes(unknown)
        if len(unknown) and annotated is not None:
            message = f"{self.images.name(int(unknown[0]))} has no width and height; those of the image are taken"
            self.defects.append(Defect("image-size", message, len(unknown)))
        return image_hw

    def _stored_sizes(self, unknown: NDArray[np.intp]) -> NDArray[np.int64]:
        """Return the heights and widths of some images as their headers have them."""

        def stored(index: int) -> tuple[int, int] | None:
            try:
                return load_header(self.images, index, self.images.name(index)).image_hw(self.rules.orientation)
            except NasrayError:
                return None

        sizes = kept_sizes(
            self.images.paths, len(unknown), self.rules.orientation, lambda: map(stored, unknown.tolist())
        )
        for index in unknown[~sizes.all(axis=1)].tolist():
            self.defects.append(
                Defect("unreadable-image", f"{self.images.name(index)} holds no image, or a damaged one")
            )
        return sizes

    def rows(self, classes: tuple[str, ...], image_hw: NDArray[np.int64]) -> Rows:
        """Return the objects without those that are none."""
        table = self.table
        boxes, labels = self._boxes(image_hw), self._labels(classes)
        kept = np.flatnonzero(
            np.isfinite(boxes).all(axis=1)
            & (labels >= 0)
            & self._allowed("area", table.areas, (table.areas >= 0) & (table.areas <= MAX_NUMBER), "0 or more")
            & self._allowed("iscrowd", table.crowds, (table.crowds == 0) | (table.crowds == 1), "0 or 1")
        )
        ids = np.arange(1, len(labels) + 1, dtype=np.int64) if table.ids is None else table.ids
        return Rows(
            owners=self.owners[kept],
            boxes=boxes[kept],
            labels=labels[kept],
            areas=table.areas[kept],
            ignored=table.crowds[kept] == 1,
            ids=ids[kept],
            outlines=self._outlines(kept, image_hw),
            describe=lambda row: self.describe(int(kept[row])),
        )

    def _boxes(self, image_hw: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (N, 4) xyxy, NaN where a box is none."""
        boxes = self.table.boxes.copy()
        finite = (abs(boxes) <= MAX_NUMBER).all(axis=1)
        boxes[~finite] = np.nan
        for row in np.flatnonzero(~finite).tolist():
            value = self.table.wrong.get(row, str(self.table.boxes[row].tolist()))
            message = f"{self.describe(row)}: bbox must be four finite numbers [x, y, width, height], got {value}"
            self.defects.append(Defect("bad-box", message))
        if self.table.xyxy is not None:
            return self.table.xyxy
        if looks := other_format(boxes[finite], image_hw[self.owners[finite]]):
            self.defects.append(Defect("other-boxes", f"{shown(self.images.paths[0])}: {looks}", len(boxes)))
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    def _labels(self, classes: tuple[str, ...]) -> NDArray[np.int64]:
        """Return (N,) labels, -1 where there is none."""
        labels, values = self.table.labels, self.table.words or self.table.labels.tolist()
        if self.table.words is not None:
            known = {one: label for label, one in enumerate(classes)}
            labels = np.array([known.get(word or "", -1) for word in self.table.words], dtype=np.int64)
        inside = (labels >= 0) & (labels < len(classes))
        for row in np.flatnonzero(~inside).tolist():
            value = None if values[row] == NO_LABEL else values[row]
            message = f"{self.describe(row)}: category {shown_value(value)} is not one of the {len(classes)} classes"
            self.defects.append(Defect("unknown-category", message))
        return np.where(inside, labels, -1)

    def _allowed(self, name: str, values: NDArray[Any], allowed: NDArray[np.bool_], rule: str) -> NDArray[np.bool_]:
        """Note the values of a field that are not allowed, and return which are."""
        for row in np.flatnonzero(~allowed).tolist():
            self.defects.append(
                Defect("bad-field", f"{self.describe(row)}: {name} must be {rule}, got {values[row]:g}")
            )
        return allowed

    def _outlines(self, kept: NDArray[np.intp], image_hw: NDArray[np.int64]) -> list[bytes] | None:
        """Return the segmentations of some objects as JSON, empty where there is none."""
        given = self.table.outlines
        if given is None:
            return None
        if self.table.xyxy is not None:  # packed, which took outlines alone
            return [(given[row] or "").encode() for row in kept.tolist()]
        return [self._outline(given[row], row, image_hw) for row in kept.tolist()]

    def _outline(self, value: Any, row: int, image_hw: NDArray[np.int64]) -> bytes:
        height, width = image_hw[self.owners[row]].tolist()
        try:
            if isinstance(value, str):
                value = parse_json(value, "the segmentation") if value else None
            outline = read_outline(value)
            if outline is not None and height and width:
                check_outline(outline, (height, width))
        except NasrayError as error:  # of JSON
            self.defects.append(Defect("bad-outline", f"{self.describe(row)}: {error}"))
            return BAD_OUTLINE
        except FieldError as error:
            self.defects.append(Defect("bad-outline", f"{self.describe(row)}: segmentation {error}"))
            return BAD_OUTLINE
        return outline.text if outline is not None else b""
