"""Searchers by default against random search, on landscapes made for it: local optima, tabular spaces of several sizes.

`python benchmarks/landscapes.py [--evaluations 50 100 300 1000] [--seeds 30] [--baseline random] [--json]`

Every seed has a landscape and a search of its own. A score is counted in standard deviations of the landscape above
its mean (from 20,000 random architectures), so that landscapes can be set side by side; of several objectives the
hypervolume of the front is taken, as a share of the box between the extremes of the same sample. Searches run in this
process (no Ray), with batch size and batches in flight as `nasray.search` and experiments have them by default.
Optuna's searchers and `plain-aging`, aging evolution in a few lines, look at one architecture at a time.
"""

import argparse
import itertools
import sys
import time

import numpy as np

from nasray.cluster import OrderedSearch
from nasray.cluster.files import to_json
from nasray.searchers import SEARCHERS, Objective, pareto_front
from nasray.searchers.defaults import default_batches
from nasray.spaces import BasicSpace, Budget, Gene, Space

SAMPLE = 20_000
PLAIN = "plain-aging"
SEARCHER_SEED = 1_000
"""Added to the seed of a landscape: numpy draws both, and samples from the landscape's own seed fall onto its peaks.
Optuna has a generator of its own."""


class Table(Space):
    """Genes of `choices` values each; their sum over all genes is the cost `size`."""

    family = "table"

    def __init__(self, choices, *, ordered=False):
        self.genes = tuple(Gene(f"g{i}", tuple(range(num)), ordered=ordered) for i, num in enumerate(choices))

    def cost(self, population):
        return {"size": population.sum(axis=1).astype(float)}


class Rugged:
    """Every gene adds a random value that depends on it and on `neighbors` others (Kauffman's NK landscapes)."""

    def __init__(self, space, seed, *, neighbors, decay=0.0):
        rng = np.random.default_rng(seed)
        num = space.num_genes
        others = [rng.permutation(np.delete(np.arange(num), i))[:neighbors] for i in range(num)]
        self.groups = [np.r_[i, chosen] for i, chosen in enumerate(others)]
        self.shapes = [[len(space.genes[i].values) for i in group] for group in self.groups]
        weights = np.exp(-decay * rng.permutation(num))
        self.tables = [weights[i] * rng.random(int(np.prod(shape))) for i, shape in enumerate(self.shapes)]

    def __call__(self, genes):
        score = np.zeros(len(genes))
        for group, shape, table in zip(self.groups, self.shapes, self.tables, strict=True):
            score += table[np.ravel_multi_index(tuple(genes[:, group].T), shape)]
        return {"score": score}


class Peaks:
    """Several hills in a space of ordered genes: the highest is the narrowest."""

    def __init__(self, space, seed, *, num=8):
        rng = np.random.default_rng(seed)
        self.high = np.array([gene.values[-1] for gene in space.genes])
        self.centers = rng.random((num, space.num_genes))
        self.widths = np.linspace(0.25, 0.7, num)
        self.heights = np.linspace(1.0, 0.5, num)

    def __call__(self, genes):
        distance = (((genes / self.high)[:, None] - self.centers) ** 2).mean(axis=2) ** 0.5
        return {"score": (self.heights * np.exp(-((distance / self.widths) ** 2) * 4)).max(axis=1)}


class Traps:
    """Genes in pairs; all but one value of a pair lead away from the best one (deceptive)."""

    def __init__(self, space, seed):
        rng = np.random.default_rng(seed)
        self.size = len(space.genes[0].values)
        self.order = rng.permutation(space.num_genes).reshape(-1, 2)
        self.tables = []
        for _ in self.order:
            table = rng.random(self.size**2) * 0.2
            best = rng.integers(self.size, size=2)
            away = np.array([sum(abs(np.array(pair) - best)) for pair in itertools.product(range(self.size), repeat=2)])
            table += 0.7 * away / away.max()
            table[best[0] * self.size + best[1]] = 1.2
            self.tables.append(table)

    def __call__(self, genes):
        pairs = zip(self.order, self.tables, strict=True)
        return {
            "score": sum(
                table[genes[:, one] * self.size + other] for (one, _), table in pairs for other in [genes[:, _]]
            )
        }


