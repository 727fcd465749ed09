import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from nasray.data.image_files.decoding import MAX_PIXELS, decode_image, read_header
from nasray.data.image_files.images import encode_png
from nasray.data.image_files.pixels import DEFAULT_RULES, ImageError, PixelRules
from tests.nasray.data.pictures import as_stored, containers, deep_png, encode, exif, picture, tiff

BLOCKS = picture()
STORED = PixelRules("stored")


def read(content, image_hw=None, rules=DEFAULT_RULES):
    return decode_image(content, "x", image_hw, rules).permute(1, 2, 0).numpy()


def difference(one, other):
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other).max()


# ---- the same picture, the same values ---------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_one_picture_in_every_container_depth_and_orientation(orientation):
    forms = containers(BLOCKS, orientation)
    assert len(forms) >= 13
    for name, (content, tolerance) in forms.items():
        assert difference(read(content, (24, 32)), BLOCKS) <= tolerance, name
        assert difference(read(content, None, STORED), as_stored(BLOCKS, orientation)) <= tolerance, name
        header = read_header(io.BytesIO(content), name)
        assert (header.orientation, header.image_hw("upright")) == (orientation, (24, 32)), name
        assert header.image_hw("stored") == as_stored(BLOCKS, orientation).shape[:2], name
        assert header.deep == ("16" in name), name


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG", "BMP", "WEBP", "JPEG2000", "TGA", "PPM"])
def test_every_mode_in_every_container_that_holds_it(form):
    options = {"JPEG": {"quality": 97, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}}.get(form, {})
    held = 0
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        if (form, mode) == ("TIFF", "PA"):  # Pillow before 13 writes it torn
            continue
        image = Image.fromarray(BLOCKS).convert(mode)
        with contextlib.suppress(OSError):  # the container has no such mode
            content = encode(image, form, **options)
            expected = np.asarray(image.convert("RGB")) if mode in ("1", "L", "LA", "P", "PA") else BLOCKS
            tolerance = 6 if form == "JPEG" else 3 if mode == "YCbCr" else 0
            assert difference(read(content), expected) <= tolerance, mode
            held += 1
    assert held >= 4


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 2**32 - 1), orientation=st.integers(1, 8),
    gray=st.booleans(), deep=st.booleans(), container=st.sampled_from(["png", "tiff", "deflated tiff"]),
)  # fmt: skip
@example(height=1, width=1, seed=0, orientation=2, gray=False, deep=True, container="png")
@example(height=1, width=7, seed=0, orientation=4, gray=True, deep=False, container="tiff")
def test_any_picture_any_orientation(height, width, seed, orientation, gray, deep, container):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width) if gray else (height, width, 3))
    stored = as_stored(pixels.astype(np.uint8), orientation)
    samples = stored.astype(np.uint16) * 257 if deep else stored
    if container == "png":
        content = deep_png(samples, orientation) if deep else encode(stored, "PNG", exif=exif(orientation))
    else:
        content = tiff(samples, orientation=orientation, packed=container != "tiff")
    upright = pixels[..., None].repeat(3, axis=2) if gray else pixels
    assert (read(content, (height, width)) == upright).all()


def test_lab_within_its_own_rounding():
    from PIL import ImageCms

    gray = np.broadcast_to(BLOCKS[..., :1], BLOCKS.shape)
    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    lab = ImageCms.profileToProfile(Image.fromarray(gray), *profiles, outputMode="LAB")
    assert difference(read(encode(lab, "TIFF")), gray) <= 3


def test_portable_maps_state_their_largest_value():
    shares = BLOCKS / 255
    for largest in (255, 1023, 4095, 65535):
        samples = np.rint(shares * largest).astype(">u2" if largest > 255 else np.uint8)
        for kind, values in ((b"P6", samples), (b"P5", samples[..., 0])):
            content = kind + b" 32 24 %d\n" % largest + values.tobytes()
            assert difference(read(content), BLOCKS if kind == b"P6" else BLOCKS[..., :1].repeat(3, 2)) == 0


def test_a_portable_float_map_needs_a_range():
    content = b"Pf\n32 24\n-1.0\n" + (BLOCKS[::-1, :, 0] / 255).astype("<f4").tobytes()
    assert difference(read(content, rules=PixelRules(value_range=(0, 1))), BLOCKS[..., :1].repeat(3, 2)) == 0
    with pytest.raises(ImageError, match="floats from 0 to 1"):
        read(content)


def test_12_bits_in_16_are_refused_in_every_container():
    values = np.rint(BLOCKS / 255 * 4095).astype(np.uint16)
    portable = values.astype(">u2")
    contents = [tiff(values), tiff(values[..., 0]), deep_png(values), deep_png(values[..., 0]),
                b"P6 32 24 65535\n" + portable.tobytes(), b"P5 32 24 65535\n" + portable[..., 0].tobytes(),
                encode(values[..., 0], "JPEG2000")]  # fmt: skip
    for content in contents:
        with pytest.raises(ImageError, match=r"reach 4,095 only.*`value_range: \[0, 4095\]` or `\[0, 65535\]`"):
            read(content)
        pixels = read(content, rules=PixelRules(value_range=(0, 4095)))
        assert difference(pixels[..., 0], BLOCKS[..., 0]) == 0
        assert read(content, rules=PixelRules(value_range=(0, 65535))).max() == 16


