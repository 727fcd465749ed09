import numpy as np
import pytest

from nasray.searchers.testing import ToySpace
from nasray.spaces import NasrayError, OFAResNetSpace, RestrictedSpace, forbid_values
from nasray.spaces.resolutions import by_size, check_resolutions, network_genes, size_of

SPACE = OFAResNetSpace("tiny", image_hw=(96, 96), resolutions=((64, 64), (96, 96)))
PLAIN = OFAResNetSpace("tiny", image_hw=(96, 96))


def test_sizes_are_put_in_order():
    assert check_resolutions([[224, 320], [160, 224]], (224, 320)) == ((160, 224), (224, 320))
    assert check_resolutions([[128, 320], [96, 320]], (128, 320)) == ((96, 320), (128, 320))


@pytest.mark.parametrize(("resolutions", "image_hw", "message"), [
    ([], (64, 64), "resolutions are two at least, got \\[\\]"),
    ([(64, 64)], (64, 64), "two at least"),
    ([(64, 64), (64, 64)], (64, 64), "of two resolutions one is higher and not narrower; got 64x64 and 64x64"),
    ([(64, 96), (64, 64)], (64, 96), "got 64x64 and 64x96"),
    ([(64, 96), (96, 64)], (96, 64), "got 64x96 and 96x64"),
    ([(64, 80), (96, 96)], (96, 96), "multiples of 32, got 64x80"),
    ([(64, 64), (96, 96)], (128, 128), "the largest of the resolutions, 96x96, is image_hw, which is 128x128"),
    ([(64, 64), (96, 96)], (64, 64), "the largest of the resolutions, 96x96"),
    ([(0, 64), (96, 96)], (96, 96), "image size is height and width in pixels, whole numbers from 32"),
    ([64, 96], (96, 96), "image size is height and width"),
])  # fmt: skip
def test_senseless_resolutions_are_refused(resolutions, image_hw, message):
    with pytest.raises(NasrayError, match=message):
        check_resolutions(resolutions, image_hw)


def test_rows_by_their_size():
    rows = SPACE.sample(50, np.random.default_rng(0))
    found = dict(by_size(SPACE, rows))
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(50))
    assert {size: set(rows[index, -1]) for size, index in found.items()} == {(64, 64): {64}, (96, 96): {96}}
    assert {size_of(SPACE, row) for row in rows[found[64, 64]]} == {(64, 64)}
    lowest = RestrictedSpace(SPACE, forbid_values(SPACE, {"resolution": [64]}))
    assert [size for size, _ in by_size(lowest, lowest.sample(5, np.random.default_rng(0)))] == [(64, 64)]
    ((size, index),) = by_size(PLAIN, rows)
    assert (size, len(rows[index])) == ((96, 96), 50)


def test_networks_do_not_depend_on_the_resolution():
    rows = SPACE.sample(2, np.random.default_rng(0))
    assert PLAIN.is_valid(np.stack([network_genes(SPACE, row) for row in rows])).all()
    assert (network_genes(PLAIN, rows[0]) == rows[0]).all()
    assert size_of(PLAIN, rows[0]) is None
    assert size_of(ToySpace(), rows[0]) is None
