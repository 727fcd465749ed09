"""Outlines of objects, as COCO writes them: polygons, or run lengths of a mask; read strictly, rasterized late.

pycocotools, which rasterizes, checks nothing: it takes four numbers for a box, reads past the end of run lengths that
do not fit, and allocates what far-off corners ask for. Nothing gets there that was not checked here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.files import to_json
from nasray.cluster.reading import parse_json
from nasray.data.fields import FieldError, integer, shown_value

NUMBERS = {int, float}
MAX_STEPS = 2**22  # pixels along the edges of an outline; pycocotools takes about a hundred bytes for each


class Outline(NamedTuple):
    """A segmentation that was read.

    Attributes:
        text: JSON of what is there.
        low: Least x and y of its corners.
        high: Greatest x and y.
        size: Height and width that run lengths are of; None for polygons.
    """

    text: bytes
    low: tuple[float, float] = (0.0, 0.0)
    high: tuple[float, float] = (0.0, 0.0)
    size: tuple[int, int] | None = None


def read_outline(value: Any) -> Outline | None:
    """Return a segmentation as read from JSON; None where there is none (null, or an empty list).

    Raises:
        FieldError: if it is neither polygons nor run lengths; it says what is wrong with it.
    """
    if value is None or value == []:
        return None
    if type(value) is list:
        low, high = _polygons(value)
        return Outline(_json(value), low, high)
    if type(value) is dict:
        size = _run_lengths(value)
        return Outline(_json({"size": size, "counts": value["counts"]}), size=size)
    raise FieldError(f"must be polygons [[x, y, ...], ...] or run lengths, got {shown_value(value)}")


def check_outline(outline: Outline, image_hw: tuple[int, int]) -> None:
    """Hold an outline against its image.

    Raises:
        FieldError: if run lengths are of another size, or a corner is farther off than the image is large.
    """
    height, width = image_hw
    if outline.size is not None:
        if outline.size != (height, width):
            raise FieldError(
                f"has run lengths of size {list(outline.size)} [height, width], the image's is [{height}, {width}]"
            )
        return
    for edges, side in zip(zip(outline.low, outline.high, strict=True), (width, height), strict=True):
        if edges[0] < -side or edges[1] > 2 * side:
            raise FieldError(
                f"has corners from {list(outline.low)} to {list(outline.high)}, far outside the {width}x{height} image"
            )
    # A corner takes four bytes or more, and lies within three sides of the one before.
    if len(outline.text) * max(image_hw) > MAX_STEPS and (steps := _steps(outline.text)) > MAX_STEPS:
        raise FieldError(f"goes {steps:,} pixels to and fro, at most {MAX_STEPS:,} can be drawn")


def _steps(text: bytes) -> int:
    """Return the pixels along the edges of polygons."""
    corners = [np.array(polygon).reshape(-1, 2) for polygon in parse_json(text, "an outline")]
    return sum(int(abs(one - np.roll(one, 1, axis=0)).max(axis=1).sum()) for one in corners)


def _json(value: Any) -> bytes:
    return to_json(value, compact=True).encode()


def _polygons(value: list[Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the least and greatest x and y of polygons; plain Python, which is faster than arrays of a few numbers."""
    if {type(item) for item in value} <= NUMBERS:
        raise FieldError("is a flat list of numbers; write a list of polygons, [[x, y, ...]]")
    lows, highs = [], []
    for position, polygon in enumerate(value):
        if type(polygon) is not list or not set(map(type, polygon)) <= NUMBERS:
            raise FieldError(f"{_which(position, value)} must be a list of numbers, got {shown_value(polygon)}")
        if len(polygon) < 6 or len(polygon) % 2:
            raise FieldError(
                f"{_which(position, value)} has {len(polygon)} numbers; at least three corners of x and y are needed, "
                "an even number"
            )
        try:
            finite = math.isfinite(sum(polygon))
        except OverflowError:
            finite = False
        if not finite:
            raise FieldError(f"{_which(position, value)} has numbers that are not finite: {shown_value(polygon)}")
        xs, ys = polygon[::2], polygon[1::2]
        lows.append((min(xs), min(ys)))
        highs.append((max(xs), max(ys)))
    return (
        (min(x for x, _ in lows), min(y for _, y in lows)),
        (max(x for x, _ in highs), max(y for _, y in highs)),
    )


