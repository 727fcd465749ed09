"""The stage that prunes a space by a path filter: operations that no path may have, and scores that are too low.

Reference: Oyama et al., "DetOFA: Efficient Training of Once-for-All Networks for Object Detection Using Path Filter",
sections 3.2 and 3.3.

It takes seconds to a minute in this process, and is begun anew where it was interrupted.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from nasray.cluster import write_atomic
from nasray.cluster.reading import read_bytes
from nasray.devices import Threads
from nasray.experiment import Experiment
from nasray.filters.pruned import FILTER, PRUNED, Pruned, Strategy, read_pruned, write_pruned
from nasray.parts import Parts
from nasray.spaces.ranges import MAX_BATCH, MAX_COUNT, Range, Share
from nasray.spaces.references import From
from nasray.stages.base import Site, Stage, Work

if TYPE_CHECKING:
    from nasray.filters.filter import PathFilter


class PruneStage(Stage):
    """Prune operations and paths of the space by a path filter.

    Args:
        filter: Stage or file of the path filter.
        strategy: score-all: the operations that score worst, then the worst of what is left in each bucket;
            score-bucket: the worst of each bucket; flops: a random share of each bucket.
        worst: Share of all operations that goes (score-all alone).
        worst_per_bucket: Share of the operations of a bucket that goes.
        samples: Random paths with an operation, over which its score and cost are averaged.
        least: Architectures that every bucket keeps, all of one that has no more; one where they cannot be counted.
        paths: Share of the paths of a bucket that trainings pass over.
        draws: Random paths of a bucket by which the score that is too low is found.
        threads: Threads that compute; on CPUs the last digits of a score depend on it.
    """

    gives = frozenset({"restriction", "filter"})

    def __init__(
        self,
        *,
        experiment: Experiment,
        parts: Parts,
        filter: Annotated[str, From("filter")],
        strategy: Strategy = "score-all",
        worst: Share = 0.1,
        worst_per_bucket: Share = 0.3,
        samples: Annotated[int, Range(1, MAX_BATCH)] = 100,
        least: Annotated[int, Range(1, MAX_COUNT)] = 10_000,
        paths: Annotated[float, Range(0, 0.99)] = 0.25,
        draws: Annotated[int, Range(10, 10_000_000)] = 10_000,
        threads: Threads = 1,
    ) -> None:
        self.filter, self.strategy, self.worst, self.worst_per_bucket = filter, strategy, worst, worst_per_bucket
        self.samples, self.least, self.paths, self.draws, self.threads = samples, least, paths, draws, threads
        self.parts, self.seed = parts, experiment.seed

    def check(self, site: Site) -> None:
        """See `Stage.check`."""
        from nasray.filters.pruning import check_prunable

        check_prunable(self.parts.space)
        if self.filter not in site.stages:
            self._path_filter(site)

    def is_done(self, site: Site) -> bool:
        """See `Stage.is_done`."""
        return (site.folder / PRUNED).is_file()

    def run(self, site: Site) -> dict[str, Any]:
        """See `Stage.run`."""
        path = site.folder / PRUNED
        if not self.is_done(site):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path.with_name(FILTER), read_bytes(site.file(self.filter, "filter")))
            write_pruned(path, self.parts.space, self._pruned(site))
        return summary_of(read_pruned(path, self.parts.space, cost=self.parts.cost))

    def plan(self, site: Site) -> Work:
        """See `Stage.plan`."""
        shares = {
            "score-all": f"{self.worst:.0%} of all, then {self.worst_per_bucket:.0%} of each bucket",
            "score-bucket": f"{self.worst_per_bucket:.0%} of each bucket",
            "flops": f"{self.worst_per_bucket:.0%} of each bucket at random",
        }
        return Work(text=f"{self.strategy} pruning: {shares[self.strategy]}; {self.paths:.0%} of paths passed over")

    def _path_filter(self, site: Site) -> PathFilter:
        from nasray.filters.filter import PathFilter

        path = site.file(self.filter, "filter")
        return PathFilter.load(path, self.parts.space, cost=self.parts.cost, threads=self.threads)

    def _pruned(self, site: Site) -> Pruned:
        """Return the pruning, with what is known of it."""
        from nasray.filters.pruning import acceptance, path_thresholds, prune_operations, settings_left

        path_filter, space = self._path_filter(site), self.parts.space
        operations = prune_operations(
            space,
            path_filter,
            strategy=self.strategy,
            worst=self.worst,
            worst_per_bucket=self.worst_per_bucket,
            samples=self.samples,
            least=self.least,
            seed=self.seed,
        )
        buckets = path_filter.buckets
        pruned = Pruned(buckets.cost, buckets.edges, tuple(operations), (), site.folder / FILTER, {})
        left = pruned.restricted(space)
        thresholds = path_thresholds(left, path_filter, share=self.paths, num=self.draws, seed=self.seed)
        measured = {
            "strategy": self.strategy,
            "worst": self.worst if self.strategy == "score-all" else None,
            "worst_per_bucket": self.worst_per_bucket,
            "samples": self.samples,
            "least": self.least,
            "paths": self.paths,
            "draws": self.draws,
            "settings": {"before": settings_left(space, path_filter), "left": settings_left(left, path_filter)},
            "acceptance": acceptance(left, path_filter, thresholds, num=self.draws, seed=self.seed),
        }
        return dataclasses.replace(pruned, thresholds=tuple(thresholds), measured=measured)


def summary_of(pruned: Pruned) -> dict[str, Any]:
    """Return the figures of a pruning that stages.json keeps: operations, settings of all buckets, acceptance."""
    states = [operation.state for operation in pruned.operations]
    found: dict[str, Any] = {"operations": len(states), "pruned": states.count("pruned")}
    found["spared"] = states.count("spared")
    for name, counts in pruned.measured["settings"].items():
        if counts is not None:
            found[f"settings_{name}"] = sum(counts)
    shares = [row["value"] for row in pruned.measured["acceptance"] if row["value"] is not None]
    return {**found, "acceptance": sum(shares) / len(shares)} if shares else found
