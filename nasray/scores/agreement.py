"""How well scores rank architectures alike: the closed form against literal forward passes.

Shapes: N architectures, R repeats of a sampled score.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.scores.entropy import (
    MULTI_SCALE,
    NARROW,
    SizeFactor,
    entropy_score,
    level_entropies,
    log_width_score,
    narrowness,
)
from nasray.scores.ranking import MIN_NUM, rank_agreement, rank_correlations
from nasray.searchers import RandomSearch
from nasray.spaces import Architecture, Budget, CostFunction, NasrayError

if TYPE_CHECKING:
    from nasray.spaces.staged import StagedSpace

Floats = NDArray[np.float64]


def agreement_report(
    space: StagedSpace,
    budget: Budget,
    *,
    cost: CostFunction | None = None,
    num: int = 200,
    repeats: int = 16,
    seed: int = 0,
    image_hw: tuple[int, int] = (384, 384),
    weights: tuple[float, ...] = MULTI_SCALE,
    size_factor: SizeFactor = "log-channels",
    residual: bool = True,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Compare the closed-form entropy with the mean of literal forward passes on random architectures.

    The result depends on the arguments alone, not on `workers`: every pass has a generator of its own, seeded from
    (seed, architecture, repeat), and runs on one thread. With several workers call it from a script's
    `if __name__ == "__main__":`, since they are fresh processes.

    Args:
        space: A space of staged networks.
        budget: Budget with a lower bound on `gmacs` (such as 70 to 91): over all costs every score ranks well.
        cost: Function that returns what the budget bounds; the space's own costs by default.
        num: Number of random architectures within the budget.
        repeats: Number of forward passes per architecture, at least 2.
        seed: Seed of architectures and passes.
        image_hw: Height and width in pixels at which entropies are taken; costs count at the space's own.
        weights: Alpha of C1 to C5.
        size_factor: Factor of map sizes as in `nasray.scores.entropy.entropy_score`.
        residual: Whether the shortcuts take part, in both.
        workers: Number of processes; that of processors by default, 0 or 1 for this process alone.
        progress: Function called with the numbers of architectures done, and in all.

    Returns:
        A JSON-serializable dictionary:
        `agreement`: for `closed_form`, `log_width`, `params_m`, `gmacs`, `layers` what `rank_agreement` returns against
        the mean of all passes; for `one_pass` the first pass against the mean of the others.
        `one_pass_kendall_mean`: tau of a pass against the mean of the others, averaged over the passes; None
        for fewer than `MIN_NUM` architectures.
        `difference`: `mean`, `standard_error` and `sd` over architectures of closed form minus sampled mean.
        `level_difference`: the mean of the same for H(C1) to H(C5), unweighted.
        `sampled_sd`: standard deviation of one pass, pooled within architectures.
        `sampled_mean_sd`: that of the mean of all passes, `sampled_sd` over the root of `repeats`.
        `narrowness`: `mean` and `max` of `nasray.scores.entropy.narrowness`, and `num_narrow`, how many are above
        `NARROW`, where the closed form is less accurate.
        `architectures`: id, scores and costs of each; and the settings.

    Raises:
        ValueError: for fewer than 2 architectures or repeats.
        InfeasibleError: if no architecture meets the budget.
    """
    if num < 2 or repeats < 2:
        raise NasrayError(f"an agreement report needs num >= 2 and repeats >= 2, got num={num} and repeats={repeats}")
    searcher = RandomSearch(space, budget=budget, cost=cost, seed=seed)
    genes = searcher.ask(num).genes
    texts = space.texts(genes)
    tasks = [(text, seed, repeats, image_hw, residual) for text in texts]
    passes = []
    for levels in _mapped(tasks, os.cpu_count() or 1 if workers is None else workers):
        passes.append(levels)
        if progress is not None:
            progress(len(passes), len(tasks))
    sampled_levels = np.stack(passes)  # (N, R, 5)
    sampled = _weighed(texts, sampled_levels, weights, size_factor, image_hw)  # (N, R)

    table, costs = space.layers(genes), searcher.cost(genes)
    scores = {
        "closed_form": entropy_score(
            table, weights=weights, size_factor=size_factor, residual=residual, image_hw=image_hw
        ),
        "log_width": log_width_score(table, weights),
        "params_m": costs["params_m"],
        "gmacs": costs["gmacs"],
        "layers": costs["layers"],
    }
    mean = sampled.mean(axis=1)
    others = (sampled.sum(axis=1, keepdims=True) - sampled) / (repeats - 1)
    one_pass = [rank_correlations(sampled[:, r], others[:, r])[0] for r in range(repeats)]
    agreement = {name: rank_agreement(score, mean) for name, score in scores.items()}
    agreement["one_pass"] = rank_agreement(sampled[:, 0], others[:, 0])
    difference = scores["closed_form"] - mean
    closed_levels = level_entropies(table, residual=residual, image_hw=image_hw)  # (5, N)
    narrow = narrowness(table)
    within = float(np.sqrt(sampled.var(axis=1, ddof=1).mean()))
    return {
        "family": space.family,
        "budget": str(budget),
        "num": len(texts),
        "repeats": repeats,
        "seed": seed,
        "image_hw": list(image_hw),
        "cost_image_hw": list(space.image_hw),
        "weights": list(weights),
        "size_factor": size_factor,
        "residual": residual,
        "agreement": agreement,
        "one_pass_kendall_mean": float(np.mean(one_pass)) if len(texts) >= MIN_NUM else None,
        "difference": {
            "mean": float(difference.mean()),
            "standard_error": float(difference.std(ddof=1) / np.sqrt(len(difference))),
            "sd": float(difference.std(ddof=1)),
        },
        "level_difference": (closed_levels.T - sampled_levels.mean(axis=1)).mean(axis=0).tolist(),
        "narrowness": {
            "mean": float(narrow.mean()),
            "max": float(narrow.max()),
            "num_narrow": int((narrow > NARROW).sum()),
        },
        "sampled_sd": within,
        "sampled_mean_sd": within / repeats**0.5,
        "architectures": [
            {"id": architecture_id, "sampled": passes_of_one.tolist()}
            | {name: float(score[index]) for name, score in scores.items()}
            for index, (architecture_id, passes_of_one) in enumerate(zip(space.ids(genes), sampled, strict=True))
        ],
    }


