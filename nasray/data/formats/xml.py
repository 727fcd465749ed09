"""XML from outside: read in whichever encoding it is, without what XML can do to a reader; or one message."""

from __future__ import annotations

import codecs
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from xml.parsers import expat

from nasray.cluster.reading import read_bytes, shown
from nasray.spaces import NasrayError

MAX_DEPTH = 100
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0?\0", "utf-16-le"),
    (b"\0<\0?", "utf-16-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
"""What a file in an encoding begins with, where that is not ASCII."""


def read_xml(path: Path, root: str) -> ElementTree.Element:
    """Return the root element of a file.

    The encoding is that of its byte order mark, else the one that it declares, else UTF-8. Entities other than XML's
    own five are refused: they can stand for gigabytes, or for other files.

    Args:
        path: The file.
        root: Tag that its root must have.

    Raises:
        NasrayError: if it cannot be read, is no XML, or has another root; the message names file and place.
    """
    source = shown(path)
    text = _decode(read_bytes(path), source)
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise NasrayError(f"{source} is nested too deeply to read (at most {MAX_DEPTH} levels). Correct it")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse_entity(name: str, *_: Any) -> None:
        raise NasrayError(f"{source} declares or uses the entity {name!r}. Write its text out, and remove the DOCTYPE")

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse_entity
    parser.SkippedEntityHandler = refuse_entity
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code) or str(error)
        place = f"line {error.lineno}, column {error.offset + 1}"
        raise NasrayError(f"{source} is not valid XML: {reason} at {place}. Correct or restore it") from None
    except ValueError as error:
        if isinstance(error, NasrayError):
            raise
        raise NasrayError(f"{source} is not valid XML: {error}. Correct or restore it") from None
    found = builder.close()
    if found.tag != root:
        raise NasrayError(f"{source} is not an annotation of Pascal VOC: its root is <{found.tag[:40]}>, not <{root}>")
    return found


def _decode(content: bytes, source: str) -> str:
    """Return the text of a file, whose own declaration of an encoding counts for nothing from here on."""
    marked = next((name for mark, name in MARKS if content.startswith(mark)), None)
    declared = re.match(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([^\"'>]*)[\"']", content[:200])
    name = marked or (declared[1].decode("ascii", "replace") if declared else "utf-8")
    if not content.strip():
        raise NasrayError(f"{source} is empty. Restore it")
    try:
        return content.decode(name).lstrip()
    except LookupError:
        raise NasrayError(f"{source} declares the encoding {name!r}, which is not known. Save it as UTF-8") from None
    except ValueError as error:
        place = f" at offset {error.start}" if isinstance(error, UnicodeDecodeError) else ""
        says = "declares" if declared and not marked else "seems to have"
        raise NasrayError(
            f"{source} {says} the encoding {name!r}, but its bytes are not in it{place}. Save it as UTF-8"
        ) from None
