"""What to try next: searchers."""

from nasray.searchers.base import Metrics, Objective, Proposal, Searcher
from nasray.searchers.coarse_to_fine import CoarseToFineEvolution
from nasray.searchers.defaults import default_batches
from nasray.searchers.evolution import Evolution
from nasray.searchers.optuna import OptunaNSGA2, OptunaTPE
from nasray.searchers.pareto import ParetoEvolution, crowding_distances, front_numbers, pareto_front
from nasray.searchers.random import RandomSearch

SEARCHERS: dict[str, type[Searcher]] = {
    "random": RandomSearch,
    "evolution": Evolution,
    "coarse-to-fine": CoarseToFineEvolution,
    "pareto-evolution": ParetoEvolution,
    "optuna-tpe": OptunaTPE,
    "optuna-nsga2": OptunaNSGA2,
}

__all__ = [
    "SEARCHERS",
    "CoarseToFineEvolution",
    "Evolution",
    "Metrics",
    "Objective",
    "OptunaNSGA2",
    "OptunaTPE",
    "ParetoEvolution",
    "Proposal",
    "RandomSearch",
    "Searcher",
    "crowding_distances",
    "default_batches",
    "front_numbers",
    "pareto_front",
]
