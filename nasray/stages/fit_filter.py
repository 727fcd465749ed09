"""The stage that fits a path filter to architectures that searches of the run, or other runs, have evaluated.

Reference: Oyama et al., "DetOFA: Efficient Training of Once-for-All Networks for Object Detection Using Path Filter",
section 3.1.

What fits is this process: minutes, and begun anew where it was interrupted. It ends with the same filter, to the byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from nasray.cluster import RunFolder
from nasray.cluster.progress import counted, say
from nasray.devices import Threads
from nasray.experiment import Experiment, parse_description
from nasray.filters.options import FilterOptions, FitOptions
from nasray.filters.pruned import FILTER, described_space
from nasray.options import make_part
from nasray.parts import Parts
from nasray.searchers.buckets import MAX_BUCKETS, NUM_BUCKETS
from nasray.spaces import NasrayError, Population, Space
from nasray.spaces.buckets import Buckets
from nasray.spaces.ranges import Range
from nasray.spaces.references import From
from nasray.stages.base import Site, Stage, Work

if TYPE_CHECKING:
    from nasray.filters.filter import Floats, PathFilter

COST = "gmacs"
"""Cost of the buckets, if nothing else is said."""
LOSS = "loss"
"""The metric that is the better the lower; of all others the higher is."""


class FitFilterStage(Stage):
    """Fit a path filter to architectures that were evaluated.

    Args:
        of: Stages or runs whose evaluated architectures it learns from; of one that several evaluated, the last counts.
        start: Stage or file of a path filter to go on from, with its network; a fresh one if left out.
        metric: What they are ranked by: loss, the lower the better, or any other, the higher the better.
        num: Buckets, of equal width over the range of the cost in the space; as many as `start` has, or 5.
        by: Cost in whose buckets they are ranked; that of `start`, or gmacs.
        network: What the network is; that of `start` if there is one.
        fit: How it is fitted.
        worst: Share of a bucket that is called its worst where precision and recall are measured.
        threads: Threads that compute; on CPUs the last digits of the weights depend on it.
    """

    gives = frozenset({"filter"})

    def __init__(
        self,
        *,
        experiment: Experiment,
        parts: Parts,
        of: Annotated[tuple[str, ...], From("history")],
        start: Annotated[str, From("filter")] | None = None,
        metric: str = LOSS,
        num: Annotated[int, Range(1, MAX_BUCKETS)] | None = None,
        by: str | None = None,
        network: FilterOptions | None = None,
        fit: FitOptions = FitOptions(),  # noqa: B008 (frozen)
        worst: Annotated[float, Range(0, 1)] = 0.25,
        threads: Threads = 1,
    ) -> None:
        self.of, self.start, self.metric, self.by = tuple(of), start, metric, by
        self.num, self.network, self.options, self.worst, self.threads = num, network, fit, worst, threads
        self.parts, self.seed = parts, experiment.seed
        if not self.of:
            raise NasrayError("of is empty. Name the stages, or the runs, whose architectures the filter learns from")
        if start is not None and network is not None:
            raise NasrayError("network is that of start. Leave one of the two out")

    # ---- see `Stage` ----------------------------------------------------------------------------------------------

    def check(self, site: Site) -> None:
        """See `Stage.check`."""
        if self.start is None:
            self._fresh_buckets()
        for value in self.of:
            if value not in site.stages:
                _evaluated(site.history(value), self.metric, self.parts.space)
        if self.start is not None and self.start not in site.stages:
            self._begun(site)

    def is_done(self, site: Site) -> bool:
        """See `Stage.is_done`."""
        return (site.folder / FILTER).is_file()

    def run(self, site: Site) -> dict[str, Any]:
        """See `Stage.run`."""
        from nasray.filters.filter import PathFilter

        path = site.folder / FILTER
        if not self.is_done(site):
            found = self._fitted(site)
            path.parent.mkdir(parents=True, exist_ok=True)
            found.save(path)
        else:
            found = PathFilter.load(path, self.parts.space, cost=self.parts.cost)
        return summary_of(found.measured)

    def plan(self, site: Site) -> Work:
        """See `Stage.plan`."""
        epochs = counted(self.options.epochs, "epoch")
        if self.start:
            return Work(text=f"the path filter of {self.start}, fitted further to {self.metric}, {epochs}")
        buckets = f"{self.num or NUM_BUCKETS} buckets of {self.by or COST}"
        return Work(text=f"a path filter, {buckets}, fitted to {self.metric}, {epochs}")

    # ---- fitting --------------------------------------------------------------------------------------------------

    def _fitted(self, site: Site) -> PathFilter:
        """Return the filter, fitted, with what is known of its quality."""
        from nasray.filters.fitting import fit_filter, held_out, measure_filter

        path_filter = self._begun(site)
        rows, losses, left_out = self._known(site)
        history = fit_filter(path_filter, rows, losses, self.options, seed=self.seed)
        held = held_out(path_filter, rows, self.options, seed=self.seed)
        path_filter.measured = {
            "metric": self.metric,
            "num": len(rows),
            "left_out": left_out,
            "held": len(held),
            "epoch": 1 + int(np.argmin([epoch["holdout_loss"] for epoch in history])),
            "history": history,
            "worst": self.worst,
            "buckets": measure_filter(path_filter, rows[held], losses[held], worst=self.worst),
        }
        return path_filter

    def _fresh_buckets(self, before: Buckets | None = None) -> Buckets:
        """Return the buckets of a fresh filter, or as many of the same cost as a filter has that counted another."""
        by, num = (self.by or COST, self.num or NUM_BUCKETS) if before is None else (before.cost, len(before))
        return Buckets.spanning(self.parts.space, by, num, count=self.parts.cost)

    def _begun(self, site: Site) -> PathFilter:
        """Return the filter that is to be fitted: a fresh one, or the one to go on from.

        Raises:
            NasrayError: if that is none of this space, or has another number of buckets.
        """
        from nasray.filters.filter import PathFilter

        space, cost = self.parts.space, self.parts.cost
        if self.start is None:
            buckets = self._fresh_buckets()
            return PathFilter(space, buckets, self.network, seed=self.seed, cost=cost, threads=self.threads)
        path = site.file(self.start, "filter")
        found = PathFilter.load(path, space, cost=cost, threads=self.threads, otherwise=self._fresh_buckets)
        if self.num not in (None, len(found.buckets)):
            raise NasrayError(f"{path} has {len(found.buckets)} buckets, not {self.num}. Leave num out")
        if self.by not in (None, found.buckets.cost):
            raise NasrayError(f"{path} has buckets of {found.buckets.cost}, not of {self.by}. Leave by out")
        return found

    def _known(self, site: Site) -> tuple[Population, Floats, int]:
        """Return (N, G) architectures, (N,) their losses, and how many were left out for a loss that is not finite."""
        found: dict[str, tuple[Any, float]] = {}
        for value in self.of:
            ids, genes, losses = _evaluated(site.history(value), self.metric, self.parts.space)
            for key, row, loss in zip(ids, genes, losses.tolist(), strict=True):
                found[key] = row, loss
        rows = np.array([row for row, _ in found.values()], dtype=np.int64)
        values = np.array([loss for _, loss in found.values()])
        finite = np.isfinite(values)
        left_out = int((~finite).sum())
        if left_out:
            say(f"{left_out} of {len(values)} architectures have no finite {self.metric}: left out")
        return rows[finite], values[finite], left_out


def _evaluated(path: Path, metric: str, space: Space) -> tuple[list[str], Population, Floats]:
    """Return what a run evaluated: ids, (N, G) genes, and (N,) losses, the lower the better.

    Raises:
        NasrayError: if the run's space is another one, or it has no such metric.
    """
    run = RunFolder.open(path)
    own, other = (
        described_space(space),
        described_space(make_part(parse_description(run.description(), str(path)).space)),
    )
    if other != own:
        raise NasrayError(f"{path} searched another space ({other}); this one is {own}. Name another run")
    history = run.read_history()
    if metric not in history.metrics:
        raise NasrayError(f"{path} has no metric {metric!r}. It has: {', '.join(history.metrics)}. Set metric to one")
    values = history.metrics[metric]
    return history.ids, history.genes, values if metric == LOSS else -values


def summary_of(measured: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a filter that stages.json keeps: means over the buckets of which they can be stated."""
    buckets = measured["buckets"]
    columns = {
        "kendall": [row["kendall"]["value"] for row in buckets],
        "precision": [row["precision"]["value"] for row in buckets],
        "recall": [row["recall"]["value"] for row in buckets],
    }
    for name in ("gmacs", "params_m"):
        columns[f"kendall_{name}"] = [row["costs"][name]["value"] for row in buckets if name in row["costs"]]
    stated = {name: [value for value in column if value is not None] for name, column in columns.items()}
    means = {name: float(np.mean(values)) for name, values in stated.items() if values}
    return {"architectures": measured["num"], "held": measured["held"], "epoch": measured["epoch"], **means}
