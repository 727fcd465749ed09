"""How busy workers are when trials take unequal times, and what is found: told as asked for, or as finished.

    python benchmarks/waiting.py                       # 160 places, 4,000 evaluations, five landscapes

Time is simulated: nothing runs but the search itself (`OrderedSearch`, evolution by default, on Kauffman's rugged
landscapes). A trial takes 5 s +- 50 %, and one in a hundred ten times as long. Prints for both orders and several
`in_flight` the share of all places that work in the middle half of the run, its length in minutes, and the best score
in standard deviations of the landscape above its mean, with its 95 % interval (t) over landscapes.
"""

from __future__ import annotations

import argparse
import heapq
from typing import Any

import numpy as np
from landscapes import SEARCHER_SEED, Rugged, Table, in_deviations

from nasray.cluster import OrderedSearch
from nasray.evaluation.statistics import mean_interval
from nasray.searchers import Evolution
from nasray.spaces import Budget

GENES, CHOICES = 16, 6
SECONDS, SPREAD = 5.0, 0.5
RARE, FACTOR = 0.01, 10.0
NO_BUDGET = Budget()


def simulate(search: OrderedSearch, evaluate: Any, places: int, seconds: Any) -> tuple[float, float]:
    """Run a search in simulated time; return the busy share of its middle half, and its length in seconds."""
    now, running, begun = 0.0, [], set()  # type: ignore[var-annotated]
    spans: list[tuple[float, float]] = []
    search.fill()
    while not search.is_finished:
        for number in search.pending:
            if len(running) == places:
                break
            if number not in begun:
                begun.add(number)
                end = now + seconds[number]
                spans.append((now, end))
                heapq.heappush(running, (end, number))
        now, number = heapq.heappop(running)
        for batch in search.receive(number, evaluate(search.pending[number].genes)):
            search.tell(batch)
    begins, ends = np.array(spans).T
    low, high = now / 4, 3 * now / 4
    worked = (np.minimum(ends, high) - np.maximum(begins, low)).clip(0).sum()
    return float(worked / (places * (high - low))), now


def measure(order: str, in_flight: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one way, over all landscapes."""
    shares, lengths, scores = [], [], []
    space = Table([CHOICES] * GENES)
    for seed in range(options.landscapes):
        landscape = Rugged(space, seed, neighbors=3)
        searcher = Evolution(space, seed=SEARCHER_SEED + seed, evaluations=options.evaluations)
        search = OrderedSearch(
            searcher,
            evaluations=options.evaluations,
            batch_size=1,
            in_flight=in_flight,
            order=order,  # type: ignore[arg-type]
        )
        rng = np.random.default_rng(seed)
        seconds = SECONDS * rng.uniform(1 - SPREAD, 1 + SPREAD, options.evaluations)
        seconds[rng.random(options.evaluations) < RARE] *= FACTOR
        best = -np.inf

        def evaluate(genes: Any, landscape: Rugged = landscape) -> Any:
            nonlocal best
            metrics = landscape(genes)
            best = max(best, float(metrics["score"].max()))
            return metrics

        share, length = simulate(search, evaluate, options.places, seconds)
        shares.append(share)
        lengths.append(length)
        scores.append(float(in_deviations(best, space, landscape, NO_BUDGET, seed)))
    score = mean_interval(scores)
    assert score.high is not None
    return {
        "order": order,
        "in_flight": in_flight,
        "busy": float(np.mean(shares)),
        "minutes": float(np.mean(lengths)) / 60,
        "score": score.mean,
        "half_width": score.high - score.mean,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--places", type=int, default=160, help="trials that run at once")
    parser.add_argument("--evaluations", type=int, default=4000)
    parser.add_argument("--landscapes", type=int, default=5)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[200, 400, 800, 1600, 3200])
    options = parser.parse_args()
    print("| order | in_flight | busy | minutes | best score |\n|---|---|---|---|---|")
    for order, sizes in (("asked", options.in_flight), ("finished", options.in_flight[:1])):
        for in_flight in sizes:
            row = measure(order, in_flight, options)
            print(
                f"| {order} | {in_flight} | {100 * row['busy']:.0f} % | {row['minutes']:.1f} | "
                f"{row['score']:.2f} +- {row['half_width']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
