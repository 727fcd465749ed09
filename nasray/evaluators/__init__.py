"""Evaluators: what an architecture is worth. None imports torch before it is called.

Every evaluator is picklable and deterministic for each architecture: one that draws random numbers draws them from the
seed and the architecture's id. An evaluator may have `meaning`, a sentence about its score for a report's reader;
`closed_form`, whether a batch takes milliseconds; `zero_shot`, whether it looks at neither data nor trained weights;
`fits(space)`, why it does not go with a space (None if it does); `check()`, which loads once what it loads from files;
and `check_search(searcher)`, which refuses a searcher that does not go with what it loads. A run hands it `space`,
`seed`, `cost`, what the run counts, and `budget`, which bounds that, if it takes them.
"""

from nasray.evaluators.entropy import ClosedFormEntropy, LogWidth, SampledEntropy, SingleScaleEntropy
from nasray.evaluators.filter import FilterEvaluator
from nasray.evaluators.path import PathEvaluator
from nasray.evaluators.proxies import AZNAS, NASWOT, SWAP, SynFlow, ZenScore
from nasray.registry import Registry

EVALUATORS = Registry(
    "evaluator",
    {
        "entropy": ClosedFormEntropy,
        "single-scale-entropy": SingleScaleEntropy,
        "sampled-entropy": SampledEntropy,
        "log-width": LogWidth,
        "zen": ZenScore,
        "naswot": NASWOT,
        "synflow": SynFlow,
        "swap": SWAP,
        "aznas": AZNAS,
        "path": PathEvaluator,
        "filter": FilterEvaluator,
    },
    given=frozenset({"space", "seed", "cost", "budget"}),
)
"""A new evaluator is one line here."""

__all__ = [
    "AZNAS",
    "EVALUATORS",
    "NASWOT",
    "SWAP",
    "ClosedFormEntropy",
    "FilterEvaluator",
    "LogWidth",
    "PathEvaluator",
    "SampledEntropy",
    "SingleScaleEntropy",
    "SynFlow",
    "ZenScore",
]
