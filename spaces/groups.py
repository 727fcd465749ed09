"""Groups of genes that depend on each other, and their settings: the space is the product of them.

Shapes: N architectures, G genes, K settings of a group of C genes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from nasray.spaces.base import Population, Space

MAX_SETTINGS = 200_000
"""Combinations of gene values of a group whose settings are listed."""
CHUNK = 16_384
"""Rows that are repaired at a time."""


def group_settings(space: Space, columns: Sequence[int]) -> Population | None:
    """Return the (K, C) distinct settings of a group, sorted; None if more than `MAX_SETTINGS` combinations.

    Args:
        space: Space to which the group belongs.
        columns: C columns, one of `space.groups` or several of them together.
    """
    values = [space.genes[column].values for column in columns]
    if math.prod(map(len, values)) > MAX_SETTINGS:
        return None
    if not space.has_rules:
        return np.array(list(itertools.product(*values)), dtype=np.int64)
    row = space.repair(np.array([[gene.values[0] for gene in space.genes]], dtype=np.int64))
    settings = []
    for combinations in _chunks(itertools.product(*values)):
        rows = np.repeat(row, len(combinations), axis=0)
        rows[:, list(columns)] = combinations
        settings.append(space.repair(rows)[:, list(columns)])
    return np.unique(np.concatenate(settings), axis=0)


def in_order_shares(settings: Population) -> NDArray[np.float64]:
    """Return (K,) how often each setting of a group is drawn gene by gene, in the order of the columns.

    Each gene is drawn uniformly among the values that the settings have with what was drawn before it. So a stage whose
    depth comes first has every depth as often as any other, however many settings each of them has.

    Args:
        settings: (K, C) distinct settings, sorted as `group_settings` sorts them.
    """
    num, columns = settings.shape
    shares, before = np.ones(num), np.zeros(num, dtype=np.int64)
    for column in range(columns):
        new = np.ones(num, dtype=bool)
        new[1:] = (before[1:] != before[:-1]) | (settings[1:, column] != settings[:-1, column])
        choices = np.bincount(before[new])  # of the next value, for each beginning so far
        shares /= choices[before]
        before = np.cumsum(new) - 1
    return shares


def _chunks(combinations: Iterator[tuple[int, ...]]) -> Iterator[Population]:
    while chunk := list(itertools.islice(combinations, CHUNK)):
        yield np.array(chunk, dtype=np.int64)


def count_settings(space: Space) -> int | None:
    """Return the number of architectures: the product of the groups' settings; None if a group is too large to list."""
    total = 1
    for columns in space.groups:
        settings = group_settings(space, columns)
        if settings is None:
            return None
        total *= len(settings)
    return total


def merge_groups(space: Space, together: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Return the groups of a space, united if they share a set of columns in `together`; by their first columns."""
    groups = [set(columns) for columns in space.groups]
    for columns in together:
        touched = [group for group in groups if group & set(columns)]
        groups = [group for group in groups if not group & set(columns)] + [set().union(*touched)]
    return tuple(sorted(tuple(sorted(group)) for group in groups))
