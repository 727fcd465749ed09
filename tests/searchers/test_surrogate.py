import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from nasray.searchers.surrogate import (
    MAX_COMPARED,
    NEAR,
    NOISE,
    OTHER,
    Distances,
    GaussianProcess,
    Powers,
    factorize,
    kernel,
    likeliest,
)
from nasray.searchers.testing import ToySpace
from nasray.spaces import BasicSpace, Gene, ShuffleNetSpace
from tests.nasray.test_processors import OTHER_LIBRARY, OTHER_NUMPY

SPACES = {"toy": ToySpace(), "shufflenet": ShuffleNetSpace(), "basic": BasicSpace(image_hw=(64, 64))}


def known(space, num, seed=0):
    """Distinct rows and values that depend on a few genes, smoothly and not, and a little on chance."""
    rng = np.random.default_rng(seed)
    rows = np.unique(space.sample(num, rng), axis=0)
    rows = rows[rng.permutation(len(rows))]
    values = np.sin(rows[:, 0]) + (rows[:, 2] == rows[0, 2]) + 0.3 * rows[:, 1] + 0.01 * rng.standard_normal(len(rows))
    return rows, 5 + 3 * values


def by_the_book(process, space, genes, values, asked):
    """Guesses and deviations by equations 2.25 and 2.26 of Rasmussen and Williams, and numpy's linear algebra."""
    distances = Distances(space)
    scaled = (values - values.mean()) / values.std()
    noisy = kernel(*distances(genes, genes), process.powers) + 2.0**process.powers.noise * np.eye(len(genes))
    between = kernel(*distances(asked, genes), process.powers)
    variance = scaled @ np.linalg.solve(noisy, scaled) / len(values)
    means = between @ np.linalg.solve(noisy, scaled)
    variances = variance * (1 - (between * np.linalg.solve(noisy, between.T).T).sum(axis=1))
    return means * values.std() + values.mean(), np.sqrt(np.maximum(variances, 0)) * values.std()


@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("num", [1, 2, 40, 150])
def test_guesses_are_those_of_the_book(family, num):
    space = SPACES[family]
    genes, values = known(space, num)
    asked = space.sample(300, np.random.default_rng(1))
    process = GaussianProcess(space, genes, values)
    means, deviations = process(asked)
    if len(genes) == 1:
        np.testing.assert_allclose(means, values[0])
        return
    expected = by_the_book(process, space, genes, values, asked)
    np.testing.assert_allclose(means, expected[0], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(deviations, expected[1], rtol=1e-4, atol=1e-5)


def test_the_parameters_are_the_likeliest_of_the_grid():
    space = BasicSpace(image_hw=(64, 64))
    genes, values = known(space, MAX_COMPARED)
    scaled = (values - values.mean()) / values.std()
    distances = Distances(space)(genes, genes)

    def unlikely(powers):
        noisy = kernel(*distances, powers) + 2.0**powers.noise * np.eye(len(genes))
        square = scaled @ np.linalg.solve(noisy, scaled) / len(genes)
        return len(genes) * math.log(square) + np.linalg.slogdet(noisy)[1]

    best = min((Powers(*powers) for powers in itertools.product(NEAR, OTHER, NOISE)), key=unlikely)
    assert likeliest(*distances, scaled) == GaussianProcess(space, genes, values).powers == best


def test_it_guesses_what_it_has_not_seen():
    space = ShuffleNetSpace()
    genes, values = known(space, 400)
    means, deviations = GaussianProcess(space, genes[:200], values[:200])(genes[200:])
    assert np.corrcoef(means, values[200:])[0, 1] > 0.8
    assert (np.abs(means - values[200:]) < 3 * deviations).mean() > 0.9
    at_known, sure = GaussianProcess(space, genes[:200], values[:200])(genes[:200])
    assert np.abs(at_known - values[:200]).mean() < np.abs(means - values[200:]).mean()
    assert sure.mean() < deviations.mean()


def test_equal_values_and_rows_that_are_alike_give_finite_guesses():
    space = ToySpace()
    genes, _ = known(space, 30)
    means, deviations = GaussianProcess(space, genes, np.full(len(genes), 7.0))(
        space.sample(50, np.random.default_rng(1))
    )
    assert (means == 7).all()
    assert (deviations == 0).all()


def test_a_guess_does_not_depend_on_those_beside_it():
    space = ShuffleNetSpace()
    genes, values = known(space, 90)
    asked = space.sample(600, np.random.default_rng(2))
    process = GaussianProcess(space, genes, values)
    together = process(asked)
    for place in (0, 255, 256, 599):
        alone = process(asked[place : place + 1])
        assert alone[0][0] == together[0][place]
        assert alone[1][0] == together[1][place]


def test_distances_follow_the_kind_of_a_gene():
    class Mixed(ToySpace):
        def __init__(self):
            self.genes = (
                Gene("width", (8, 16, 24, 32), log=True), Gene("depth", (1, 2, 5)), Gene("flag", (0, 1)),
                Gene("kind", (0, 1, 2), ordered=False),
            )  # fmt: skip

    near, different = Distances(Mixed())(np.array([[8, 1, 0, 0], [16, 5, 0, 0]]), np.array([[32, 5, 1, 2]]))
    np.testing.assert_allclose(near[:, 0], [2.0, 0.25])  # log 2 / log 4 from the left end, and the same depth
    assert different[:, 0].tolist() == [4, 3]


def test_the_elimination_is_that_of_one_kernel_for_each():
    space = ToySpace()
    genes, values = known(space, 20)
    distances = Distances(space)(genes, genes)
    kernels = np.stack([kernel(*distances, Powers(1, -3, 0)), kernel(*distances, Powers(-3, -1, 0))])
    both = factorize(kernels, values, np.array([-3, -9]))
    for one, single, noise in zip(both, kernels, (-3, -9), strict=True):
        assert np.array_equal(np.triu(one), np.triu(factorize(single, values, noise)))


GUESSES = """
import sys, json, numpy as np
from tests.searchers.test_surrogate import SPACES, known
from nasray.searchers.surrogate import GaussianProcess
found = []
for space in SPACES.values():
    genes, values = known(space, 130)
    process = GaussianProcess(space, genes, np.round(values, 6))
    found += [column.tobytes().hex() for column in process(space.sample(300, np.random.default_rng(1)))]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_guesses_have_the_same_bits_on_every_processor_and_with_any_number_of_threads():
    def under(settings):
        command = [sys.executable, "-c", GUESSES]
        done = subprocess.run(
            command, env=os.environ | settings, capture_output=True, text=True, timeout=250, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert under(OTHER_NUMPY | OTHER_LIBRARY | {"OMP_NUM_THREADS": "1"}) == under({"OMP_NUM_THREADS": "4"})
