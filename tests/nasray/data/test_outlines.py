import numpy as np
import pytest
from pycocotools import mask

from nasray.data.fields import FieldError
from nasray.data.outlines import Segmentations, check_outline, read_outline

HW = (6, 8)
SQUARE = [2, 1, 7, 1, 7, 4, 2, 4]
WRONG = {
    "a flat list": (SQUARE, "flat list"),
    "an empty polygon": ([[]], "polygon 1 of 1 has 0 numbers"),
    "four numbers": ([[1, 2, 3, 4]], "polygon 1 of 1 has 4 numbers"),
    "an odd number": ([[*SQUARE, 1]], "polygon 1 of 1 has 9 numbers"),
    "one good and one bad": ([SQUARE, [1, 2]], "polygon 2 of 2 has 2 numbers"),
    "points": ([[[2, 1], [7, 1], [7, 4]]], "polygon 1 of 1 must be a list of numbers"),
    "text": ([[*SQUARE[:7], "4"]], "polygon 1 of 1 must be a list of numbers"),
    "NaN": ([[*SQUARE[:7], float("nan")]], "not finite"),
    "beyond floats": ([[*SQUARE[:7], 10**400]], "not finite"),
    "far outside": ([[*SQUARE[:6], 2, 1e9]], "far outside the 8x6 image"),
    "a word": ("square", "must be polygons .* got 'square'"),
    "a number": (0, "must be polygons"),
    "another size": ({"size": [8, 6], "counts": [48]}, r"size \[8, 6\] \[height, width\], the image's is \[6, 8\]"),
    "no size": ({"counts": [48]}, "size must be"),
    "a size of text": ({"size": ["6", 8], "counts": [48]}, "size must be a whole number, got '6'"),
    "no counts": ({"size": [6, 8], "counts": None}, "counts must be whole numbers or text, got None"),
    "negative counts": ({"size": [6, 8], "counts": [-1, 49]}, "counts must be"),
    "too few counts": ({"size": [6, 8], "counts": [10, 5]}, "over 15 pixels, their size 6 x 8 has 48"),
    "text that is no counts": ({"size": [6, 8], "counts": "\x01"}, "do not decode"),
    "text that is cut": ({"size": [6, 8], "counts": "P"}, "in the middle of a number"),
    "text of another image": ({"size": [6, 8], "counts": "5"}, "over 5 pixels"),
    "an empty mapping": ({}, "size must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_outline_is_named(name):
    value, message = WRONG[name]
    with pytest.raises(FieldError, match=message) as error:
        check_outline(read_outline(value), HW)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("value", [None, []])
def test_no_outline(value):
    assert read_outline(value) is None


def test_an_outline_that_would_take_all_memory():
    value = [[0, 0, 5000, 5000] * 4000]
    with pytest.raises(FieldError, match=r"goes 40,000,000 pixels to and fro, at most 4,194,304"):
        check_outline(read_outline(value), (5000, 5000))
    check_outline(read_outline([[0, 0, 50, 50] * 4000]), (5000, 5000))


def test_compressed_counts_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for height, width, share in ((6, 8, 0.5), (40, 30, 0.02), (300, 200, 0.999), (1, 1, 1.0), (50, 1, 0.0)):
        pixels = np.asfortranarray(rng.random((height, width)) < share, dtype=np.uint8)
        encoded = mask.encode(pixels)
        value = {"size": [height, width], "counts": encoded["counts"].decode()}
        check_outline(read_outline(value), (height, width))
        assert (Segmentations.of([value]).mask(0, (height, width)) == pixels).all()


def test_masks_of_polygons_and_runs():
    runs = mask.frPyObjects([SQUARE], *HW)[0]
    for value in ([SQUARE], {"size": [6, 8], "counts": runs["counts"].decode()}):
        assert (Segmentations.of([value]).mask(0, HW) == mask.decode(runs)).all()
    several = Segmentations.of([None, [SQUARE], [], [SQUARE, SQUARE]])
    assert [several.value(row) is None for row in range(4)] == [True, False, True, False]
    chosen = several.select(np.array([3, 0]))
    assert (chosen.value(0), chosen.value(1)) == ([SQUARE, SQUARE], None)
    assert chosen.content is several.content
