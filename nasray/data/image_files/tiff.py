"""TIFF files by Pillow, put right where Pillow is wrong in silence.

Pillow (13) gives of samples with more than 8 bits: colors without their low bytes; compressed signed and
floating-point values of big-endian files with bytes exchanged; unsigned 32-bit values as signed ones; inverted images
(WhiteIsZero) not inverted; separate planes as noise. Of 8 bits it takes signed values for unsigned ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nasray.data.image_files.deep import both_bytes, set_raw_mode
from nasray.data.image_files.pixels import PixelRules, UnsupportedError, gray_to_rgb, to_8_bits, to_rgb

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of a file."""

WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLES, PLANES, SAMPLE_FORMAT, SUBSAMPLING = 256, 257, 258, 262, 277, 284, 339, 530
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def stored_hw(picture: Any) -> tuple[int, int]:
    """Return height and width as stored: Pillow's own size is that of the turned image."""
    return int(picture.tag_v2[HEIGHT]), int(picture.tag_v2[WIDTH])


def bits_of(picture: Any) -> int:
    """Return the bits of a sample."""
    return int(max(picture.tag_v2.get(BITS, (1,))))


def decode_tiff(picture: Any, reopen: Callable[[], Any], name: str, rules: PixelRules) -> NDArray[np.uint8]:
    """Return (3, H, W) RGB, upright: Pillow turns TIFFs itself.

    Args:
        picture: Opened by Pillow, not loaded.
        reopen: Opens it once more.
        name: What an error calls it.
        rules: Rules of the data set.

    Raises:
        ImageError: if the range of its values cannot be known.
        UnsupportedError: if its kind is not supported.
    """
    tags, bits = picture.tag_v2, bits_of(picture)
    kind = max(tags.get(SAMPLE_FORMAT, (UNSIGNED,)))
    by_libtiff = picture.tile[0].codec_name != "raw"
    if tags.get(PHOTOMETRIC) == 6 and not by_libtiff and tuple(tags.get(SUBSAMPLING, (2, 2))) != (1, 1):
        raise UnsupportedError("TIFFs of subsampled YCbCr without compression are not supported. Save it as RGB")
    if not by_libtiff:
        _refuse_gaps(picture)
    if bits <= 8:
        if kind != UNSIGNED:
            raise UnsupportedError("TIFFs of signed 8-bit values are not supported. Save it with unsigned ones")
        return to_rgb(picture)
    if len(picture.getbands()) > 1:
        if tags.get(PLANES, 1) != 1:
            raise UnsupportedError("TIFFs with separate planes of 16 bits are not supported. Save it interleaved")
        return _deep_colors(picture, reopen(), name, rules)
    if by_libtiff and kind == FLOAT:  # libtiff gives samples in the byte order of this machine
        set_raw_mode(picture, "F;32NF")
    elif by_libtiff and kind == SIGNED:
        set_raw_mode(picture, f"I;{bits}NS")
    values = np.asarray(picture)
    if kind == UNSIGNED and bits == 32:
        values = values.view(np.uint32)
    gray = to_8_bits(values, name, rules, 2**bits - 1 if kind == UNSIGNED and bits < 16 else None)
    return gray_to_rgb(255 - gray if tags.get(PHOTOMETRIC) == 0 else gray)


def _refuse_gaps(picture: Any) -> None:
    """Refuse an image whose strips or tiles do not cover it, of which Pillow leaves the rest black."""
    height, width = stored_hw(picture)
    planes = len(picture.getbands()) if picture.tag_v2.get(PLANES, 1) == 2 else 1
    covered = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in picture.tile)
    if covered < height * width * planes:
        raise OSError("its strips or tiles do not cover it")


def _deep_colors(picture: Any, again: Any, name: str, rules: PixelRules) -> NDArray[np.uint8]:
    """Return (3, H, W) RGB of several channels of 16 bits."""
    from PIL import Image

    raw_mode = str(picture.tile[0].args[0])
    straight = raw_mode.replace("RGBa", "RGBA")  # as stored, without dividing by transparency
    samples = to_8_bits(both_bytes(picture, again, straight, OTHER_ORDER[straight[-1]]), name, rules)
    mode = "RGBa" if straight != raw_mode else picture.mode
    return to_rgb(Image.frombytes(mode, (samples.shape[1], samples.shape[0]), samples.tobytes()))


def unsupported_tiff(file: BinaryIO) -> str:
    """Return what samples a TIFF has that Pillow does not read, and what to do."""
    from PIL import TiffImagePlugin

    try:
        file.seek(0)
        begin = file.read(16)
        directory = TiffImagePlugin.ImageFileDirectory_v2(begin if 43 in begin[2:4] else begin[:8])
        file.seek(directory.next)
        directory.load(file)
        bits, samples = max(directory.get(BITS, (1,))), directory.get(SAMPLES, 1)
        kind = max(directory.get(SAMPLE_FORMAT, (UNSIGNED,)))
    except Exception:  # of a damaged directory nearly anything
        return "its TIFF directory is damaged. Get a whole copy of the file, or leave it out"
    word = {SIGNED: "signed", FLOAT: "floating-point"}.get(kind, "unsigned")
    return (
        f"TIFFs of this kind ({samples} {word} samples of {bits} bits, {_ORDERS[begin[:1]]}) are not supported. Save "
        "it as gray or RGB of 8 or 16 bits"
    )


_ORDERS = {b"I": "little-endian", b"M": "big-endian"}
