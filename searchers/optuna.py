"""Optuna's samplers through its own ask and tell, with constraints.

References: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011 (TPE); Deb et al., "NSGA-II",
2002; Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization", NeurIPS 2023 (Gaussian
process). The budget is told to the sampler as constraints, so that it learns where architectures are too costly; such
architectures are never evaluated. A suggestion that was evaluated before is told its known values.

A sampler that has converged, or that knows no architecture within a tight budget, suggests what cannot be evaluated
again and again, at milliseconds each. So an `ask` takes a bounded number of such suggestions; what is missing then are
mutants of the last suggestion, and newcomers, which are told to the sampler as if it had suggested them.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from nasray.searchers.base import NEWCOMER, NO_PARENT, OWN, Proposal, Searcher
from nasray.searchers.defaults import UNKNOWN_EVALUATIONS, default_population_size
from nasray.spaces import NasrayError, Population, row_keys
from nasray.spaces.ranges import Range

if TYPE_CHECKING:
    import optuna

_WORST = -1e300  # Optuna takes no infinities
NO_PREDICTOR = (
    "Optuna's samplers take no predictor: what they suggest and nobody evaluates would stay open in their study. Take "
    "evolution, aging-evolution or random"
)


class OptunaSearch(Searcher):
    """A searcher over one Optuna study.

    Args:
        space: Space of the architectures; its `suggest` is the define-by-run function.
        options: Further options; see `Searcher`.
    """

    def __init__(self, space: Any, *, seed: int = 0, **options: Any) -> None:
        super().__init__(space, seed=seed, **options)
        if self.predictor is not None:
            raise NasrayError(NO_PREDICTOR)
        self.seed = seed
        self._study: optuna.Study | None = None
        self.trials: dict[int, int] = {}  # key of a row asked for and not told yet -> trial number
        self.known: dict[int, list[float]] = {}  # key of a row told -> its values
        self.suggested: Population = np.empty((0, space.num_genes), dtype=np.int64)  # last, whatever came of it

    @property
    def study(self) -> optuna.Study:
        """Made when it is first needed, since the sampler's defaults follow from the number of evaluations."""
        import optuna

        if self._study is None:
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self._study = optuna.create_study(
                directions=["maximize"] * len(self.objectives), sampler=self._sampler(self.seed), study_name="nasray"
            )
        return self._study

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        raise NotImplementedError

    def ask(self, num: int) -> Proposal:
        """See `Searcher.ask`."""
        self.shortfall = ""
        genes: list[NDArray[np.int64]] = []
        wasted, most_wasted = {"known": 0, "costly": 0}, {"known": num, "costly": 4 * num + 16}
        while len(genes) < num and all(wasted[kind] <= most for kind, most in most_wasted.items()):
            row, fault = self._suggest()
            if fault is None:
                genes.append(row)
            else:
                wasted[fault] += 1
        rows = np.array(genes, dtype=np.int64).reshape(len(genes), self.space.num_genes)
        if len(rows) < num:
            others = super().ask(num - len(rows)).genes
            for row in others:
                self._teach(row)
            rows = np.concatenate([rows, others])
        return Proposal(rows, np.full((len(rows), 2), NO_PARENT))

    def _suggest(self) -> tuple[NDArray[np.int64], str | None]:
        """Return the sampler's next row, and why it is not evaluated: it is known, or too costly; None if it is."""
        trial = self.study.ask()
        row = self.space.suggest(trial)
        self.suggested = row[None]
        key = int(row_keys(row[None])[0])
        over = self.budget.violations(self.cost(row[None]))[0] if self.budget.names else np.zeros(0)
        for index, violation in enumerate(over):
            trial.set_constraint(f"bound-{index}", float(min(violation, 1e6)))
        if over.any():
            self.study.tell(trial, self._worst())
            return row, "costly"
        if key in self.known:
            self.study.tell(trial, self.known[key])
            return row, "known"
        if key in self.seen:
            self._fail(trial)
            return row, "known"
        self.trials[key] = trial.number
        self._mark_seen(row[None])
        return row, None

    def _teach(self, row: NDArray[np.int64]) -> None:
        """Open a trial for a row that the sampler did not suggest."""
        self.study.enqueue_trial({g.name: g.to_param(int(v)) for g, v in zip(self.space.genes, row, strict=True)})
        trial = self.study.ask()
        for index in range(len(self.budget.violations(self.cost(row[None]))[0]) if self.budget.names else 0):
            trial.set_constraint(f"bound-{index}", 0.0)
        if np.array_equal(self.space.suggest(trial), row):
            self.trials[int(row_keys(row[None])[0])] = trial.number
        else:  # the space suggests parameters of its own: the sampler will not hear of this row
            self._fail(trial)

    def _worst(self) -> list[float]:
        """Return what an architecture is told to be worth that has no value, one number for each objective."""
        return [_WORST] * len(self.objectives)

    def _fail(self, trial: optuna.Trial) -> None:
        import optuna

        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _kinds(self, num: int) -> NDArray[np.int64]:
        """Return mutants of the last suggestion for what the sampler leaves open; newcomers if these are used up."""
        return np.full(num, OWN if len(self.suggested) else NEWCOMER)

    def _propose(self, num: int, kind: int) -> tuple[Population, NDArray[np.int64]]:
        del kind
        near = self.space.mutate(np.repeat(self.suggested, num, axis=0), self.rng)
        return near, np.full((len(near), 2), NO_PARENT)

    def _learn(self, genes: Population, values: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
        del numbers
        for key, value in zip(row_keys(genes).tolist(), values, strict=True):
            finite = np.where(np.isneginf(value), self._worst(), np.nan_to_num(value, posinf=-_WORST)).tolist()
            if key in self.trials:
                self.study.tell(self.trials.pop(key), finite)
            self.known[key] = finite

    def _state(self) -> dict[str, Any]:
        return {
            "study": copy.deepcopy(self.study),
            "trials": dict(self.trials),
            "known": dict(self.known),
            "suggested": self.suggested,
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self._study = copy.deepcopy(state["study"])
        self.suggested = state["suggested"]
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
        space: Space to search.
        population_size: Population of Optuna's sampler; if left out a sixth of the evaluations, from 8 to 50, or a
            hundredth of very many, up to 256.
        options: Further options; see `Searcher`.
    """

    max_objectives = 8

    def __init__(
        self, space: Any, *, population_size: Annotated[int, Range(2, 10**6)] | None = None, **options: Any
    ) -> None:
        super().__init__(space, **options)
        if population_size is not None and population_size < 2:
            raise NasrayError(f"optuna-nsga2 needs population_size >= 2, got {population_size}")
        self._population_size = population_size

    @property
    def population_size(self) -> int:
        """Of Optuna's sampler."""
        return self._population_size or default_population_size(self.evaluations)

    def options(self) -> dict[str, Any]:
        """See `Searcher.options`."""
        return {"population_size": self.population_size}

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.NSGAIISampler(population_size=self.population_size, seed=seed)


class OptunaGP(OptunaSearch):
    """Gaussian process with expected improvement; tenths of a second for each suggestion.

    What has no value, or is too costly to be evaluated, is told the worst value so far: a Gaussian process has a scale.

    Args:
        space: Space to search.
        initial: Number of evaluations before the process is first fitted; if left out a tenth of all, from 4 to 10.
        options: Further options; see `Searcher`.

    Raises:
        NasrayError: if scipy is not installed.
    """

    max_objectives = 8

    def __init__(self, space: Any, *, initial: Annotated[int, Range(2, 10**6)] | None = None, **options: Any) -> None:
        super().__init__(space, **options)
        if find_spec("scipy") is None or find_spec("torch") is None:
            raise NasrayError("optuna-gp needs scipy and torch: pip install scipy torch")
        if initial is not None and initial < 2:
            raise NasrayError(f"optuna-gp needs initial >= 2, got {initial}")
        self._initial = initial

    @property
    def initial(self) -> int:
        """Evaluations before the process is first fitted."""
        return self._initial or min(max((self.evaluations or UNKNOWN_EVALUATIONS) // 10, 4), 10)

    def options(self) -> dict[str, Any]:
        """See `Searcher.options`."""
        return {"initial": self.initial}

    def _worst(self) -> list[float]:
        values = np.array(list(self.known.values()))
        return values.min(axis=0).tolist() if len(values) else [0.0] * len(self.objectives)

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        import optuna

        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=self.initial, warn_independent_sampling=False)
