"""What a search takes where nothing else is said: a function of the number of its evaluations, and of nothing else.

`benchmarks/landscapes.py` measures it against random search.
"""

from __future__ import annotations

UNKNOWN_EVALUATIONS = 1_000
"""Stands for the number of evaluations of a searcher that is asked without having been told it."""

MAX_BATCH_SIZE = 1_024
IN_FLIGHT = 2


def default_batches(evaluations: int) -> tuple[int, int]:
    """Return `batch_size` and `in_flight`: about 64 batches, so that a thirtieth of the search is asked for in advance.

    Larger than 1,024 a batch gains nothing: what Ray Tune takes for a trial is by then spread over enough.
    """
    return min(max(evaluations // 64, 1), MAX_BATCH_SIZE), IN_FLIGHT


def default_population_size(evaluations: int | None) -> int:
    """Return the survivors of an evolution: a sixth of the evaluations, 8 to 50; more from some thousands on."""
    evaluations = evaluations or UNKNOWN_EVALUATIONS
    return min(max(evaluations // 6, 8), max(50, min(evaluations // 100, 256)))