def _which(position: int, value: list[Any]) -> str:
    return f"polygon {position + 1} of {len(value)}"


def _run_lengths(value: dict[str, Any]) -> tuple[int, int]:
    size, counts = value.get("size"), value.get("counts")
    if type(size) is not list or len(size) != 2:
        raise FieldError(f"has run lengths whose size must be [height, width], got {shown_value(size)}")
    try:
        height, width = (integer(side, 1) for side in size)
    except FieldError as error:
        raise FieldError(f"has run lengths whose size {error}") from None
    if type(counts) is str:
        runs = _decode(counts)
    elif type(counts) is list and all(type(run) is int and 0 <= run < 2**32 for run in counts):
        runs = counts
    else:
        raise FieldError(f"has run lengths whose counts must be whole numbers or text, got {shown_value(counts)}")
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise FieldError(
            f"has run lengths over {sum(runs):,} pixels, their size {height} x {width} has {height * width:,}"
        )
    return height, width


def _decode(text: str) -> list[int]:
    """Return the runs that COCO's compressed text stands for: five bits a character, each run less the last but one."""
    runs: list[int] = []
    run = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise FieldError(f"has run lengths that do not decode, at {letter!r} of counts {shown_value(text)}")
        run |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            run -= (bits & 0x10) << (shift - 4)
            runs.append(run + runs[-2] if len(runs) > 2 else run)
            run = shift = 0
    if shift:
        raise FieldError(f"has run lengths that end in the middle of a number: counts {shown_value(text)}")
    return runs


@dataclass(frozen=True, eq=False)
class Segmentations:
    """Outlines of N boxes as JSON, decoded when asked for.

    Attributes:
        content: All texts.
        bounds: (N, 2) where each begins and ends in it; equal where there is none.
    """

    content: NDArray[np.uint8]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, segmentations: Iterable[Any]) -> Segmentations:
        """Store what COCO's files hold; anything false is none."""
        return cls.of_texts([_json(item) if item else b"" for item in segmentations])

    @classmethod
    def of_texts(cls, texts: Sequence[bytes]) -> Segmentations:
        """Store JSON texts; an empty text is none."""
        ends = np.cumsum([0, *map(len, texts)])
        return cls(np.frombuffer(b"".join(texts), dtype=np.uint8), np.stack([ends[:-1], ends[1:]], axis=1))

    def select(self, rows: NDArray[np.int64]) -> Segmentations:
        """Return those of some boxes; the texts are shared, not copied."""
        return Segmentations(self.content, self.bounds[rows])

    def text(self, index: int) -> bytes:
        """Return JSON of one, empty where there is none."""
        begin, end = self.bounds[index].tolist()
        return self.content[begin:end].tobytes()

    def value(self, index: int) -> Any:
        """Return polygons or run lengths as in COCO's files, or None."""
        text = self.text(index)
        return parse_json(text, "an outline") if text else None

    def mask(self, index: int, image_hw: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return (H, W) zeros and ones, or None.

        Raises:
            FieldError: if it is no outline of an image of this size.
        """
        from pycocotools import mask

        value = self.value(index)
        outline = read_outline(value)
        if outline is None:
            return None
        height, width = (int(edge) for edge in image_hw)
        check_outline(outline, (height, width))
        if isinstance(value, list):
            value = mask.merge(mask.frPyObjects(value, height, width))
        elif isinstance(value["counts"], list):
            value = mask.frPyObjects({**value, "size": [height, width]}, height, width)
        pixels: NDArray[np.uint8] = mask.decode({**value, "size": [height, width]})
        return pixels