class Layers:
    """A real space under a real budget, and a stand-in for the entropy: logarithms of widths, saturating with depth."""

    def __init__(self, space, seed):
        rng = np.random.default_rng(seed)
        self.space, self.weights = space, 0.5 + rng.random(4)
        self.best_depths = rng.integers(4, 12, size=4)

    def __call__(self, genes):
        _, parts = self.space.split(genes)
        width, depth = np.log2(np.maximum(parts[:, :, 1], 1)), parts[:, :, -1]
        score = np.zeros(len(genes))
        for number, level in enumerate((2, 3, 4, 5)):
            where = self.space.level_of_part == level
            total = depth[:, where].sum(axis=1)
            score += self.weights[number] * (
                (width * depth)[:, where].sum(axis=1) - 0.3 * (total - self.best_depths[number]) ** 2
            )
        return {"score": score}


NO_BUDGET = Budget()
LANDSCAPES = {
    "small-640": (lambda: Table((8, 8, 5, 2)), lambda space, seed: Rugged(space, seed, neighbors=1), NO_BUDGET),
    "cell-15625": (lambda: Table((5,) * 6), lambda space, seed: Rugged(space, seed, neighbors=2), NO_BUDGET),
    "smooth-15625": (
        lambda: Table((5,) * 6),
        lambda space, seed: Rugged(space, seed, neighbors=1, decay=0.5),
        NO_BUDGET,
    ),
    "traps-10^6": (lambda: Table((4,) * 10, ordered=True), Traps, NO_BUDGET),
    "peaks-10^8": (lambda: Table((10,) * 8, ordered=True), Peaks, Budget(upper={"size": 36.0})),
    "blocks-10^12": (
        lambda: Table((4,) * 20),
        lambda space, seed: Rugged(space, seed, neighbors=1),
        Budget(upper={"size": 30.0}),
    ),
    "layers": (lambda: BasicSpace(image_hw=(320, 320)), Layers, Budget(upper={"gmacs": 4.0, "layers": 60})),
}


def reference(space, landscape, budget, seed):
    """(N, G) random architectures within the budget."""
    rows = space.sample(SAMPLE, np.random.default_rng((seed, 1)))
    return rows[budget.admits(space.cost(rows), len(rows))]


def hypervolume(values, low, high):
    """Share of the box from `low` to `high` that (N, 2) values dominate; larger is better in both columns."""
    scaled = np.clip((values - low) / (high - low), 0.0, None)
    front = np.unique(scaled[pareto_front(scaled)], axis=0)[::-1]
    return float((front[:, 0] * np.diff(front[:, 1], prepend=0.0)).sum())


def search(make, name, evaluations, seed, *, several, batches=None, shift=SEARCHER_SEED):
    """Return what one search reaches."""
    make_space, make_landscape, budget = LANDSCAPES[name]
    space = make_space()
    landscape = make_landscape(space, seed)
    cost = next(iter(space.cost(space.sample(1, np.random.default_rng(0)))))
    objectives = (Objective("score"), Objective(cost, "min"))[: 2 if several else 1]
    searcher = make(space, budget=budget, seed=shift + seed, objectives=objectives)
    batch_size, in_flight = batches or default_batches(evaluations)
    ordered = OrderedSearch(searcher, evaluations=evaluations, batch_size=batch_size, in_flight=in_flight)
    values = []
    ordered.run(landscape, lambda told: values.append(searcher.objective_values(told.proposal.genes, told.metrics)))
    assert searcher.num_told == evaluations or ordered.ended_early
    found = np.concatenate(values)
    if not several:
        return in_deviations(found.max(), space, landscape, budget, seed)
    rows = reference(space, landscape, budget, seed)
    sample = searcher.objective_values(rows, landscape(rows))
    return hypervolume(found, sample.min(axis=0), sample.max(axis=0))