def test_8_bits_take_no_range():
    assert difference(read(encode(BLOCKS, "PNG"), rules=PixelRules(value_range=(0, 4095))), BLOCKS) == 0


def test_the_first_frame_is_read():
    frames = [Image.fromarray(BLOCKS), Image.fromarray(255 - BLOCKS)]
    for form in ("GIF", "TIFF", "WEBP", "PNG"):
        options = {"lossless": True} if form == "WEBP" else {}
        content = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert difference(read(content), BLOCKS) == 0, form
        assert read_header(io.BytesIO(content), form).several, form
        assert not read_header(io.BytesIO(encode(frames[0], form)), form).several, form


# ---- orientation and size ----------------------------------------------------------------------------------------


def test_a_size_of_the_other_rule_names_the_option():
    content = encode(BLOCKS, "JPEG", exif=exif(6))
    says = r"24x32 pixels when turned upright \(EXIF orientation 6\), but its annotation says 32x24, its size as stored"
    with pytest.raises(ImageError, match=says + ".*`orientation: stored`") as info:
        read(content, (24, 32))
    assert info.value.kind == "other-size"
    with pytest.raises(ImageError, match=r"32x24 pixels as stored.*`orientation: upright`"):
        read(content, (32, 24), STORED)


def test_swapped_sizes_are_said_to_be_swapped():
    with pytest.raises(ImageError, match="32x24 pixels, but its annotation says 24x32: width and height are swapped"):
        read(encode(BLOCKS, "PNG"), (32, 24))


def test_another_size_than_annotated_is_refused():
    with pytest.raises(ImageError, match="32x24 pixels, but its annotation says 10x10"):
        read(encode(BLOCKS, "JPEG"), (10, 10))


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_orientation_that_is_none_turns_nothing(value):
    assert difference(read(encode(BLOCKS, "PNG", exif=exif(value))), BLOCKS) == 0


def test_damaged_exif_turns_nothing():
    for junk in (b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40):
        assert difference(read(encode(BLOCKS, "PNG", exif=junk)), BLOCKS) == 0


# ---- what is broken ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000", "PPM"])
def test_a_truncated_image_is_named(form, capfd):
    content = encode(np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8), form)
    for length in (0, 1, len(content) // 2, len(content) - 40):
        with pytest.raises(ImageError, match=r"cannot read image a/b\.jpg \(image id 7\): .*whole copy") as info:
            decode_image(content[:length], "a/b.jpg (image id 7)")
        assert "\n" not in str(info.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"<html>", "it is no image"), (b"", "the file is empty"), (b"%!PS-Adobe-3.0 EPSF-3.0\n", "it is no image"),
     (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"), (b"\0" * 1000, "it is no image"), (b"\xff\xd8\xff\xe0", "")],
)  # fmt: skip
def test_what_is_no_image_is_named(content, reason):
    with pytest.raises(ImageError, match=f"cannot read image a.jpg: .*{reason}"):
        decode_image(content, "a.jpg")


@pytest.mark.parametrize("pixels", [MAX_PIXELS + 2, 10**9])
def test_a_bomb_is_refused_before_it_is_decoded(pixels, capfd, recwarn):
    content = png_header(pixels // 2, 2)
    with pytest.raises(ImageError, match="more than 178,956,970 pixels, which is the most"):
        decode_image(content, "x")
    with pytest.raises(ImageError, match="more than 178,956,970 pixels"):
        read_header(io.BytesIO(content), "x")
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_large_images_below_the_limit_are_taken_without_a_word(recwarn):
    assert read_header(io.BytesIO(png_header(MAX_PIXELS // 2, 2)), "x").stored_hw == (2, MAX_PIXELS // 2)
    assert not recwarn.list


def png_header(width, height):
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_flipped_bytes_give_an_image_or_an_image_error(capfd):
    generator = np.random.default_rng(0)
    for name, (content, _) in containers(BLOCKS, 6).items():
        for _ in range(12):
            damaged = np.frombuffer(content, np.uint8).copy()
            places = generator.integers(0, min(len(damaged), 400), 4)
            damaged[places] = generator.integers(0, 256, 4)
            with contextlib.suppress(ImageError):
                assert decode_image(damaged.tobytes(), name).shape[0] == 3
    assert capfd.readouterr().out == ""


def test_png_keeps_pixels():
    pixels = BLOCKS.transpose(2, 0, 1)
    assert (decode_image(encode_png(pixels), "x").numpy() == pixels).all()
