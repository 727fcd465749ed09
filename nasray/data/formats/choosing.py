"""The last step of every reader: some of the classes, in an order of the user's, and whether anything is left."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from nasray.data.dataset import Defect, DetectionSet, class_defects, emptiness
from nasray.data.fields import class_name
from nasray.spaces import NasrayError


def complete(dataset: DetectionSet, classes: Sequence[str] | None, where: str) -> DetectionSet:
    """Return a set that was just read, with the defects of its classes, and of nothing being left in it.

    Args:
        dataset: What was read.
        classes: Names to take, in the order of the new labels; all if None.
        where: What a message calls the source.

    Raises:
        NasrayError: if the data set lacks one of `classes`.
    """
    chosen = dataset if classes is None else choose_classes(dataset, classes, where)
    of_classes = class_defects(chosen.classes, where)
    is_said = any(defect.kind == "empty" for defect in chosen.defects)
    nothing = [] if is_said else emptiness(dataset.name, len(dataset), chosen.ignored, where)
    return dataclasses.replace(chosen, defects=(*chosen.defects, *of_classes, *nothing))


def choose_classes(dataset: DetectionSet, classes: Sequence[str], where: str) -> DetectionSet:
    """Return a set with the boxes of some classes; how many are left out becomes a defect for each class.

    Args:
        dataset: Data set.
        classes: Names to take, in the order of the new labels.
        where: What a message calls the source.

    Raises:
        NasrayError: if the data set lacks one of them.
    """
    chosen = tuple(class_name(one) for one in classes)
    ids = dict(zip(dataset.classes, dataset.category_ids, strict=True))
    if missing := [one for one in chosen if one not in ids]:
        raise NasrayError(f"{where} has no categories {missing} of `classes`; it has {list(ids)}")
    positions = {one: label for label, one in enumerate(chosen)}
    new_labels = np.array([positions.get(one, -1) for one in dataset.classes] or [0], dtype=np.int64)
    labels = new_labels[dataset.labels]
    kept = labels >= 0
    names: Iterable[str] = (dataset.classes[label] for label in dataset.labels[~kept].tolist())
    left_out = tuple(
        Defect("class-left-out", f"{where}: class {one!r}: {count:,} boxes", count)
        for one, count in Counter(names).items()
    )
    rows = np.flatnonzero(kept)
    return dataclasses.replace(
        dataset,
        classes=chosen,
        category_ids=tuple(ids[one] for one in chosen),
        offsets=np.r_[0, kept.cumsum()][dataset.offsets],
        boxes=dataset.boxes[rows],
        labels=labels[rows],
        areas=dataset.areas[rows],
        ignored=dataset.ignored[rows],
        annotation_ids=dataset.annotation_ids[rows],
        segmentations=dataset.segmentations.select(rows) if dataset.segmentations is not None else None,
        defects=(*dataset.defects, *left_out),
    )
