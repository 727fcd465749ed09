"""Lines of YOLO's label files: a box, or the outline of an object, in shares of the image.

Reference: Ultralytics, "Object Detection Datasets Overview" and "Instance Segmentation Datasets Overview" (docs).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nasray.data.fields import NUMBER, FieldError, shown_value

EDGES = ("center x", "center y", "width", "height")
ROUNDING = 1e-6
"""What a share may lie outside [0, 1]: a half of the last of six decimals, which is what tools write."""

_LINE = re.compile(rf"{NUMBER}(\s+{NUMBER})*")


class Label(NamedTuple):
    """An object of an image.

    Attributes:
        line: Number of its line, from 1.
        label: Class.
        values: Center x, center y, width and height; or x and y of three corners or more; shares of width and height.
    """

    line: int
    label: int
    values: list[float]

    @property
    def is_outline(self) -> bool:
        """Whether it is an outline, not a box."""
        return len(self.values) > len(EDGES)


class LabelError(FieldError):
    """A line that is no label.

    Attributes:
        kind: Kind of defect.
        line: Number of the line.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.line = kind, 0


def read_labels(text: str, classes: Sequence[str]) -> Iterator[Label | LabelError]:
    """Yield what each line of a label file says that is not empty.

    Args:
        text: Content of the file.
        classes: Names in the order of labels.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if not (line := line.strip()):
            continue
        try:
            label, values = _read_line(line, classes)
            yield Label(number, label, values)
        except LabelError as error:
            error.line = number
            yield error


def is_label(line: str) -> bool:
    """Return whether a line has the form of a box or of an outline, whatever its class and its numbers."""
    return len(line.split()) >= 5 and _LINE.fullmatch(line.strip()) is not None


def _read_line(line: str, classes: Sequence[str]) -> tuple[int, list[float]]:
    """Return the class and the shares that a line names.

    Raises:
        LabelError: if it is neither a box nor an outline.
    """
    words = line.split()
    if not _LINE.fullmatch(line):
        wrong = next((word for word in words if not re.fullmatch(NUMBER, word)), line)
        raise LabelError("bad-field", f"must be numbers with spaces between them, got {shown_value(wrong)}")
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        hint = "; the sixth may be a score, as predictions have it: leave it out" if len(words) == 6 else ""
        raise LabelError(
            "bad-box",
            f"has {len(words)} numbers; a box has 5 (class, center x, center y, width, height), an outline the class "
            f"and x and y of three corners or more{hint}",
        )
    label, values = _class(words[0], classes), [float(word) for word in words[1:]]
    if min(values) < -ROUNDING or max(values) > 1 + ROUNDING:
        place = next(place for place, value in enumerate(values) if not -ROUNDING <= value <= 1 + ROUNDING)
        what = EDGES[place] if len(values) == len(EDGES) else f"{'xy'[place % 2]} of corner {place // 2 + 1}"
        hint = "; are these pixels? Divide by the image's width and height" if max(values) > 2 else ""
        raise LabelError("bad-box", f"{what} must be a share from 0 to 1, got {shown_value(words[place + 1])}{hint}")
    return label, values


def _class(word: str, classes: Sequence[str]) -> int:
    label = float(word)
    if not label.is_integer():
        raise LabelError("bad-field", f"class must be a whole number, got {shown_value(word)}")
    if not 0 <= label < len(classes):
        names = "the name is class 0" if len(classes) == 1 else f"names are classes 0 to {len(classes) - 1}"
        raise LabelError("unknown-category", f"class {shown_value(word)} has no name; {names}")
    return int(label)
