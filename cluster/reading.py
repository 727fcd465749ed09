"""The one gate for text, JSON and YAML from outside: whatever goes wrong is one message with file and place.

YAML is read by the core schema of YAML 1.2, as every other tool of today reads it: only true and false are booleans
(`no`, `on` and `off` are words), 1e-3 is a number, 010 is ten, dates and 12:30 are words. Twice the same key is an
error in YAML and JSON alike: the last one would silently win.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from nasray.spaces import NasrayError

MAX_YAML_BYTES = 16 * 2**20
MAX_YAML_NODES = 200_000  # after aliases are followed
MAX_DEPTH = 100


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        NasrayError: if there is no such file, or it cannot be read.
    """
    if os.path.exists(path) and (Path(path).is_char_device() or Path(path).is_block_device()):  # some never end
        raise NasrayError(f"{shown(path)} is a device, not a file. Pass a file")
    try:
        return Path(path).read_bytes()
    except IsADirectoryError:
        raise NasrayError(f"{shown(path)} is a folder, not a file. Pass the file itself") from None
    except FileNotFoundError:
        raise NasrayError(f"{shown(path)} not found. Check the path") from None
    except (OSError, ValueError) as error:  # a null byte in a name is a ValueError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NasrayError(f"{shown(path)} cannot be read: {reason}. Check its name and its permissions") from error


def read_text(path: str | Path) -> str:
    """Return the content of a UTF-8 file, without a byte order mark.

    Raises:
        NasrayError: if it cannot be read, or is not UTF-8 text; the message names the place.
    """
    return decode_text(read_bytes(path), shown(path))


def decode_text(content: bytes, source: str) -> str:
    """Return UTF-8 bytes as text, without a byte order mark.

    Raises:
        NasrayError: if they are not UTF-8 text.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise NasrayError(f"{source} is UTF-16, not UTF-8. Save it as UTF-8")
    zero = content.find(b"\0")
    if zero >= 0:
        raise NasrayError(f"{source} is binary, not text: zero byte at offset {zero}. Pass a UTF-8 text file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise NasrayError(
            f"{source} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start} (line {line}). "
            "Save it as UTF-8"
        ) from None


def read_json(path: str | Path) -> Any:
    """Return the value in a JSON file.

    Raises:
        NasrayError: if it cannot be read, or is not JSON; the message names the place.
    """
    return parse_json(read_text(path), shown(path))


def parse_json(
    text: str | bytes, source: str, *, each: Callable[[dict[str, Any]], Any] | None = None, finite: bool = True
) -> Any:
    """Return the value of a JSON text.

    Args:
        text: JSON; bytes are UTF-8.
        source: Name for messages.
        each: Called with every object as soon as it is read; what it returns takes the object's place.
        finite: Refuse NaN and Infinity, which JSON does not have; whoever allows them says better where they are.

    Raises:
        NasrayError: if it is not JSON, has a key twice in one object, or is nested too deeply to read.
    """

    def read_object(pairs: list[tuple[str, Any]]) -> Any:
        found = _object(pairs, source)
        return each(found) if each is not None else found

    text = decode_text(text, source) if isinstance(text, bytes) else text
    try:
        return json.loads(text, object_pairs_hook=read_object, parse_constant=_no_constant if finite else None)
    except NasrayError:
        raise
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise NasrayError(f"{source} is not valid JSON: {error.msg} at {place}. Correct or restore it") from None
    except RecursionError:
        raise NasrayError(f"{source} is nested too deeply to read. Correct or restore it") from None
    except ValueError as error:  # NaN; integers of thousands of digits
        raise NasrayError(f"{source} is not valid JSON: {_reason_of(error)}. Correct or restore it") from None


def _reason_of(error: ValueError) -> str:
    # What Python says of thousands of digits is advice to programmers.
    return "a number of thousands of digits" if "integer string conversion" in str(error) else str(error)


def _object(pairs: list[tuple[str, Any]], source: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise NasrayError(f"{source} has key {twice!r} twice in one object. Remove one of the two")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def read_yaml(path: str | Path) -> Any:
    """Return the value in a YAML file.

    Raises:
        NasrayError: if it cannot be read, or is not YAML; the message names the place.
    """
    return parse_yaml(read_text(path), shown(path))


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of a YAML text; see this module for what differs from YAML 1.1.

    Raises:
        NasrayError: if it is not YAML, has a key twice in one mapping, or is too large or too deep once its aliases
            are followed.
    """
    if len(text) > MAX_YAML_BYTES:
        raise NasrayError(f"{source} is too large for YAML: {len(text):,} characters, at most {MAX_YAML_BYTES:,}")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _num_nodes(node, {}, source, 0) > MAX_YAML_NODES:
            raise NasrayError(f"{source} holds more than {MAX_YAML_NODES:,} values. Remove aliases, or divide it")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise NasrayError(f"{source} is not valid YAML: {error.problem or error.context}{place}. Correct it") from None
    except yaml.YAMLError as error:
        raise NasrayError(f"{source} is not valid YAML: {' '.join(str(error).split())}. Correct it") from None
    except RecursionError:
        raise NasrayError(f"{source} is nested too deeply to read (at most {MAX_DEPTH} levels). Correct it") from None
    except ValueError as error:
        if isinstance(error, NasrayError):
            raise
        raise NasrayError(f"{source} is not valid YAML: {_reason_of(error)}. Correct it") from None
    finally:
        if loader is not None:
            loader.dispose()


def to_yaml(content: Any) -> str:
    """Return YAML that `parse_yaml` reads back to the same value, keys in the order in which they are."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def shown(path: str | Path) -> str:
    """Return a path as messages show it: one line, whatever bytes it holds, and not longer than a line."""
    text = "".join(c if c.isprintable() else "\ufffd" for c in str(path))
    return text if len(text) <= 200 else f"{text[:100]}...{text[-60:]} ({len(text):,} characters)"


class _Loader(yaml.SafeLoader):
    """Reads YAML by the core schema of 1.2."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse twice the same key, before `<<` brings in others that may be overridden."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
        for key, count in keys.items():
            if count > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} occurs twice", node.start_mark)
        super().flatten_mapping(node)


class _Dumper(yaml.SafeDumper):
    """Writes YAML that `_Loader` reads back."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds Unicode's line breaks away unless they are escaped.
    style = '"' if any(c in text for c in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)

_RESOLVERS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
)
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {}
    for _tag, _pattern, _first in _RESOLVERS:
        _letters = [*_first.replace("\0", ""), *([""] if "\0" in _first else [])]
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _letters)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _num_nodes(node: yaml.Node, known: dict[int, int], source: str, depth: int) -> int:
    """Return how many values a node stands for once its aliases are followed."""
    if depth > MAX_DEPTH:
        raise NasrayError(f"{source} is nested too deeply to read (at most {MAX_DEPTH} levels). Correct it")
    if id(node) not in known:
        known[id(node)] = -1  # while its parts are counted
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = parts if isinstance(node, yaml.CollectionNode) else []
        known[id(node)] = 1 + sum(_num_nodes(part, known, source, depth + 1) for part in inner)
    if known[id(node)] < 0:
        raise NasrayError(f"{source} has an alias inside the value that it stands for. Write the value out")
    return known[id(node)]
