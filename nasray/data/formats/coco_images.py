"""Categories and images of a COCO file, each field by its type; a part of `nasray.data.formats.coco_table`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nasray.data import fields
from nasray.data.fields import FieldError

FindSizes = Callable[[Sequence[str]], Iterable[tuple[int, int] | None]]
Message = tuple[str, str, int]
"""Kind of defect, what it says, and of how many."""


class Fields:
    """Reads the fields of records; what cannot be read is kept until it is told of which record it is."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def take(self, record: dict[str, Any], key: str, read: Callable[..., Any], default: Any = None) -> Any:
        """Return the value of a field, or None and a problem; with a default it may be left out or null."""
        value = record.get(key)
        if value is None and default is not None:
            return default
        try:
            return read(value)
        except FieldError as error:
            self.problems.append(f"{key} {error}" if key in record else f"{key} is missing")
            return None

    def told(self, kind: str, where: str) -> list[Message]:
        """Return the problems since the last time, as messages."""
        told = [(kind, f"{where}: {problem}", 1) for problem in self.problems]
        self.problems.clear()
        return told


def read_categories(records: list[dict[str, Any]], defects: list[Message]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the ids and names in the order of ids."""
    table: dict[int, str] = {}
    reader = Fields()
    for position, record in enumerate(records):
        number, name = reader.take(record, "id", fields.integer), reader.take(record, "name", fields.class_name)
        where = f"categories[{position}]"
        if reader.problems:
            defects += reader.told("bad-field", where)
            continue
        if number in table or name in table.values():
            defects.append(("duplicate-category", f"{where}: id {number} or name {name!r} occurs before", 1))
        table.setdefault(number, name)
    return tuple(sorted(table)), tuple(table[number] for number in sorted(table))


@dataclass
class Images:
    """What the records of images say, and where each of their ids is."""

    ids: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)

    def describe(self, position: int) -> str:
        """Return the file and id."""
        return f"image {self.names[position]} (id {self.ids[position]})"


def _side(value: Any) -> int:
    return fields.integer(value, 0, fields.MAX_SIDE)


def read_images(records: list[dict[str, Any]], defects: list[Message]) -> Images:
    """Return the images; sizes that are 0 or left out are (0, 0)."""
    images, reader = Images(), Fields()
    files: dict[str, int] = {}
    for position, record in enumerate(records):
        number = reader.take(record, "id", fields.integer)
        name = reader.take(record, "file_name", fields.file_name)
        height = reader.take(record, "height", _side, default=0)
        width = reader.take(record, "width", _side, default=0)
        where = f"images[{position}]"
        if number is None or name is None:
            defects += reader.told("bad-field", where)
            continue
        if reader.problems:
            defects += reader.told("bad-field", f"{where}, {name} (id {number})")
        if number in images.positions:
            other = images.names[images.positions[number]]
            defects.append(("duplicate-image", f"{where}: id {number} of {name} is that of {other} too", 1))
        elif name in files:
            message = f"{where}: file {name} of id {number} is that of id {files[name]} too"
            defects.append(("duplicate-image", message, 1))
        images.positions.setdefault(number, len(images.ids))
        files.setdefault(name, number)
        images.ids.append(number)
        images.names.append(name)
        images.sizes.append((height, width) if height and width else (0, 0))
    return images


def find_missing_sizes(images: Images, find_sizes: FindSizes, defects: list[Message]) -> bool:
    """Return whether all sizes were annotated; those that were not are read from the files."""
    unknown = [position for position, size in enumerate(images.sizes) if size == (0, 0)]
    if not unknown:
        return True
    found = find_sizes(images.names) if len(unknown) == len(images.names) else None
    if found is None:
        found = find_sizes([images.names[position] for position in unknown])
    for position, stored in zip(unknown, found, strict=True):
        where = images.describe(position)
        if stored:
            images.sizes[position] = stored
            defects.append(("image-size", f"{where} has no width and height; the file's are {stored[::-1]}", 1))
        else:
            defects.append(("unreadable-image", f"{where}: neither annotation nor file tell its size", 1))
    return False
