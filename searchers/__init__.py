"""What to try next: searchers."""

from nasray.searchers.aging import AgingEvolution
from nasray.searchers.base import Metrics, Objective, Predictor, Proposal, Searcher
from nasray.searchers.breeding import Breeding
from nasray.searchers.buckets import BucketEvolution, BucketSampling
from nasray.searchers.coarse_to_fine import CoarseToFineEvolution
from nasray.searchers.defaults import default_batches
from nasray.searchers.evolution import Evolution
from nasray.searchers.guided import GuidedEvolution
from nasray.searchers.listed import Listed
from nasray.searchers.optuna import OptunaGP, OptunaNSGA2, OptunaTPE
from nasray.searchers.pareto import ParetoEvolution, crowding_distances, front_numbers, pareto_front, ranking
from nasray.searchers.random import RandomSearch

SEARCHERS: dict[str, type[Searcher]] = {
    "random": RandomSearch,
    "evolution": Evolution,
    "aging-evolution": AgingEvolution,
    "guided-evolution": GuidedEvolution,
    "coarse-to-fine": CoarseToFineEvolution,
    "pareto-evolution": ParetoEvolution,
    "optuna-tpe": OptunaTPE,
    "optuna-nsga2": OptunaNSGA2,
    "optuna-gp": OptunaGP,
    "listed": Listed,
    "buckets": BucketSampling,
    "bucket-evolution": BucketEvolution,
}

__all__ = [
    "SEARCHERS",
    "AgingEvolution",
    "Breeding",
    "BucketEvolution",
    "BucketSampling",
    "CoarseToFineEvolution",
    "Evolution",
    "GuidedEvolution",
    "Listed",
    "Metrics",
    "Objective",
    "OptunaGP",
    "OptunaNSGA2",
    "OptunaTPE",
    "ParetoEvolution",
    "Predictor",
    "Proposal",
    "RandomSearch",
    "Searcher",
    "crowding_distances",
    "default_batches",
    "front_numbers",
    "pareto_front",
    "ranking",
]
