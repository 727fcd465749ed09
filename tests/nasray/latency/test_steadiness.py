"""A machine that became slower is found out, one that is merely noisy is called that, a steady one is left alone."""

import json
import re

import numpy as np
import pytest

from nasray.latency.steadiness import Look, judge

RNG = np.random.default_rng(0)


def looks(*levels, noise, num=15):
    """A look at each level of a reference that takes 5 ms; passes vary and now and then one takes long."""
    found = []
    for level in levels:
        passes = 5.0 * level * RNG.lognormal(0, noise, num)
        passes[RNG.integers(num)] *= 3
        found.append(Look(*np.quantile(passes, [0.1, 0.5, 0.9]).tolist()))
    return found


@pytest.mark.parametrize("num", [2, 10, 50])
def test_a_steady_machine_is_left_alone(num):
    for _ in range(200):
        found = judge(looks(*[1.0] * num, noise=0.01))
        assert (found.change, found.spread, found.warning) == (0, 0, None)
        assert found.figures()["steady"]


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        ((1.0, 1.0, 1.25), r"^the machine was 2\d% slower at the end than at the beginning: others compute"),
        ((1.25, 1.0, 1.0), r"^the machine was (19|20|21)% faster at the end than at the beginning: others compute"),
        ((1.0, 1.25, 1.0), r"^the machine was 2\d% slower at one time than at another: others compute"),
    ],
)
def test_a_change_is_said_in_a_line(levels, text):
    found = judge(looks(*levels, noise=0.01))
    assert found.warning is not None
    assert re.search(text, found.warning)
    assert "\n" not in found.warning
    assert json.loads(json.dumps(found.figures()))["steady"] is False


def test_noise_is_no_change():
    """Of a machine that others use all the time: changes are claimed seldom, that passes vary always."""
    judged = [judge(looks(1.0, 1.0, noise=0.3)) for _ in range(200)]
    assert np.mean([found.change != 0 for found in judged]) < 0.02
    assert all("passes of the same network vary by" in str(found.warning) for found in judged)


def test_small_changes_are_of_no_account():
    assert judge([Look(4.99, 5.0, 5.01), Look(5.14, 5.15, 5.16)]).warning is None
