"""Multi-objective evolution, and Pareto fronts.

Reference: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEVC 2002: survivors by
front, then by crowding distance.

Differs from NSGA-II in: parents are drawn uniformly from the survivors instead of by tournament.

Shapes: N points, O objectives, larger is better.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.evolution import Evolution

Values = NDArray[np.float64]


class ParetoEvolution(Evolution):
    """Evolution towards the Pareto front of two or more objectives, such as score against gmacs."""

    max_objectives = 8

    @property
    def min_parents(self) -> int:
        """See `Evolution.min_parents`: the best by each objective, which rank first, and one between them."""
        return len(self.objectives) + 1

    def _ranking(self) -> NDArray[np.int64]:
        """Return the indices by front, then by crowding distance, then by age."""
        return ranking(self.values, self.numbers, enough=self.population_size)


def ranking(values: Values, numbers: NDArray[np.int64], *, enough: int | None = None) -> NDArray[np.int64]:
    """Return (N,) positions, best first: by value, of several objectives by front and crowding distance; then by age.

    Args:
        values: (N, O), larger is better.
        numbers: (N,) evaluations, the earlier of equal ones first.
        enough: Positions from which on the order of several objectives may be by crowding distance and age alone.
    """
    if values.shape[1] == 1:
        return np.lexsort((numbers, -values[:, 0]))
    fronts = front_numbers(values, enough=enough)
    crowding = np.zeros(len(values))
    for front in range(fronts.max(initial=-1) + 1):
        members = np.flatnonzero(fronts == front)
        crowding[members] = crowding_distances(values[members])
    return np.lexsort((numbers, -crowding, fronts))


def pareto_front(values: Values) -> NDArray[np.bool_]:
    """Return (N,) whether no point is better in one objective and at least as good in all others.

    Equal points are all on the front or all off it. A point with minus infinity anywhere can be on the front.
    """
    if len(values) == 0:
        return np.zeros(0, dtype=bool)
    if values.shape[1] == 1:
        return np.asarray(values[:, 0] == values[:, 0].max())
    # In lexicographic order, best first, a point can only be dominated by one before it.
    order = np.lexsort(-values.T[::-1])
    ranked = values[order]
    on_front = np.zeros(len(values), dtype=bool)
    if values.shape[1] == 2:
        best = np.maximum.accumulate(ranked[:, 1])
        before = np.r_[-np.inf, best[:-1]]
        new = np.r_[True, (ranked[1:] != ranked[:-1]).any(axis=1)]
        # Within a run of equal points all share the verdict of the first.
        first = np.maximum.accumulate(np.where(new, np.arange(len(ranked)), 0))
        start = np.r_[True, np.zeros(len(ranked) - 1, dtype=bool)]
        on_front[order] = ((ranked[:, 1] > before) | start)[first]
        return on_front
    front = np.empty((0, values.shape[1]))
    for position, point in zip(order, ranked, strict=True):
        dominated = (front >= point).all(axis=1) & (front > point).any(axis=1)
        if not dominated.any():
            on_front[position] = True
            front = np.concatenate([front, point[None]])
    return on_front


def front_numbers(values: Values, *, enough: int | None = None) -> NDArray[np.int64]:
    """Return (N,) 0 for the Pareto front, 1 for the front of the rest, and so on.

    Args:
        values: (N, O), larger is better.
        enough: Number of points after which to stop; the others get the next number.
    """
    numbers = np.full(len(values), -1, dtype=np.int64)
    left = np.arange(len(values))
    number = 0
    while len(left):
        if enough is not None and len(values) - len(left) >= enough:
            numbers[left] = number
            break
        on_front = pareto_front(values[left])
        numbers[left[on_front]] = number
        left = left[~on_front]
        number += 1
    return numbers


def crowding_distances(values: Values) -> NDArray[np.float64]:
    """Return (N,) NSGA-II's crowding distance of points of one front; infinite at either end of every objective."""
    distances = np.zeros(len(values))
    if not len(values):
        return distances
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ranked = column[order]
        distances[order[[0, -1]]] = np.inf
        # A column with an infinity has no scale.
        if np.isfinite(ranked[[0, -1]]).all() and ranked[-1] > ranked[0]:
            distances[order[1:-1]] += (ranked[2:] - ranked[:-2]) / (ranked[-1] - ranked[0])
    return distances
