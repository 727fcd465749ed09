"""Evolution guided by a predictor that is fitted to its own history.

References: Oyama et al., "DetOFA" (a predictor of ranks pre-selects the candidates of an evolution); White et al.,
"BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search", AAAI 2021 (mutants of the
best, chosen by a predictor that is fitted again as the search goes).

Differs from both in: the predictor is a Gaussian process on the genes, which fits hundreds of evaluations in a tenth of
a second on one core, and a candidate is judged by the guess plus `optimism` times its standard deviation.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import MAX_OVERSAMPLE
from nasray.searchers.defaults import UNKNOWN_EVALUATIONS
from nasray.searchers.evolution import Evolution
from nasray.searchers.surrogate import GaussianProcess
from nasray.spaces import NasrayError, Population, Space
from nasray.spaces.ranges import Count, Range, Share, check_number, check_whole

MIN_FITTED, MAX_FITTED = 4, 512
"""Evaluations to which a predictor is fitted: of more the best and the latest."""


class GuidedEvolution(Evolution):
    """Evolution whose children are pre-selected by a predictor of its own history; for any space, one objective.

    Newcomers are pre-selected too, once there is a predictor. A fit is a function of what was told, and is made when it
    is needed first: a searcher that loads a state makes the newest one again, a run that is continued all of them.

    Args:
        space: Space to search.
        refit: Evaluations between two fits; a 25th of all if left out.
        candidates: Candidates within the budget for each architecture asked for, of which the predictor takes the best.
        optimism: Standard deviations of a guess that count in a candidate's favor: more of them try what is less known.
        mutations_per_child: Number of times that a mutant is mutated, at most: drawn for each from 1 on.
        mutation: Share of mutants among the children; if left out what `crossover` leaves. With neither given both are
            two fifths, and the rest newcomers.
        options: Further options; see `Evolution`.

    Raises:
        NasrayError: for several objectives, or a predictor of the caller's.
    """

    def __init__(
        self,
        space: Space,
        *,
        refit: Count | None = None,
        candidates: Annotated[int, Range(1, MAX_OVERSAMPLE)] = 50,
        optimism: Annotated[float, Range(0, 100)] = 2.0,
        mutations_per_child: Annotated[int, Range(1, 1000)] = 3,
        mutation: Share | None = None,
        **options: Any,
    ) -> None:
        if options.get("predictor") is not None:
            raise NasrayError(
                "guided-evolution fits a predictor of its own, and takes no other. Leave preselect out, or take "
                "evolution"
            )
        check_whole("candidates", candidates, 1, MAX_OVERSAMPLE)
        options["oversample"] = candidates
        if mutation is None and options.get("crossover") is None:
            mutation = options["crossover"] = 0.4
        super().__init__(space, mutation=mutation, mutations_per_child=mutations_per_child, **options)
        self._refit = None if refit is None else check_whole("refit", refit, 1)
        self.optimism = check_number("optimism", optimism, 0, 100)
        self.known: Population = np.empty((0, space.num_genes), dtype=np.int64)
        self.worth: NDArray[np.float64] = np.empty(0)
        self.num_fitted = 0  # evaluations that the newest predictor is fitted to, those told first
        self._process: GaussianProcess | None = None

    @property
    def refit(self) -> int:
        """Evaluations between two fits."""
        return self._refit or max((self.evaluations or UNKNOWN_EVALUATIONS) // 25, 1)

    def options(self) -> dict[str, Any]:
        """See `Searcher.options`."""
        return {**super().options(), "refit": self.refit, "candidates": self.oversample, "optimism": self.optimism}

    def _learn(self, genes: Population, values: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
        super()._learn(genes, values, numbers)
        self.known = np.concatenate([self.known, genes])
        self.worth = np.concatenate([self.worth, values[:, 0]])
        least = max(self.initial, MIN_FITTED) if not self.num_fitted else self.num_fitted + self.refit
        if len(self.known) >= least:
            self._use_fit_to(len(self.known))

    def _use_fit_to(self, num: int) -> None:
        self.num_fitted, self._process = num, None
        self.predictor = self._guess if num else None

    def _guess(self, genes: Population) -> NDArray[np.float64]:
        """Return (N,) what (N, G) rows are worth at best: the guess and the deviations that count."""
        if self._process is None:
            self._process = GaussianProcess(self.space, *self._fitted_to())
        means, deviations = self._process(genes)
        return means + self.optimism * deviations

    def _fitted_to(self) -> tuple[Population, NDArray[np.float64]]:
        """Return (M, G) evaluations and their (M,) finite values, in the order told."""
        genes, values = self.known[: self.num_fitted], self.worth[: self.num_fitted]
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        values = np.clip(values, low, high)  # what has no value is as bad as the worst
        if len(genes) <= MAX_FITTED:
            return genes, values
        is_kept = np.zeros(len(genes), dtype=bool)
        is_kept[np.argsort(-values, kind="stable")[: MAX_FITTED // 2]] = True
        is_kept[np.flatnonzero(~is_kept)[-MAX_FITTED // 2 :]] = True
        return genes[is_kept], values[is_kept]

    def _mutate(self, genes: Population) -> Population:
        steps = self.rng.integers(1, self.mutations_per_child + 1, size=len(genes))
        mutate = self.space.mutate_finely if self.fine else self.space.mutate
        for step in range(int(steps.max(initial=0))):
            genes = np.where((step < steps)[:, None], mutate(genes, self.rng), genes)
        return genes

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "known": self.known, "worth": self.worth, "num_fitted": self.num_fitted}

    def _load_state(self, state: dict[str, Any]) -> None:
        super()._load_state(state)
        self._use_fit_to(self.num_fitted)
