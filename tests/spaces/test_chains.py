"""Counting and drawing of chains, against all settings listed."""

import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from nasray.spaces.chains import NUM_BINS, Chain, Part


def random_chain(rng, num_parts=4, num_states=3, num_settings=5, most=10_000):
    """Parts in which a setting's cost depends on the state before; the first begins in state 0."""
    parts = []
    for number in range(num_parts):
        states = num_states if number else 1
        after = rng.integers(num_states, size=num_settings)
        parts.append(
            Part(
                before=np.repeat(np.arange(states), num_settings),
                after=np.tile(after, states),
                setting=np.tile(np.arange(num_settings), states),
                cost=rng.integers(most, size=states * num_settings),
            )
        )
    return parts


def all_settings(parts):
    """Every chain of settings with its cost."""
    found = []
    for settings in itertools.product(*(range(part.setting.max() + 1) for part in parts)):
        state, cost = 0, 0
        for part, setting in zip(parts, settings, strict=True):
            (place,) = np.flatnonzero((part.before == state) & (part.setting == setting))
            state, cost = part.after[place], cost + part.cost[place]
        found.append((settings, cost))
    return found


@pytest.mark.parametrize("most", [3, 100, 10_000_000])
def test_draws_are_uniform_among_all_within_bounds(most):
    rng = np.random.default_rng(most)
    parts = random_chain(rng, most=most)
    every = dict(all_settings(parts))
    chain = Chain(parts)
    assert chain.num_settings == len(every) == 5**4
    costs = np.array(sorted(every.values()))
    low, high = costs[100], costs[400]
    inside = [settings for settings, cost in every.items() if low <= cost <= high]
    assert chain.count(low, high) == len(inside)
    assert chain.count(low, low) == list(every.values()).count(low)
    assert chain.count(-1, 1e12) == len(every)
    drawn = [tuple(row) for row in chain.draw(60_000, low, high, rng).tolist()]
    margin = len(parts) * (costs.max() // NUM_BINS + 2)
    assert all(low - margin <= every[settings] <= high + margin for settings in drawn)
    counts = dict.fromkeys(inside, 0)
    for settings in drawn:
        if settings in counts:
            counts[settings] += 1
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_windows_without_settings_give_none():
    chain = Chain(random_chain(np.random.default_rng(0)))
    assert chain.draw(5, -20.0, -10.0, np.random.default_rng(0)).shape == (0, 4)
    assert chain.draw(5, 1e9, 2e9, np.random.default_rng(0)).shape == (0, 4)


def test_more_settings_than_whole_numbers_are_refused():
    parts = random_chain(np.random.default_rng(0), num_parts=30, num_settings=9)
    with pytest.raises(ValueError, match=r"more than 2\^62 settings"):
        Chain(parts)


def test_only_settings_that_follow_each_other_are_counted():
    # Of 40 parts of two settings each all but one path ends at once: 2^40 are far fewer than 3^40 transitions.
    states, own = np.array([0, 0, 1]), np.array([0, 1, 1])
    chain = Chain([Part(states, own, own, np.zeros(3, dtype=np.int64))] * 40)
    assert chain.num_settings == 41
