"""Entropies as evaluators: presets, what they refuse."""

import pickle

import numpy as np
import pytest

from nasray.evaluators import ClosedFormEntropy, LogWidth, SampledEntropy, SingleScaleEntropy
from nasray.spaces import BasicSpace, BottleneckSpace, NasrayError, ShuffleNetSpace

SPACE = BottleneckSpace()
GENES = SPACE.sample(5, np.random.default_rng(0))


def test_a_single_scale_is_that_of_c5():
    single = SingleScaleEntropy(SPACE)
    same = ClosedFormEntropy(SPACE, weights=(0, 0, 0, 0, 1))
    assert single(GENES)["score"].tolist() == same(GENES)["score"].tolist()
    assert single(GENES)["score"].tolist() != ClosedFormEntropy(SPACE)(GENES)["score"].tolist()
    assert pickle.loads(pickle.dumps(single))(GENES)["score"].tolist() == single(GENES)["score"].tolist()
    with pytest.raises(TypeError):
        SingleScaleEntropy(SPACE, weights=(0, 0, 1, 1, 6))


@pytest.mark.parametrize("kind", [ClosedFormEntropy, SingleScaleEntropy, LogWidth, SampledEntropy])
def test_entropies_are_of_staged_spaces(kind):
    assert kind.fits(BasicSpace()) is None
    assert kind.fits(ShuffleNetSpace()) == "is defined for staged spaces"


@pytest.mark.parametrize("weights", [(0, 0, 1, 1), (0, 0, 0, 0, 0), (0, 0, float("nan"), 1, 6), (0, 0, -1, 1, 6)])
@pytest.mark.parametrize("kind", [ClosedFormEntropy, LogWidth, SampledEntropy])
def test_weights_that_give_no_score(kind, weights):
    with pytest.raises(NasrayError, match="weight"):
        kind(SPACE, weights=weights)
