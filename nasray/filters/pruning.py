"""Pruning by a path filter: operations that no path may use any more, and scores below which paths are passed over.

Reference: Oyama et al., "DetOFA", sections 3.2 and 3.3, Figure 8.

Reads the paper, where it is silent, as: an operation's score and cost are means over `samples` uniform paths among
those that have it; "10 % overall, 30 % in each range" is first a share of all, then one of what is left in each bucket.

Shapes: N architectures, G genes, K buckets, P operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasray.evaluation.statistics import share_interval
from nasray.filters.filter import PathFilter
from nasray.filters.pruned import Operation, PrunedOperation, State, Strategy, restricted
from nasray.spaces import NasrayError, Population, Space
from nasray.spaces.groups import group_settings
from nasray.spaces.windows import count_within

ROUNDING = 2e-6
"""Difference of scores that is one of rounding: equal paths have it that are scored beside others."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def prune_operations(
    space: Space,
    path_filter: PathFilter,
    *,
    strategy: Strategy = "score-all",
    worst: float = 0.1,
    worst_per_bucket: float = 0.3,
    samples: int = 100,
    least: int = 10_000,
    seed: int = 0,
) -> list[PrunedOperation]:
    """Return all operations of a space, with which of them are pruned.

    A lasting gene, such as a depth, keeps every value, every group of genes a setting, and every bucket a number of
    architectures: operations are pruned from the worst on, and one that would take what must stay is spared. Without
    that little is left of the most expensive bucket: its architectures have nearly the same, most expensive operations.

    Args:
        space: Space.
        path_filter: Path filter.
        strategy: "flops": a random share of each bucket; "score-bucket": the worst of each bucket; "score-all": the
            worst of all, then the worst of what is left in each bucket.
        worst: Share of all operations ("score-all" alone).
        worst_per_bucket: Share of the operations of a bucket.
        samples: Paths over which an operation's score and cost are averaged.
        least: Architectures that every bucket keeps, all of one that has no more; one where they are not counted.
        seed: Seed of the paths, and of the random share.
    """
    operations, rng = space.operations(), np.random.default_rng(seed)
    settings = _Settings(space)
    rows = np.concatenate([settings.paths_with(operation, samples, rng) for operation in operations])
    scores = path_filter(rows).reshape(-1, samples).mean(axis=1)
    costs = path_filter.cost(rows)[path_filter.buckets.cost].reshape(-1, samples).mean(axis=1)
    bucket = path_filter.buckets.of(costs)
    chosen = _chosen(scores, bucket, strategy, worst, worst_per_bucket, rng)
    pruned = [place for place in chosen if settings.forbid(operations[place])]
    for place in _emptying(space, path_filter, [operations[place] for place in pruned], least):
        pruned[place] = -1
    states: list[State] = ["kept"] * len(operations)
    for place in chosen:
        states[place] = "pruned" if place in pruned else "spared"
    return [
        PrunedOperation(operation, float(score), float(cost), int(number), state)
        for operation, score, cost, number, state in zip(operations, scores, costs, bucket, states, strict=True)
    ]


def _chosen(
    scores: Floats, bucket: Ints, strategy: Strategy, worst: float, worst_per_bucket: float, rng: np.random.Generator
) -> list[int]:
    """Return the places of the operations to prune, the worst first."""
    if strategy not in ("flops", "score-bucket", "score-all"):
        raise NasrayError(f"strategy is flops, score-bucket or score-all; got {strategy!r}")
    order = np.argsort(scores, kind="stable")
    found: list[int] = []
    if strategy == "score-all":
        found += order[: round(worst * len(order))].tolist()
    left = order[~np.isin(order, found)]
    if strategy == "flops":
        left = rng.permutation(left)
    for value in np.unique(bucket):
        inside = left[bucket[left] == value]
        found += inside[: round(worst_per_bucket * len(inside))].tolist()
    return found


def _emptying(space: Space, path_filter: PathFilter, operations: list[Operation], least: int) -> list[int]:
    """Return the places of operations that must stay, or a bucket would have too few architectures left."""
    buckets = range(len(path_filter.buckets))
    needed = {bucket: _num_paths(space, path_filter, bucket, least) for bucket in buckets}
    spared: list[int] = []

    def poor(num: int, among: Sequence[int]) -> list[int]:
        """Return the buckets that have too few, once the first operations are pruned."""
        left = restricted(space, tuple(one for place, one in enumerate(operations[:num]) if place not in spared))
        return [bucket for bucket in among if _num_paths(left, path_filter, bucket, least) < needed[bucket]]

    low = 0  # the first `low` leave every bucket enough
    while among := poor(len(operations), buckets):  # fewer operations leave no bucket less: the others have enough
        high = len(operations)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if poor(middle, among) else (middle, high)
        spared.append(high - 1)
    return spared


def _num_paths(space: Space, path_filter: PathFilter, bucket: int, most: int) -> int:
    """Return the number of architectures of a bucket, `most` if there are more; 0 or 1 where they are not counted."""
    count = count_within(space, path_filter.buckets.budget(bucket), path_filter.cost)
    if count is None:
        count = len(_random_paths(space, path_filter, bucket, 1, np.random.default_rng(bucket)))
    return min(count, most)


def _random_paths(space: Space, path_filter: PathFilter, bucket: int, num: int, rng: np.random.Generator) -> Population:
    """Return up to `num` uniform paths of a bucket."""
    return space.sample_within(num, path_filter.buckets.budget(bucket), rng, cost=path_filter.cost)


def check_prunable(space: Space) -> None:
    """Refuse a space of which operations cannot be pruned.

    Raises:
        NasrayError: if it has none, or one whose group of genes is too large to be listed.
    """
    operations = space.operations()
    if not operations:
        raise NasrayError(f"space {space.family!r} has no operations to prune: none of its genes has several values")
    settings = _Settings(space)
    for operation in operations:
        settings.check(operation)


