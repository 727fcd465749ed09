import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nasray.architectures import ARCHITECTURES, layer_table
from nasray.scores.entropy import (
    NUM_LEVELS,
    level_entropies,
)
from nasray.scores.ranking import rank_correlations
from nasray.scores.sampled import sampled_entropy, sampled_level_entropies
from nasray.spaces import Architecture
from tests.nasray.scores.common import HW, STAGED, generator, small

FACTS = Path(__file__).parents[3].parent / "shared" / "facts" / "mae-det.json"


pytestmark = pytest.mark.usefixtures("one_thread")


def test_sampled_entropy_of_a_published_network():
    # Z without size factor: 1822.0 +- 7.1, an independent implementation's 15 passes at 384x384
    entropies = sampled_level_entropies(ARCHITECTURES["maedet-m"], generator=generator(), residual=False)
    assert abs(float(entropies @ [0, 0, 1, 1, 6]) - 1822.0) < 4 * 7.1


@pytest.mark.parametrize("family", STAGED)
@pytest.mark.parametrize("residual", [False, True])
def test_closed_form_is_the_mean_of_forward_passes(family, residual):
    architecture = small(family, width=64)
    num = 12
    options = {"residual": residual, "image_hw": (64, 64)}
    passes = np.stack([sampled_level_entropies(architecture, generator=generator(s), **options) for s in range(num)])
    expected = level_entropies(layer_table(architecture, (64, 64)), **options)[:, 0]
    # The closed form is of first order in 1 / width; what that leaves is below 0.1 a level at these widths.
    error = 4 * passes.std(axis=0, ddof=1) / math.sqrt(num) + 0.1
    assert np.all(np.abs(passes.mean(axis=0) - expected) < error)


def test_sampled_entropy_of_a_single_convolution():
    # H(C1): 27 inputs, less the zero padding of one row and one column, whatever comes after
    entropies = [sampled_level_entropies(small("basic"), generator=generator(s), image_hw=(64, 64)) for s in range(8)]
    assert np.mean(entropies, axis=0)[0] == pytest.approx(0.5 * math.log(27), abs=0.1)


@pytest.mark.parametrize("family", STAGED)
def test_sampled_entropy_does_not_depend_on_the_gammas(family, monkeypatch):
    from nasray.scores import sampled

    options = {"image_hw": (64, 64)}
    before = sampled_level_entropies(small(family), generator=generator(), **options)

    def other_gamma(before, *, relu):
        values = (before.values.relu() if relu else before.values) / 7.0
        return sampled._Map(values, before.log_scale + math.log(7.0))

    monkeypatch.setattr(sampled, "_rescaled", other_gamma)
    after = sampled_level_entropies(small(family), generator=generator(), **options)
    np.testing.assert_allclose(after, before, rtol=1e-5)


def test_sampled_entropy_depends_on_the_generator_alone():
    architecture = small("inverted-se")
    options = {"repeats": 2, "image_hw": (64, 64)}
    first = sampled_entropy(architecture, generator=generator(3), **options)
    torch.manual_seed(99)
    assert sampled_entropy(architecture, generator=generator(3), **options) == first
    assert sampled_entropy(architecture, generator=generator(4), **options) != first
    shared = generator(3)
    passes = [sampled_entropy(architecture, generator=shared, image_hw=(64, 64)) for _ in range(2)]
    assert np.mean(passes) == pytest.approx(first)
    with pytest.raises(ValueError, match="repeats"):
        sampled_entropy(architecture, generator=generator(), repeats=0)


def test_pooled_and_strided_networks_are_sampled_too():
    for name in ("resnet18", "mobilenet-v2"):
        entropies = sampled_level_entropies(ARCHITECTURES[name], generator=generator(), image_hw=(96, 96))
        assert entropies.shape == (NUM_LEVELS,)
        assert np.all(np.diff(entropies) > 0)


@pytest.mark.skipif(not FACTS.exists(), reason="the measured facts are not beside this checkout")
def test_closed_form_ranks_as_measured_forward_passes_do():
    rows = json.loads(FACTS.read_text())["architectures"]
    closed, passes = [], []
    for row in rows:
        if "sampled_log_std_per_stage" not in row:
            continue
        stem, *stages = row["blocks"]
        names = ("kernel", "width", "stride", "depth", "bottleneck")
        spec = {
            "stem": {"kernel": stem[0], "width": stem[1]},
            "stages": [dict(zip(names, stage, strict=True)) for stage in stages],
        }
        table = layer_table(Architecture.create("bottleneck", spec), HW)
        closed.append(level_entropies(table, residual=False, image_hw=HW)[:, 0])
        passes.append(np.mean(row["sampled_log_std_per_stage"], axis=0))
    weights = np.array([0.0, 0.0, 1.0, 1.0, 6.0])
    closed_scores, sampled_scores = np.array(closed) @ weights, np.array(passes) @ weights
    assert len(closed_scores) > 10
    assert rank_correlations(closed_scores, sampled_scores)[0] > 0.95
    assert abs(np.mean(closed_scores - sampled_scores)) < 3.0
