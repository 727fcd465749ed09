"""What is in a data set, and what is wrong with it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from nasray.data.dataset import DEFECTS, Defect, DetectionSet, kind_summary
from nasray.data.formats.parquet_images import describe_groups
from nasray.data.image_files.headers import Headers, describe_orientation, describe_values, examine_headers
from nasray.data.source import DataSource, category_difference, open_data, overlap
from nasray.spaces import NasrayError

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
"""COCO's ranges of area in pixels."""
QUICK = 2000  # images whose headers are read without a line on how far it is


def check_data(source: str, *, decode: bool = False) -> dict[str, Any]:
    """Read all splits and report, whatever is wrong with them.

    Args:
        source: Source as `open_data` takes it.
        decode: Whether to decode every image, which finds truncated files. Headers are always read, with progress on
            standard error.

    Returns:
        `source`, `classes`, `errors` and `warnings` (counts over all splits), and `splits`: for each, `images`,
        `boxes`, `boxes_per_class`, `box_sizes`, `image_sizes` (the commonest first), `empty_images`, `ignored`,
        `pixel_rules`, `turned_images` (by EXIF; counts by the rule that their annotated size fits), `deep_images` (of
        more than 8 bits), `reading` (lines on how these are read and why), and `defects`: for each kind its
        `severity`, `count`, `text` and all `messages`.

    Raises:
        NasrayError: if the source is none, or the files of its first split cannot be read at all.
    """
    data = open_data(source)
    splits: dict[str, dict[str, Any]] = {}
    earlier: list[DetectionSet] = []
    for dataset in read_splits(data):
        splits[dataset.name] = _describe(dataset, (earlier or [dataset])[0], earlier, decode)
        earlier.append(dataset)
    kinds = [kind for split in splits.values() for kind in split["defects"].values()]
    return {
        "source": source,
        "classes": list(data.classes),
        "errors": sum(kind["count"] for kind in kinds if kind["severity"] == "error"),
        "warnings": sum(kind["count"] for kind in kinds if kind["severity"] == "warning"),
        "splits": splits,
    }


def read_splits(data: DataSource) -> list[DetectionSet]:
    """Return all splits with whatever is wrong with them.

    Raises:
        NasrayError: if the files of the first one cannot be read at all.
    """
    first = data.read(data.splits[0])
    return [_read_or_empty(data, name, first) for name in data.splits]


def _read_or_empty(data: DataSource, name: str, first: DetectionSet) -> DetectionSet:
    """Return a split, or one without images that says why it cannot be read."""
    try:
        return data.read(name)
    except NasrayError as error:
        nothing = first.select(np.array([], dtype=np.int64))
        return dataclasses.replace(nothing, name=name, defects=(Defect("bad-annotation", str(error)),))


def _describe(dataset: DetectionSet, first: DetectionSet, earlier: list[DetectionSet], decode: bool) -> dict[str, Any]:
    headers = _headers(dataset, decode)
    defects = [*dataset.defects, *headers.defects]
    defects += [found for other in earlier if (found := overlap(other, dataset))]
    if message := category_difference(first, dataset):
        defects.append(Defect("categories-differ", message))
    per_class = np.bincount(dataset.labels, minlength=len(dataset.classes))
    sizes = Counter(f"{width}x{height}" for height, width in dataset.image_hw.tolist())
    return {
        "images": len(dataset),
        "boxes": len(dataset.boxes),
        "boxes_per_class": dict(zip(dataset.classes, per_class.tolist(), strict=True)),
        "box_sizes": {
            name: int(((dataset.areas >= low) & (dataset.areas < high)).sum()) for name, (low, high) in SIZES.items()
        },
        "image_sizes": dict(sizes.most_common()),
        "empty_images": int((np.diff(dataset.offsets) == 0).sum()),
        "ignored": int(dataset.ignored.sum()),
        "pixel_rules": dataset.pixel_rules.to_json(),
        "turned_images": dict(headers.turned),
        "deep_images": headers.deep,
        "reading": [
            line
            for line in (
                describe_orientation(dataset.pixel_rules, headers.turned),
                describe_values(dataset.pixel_rules, headers.deep),
                describe_groups(dataset.files),
            )
            if line
        ],
        "defects": group_defects(defects),
    }


def _headers(dataset: DetectionSet, decode: bool) -> Headers:
    """Return what the image files say, with progress on standard error."""
    from nasray.cluster.progress import ProgressLine

    if not decode and len(dataset) <= QUICK:
        return examine_headers(dataset, range(len(dataset)))
    line = ProgressLine(f"{'decode' if decode else 'headers of'} {dataset.name}", max(len(dataset), 1))
    found = examine_headers(dataset, range(len(dataset)), decode=decode, progress=line.update)
    line.update(len(dataset), final=True)
    return found


def group_defects(defects: Iterable[Defect]) -> dict[str, dict[str, Any]]:
    """Return the `severity`, `count`, `text` and `messages` of each kind of defect."""
    kinds: dict[str, list[Defect]] = {}
    for defect in defects:
        kinds.setdefault(defect.kind, []).append(defect)
    return {
        kind: {
            "severity": DEFECTS[kind][0],
            "count": sum(defect.count for defect in found),
            "text": kind_summary(kind, found),
            "messages": [defect.message for defect in found],
        }
        for kind, found in kinds.items()
    }


def describe_check(report: dict[str, Any], *, examples: int = 3) -> str:
    """Return a report of `check_data` as text.

    Args:
        report: Report to describe.
        examples: Number of messages of each kind of defect.
    """
    lines = [f"{report['source']}: {len(report['classes'])} classes"]
    for name, split in report["splits"].items():
        lines.append(
            f"{name}: {split['images']:,} images, {split['empty_images']:,} of them without boxes; "
            f"{split['boxes']:,} boxes, {split['ignored']:,} of them ignored (crowds, difficult)"
        )
        lines.append("  boxes: " + ", ".join(f"{size} {count:,}" for size, count in split["box_sizes"].items()))
        sizes = [f"{size} ({count:,})" for size, count in list(split["image_sizes"].items())[:5]]
        if len(split["image_sizes"]) > 5:
            sizes.append(f"and {len(split['image_sizes']) - 5:,} more")
        lines.append("  images: " + ", ".join(sizes))
        lines += [f"  reading: {line}" for line in split["reading"]]
        counts = ", ".join(f"{name} {count:,}" for name, count in split["boxes_per_class"].items())
        lines += textwrap.wrap(f"boxes of each class: {counts}", 118, initial_indent="  ", subsequent_indent="    ")
        for defect in sorted(split["defects"].values(), key=lambda defect: defect["severity"] != "error"):
            lines.append(f"  {defect['severity']}: {defect['text']}")
            lines += [f"    {message}" for message in defect["messages"][:examples]]
            if (more := len(defect["messages"]) - examples) > 0:
                lines.append(f"    and {more:,} more")
    totals = [(report["errors"], "error"), (report["warnings"], "warning")]
    total = ", ".join(f"{count:,} {what}{'s' * (count != 1)}" for count, what in totals)
    lines.append(total if report["errors"] or report["warnings"] else "nothing is wrong with it")
    return "\n".join(lines)
