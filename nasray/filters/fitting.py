"""Fitting of path filters to architectures whose losses are known, and what is known of them afterwards.

Reference: Oyama et al., "DetOFA", sections 3.1 and 4.1.

Reads the paper, where it is silent, as: Adam with learning rate 1e-3 and weight decay 1e-4; a step looks at up to
`batch_size` architectures of every bucket, and at all their pairs; a fifth of each bucket is held out, and the weights
of the epoch with the lowest loss there are kept.

Shapes: N architectures, G genes, K buckets.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nasray.devices import computing_threads
from nasray.evaluation.statistics import share_interval
from nasray.filters.filter import PathFilter
from nasray.filters.network import ranking_loss
from nasray.filters.options import FitOptions
from nasray.scores.ranking import rank_agreement
from nasray.spaces import NasrayError, Population

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def fit_filter(
    path_filter: PathFilter, population: Population, losses: Floats, options: FitOptions | None = None, *, seed: int = 0
) -> list[dict[str, float]]:
    """Fit a path filter, in place, from the weights that it has.

    Args:
        path_filter: Path filter.
        population: (N, G) rows.
        losses: (N,) their validation losses, the lower the better.
        options: How it is fitted.
        seed: Seed of the division and of the order.

    Returns:
        For each epoch `loss` and `holdout_loss`, means over pairs.

    Raises:
        NasrayError: If a loss is not finite, or no bucket has two architectures to learn from and two to hold out.
    """
    options = options or FitOptions()
    if not np.isfinite(losses).all():
        raise NasrayError(f"{int((~np.isfinite(losses)).sum())} losses are not finite. Leave these architectures out")
    bucket, rng = path_filter.bucket_of(population), np.random.default_rng(seed)
    learned, held = divide(bucket, options.holdout, rng)  # the first draws: `held_out` repeats them
    if not _has_pairs(bucket[learned]) or not _has_pairs(bucket[held]):
        raise NasrayError(
            f"{len(population)} architectures in {len(np.unique(bucket))} buckets are too few: a bucket needs two to "
            f"learn from and two in the share {options.holdout:g} that is held out"
        )
    tokens, buckets = path_filter.inputs(population)
    targets = torch.from_numpy(np.asarray(losses, dtype=np.float64))
    groups = buckets if options.bounded else torch.zeros_like(buckets)
    network = path_filter.network.train()
    optimizer = torch.optim.Adam(network.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    history, best = [], (math.inf, copy.deepcopy(network.state_dict()))
    with computing_threads(path_filter.threads):
        for _ in range(options.epochs):
            total = 0.0
            batches = list(_batches(bucket, learned, options.batch_size, rng))
            for batch in batches:
                loss = ranking_loss(
                    network(tokens[batch], buckets[batch]), targets[batch], groups[batch], margin=options.margin
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item()
            with torch.inference_mode():
                value = ranking_loss(
                    network(tokens[held], buckets[held]), targets[held], groups[held], margin=options.margin
                ).item()
            history.append({"loss": total / len(batches), "holdout_loss": value})
            if value < best[0]:
                best = value, copy.deepcopy(network.state_dict())
    network.load_state_dict(best[1])
    network.eval()
    return history


def held_out(path_filter: PathFilter, population: Population, options: FitOptions, *, seed: int = 0) -> Ints:
    """Return the places of the architectures that `fit_filter` holds out."""
    return divide(path_filter.bucket_of(population), options.holdout, np.random.default_rng(seed))[1]


def divide(bucket: Ints, share: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return the places of what is learned from and of what is held out, the same share of every bucket."""
    learned, held = [], []
    for value in np.unique(bucket):
        places = rng.permutation(np.flatnonzero(bucket == value))
        num = round(share * len(places))
        held.append(places[:num])
        learned.append(places[num:])
    return np.sort(np.concatenate(learned)), np.sort(np.concatenate(held))