def plain_aging(name, evaluations, seed):
    """Aging evolution as Real et al. (AAAI 2019) write it down, one architecture at a time: what it reaches.

    What was evaluated before is evaluated again. The population is 50, or a fifth of the evaluations if that is less; a
    tournament draws 10.
    """
    make_space, make_landscape, budget = LANDSCAPES[name]
    space, rng = make_space(), np.random.default_rng((seed, 2))
    landscape = make_landscape(space, seed)
    size = min(50, evaluations // 5)
    population, scores = [], []
    while len(scores) < evaluations:
        if len(population) < size:
            child = space.sample_within(1, budget, rng)
        else:
            drawn = rng.integers(len(population), size=10)
            parent = population[max(drawn, key=lambda member: population[member][1])][0]
            child = parent
            while np.array_equal(child, parent) or not budget.admits(space.cost(child), 1)[0]:
                child = space.mutate(parent, rng)
        scores.append(float(landscape(child)["score"][0]))
        population.append((child, scores[-1]))
        population = population[-size:]
    return in_deviations(max(scores), space, landscape, budget, seed)


def in_deviations(score, space, landscape, budget, seed):
    """Return a score in standard deviations of the landscape above its mean."""
    rows = reference(space, landscape, budget, seed)
    sample = landscape(rows)["score"]
    return float((score - sample.mean()) / sample.std())


def reached(searcher, name, evaluations, seed, *, several):
    """Return what one search by a named searcher reaches; the two baselines of several lines look at one at a time."""
    if searcher == PLAIN:
        return plain_aging(name, evaluations, seed)
    options = {"batches": (1, 1), "shift": 0} if searcher.startswith("optuna") else {}
    return search(SEARCHERS[searcher], name, evaluations, seed, several=several, **options)


def compare(searchers, landscapes, sizes, seeds, *, several):
    """Results of all seeds, a row for each landscape, evaluations and searcher; the first is the baseline."""
    rows = []
    for name, evaluations in itertools.product(landscapes, sizes):
        baseline = np.zeros(0)
        for searcher in searchers:
            begin = time.process_time()
            results = [reached(searcher, name, evaluations, seed, several=several) for seed in range(seeds)]
            seconds = (time.process_time() - begin) / seeds
            baseline = np.array(results) if searcher == searchers[0] else baseline
            row = {
                "landscape": name,
                "objectives": 2 if several else 1,
                "evaluations": evaluations,
                "searcher": searcher,
                "results": [round(float(result), 6) for result in results],
                "mean": float(np.mean(results)),
                "interval": interval(results),
                "baseline": searchers[0],
                "above_baseline": float(np.mean(results - baseline)),
                "above_baseline_interval": interval(results - baseline),
                "seconds": seconds,
            }
            rows.append(row)
            print(to_json(row, indent=None), file=sys.stderr, flush=True)
    return rows


def interval(results):
    """Half the width of the mean's 95 % interval."""
    return float(1.96 * np.std(results, ddof=1) / np.sqrt(len(results))) if len(results) > 1 else float("nan")


def show(rows, sizes):
    """Return a table in Markdown: mean and interval; what is below random search is marked.

    Beside another baseline the mean difference from it, and its interval, are set in brackets.
    """
    print("| landscape | searcher | " + " | ".join(f"{size:,}" for size in sizes) + " |")
    print("|---|---|" + "---|" * len(sizes))
    for name, searcher in dict.fromkeys((row["landscape"], row["searcher"]) for row in rows):
        cells = [
            f"{row['mean']:.3f} ± {row['interval']:.3f}" + remark(row)
            for row in rows
            if (row["landscape"], row["searcher"]) == (name, searcher)
        ]
        print(f"| {name} | {searcher} | " + " | ".join(cells) + " |")


def remark(row):
    """Return what is said about a result beside its baseline."""
    if row["baseline"] == "random":
        return " (below random)" if row["above_baseline"] < -1e-9 else ""
    is_baseline = row["searcher"] == row["baseline"]
    return "" if is_baseline else f" ({row['above_baseline']:+.3f} ± {row['above_baseline_interval']:.3f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--evaluations", type=int, nargs="+", default=[50, 100, 300, 1000])
    parser.add_argument("--landscapes", nargs="+", default=list(LANDSCAPES), choices=list(LANDSCAPES))
    parser.add_argument("--searchers", nargs="+", default=["evolution", "coarse-to-fine"], choices=[*SEARCHERS, PLAIN])
    parser.add_argument("--baseline", default="random", choices=[*SEARCHERS, PLAIN])
    parser.add_argument("--objectives", type=int, default=1, choices=(1, 2))
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    known = parser.parse_args()
    searchers = [known.baseline, *(name for name in known.searchers if name != known.baseline)]
    rows = compare(searchers, known.landscapes, known.evaluations, known.seeds, several=known.objectives == 2)
    if known.json:
        print(to_json(rows))
    else:
        show(rows, known.evaluations)
