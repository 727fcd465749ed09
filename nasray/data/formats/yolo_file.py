"""YOLO's YAML file: names of the classes, and where the images of each split lie.

Reference: Ultralytics, "Object Detection Datasets Overview" (docs).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from nasray.cluster.reading import shown
from nasray.data.fields import FieldError, class_name, shown_value
from nasray.data.formats.own_keys import OWN_KEYS, OwnKeys
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.validation import validate

SPLIT_KEYS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}
"""Keys of the splits, and what a split is called here."""
KEYS = ("format", "path", *SPLIT_KEYS, "names", "nc", *OWN_KEYS)


@dataclass(frozen=True)
class YoloFile:
    """What a YOLO data set's YAML file says.

    Attributes:
        path: The file.
        root: Folder that the entries are relative to.
        names: Names of the classes in the order of their numbers.
        splits: Folders and list files of each split, as they are written.
        own: What nasray's own keys say.
    """

    path: Path
    root: Path
    names: tuple[str, ...]
    splits: dict[str, tuple[str, ...]]
    own: OwnKeys


def is_yolo(content: Any) -> bool:
    """Return whether a YAML file's content is that of a YOLO data set."""
    if not isinstance(content, dict):
        return False
    if "format" in content:
        return str(content["format"]).lower().startswith("yolo")
    return "names" in content or "nc" in content


def read_yolo_file(content: dict[str, Any], path: Path) -> YoloFile:
    """Return what a file says; keys that nasray does not know are left to whom they are for (`download`, `roboflow`).

    Args:
        content: Content of the file.
        path: The file.

    Raises:
        NasrayError: if a key is wrong, or one that is needed is missing.
    """
    where = shown(path)
    for key in content:
        if key not in KEYS and (hint := did_you_mean(str(key), KEYS)) != ".":
            raise NasrayError(f"{where}: unknown key {shown_value(key)}{hint}")
    if "kpt_shape" in content:
        raise NasrayError(
            f"{where}: kpt_shape says that labels hold key points, which are not read. Export boxes or outlines, and "
            "remove kpt_shape"
        )
    own = validate(TypeAdapter(OwnKeys), OwnKeys, {key: content[key] for key in OWN_KEYS if key in content}, where)
    return YoloFile(path, _root(content.get("path"), path), _names(content, where), _splits(content, where), own)


def _root(value: Any, path: Path) -> Path:
    """Return the folder of the key `path`, relative to the file's; the file's own where there is none."""
    if value in (None, ""):
        return path.parent
    if not isinstance(value, str):
        raise NasrayError(f"{shown(path)}: path must be a folder, got {shown_value(value)}")
    root = path.parent / Path(value).expanduser()
    if not root.is_dir():
        raise NasrayError(
            f"{shown(path)}: path {shown_value(value)} is not a folder (looked for {shown(root)}). Write the folder "
            "that holds the images, relative to this file; `path: .` if that is where it lies"
        )
    return root


def _names(content: dict[str, Any], where: str) -> tuple[str, ...]:
    """Return the names of the classes: a list, or a mapping of 0, 1, ... to names."""
    names = content.get("names")
    if isinstance(names, dict):
        numbers = sorted(key for key in names if type(key) is int)
        if len(numbers) < len(names) or numbers != list(range(len(names))):
            raise NasrayError(
                f"{where}: names must number the classes 0 to {len(names) - 1} without gaps, got "
                f"{shown_value(list(names))}"
            )
        names = [names[number] for number in numbers]
    if not isinstance(names, list) or not names:
        got = f"got {shown_value(names)}" if "names" in content else "it is missing"
        raise NasrayError(
            f"{where}: names must be a list of class names, or a mapping such as {{0: cat, 1: dog}}; {got}"
        )
    try:
        found = tuple(class_name(str(name) if type(name) is int else name) for name in names)
    except FieldError as error:
        raise NasrayError(f"{where}: names: each {error}") from None
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        places = ", ".join(str(number) for number, name in enumerate(found) if name == twice[0])
        raise NasrayError(f"{where}: names: {twice[0]!r} occurs as classes {places}; write every name once")
    if (count := content.get("nc")) is not None and count != len(found):
        raise NasrayError(
            f"{where}: nc is {shown_value(count)}, but there are {len(found)} names. Correct one of the two"
        )
    return found


def _splits(content: dict[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    """Return the entries of each split; keys without a value are left out, as templates have them."""
    found: dict[str, tuple[str, ...]] = {}
    keys: dict[str, str] = {}
    for key, name in SPLIT_KEYS.items():
        value = content.get(key)
        if value in (None, "", []):
            continue
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, str) and entry for entry in entries):
            raise NasrayError(
                f"{where}: {key} must be a folder of images, a .txt file that lists them, or a list of these; got "
                f"{shown_value(value)}"
            )
        if name in found:
            raise NasrayError(f"{where}: {keys[name]} and {key} are the same split. Leave one of the two out")
        found[name], keys[name] = tuple(entries), key
    if not found:
        raise NasrayError(f"{where} names no split; it needs at least one of train, val, test")
    return {name: found[name] for name in ("train", "val", "test") if name in found}