def _has_pairs(bucket: Ints) -> bool:
    return bool((np.bincount(bucket) >= 2).any()) if len(bucket) else False


def _batches(bucket: Ints, places: Ints, size: int, rng: np.random.Generator) -> list[torch.Tensor]:
    """Return batches of up to `size` places of every bucket, which together are all of them, in a random order."""
    queues = [rng.permutation(places[bucket[places] == value]) for value in np.unique(bucket[places])]
    num = max(math.ceil(len(queue) / size) for queue in queues)
    parts = [np.array_split(queue, num) for queue in queues]
    return [torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True)]


def measure_filter(
    path_filter: PathFilter,
    population: Population,
    losses: Floats,
    *,
    worst: float = 0.25,
    thresholds: Floats | None = None,
) -> list[dict[str, Any]]:
    """Return how well a path filter ranks architectures that it has not learned from, bucket by bucket.

    Args:
        path_filter: Path filter.
        population: (N, G) rows.
        losses: (N,) their validation losses.
        worst: See `measure_scores`.
        thresholds: See `measure_scores`.

    Returns:
        For each bucket what `measure_scores` says of the filter's scores, and `costs`, the `kendall` of every cost.
    """
    bucket, costs = path_filter.bucket_of(population), path_filter.cost(population)
    rows = measure_scores(
        path_filter(population), bucket, losses, len(path_filter.buckets), worst=worst, thresholds=thresholds
    )
    for row in rows:
        inside = bucket == row["bucket"]
        row["costs"] = {name: _agreement(each[inside], losses[inside]) for name, each in costs.items()}
    return rows


def measure_scores(
    scores: Floats,
    bucket: Ints,
    losses: Floats,
    num_buckets: int,
    *,
    worst: float = 0.25,
    thresholds: Floats | None = None,
) -> list[dict[str, Any]]:
    """Return how well scores rank architectures, bucket by bucket.

    Args:
        scores: (N,) scores, the higher the better.
        bucket: (N,) bucket of each architecture.
        losses: (N,) validation losses.
        num_buckets: Number of buckets, K.
        worst: Share of a bucket that is called its worst.
        thresholds: (K,) scores of each bucket below which an architecture is taken for one of the worst, such as
            quantiles of an earlier sample; by default the quantiles of these scores themselves.

    Returns:
        For each bucket `num`; `kendall` of scores and negative losses, as `rank_agreement` gives it; `precision`, the
        share of those taken for the worst that are; `recall`, the share of the worst that are taken for it; each with
        `value`, `low` and `high` of a 95 % interval, all None where nothing can be said; and `base_rate`, the share of
        the worst.
    """
    rows = []
    for value in range(num_buckets):
        inside = bucket == value
        own, worth = scores[inside], losses[inside]
        row: dict[str, Any] = {"bucket": value, "num": int(inside.sum()), "kendall": _agreement(own, worth)}
        num_worst = round(worst * len(own))
        is_worst = np.zeros(len(own), dtype=bool)
        is_worst[np.argsort(-worth, kind="stable")[:num_worst]] = True
        taken = np.zeros(len(own), dtype=bool)
        if thresholds is None:
            taken[np.argsort(own, kind="stable")[:num_worst]] = True
        else:
            taken = own < thresholds[value]
        right = int((taken & is_worst).sum())
        row["precision"], row["recall"] = _share(right, int(taken.sum())), _share(right, num_worst)
        row["base_rate"] = num_worst / len(own) if len(own) else None
        rows.append(row)
    return rows


def _agreement(scores: Floats, losses: Floats) -> dict[str, float | None]:
    if len(scores) < 2:
        return {"value": None, "low": None, "high": None}
    kendall: dict[str, float | None] = rank_agreement(scores, -losses)["kendall"]
    return kendall


def _share(count: int, num: int) -> dict[str, float | None]:
    if num == 0:
        return {"value": None, "low": None, "high": None}
    low, high = share_interval(count, num)
    return {"value": count / num, "low": low, "high": high}
