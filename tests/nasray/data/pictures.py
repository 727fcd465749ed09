"""One picture in many containers, depths and orientations, and a writer of TIFFs that Pillow does not write."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from nasray.data.image_files.pixels import turned


def picture(height=24, width=32, block=8, seed=0):
    """(H, W, 3) uint8 of colored blocks, from black to white."""
    small = np.random.default_rng(seed).integers(0, 256, (height // block, width // block, 3))
    small[0, 0], small[-1, -1] = 0, 255
    return np.kron(small, np.ones((block, block, 1), dtype=np.int64)).astype(np.uint8)


def encode(image, form, **options):
    """Return an array or an image of Pillow's as a file's bytes."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


def exif(orientation):
    """Return EXIF with an orientation."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def as_stored(pixels, orientation):
    """Return (H, W) or (H, W, C) pixels as they lie in a file that EXIF's orientation turns upright."""
    channels = pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
    stored = turned(channels, orientation, back=True).transpose(1, 2, 0)
    return np.ascontiguousarray(stored.reshape(*stored.shape[:2], *pixels.shape[2:]))


def tiff(samples, *, photometric=None, order="<", big=False, extra=(), planar=1, kind=None, bits=None, packed=False,
         orientation=None, width=None, tags=None):  # fmt: skip
    """Return (H, W) or (H, W, C) samples of any type as a TIFF.

    Args:
        samples: Values; of 12 bits, packed bytes.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK.
        order: "<" or ">".
        big: Write a BigTIFF.
        extra: Meaning of the channels after the colors: 0 unknown, 1 premultiplied, 2 straight transparency.
        planar: 2 for separate planes.
        kind: 1 unsigned, 2 signed, 3 floating-point; by the samples' type if left out.
        bits: Of a sample; by the samples' type if left out.
        packed: Compress by deflate.
        orientation: Value of the tag.
        width: If samples are packed bytes.
        tags: Further ones, number to (type, values).
    """
    samples = samples[..., None] if samples.ndim == 2 else samples
    height, columns, channels = samples.shape
    kind = kind or {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    if photometric is None:
        photometric = 1 if channels - len(extra) == 1 else 2
    data = samples.astype(samples.dtype.newbyteorder(order))
    planes = [data] if planar == 1 else [data[..., channel] for channel in range(channels)]
    blobs = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    blobs = [zlib.compress(blob) if packed else blob for blob in blobs]
    first = 16 if big else 8
    offsets = [first + sum(map(len, blobs[:number])) for number in range(len(blobs))]
    bits = bits or samples.dtype.itemsize * 8
    entries = {256: (4, [width or columns]), 257: (4, [height]), 258: (3, [bits] * channels),
               259: (3, [8 if packed else 1]), 262: (3, [photometric]), 273: (4, offsets), 277: (3, [channels]),
               278: (4, [height]), 279: (4, list(map(len, blobs))), 284: (3, [planar]), 339: (3, [kind] * channels),
               **({338: (3, list(extra))} if extra else {}),
               **({274: (3, [orientation])} if orientation else {}), **(tags or {})}  # fmt: skip
    count, room = ("Q", 8) if big else ("I", 4)
    directory_at = first + sum(map(len, blobs))
    head = struct.pack(order + ("Q" if big else "H"), len(entries))
    tail_at = directory_at + len(head) + len(entries) * (12 + 2 * (room - 4)) + room
    cells, tail = b"", b""
    for tag, (form, values) in sorted(entries.items()):
        content = struct.pack(f"{order}{len(values)}{ {3: 'H', 4: 'I'}[form] }", *values)
        cell = content.ljust(room, b"\0") if len(content) <= room else struct.pack(order + count, tail_at + len(tail))
        tail += b"" if len(content) <= room else content
        cells += struct.pack(order + "HH" + count, tag, form, len(values)) + cell
    begin = struct.pack(order + "HHHQ", 43, 8, 0, directory_at) if big else struct.pack(order + "HI", 42, directory_at)
    mark = b"II" if order == "<" else b"MM"
    return mark + begin + b"".join(blobs) + head + cells + bytes(room) + tail


def containers(pixels, orientation=1):
    """Return (file bytes, tolerance) by name of one (H, W, 3) picture, with EXIF's orientation where a form has it.

    The tolerance is that of the container itself: 0 of lossless ones.
    """
    stored = as_stored(pixels, orientation)
    deep = stored.astype(np.uint16) * 257
    alpha = np.random.default_rng(1).integers(1, 256, (*stored.shape[:2], 1)).astype(np.uint8)
    straight = Image.fromarray(np.concatenate([stored, alpha], axis=2), "RGBA")
    found = {
        "png": (encode(stored, "PNG", exif=exif(orientation)), 0),
        "png with transparency": (encode(straight, "PNG", exif=exif(orientation)), 0),
        "palette png": (encode(Image.fromarray(stored).quantize(256, dither=0), "PNG", exif=exif(orientation)), 0),
        "16-bit png": (deep_png(deep, orientation), 0),
        "webp": (encode(stored, "WEBP", lossless=True, exif=exif(orientation)), 0),
        "webp with transparency": (encode(straight, "WEBP", lossless=True, exact=True, exif=exif(orientation)), 0),
        "tiff": (tiff(stored, orientation=orientation), 0),
        "deflated tiff": (tiff(stored, orientation=orientation, packed=True), 0),
        "big tiff": (tiff(stored, orientation=orientation, big=True), 0),
        "16-bit tiff": (tiff(deep, orientation=orientation), 0),
        "16-bit tiff, big-endian, deflated": (tiff(deep, orientation=orientation, order=">", packed=True), 0),
        "tiff with planes": (tiff(stored, orientation=orientation, planar=2), 0),
        "jpeg": (encode(stored, "JPEG", quality=97, subsampling=0, exif=exif(orientation)), 8),
    }  # fmt: skip
    if orientation == 1:
        found |= {
            "bmp": (encode(stored, "BMP"), 0),
            "ppm": (encode(stored, "PPM"), 0),
            "16-bit ppm": (b"P6 %d %d 65535\n" % stored.shape[1::-1] + deep.astype(">u2").tobytes(), 0),
            "tga": (encode(stored, "TGA"), 0),
            "gif": (encode(Image.fromarray(stored).quantize(256, dither=0), "GIF"), 0),
            "jpeg 2000": (encode(stored, "JPEG2000"), 0),
        }
    return found


def deep_png(samples, orientation=1):
    """Return (H, W) or (H, W, C) uint16 as a PNG, with EXIF's orientation."""
    samples = samples[..., None] if samples.ndim == 2 else samples
    height, width, channels = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)),
             (b"eXIf", exif(orientation).tobytes()[6:]), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )
