"""Optuna's samplers through its own ask and tell, with constraints.

References: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011 (TPE); Deb et al., "NSGA-II",
2002. The budget is told to the sampler as constraints, so that it learns where architectures are too costly; such
architectures are never evaluated. A suggestion that was evaluated before is told its known values.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import NO_PARENT, Proposal, Searcher
from nasray.spaces import Population, row_keys

if TYPE_CHECKING:
    import optuna

_WORST = -1e300  # Optuna takes no infinities


class OptunaSearch(Searcher):
    """A searcher over one Optuna study.

    Args:
        space: what can be built; its `suggest` is the define-by-run function.
        options: see `Searcher`.
    """

    max_tries = 1_000  # a suggestion takes milliseconds, and its infeasible ones teach the sampler

    def __init__(self, space: Any, *, seed: int = 0, **options: Any) -> None:
        import optuna

        super().__init__(space, seed=seed, **options)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            directions=["maximize"] * len(self.objectives), sampler=self._sampler(seed), study_name="nasray"
        )
        self.trials: dict[int, int] = {}  # key of a row asked for and not told yet -> trial number
        self.known: dict[int, list[float]] = {}  # key of a row told -> its values

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        raise NotImplementedError

    def ask(self, num: int) -> Proposal:
        """See `Searcher.ask`."""
        genes: list[NDArray[np.int64]] = []
        tried = 0
        while len(genes) < num:
            trial = self.study.ask()
            row = self.space.suggest(trial)
            key = int(row_keys(row[None])[0])
            costs = self.cost(row[None])
            over = self.budget.violations(costs)[0] if self.budget.names else np.zeros(0)
            for index, violation in enumerate(over):
                trial.set_constraint(f"bound-{index}", float(min(violation, 1e6)))
            if over.any():
                self.study.tell(trial, [_WORST] * len(self.objectives))
            elif key in self.known:
                self.study.tell(trial, self.known[key])
            elif key in self.trials:
                self._fail(trial)
            else:
                self.trials[key] = trial.number
                self.seen.add(key)
                genes.append(row)
                tried = 0
                continue
            tried += 1
            if tried > self.max_tries:
                if not self.seen:
                    raise self._infeasible(tried)
                break
        rows = np.array(genes, dtype=np.int64).reshape(len(genes), self.space.num_genes)
        return Proposal(rows, np.full((len(rows), 2), NO_PARENT))

    def _fail(self, trial: optuna.Trial) -> None:
        import optuna

        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _propose(self, num: int) -> tuple[Population, NDArray[np.int64]]:
        raise AssertionError("ask() does all")

    def _learn(self, genes: Population, values: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
        del numbers
        for key, value in zip(row_keys(genes).tolist(), values, strict=True):
            finite = np.nan_to_num(value, nan=_WORST, neginf=_WORST, posinf=-_WORST).tolist()
            self.study.tell(self.trials.pop(key), finite)
            self.known[key] = finite

    def _state(self) -> dict[str, Any]:
        return {"study": pickle.dumps(self.study), "trials": dict(self.trials), "known": dict(self.known)}

    def _load_state(self, state: dict[str, Any]) -> None:
        self.study = pickle.loads(state["study"])
        self.trials, self.known = dict(state["trials"]), dict(state["known"])


class OptunaTPE(OptunaSearch):
    """Tree-structured Parzen estimator."""

    max_objectives = 8

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


class OptunaNSGA2(OptunaSearch):
    """NSGA-II.

    Args:
        space: what can be built.
        population_size: of Optuna's sampler.
        options: see `Searcher`.
    """

    max_objectives = 8

    def __init__(self, space: Any, *, population_size: int = 50, **options: Any) -> None:
        self.population_size = population_size
        super().__init__(space, **options)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.NSGAIISampler(population_size=self.population_size, seed=seed)
