"""COCO's JSON: images, categories and annotations in one file for each split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from nasray.cluster.reading import read_bytes, shown
from nasray.data.dataset import Defect, DetectionSet
from nasray.data.formats.choosing import complete
from nasray.data.formats.coco_table import VERSION, CocoTable, parse_coco, table_from_arrays, table_to_arrays
from nasray.data.image_files.images import ImageFiles, stored_size
from nasray.data.image_files.pixels import DEFAULT_RULES, PixelRules
from nasray.data.mapped import Arrays, shared_arrays, source_digest

SHARED_BYTES = 8 * 2**20
"""Files of at least this size are parsed once for all processes; smaller ones are parsed faster than looked up."""
TRIED = 200
"""Images by which it is decided in which folder they lie."""


def read_coco(
    annotations: Path,
    folders: Sequence[Path],
    *,
    name: str,
    classes: Sequence[str] | None = None,
    rules: PixelRules = DEFAULT_RULES,
) -> DetectionSet:
    """Read one split.

    Category ids may have gaps; labels follow the order of the ids. Crowds are kept as ignored boxes. A large file is
    parsed once and then mapped by all processes, see `nasray.data.mapped`.

    Args:
        annotations: The JSON file.
        folders: Folders where images may lie; the one that holds most of them is taken.
        name: Name of the split.
        classes: Names to take, in the order of labels; annotations of others are left out. All if left out.
        rules: How the images are read.

    Returns:
        The set, with all defects that can be found without decoding images.

    Raises:
        NasrayError: if the file is missing, no JSON, or not of COCO's form; or if it lacks one of `classes`.
    """
    table = _read_table(annotations, folders, rules)
    files = ImageFiles(_folder(folders, table.names), table.names)
    where = shown(annotations)
    defects = [Defect(kind, f"{where}: {message}", count) for kind, message, count in table.defects]
    for index in files.missing():
        message = f"{where}: image id {table.image_ids[index]}: no file {shown(files.name(index))}"
        defects.append(Defect("missing-image", message))
    dataset = DetectionSet(
        name=name,
        classes=table.classes,
        category_ids=table.category_ids,
        files=files,
        image_ids=table.image_ids,
        image_hw=table.image_hw,
        offsets=table.offsets,
        boxes=table.boxes,
        labels=table.labels,
        areas=table.areas,
        ignored=table.ignored,
        annotation_ids=table.annotation_ids,
        segmentations=table.segmentations,
        defects=tuple(defects),
        pixel_rules=rules,
    )
    return complete(dataset, classes, where)


def _read_table(path: Path, folders: Sequence[Path], rules: PixelRules) -> CocoTable:
    """Return what the file says, from the cache where it is large."""

    def find_sizes(names: Sequence[str]) -> Iterator[tuple[int, int] | None]:
        folder = _folder(folders, names)
        return (stored_size(folder / name, rules.orientation) for name in names)

    def parse() -> CocoTable:
        return parse_coco(read_bytes(path), shown(path), find_sizes)

    try:
        large = path.stat().st_size >= SHARED_BYTES
        digest = source_digest(path, VERSION) if large else ""
    except (OSError, ValueError):
        return parse()  # which says what is wrong with it
    if not large:
        return parse()
    parsed: list[CocoTable] = []

    def make() -> Arrays | None:
        parsed.append(parse())
        return table_to_arrays(parsed[0]) if parsed[0].sized else None

    arrays = shared_arrays("annotations", digest, make)
    return table_from_arrays(arrays) if arrays is not None else parsed[0]


def _folder(folders: Sequence[Path], names: Sequence[str]) -> Path:
    """Return the folder that holds most of the images, going by some of them; the first of several."""
    if len(folders) == 1 or not len(names):
        return folders[0]
    step = -(-len(names) // TRIED)
    tried = [names[index] for index in range(0, len(names), step)]
    return max(folders, key=lambda folder: sum(_is_file(folder / name) for name in tried))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
