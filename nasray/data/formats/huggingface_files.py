"""Which Parquet files of a folder are which split of a set, by the names that Hugging Face gives them.

Reference: Hugging Face, "Structure your repository" (docs of the Hub).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nasray.cluster.reading import shown
from nasray.spaces import NasrayError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What splits are called there; the first is what nasray writes."""
PLACES = ("data", ".", "default")
"""Folders of a set in which its files may lie, or folders by split."""

_SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})(?:-\w+)?\.parquet")
_ALIASES = {alias: name for name, aliases in SPLIT_NAMES.items() for alias in aliases}


def find_parquet(root: Path) -> tuple[str, dict[str, tuple[Path, ...]]] | None:
    """Return where the files of a set lie, and the files of each split in their order; None where there are none.

    Args:
        root: Folder of the set.

    Raises:
        NasrayError: if files lie in several places, belong to no split, or shards are missing.
    """
    found = {place: files for place in PLACES if (files := _by_split(root / place))}
    if len(found) > 1:
        places = " and ".join(shown(root / place) for place in found)
        raise NasrayError(f"folder {shown(root)} holds Parquet files of two sets, in {places}. Pass one of the folders")
    if not found:
        return _configuration(root)
    ((place, files),) = found.items()
    splits = {name: tuple(_complete(paths)) for name, paths in files.items()}
    return place, {name: splits[name] for name in SPLIT_NAMES if name in splits}


def parquet_file(path: Path) -> dict[str, tuple[Path, ...]]:
    """Return the one split that a single file is; `train` where its name does not say.

    Raises:
        NasrayError: if it is one of several shards.
    """
    if (shard := _SHARD.fullmatch(path.name)) and int(shard["total"]) > 1:
        folder = path.parent.parent if path.parent.name == "data" else path.parent
        raise NasrayError(
            f"{shown(path)} is one of {int(shard['total'])} files of a split. Pass the folder {shown(folder)}"
        )
    return {_split_of(path) or "train": (path,)}


def _by_split(folder: Path) -> dict[str, list[Path]]:
    """Return the Parquet files of a folder by split: by their names, or by the folders that they lie in."""
    files = sorted(folder.glob("*.parquet"))
    if len(files) == 1 and _split_of(files[0]) is None:
        return {"train": files}
    found: dict[str, list[Path]] = {}
    spelled: dict[str, str] = {}
    for path in files:
        name = _split_of(path)
        if name is None:
            raise NasrayError(
                f"{shown(path)} names no split. Call it train.parquet, validation.parquet or test.parquet, or write a "
                "YAML file: format: huggingface, and `files` of each split"
            )
        _note(spelled, name, _word(path), folder)
        found.setdefault(name, []).append(path)
    for inner in sorted(path for path in folder.glob("*") if path.name in _ALIASES and path.is_dir()):
        if inside := sorted(inner.glob("*.parquet")):
            name = _ALIASES[inner.name]
            _note(spelled, name, f"{inner.name}/", folder)
            found.setdefault(name, []).extend(inside)
    return found


def _note(spelled: dict[str, str], name: str, word: str, folder: Path) -> None:
    if (other := spelled.setdefault(name, word)) != word:
        raise NasrayError(f"{shown(folder)} holds {other!r} and {word!r}, which both are the split {name!r}. Keep one")


def _configuration(root: Path) -> tuple[str, dict[str, tuple[Path, ...]]] | None:
    """Return the files of the only subfolder that holds splits."""
    folders = sorted(path for path in root.glob("*") if path.is_dir() and path.name not in (*_ALIASES, *PLACES))
    found = [path for path in folders if not path.name.startswith(".") and _holds_splits(path)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise NasrayError(f"folder {shown(root)} holds several sets: {names}. Pass one, such as {shown(found[0])}")
    inner = find_parquet(found[0]) if found else None
    return (found[0].name, inner[1]) if inner else None


def _holds_splits(folder: Path) -> bool:
    inside = any(_split_of(path) for path in folder.glob("*.parquet"))
    return inside or any(path.parent.name in _ALIASES for path in folder.glob("*/*.parquet"))


def _word(path: Path) -> str:
    """Return how a file's name spells its split."""
    shard = _SHARD.fullmatch(path.name)
    return shard["split"] if shard else re.split(r"[-_.]", path.stem)[0]


def _split_of(path: Path) -> str | None:
    return _ALIASES.get(_word(path).lower())


def _complete(paths: Sequence[Path]) -> Sequence[Path]:
    """Return the files of a split in order.

    Raises:
        NasrayError: if their names say that there are others.
    """
    shards = [match for path in paths if (match := _SHARD.fullmatch(path.name))]
    if not shards:
        return paths
    totals = sorted({int(shard["total"]) for shard in shards})
    if len(totals) > 1 or len(shards) < len(paths):
        others = ", ".join(path.name for path in paths[:4])
        raise NasrayError(f"{shown(paths[0].parent)} holds two versions of a split: {others}. Keep one of them")
    numbers = [int(shard["number"]) for shard in shards]
    if missing := sorted(set(range(totals[0])) - set(numbers)):
        name = f"{shards[0]['split']}-{missing[0]:05d}-of-{totals[0]:05d}"
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NasrayError(
            f"{shown(paths[0].parent)}: {name}.parquet{more} of {totals[0]} files are missing. Get all of them"
        )
    if len(numbers) > totals[0]:
        raise NasrayError(
            f"{shown(paths[0].parent)} holds {len(numbers)} files of a split of {totals[0]}. Keep each number once"
        )
    return paths
