import numpy as np
import pytest
import torch

from nasray.data.image_files.pixels import ImageError, PixelRules, to_8_bits, turned
from nasray.spaces import NasrayError


def test_16_bits_are_rounded_not_cut():
    values = np.array([0, 128, 129, 256, 257, 65406, 65407, 65535], dtype=np.uint16)
    assert to_8_bits(values, "x", PixelRules()).tolist() == [0, 0, 1, 1, 1, 254, 255, 255]


@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.int32, np.float32])
def test_a_stated_range_is_black_and_white_and_what_is_outside_is_clipped(kind):
    values = np.array([0, 99, 100, 350, 600, 601, 60000], dtype=kind)
    assert to_8_bits(values, "x", PixelRules(value_range=(100, 600))).tolist() == [0, 0, 0, 128, 255, 255, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0.0, 0.25, 1.0], np.float32), r"floats from 0 to 1, .*`value_range: \[0, 1\]`"),
        (np.array([-1000, 3071], np.int32), r"integers from -1,000 to 3,071, .*`value_range: \[-1000, 3071\]`"),
        (np.array([0, 70000], np.uint32), "integers from 0 to 70,000"),
        (np.array([0, 4000], np.uint16), r"reach 4,000 only: it is of 12 bits or very dark.*\[0, 4095\]"),
        (np.array([0, 16383], np.uint16), r"it is of 14 bits"),
        (np.array([0, 1000], np.uint16), r"it is of 10 bits"),
    ],
)
def test_what_cannot_be_known_is_refused(values, message):
    with pytest.raises(ImageError, match=message) as info:
        to_8_bits(values, "a.tif", PixelRules())
    assert info.value.kind == "value-range"


def test_dark_pictures_that_were_8_bits_are_known():
    values = np.arange(20, dtype=np.uint16) * 257
    assert to_8_bits(values, "x", PixelRules()).tolist() == list(range(20))
    assert not to_8_bits(np.zeros(3, np.uint16), "x", PixelRules()).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ImageError, match="not finite"):
        to_8_bits(np.array([0.5, bad], np.float32), "x", PixelRules(value_range=(0, 1)))


@pytest.mark.parametrize("pair", [(1, 1), (2, 1), (0, float("nan")), (float("-inf"), 1)])
def test_a_range_that_is_none_is_refused(pair):
    with pytest.raises(NasrayError, match="value_range must be two finite numbers"):
        PixelRules(value_range=pair)


def test_rules_survive_json():
    for rules in (PixelRules(), PixelRules("stored", (-1.5, 4095))):
        assert PixelRules.from_json(rules.to_json()) == rules
    assert PixelRules.from_json(None) == PixelRules()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_hw", [(1, 1), (1, 5), (5, 1)])
def test_pictures_one_pixel_wide_or_high_become_tensors(image_hw, orientation):
    """Numpy counts a view that runs backwards over a single pixel as contiguous."""
    pixels = np.arange(3 * image_hw[0] * image_hw[1], dtype=np.uint8).reshape(3, *image_hw)
    tensor = torch.from_numpy(np.ascontiguousarray(turned(pixels, orientation)))
    assert sorted(tensor.flatten().tolist()) == pixels.ravel().tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_what_pillow_does(orientation):
    from PIL import Image, ImageOps

    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
    upright = turned(pixels.transpose(2, 0, 1), orientation)
    assert (upright == expected).all()
    assert (turned(upright, orientation, back=True) == pixels.transpose(2, 0, 1)).all()
