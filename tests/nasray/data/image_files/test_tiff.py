"""TIFFs of more than 8 bits, which Pillow reads wrong in silence."""

import itertools

import numpy as np
import pytest

from nasray.data.image_files.decoding import decode_image
from nasray.data.image_files.pixels import ImageError, PixelRules
from tests.nasray.data.pictures import picture, tiff

COLORS = picture()
GRAY = COLORS[..., 0]
DEEP = COLORS.astype(np.uint16) * 257
ALPHA = np.random.default_rng(1).integers(128, 256, (24, 32, 1)).astype(np.uint16) * 257
SHARES = GRAY / 255

FORMS = [pytest.param({"order": order, "packed": packed}, id=f"{order}{'deflate' if packed else 'raw'}")
         for order, packed in itertools.product("<>", (False, True))]  # fmt: skip


def read(content, value_range=None):
    return decode_image(content, "x.tif", (24, 32), PixelRules(value_range=value_range)).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("samples", "options", "value_range"),
    [
        (DEEP[..., 0], {}, None),
        (GRAY.astype(np.int16) * 10 - 50, {}, (-50, 2500)),
        (GRAY.astype(np.int32) * 1000 - 50, {}, (-50, 254950)),
        (SHARES.astype(np.float32), {}, (0, 1)),
        (1 - SHARES.astype(np.float32), {"photometric": 0}, (0, 1)),
        (np.rint(SHARES * 4095).astype(np.uint16), {}, (0, 4095)),
        (DEEP, {}, None),
        (np.rint(COLORS / 255 * 4095).astype(np.uint16), {}, (0, 4095)),
        (np.concatenate([DEEP, ALPHA], axis=2), {"extra": (2,)}, None),
        (np.concatenate([DEEP, ALPHA], axis=2), {"extra": (0,)}, None),
        (np.concatenate([65535 - DEEP, ALPHA * 0], axis=2), {"photometric": 5}, None),
        (255 - GRAY, {"photometric": 0}, None),
    ],
    ids=["gray16", "signed16", "signed32", "float", "inverted-float", "12in16", "rgb16", "rgb12in16", "rgba16",
         "rgbx16", "cmyk16", "inverted8"],
)  # fmt: skip
def test_every_kind_of_sample_gives_the_same_picture(samples, options, value_range, form):
    pixels = read(tiff(samples, **options, **form), value_range)
    assert (pixels == (COLORS if samples.shape[2:] else GRAY[..., None])).all()


@pytest.mark.parametrize("form", FORMS)
def test_premultiplied_colors_are_divided(form):
    pixels = read(tiff(np.concatenate([DEEP * (ALPHA / 65535), ALPHA], 2).astype(np.uint16), extra=(1,), **form))
    assert np.abs(pixels.astype(int) - COLORS).max() <= 2


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("samples", "options", "value_range"),
    [(65535 - DEEP[..., 0], {"photometric": 0}, None), (GRAY.astype(np.uint32) * 16843009, {}, (0, 2**32 - 1)),
     (DEEP, {"big": True}, None), (COLORS, {"planar": 2}, None)],
    ids=["inverted16", "unsigned32", "bigtiff", "planes8"],
)  # fmt: skip
def test_kinds_that_pillow_reads_in_one_byte_order(samples, options, value_range, packed):
    pixels = read(tiff(samples, packed=packed, **options), value_range)
    assert (pixels == (COLORS if samples.shape[2:] else GRAY[..., None])).all()


@pytest.mark.parametrize("packed", [False, True])
def test_12_bits_are_known_to_be_12(packed):
    values = np.random.default_rng(0).integers(0, 4096, (4, 6))
    first, second = values[:, ::2], values[:, 1::2]
    bytes_hw = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2).astype(np.uint8)
    content = tiff(bytes_hw.reshape(4, 9), bits=12, width=6, packed=packed)
    pixels = decode_image(content, "x.tif").permute(1, 2, 0).numpy()
    assert (pixels[..., 1] == np.floor(values / 4095 * 255 + 0.5)).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("samples", "options", "reason"),
    [(DEEP, {"planar": 2}, "separate planes"), (GRAY.astype(np.int8), {}, "signed 8-bit"),
     (SHARES, {}, "1 floating-point samples of 64 bits"), (SHARES.astype(np.float16), {}, "of 16 bits"),
     (COLORS.astype(np.float32), {}, "3 floating-point samples"),
     (DEEP[..., :2], {"photometric": 1, "extra": (2,)}, "2 unsigned samples")],
)  # fmt: skip
def test_what_is_not_supported_is_said(samples, options, reason, form):
    with pytest.raises(ImageError, match=f"cannot read image x.tif: .*{reason}.*not supported. Save"):
        read(tiff(samples, **options, **form))


@pytest.mark.parametrize("samples", [COLORS, GRAY, DEEP, SHARES.astype(np.float32)])
def test_strips_that_are_missing_are_not_taken_for_black(samples):
    content = tiff(samples, tags={257: (4, [2_000_000])})
    with pytest.raises(ImageError, match="do not cover it"):
        decode_image(content, "x.tif", rules=PixelRules(value_range=(0, 1)))


def test_subsampled_ycbcr_without_compression_is_not_taken_for_a_full_one():
    with pytest.raises(ImageError, match="subsampled YCbCr without compression"):
        read(tiff(COLORS, photometric=6))