def pass_seed(seed: int, architecture_id: str, repeat: int) -> int:
    """Return the seed of one forward pass, in [0, 2^63), the same in every process."""
    digest = hashlib.sha256(f"{seed}:{architecture_id}:{repeat}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


_Task = tuple[str, int, int, tuple[int, int], bool]


def _weighed(
    texts: list[str],
    levels: Floats,
    weights: tuple[float, ...],
    size_factor: SizeFactor,
    image_hw: tuple[int, int],
) -> Floats:
    """Map (N, R, 5) level entropies to (N, R) scores."""
    from nasray.scores.sampled import weigh_sampled

    rows = [
        weigh_sampled(Architecture.from_json(text), passes, weights, size_factor, image_hw)
        for text, passes in zip(texts, levels, strict=True)
    ]
    return np.stack(rows)


def _mapped(tasks: Iterable[_Task], workers: int) -> Iterator[Floats]:
    """Yield the (R, 5) level entropies of every task, in order."""
    if workers <= 1:
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from map(_sampled_levels, tasks)
        finally:
            torch.set_num_threads(threads)
        return
    # PyTorch does not survive a fork once it has run on several threads.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _use_one_thread) as pool:
        yield from pool.map(_sampled_levels, tasks)


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _sampled_levels(task: _Task) -> Floats:
    import torch

    from nasray.scores.sampled import sampled_level_entropies

    text, seed, repeats, image_hw, residual = task
    architecture = Architecture.from_json(text)
    architecture_id = architecture.id
    rows = []
    for repeat in range(repeats):
        generator = torch.Generator().manual_seed(pass_seed(seed, architecture_id, repeat))
        rows.append(sampled_level_entropies(architecture, generator=generator, image_hw=image_hw, residual=residual))
    return np.stack(rows)
