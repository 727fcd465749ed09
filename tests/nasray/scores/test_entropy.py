import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES, has_layers, layer_table
from nasray.scores.entropy import (
    NARROW,
    SINGLE_SCALE,
    entropy_score,
    level_entropies,
    level_widths,
    log_width_score,
    narrowness,
    weigh_levels,
)
from nasray.spaces import SPACES, Architecture, BottleneckSpace
from tests.nasray.scores.common import HW, STAGED, small

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("name", "score"),
    [
        # the released code's score "madnas", measured on its own models
        ("maedet-s", 1731.907009966715),
        ("maedet-m", 2114.7828676827894),
        ("maedet-l", 2599.396120322784),
        ("maedet-initial", 608.2001741059656),
    ],
)
def test_log_width_is_the_released_score(name, score):
    assert log_width_score(layer_table(ARCHITECTURES[name], HW))[0] == pytest.approx(score, rel=1e-13)


@pytest.mark.parametrize(
    ("name", "mean", "noise"),
    [
        # mean and standard deviation over 15 forward passes of an independent implementation, without shortcuts
        ("maedet-m", [1.646, 14.43, 92.98, 181.78, 257.87], [0.018, 0.25, 0.66, 0.77, 0.97]),
        # the mean of two such passes of each; the noise is that of one
        ("maedet-s", [1.671, 13.525, 43.037, 125.689, 218.586], [0.02, 0.25, 0.4, 0.7, 0.9]),
        ("maedet-l", [1.656, 15.194, 113.114, 222.415, 319.755], [0.02, 0.25, 0.9, 0.9, 1.1]),
    ],
)
@pytest.mark.parametrize("residual", [False, True])
def test_closed_form_is_within_the_noise_of_forward_passes(name, mean, noise, residual):
    entropies = level_entropies(layer_table(ARCHITECTURES[name], HW), residual=residual, image_hw=HW)[:, 0]
    assert np.all(np.abs(entropies - mean) < 2 * np.array(noise))


@pytest.mark.parametrize("family", STAGED)
def test_same_to_the_last_bit_in_any_population(family):
    space = SPACES[family]()
    rows = space.sample(24, np.random.default_rng(0))
    together = entropy_score(space.layers(rows))
    assert np.isfinite(together).all()
    shuffled = np.random.default_rng(1).permutation(len(rows))
    assert np.array_equal(entropy_score(space.layers(rows[shuffled])), together[shuffled])
    for index, row in enumerate(rows):
        assert entropy_score(space.layers(row[None]))[0] == together[index]
        assert entropy_score(layer_table(space.to_architecture(row), HW))[0] == together[index]


def test_the_score_does_not_depend_on_what_was_scored_before():
    from nasray.scores import borders

    space = BottleneckSpace()
    rows = np.repeat(space.start(), 300, axis=0)
    for _ in range(6):
        rows = space.mutate(rows, np.random.default_rng(5))
    borders._profiles_of.cache_clear()
    together = entropy_score(space.layers(rows))
    for index in range(0, 300, 7):  # each alone, in a process that has scored nothing yet
        borders._profiles_of.cache_clear()
        assert entropy_score(space.layers(rows[index : index + 1]))[0] == together[index]


def test_depth_and_width_raise_the_score():
    spec = ARCHITECTURES["maedet-s"].spec
    before = entropy_score(layer_table(ARCHITECTURES["maedet-s"], HW))[0]
    for key, value in [("depth", 12), ("width", 4096), ("bottleneck", 480)]:
        changed = {**spec, "stages": [*spec["stages"][:3], {**spec["stages"][3], key: value}]}
        assert entropy_score(layer_table(Architecture.create("bottleneck", changed), HW))[0] > before


def test_narrowness_adds_up_layers():
    table = layer_table(small("basic", width=16), HW)
    assert narrowness(table)[0] == pytest.approx(1 / 16 + 4 * 4 / 16 + 4 / 24)  # stem, and two layers a block
    counted = [architecture for architecture in ARCHITECTURES.values() if has_layers(architecture)]
    published = [narrowness(layer_table(architecture, HW))[0] for architecture in counted]
    assert max(published) < NARROW / 4


def test_level_widths_and_weights():
    table = layer_table(ARCHITECTURES["resnet50"], HW)
    widths = level_widths(table)
    assert widths[:, 0].tolist() == [64, 256, 512, 1024, 2048]
    entropies = level_entropies(table)
    single = entropy_score(table, weights=SINGLE_SCALE, size_factor="none")
    assert single[0] == entropies[4, 0]
    by_size = weigh_levels(entropies, widths, (0, 0, 1, 0, 0), "map-size", HW)
    assert by_size[0] == entropies[2, 0] * (48 * 48)
    with pytest.raises(ValueError, match="five numbers"):
        entropy_score(table, weights=(1.0, 1.0, 6.0))