class _Settings:
    """Settings of the groups of a space that are left while operations are forbidden.

    Args:
        space: Space whose operations' groups can be listed.

    Raises:
        NasrayError: If one cannot.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.column = {gene.name: column for column, gene in enumerate(space.genes)}
        self.group = {column: group for group in space.groups for column in group}
        self.settings: dict[tuple[int, ...], Population] = {}
        self.left: dict[tuple[int, ...], NDArray[np.bool_]] = {}

    def _of(self, operation: Operation) -> tuple[tuple[int, ...], NDArray[np.bool_]]:
        """Return the group of an operation, and which of the group's settings have it."""
        columns = [self.column[name] for name, _ in operation]
        group = self.group[columns[0]]
        if any(column not in group for column in columns):
            raise NasrayError(f"an operation is of genes of one group; {operation} is of several")
        if group not in self.settings:
            settings = group_settings(self.space, group)
            if settings is None:
                names = ", ".join(self.space.genes[column].name for column in group)
                raise NasrayError(f"operations cannot be pruned: the genes {names} have too many settings to be listed")
            self.settings[group], self.left[group] = settings, np.ones(len(settings), dtype=bool)
        settings = self.settings[group]
        has = np.ones(len(settings), dtype=bool)
        for column, (_, value) in zip(columns, operation, strict=True):
            has &= settings[:, group.index(column)] == value
        return group, has

    def check(self, operation: Operation) -> None:
        """Raise `NasrayError` if the operation's group cannot be listed."""
        self._of(operation)

    def paths_with(self, operation: Operation, num: int, rng: np.random.Generator) -> Population:
        """Return (num, G) paths, uniform among those that have an operation.

        Raises:
            NasrayError: If none has it.
        """
        group, has = self._of(operation)
        if not has.any():
            raise NasrayError(f"no architecture of space {self.space.family!r} has {dict(operation)}")
        rows = self.space.sample(num, rng)
        rows[:, list(group)] = self.settings[group][has][rng.integers(has.sum(), size=num)]
        return rows

    def forbid(self, operation: Operation) -> bool:
        """Forbid an operation unless that would take a group's last setting, or a lasting gene's last of a value."""
        group, has = self._of(operation)
        left = self.left[group] & ~has
        lasting = [group.index(column) for column in self.space.lasting_genes if column in group]
        settings = self.settings[group]
        values_left = [set(settings[left, place]) for place in lasting]
        values_all = [set(settings[self.left[group], place]) for place in lasting]
        if not left.any() or values_left != values_all:
            return False
        self.left[group] = left
        return True


def path_thresholds(
    space: Space, path_filter: PathFilter, *, share: float = 0.25, num: int = 10_000, seed: int = 0
) -> list[float | None]:
    """Return the score of each bucket below which a share of its paths lies; None of a bucket without paths.

    Args:
        space: Space of the paths, restricted by the operations that are pruned.
        path_filter: Path filter.
        share: Share of the paths that is to be passed over.
        num: Random paths of each bucket by which it is estimated.
        seed: Seed of the paths.
    """
    found: list[float | None] = []
    for bucket in range(len(path_filter.buckets)):
        scores = _random_scores(space, path_filter, bucket, num, (seed, bucket))
        found.append(_threshold(scores, share) if len(scores) else None)
    return found


def _threshold(scores: Floats, share: float) -> float:
    """Return a score below which about a share lies, in a gap: what it decides is no matter of rounding."""
    ordered = np.sort(scores)
    gaps = np.flatnonzero(np.diff(ordered) > ROUNDING) + 1  # numbers of scores below them
    places = np.concatenate([[0], gaps])
    place = places[np.abs(places - share * len(scores)).argmin()]
    return float((ordered[place - 1] + ordered[place]) / 2 if place else ordered[0] - 1.0)


def acceptance(
    space: Space, path_filter: PathFilter, thresholds: Sequence[float | None], *, num: int = 10_000, seed: int = 0
) -> list[dict[str, Any]]:
    """Return what share of each bucket's paths reaches its threshold, of other paths than `path_thresholds` draws.

    Args:
        space: Space of the paths.
        path_filter: Path filter.
        thresholds: (K,) thresholds.
        num: Random paths of each bucket.
        seed: Seed of the paths.

    Returns:
        For each bucket `num` paths, and `value`, `low` and `high` of the share and its 95 % interval; None where there
        is no path.
    """
    rows: list[dict[str, Any]] = []
    for bucket, threshold in enumerate(thresholds):
        scores = _random_scores(space, path_filter, bucket, num, (seed, bucket, 1))
        if threshold is None or not len(scores):
            rows.append({"num": 0, "value": None, "low": None, "high": None})
            continue
        taken = int((scores >= threshold).sum())
        low, high = share_interval(taken, len(scores))
        rows.append({"num": len(scores), "value": taken / len(scores), "low": low, "high": high})
    return rows


def _random_scores(space: Space, path_filter: PathFilter, bucket: int, num: int, seed: tuple[int, ...]) -> Floats:
    """Return the scores of up to `num` uniform paths of a bucket."""
    return path_filter(_random_paths(space, path_filter, bucket, num, np.random.default_rng(seed)))


def settings_left(space: Space, path_filter: PathFilter) -> list[int] | None:
    """Return the exact number of architectures of each bucket; None where the space cannot count them."""
    buckets = path_filter.buckets
    counts = [count_within(space, buckets.budget(bucket), path_filter.cost) for bucket in range(len(buckets))]
    return None if None in counts else [count for count in counts if count is not None]
