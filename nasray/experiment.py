"""Experiments: one frozen, validated configuration of a search, from YAML and the command line.

`Experiment` is what a user writes; `space()`, `searcher()`, `evaluator()` make the objects that run. Unknown keys are
errors with a suggestion. Whatever an experiment is made of is looked up in registries, never imported by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import AfterValidator, TypeAdapter

from nasray.architectures import ARCHITECTURES
from nasray.cluster.reading import shown
from nasray.cluster.session import Resources as TrialResources
from nasray.configuration import (
    checked,
    describe_versions,
    did_you_mean,
    git_revision,
    given_options,
    load_content,
    overridden,
    refuse_foreign,
    shipped_names,
    validate,
    with_current_keys,
)
from nasray.evaluators import ClosedFormEntropy, LogWidth, Proxy, SampledEntropy, check_weights
from nasray.models.supernets import SUPERNETS
from nasray.options import (
    AboveZero,
    AtLeastZero,
    Flag,
    ImageSize,
    Name,
    Natural,
    Positive,
    Seed,
    Share,
    Text,
    number,
    whole,
)
from nasray.paths import PathEvaluator
from nasray.searchers import SEARCHERS, Objective, Searcher, default_batches
from nasray.spaces import SPACES, Budget, CostFunction, NasrayError
from nasray.spaces.ranges import (
    MAX_BATCH,
    MAX_BLOCKS,
    MAX_CORES,
    MAX_IN_FLIGHT,
    MAX_KERNEL,
    MAX_RETRIES,
    MAX_WIDTH,
    shortened,
)
from nasray.spaces.staged import StagedSpace

if TYPE_CHECKING:
    from nasray.cluster.trial import Evaluator

EVALUATORS = {
    "entropy": "multi-scale entropy in closed form (MAE-DET)",
    "single-scale-entropy": "entropy of C5 alone in closed form",
    "sampled-entropy": "multi-scale entropy by forward passes with random weights (MAE-DET, Eq. 3-5)",
    "log-width": "the released MAE-DET code's formula",
    "zen": "Zen-score (Lin et al., ICCV 2021)",
    "naswot": "NASWOT (Mellor et al., ICML 2021)",
    "synflow": "SynFlow (Tanaka et al., NeurIPS 2020)",
    "path": "mAP (or accuracy) of a supernet's path with batch norm statistics of its own (DetNAS)",
}

CLOSED_FORM = ("entropy", "single-scale-entropy", "sampled-entropy", "log-width")
PACKAGE = "nasray.experiments"

if TYPE_CHECKING:
    SpaceName: TypeAlias = str
    SearcherName: TypeAlias = str
    EvaluatorName: TypeAlias = str
else:  # a new entry of a registry is allowed here without another line
    SpaceName, SearcherName = Literal[tuple(SPACES)], Literal[tuple(SEARCHERS)]
    EvaluatorName = Literal[tuple(EVALUATORS)]


Width = Annotated[int, whole(1, MAX_WIDTH)]
Depth = Annotated[int, whole(1, MAX_BLOCKS)]
Kernel = Annotated[int, whole(1, MAX_KERNEL)]
Weight = Annotated[float, number(0, 1e6)]


def _check_reference(name: str) -> str:
    if name not in ARCHITECTURES:
        raise NasrayError(
            f"unknown architecture {shortened(name)}{did_you_mean(name, ARCHITECTURES)} `nasray list architectures` "
            "prints all"
        )
    return name


@checked
class SpaceOptions:
    """What can be built.

    What is left out is the space's own default; options that the named space does not have are refused.

    Attributes:
        name: the family of blocks.
        image_size: height and width in pixels for which costs are counted.
        kernels: allowed kernel sizes (staged spaces).
        max_width: largest output width (staged spaces).
        max_depth: blocks of one part; deeper ones are divided (staged spaces).
        parts: how many parts C2, C3, C4 and C5 may have (staged spaces).
        size: channels and blocks as in one of DetNAS's spaces: small, large, large-wide (shufflenet).
        stem_width: channels of the stem, instead of the size's (shufflenet).
        widths: channels of C2 to C5, instead of the size's (shufflenet).
        depths: blocks of C2 to C5, instead of the size's (shufflenet).
        shuffle: how channels are divided: interleave, or even-odd (shufflenet).
    """

    name: SpaceName = "bottleneck"
    image_size: ImageSize | None = None
    kernels: tuple[Kernel, ...] | None = None
    max_width: Width | None = None
    max_depth: Depth | None = None
    parts: tuple[Depth, Depth, Depth, Depth] | None = None
    size: Literal["small", "large", "large-wide"] | None = None
    stem_width: Width | None = None
    widths: tuple[Width, Width, Width, Width] | None = None
    depths: tuple[Depth, Depth, Depth, Depth] | None = None
    shuffle: Literal["interleave", "even-odd"] | None = None


@checked
class SearcherOptions:
    """How the search decides what to try next. Options that the named searcher does not have are refused.

    Attributes:
        name: the algorithm.
        population_size: survivors of an evolution; if left out a sixth of the evaluations, from 8 to 50, or a hundredth
            of very many, up to 256.
        parents: how many of the best may breed; a fifth of the population if left out.
        mutation: share of mutants among the children; if left out what crossover leaves, or half (coarse-to-fine: all).
        crossover: share of crossed children; if left out what mutation leaves, or half. The rest are newcomers.
        mutations_per_child: how often a mutant is mutated; once if left out.
        initial: evolution: architectures that are sampled before the first is bred; as many as survive if left out, 0
            starts from the space's own start.
        fine_after: coarse-to-fine: evaluations of the coarse half; half of all if left out.
        keep: coarse-to-fine: survivors of half time.
        tournament: aging-evolution: members drawn, of which the best breeds; a fifth of the population if left out.
        rows: listed: genes of the architectures.
        top: listed: rows to take from the beginning; all if left out.
    """

    name: SearcherName = "coarse-to-fine"
    population_size: Annotated[int, whole(2, 10**6)] | None = None
    parents: Annotated[int, whole(1, 10**6)] | None = None
    mutation: Share | None = None
    crossover: Share | None = None
    mutations_per_child: Annotated[int, whole(1, 1000)] | None = None
    initial: Annotated[int, whole(0, 10**6)] | None = None
    fine_after: Positive | None = None
    keep: Annotated[int, whole(1, 10**6)] | None = None
    tournament: Annotated[int, whole(1, 10**6)] | None = None
    rows: tuple[tuple[int, ...], ...] | None = None
    top: Positive | None = None


@checked
class EvaluatorOptions:
    """What an architecture is worth.

    Attributes:
        name: the score.
        image_size: height and width in pixels of the score's image.
        weights: alpha of C1 to C5 (entropies).
        size_factor: how the size of a feature map enters an entropy; see the docs on scores.
        residual: whether an entropy counts the shortcuts.
        repeats: forward passes to average (sampled-entropy).
        batch_size: images at a time (proxies, path).
        device: where a score that needs a network runs.
        images: of the training set, from which a path's batch norm statistics are computed anew (path).
        cache_gib: decoded images that each trial keeps between paths, in GiB; more are read anew (path).
    """

    name: EvaluatorName = "entropy"
    image_size: ImageSize | None = None
    weights: tuple[Weight, Weight, Weight, Weight, Weight] | None = None
    size_factor: Literal["log-channels", "map-size", "none"] | None = None
    residual: Flag | None = None
    repeats: Annotated[int, whole(1, 10**6)] | None = None
    batch_size: Annotated[int, whole(1, 65_536)] | None = None
    device: Literal["auto", "cpu", "cuda"] | None = None
    images: Positive | None = None
    cache_gib: AtLeastZero | None = None

    def __post_init__(self) -> None:
        if self.weights is not None:
            check_weights(self.weights)


@checked
class SupernetOptions:
    """What is trained before the search; evaluator path needs one of the three.

    Attributes:
        pretrain: recipe of the supernet's training on classification; left out, it starts from scratch.
        train: recipe of the supernet's training as a detector; left out, paths are compared by their accuracy.
        weights: checkpoint of a supernet of the same space, instead of (pre-)training one.
        holdout: images of the training set that the supernet does not learn from, on which paths are compared; 0
            compares them on the split val.
    """

    pretrain: Text | None = None
    train: Text | None = None
    weights: Text | None = None
    holdout: Natural = 0


@checked
class WinnerOptions:
    """How the winner of the search, and whatever it is compared with, is trained by itself.

    Attributes:
        pretrain: recipe of its training on classification; left out, it starts from scratch.
        train: recipe of its training as a detector.
    """

    pretrain: Text | None = None
    train: Text | None = None


@checked
class BudgetOptions:
    """Bounds on the backbone's costs at the space's image size; what is left out is unbounded.

    Attributes:
        gmacs: most multiply-adds of convolutions, / 1e9.
        params_m: most parameters, / 1e6.
        layers: most layers of the main branch, the stem included.
        latency_ms: most measured latency of one image, from the device's block table.
        min_gmacs: least multiply-adds, / 1e9.
        min_params_m: least parameters, / 1e6.
        min_layers: least layers.
    """

    gmacs: AboveZero | None = None
    params_m: AboveZero | None = None
    layers: AboveZero | None = None
    latency_ms: AboveZero | None = None
    min_gmacs: AtLeastZero | None = None
    min_params_m: AtLeastZero | None = None
    min_layers: AtLeastZero | None = None


@checked
class LatencyOptions:
    """Where and how `latency_ms` is measured.

    Attributes:
        device: cpu is that of the machine on which the search is started, cuda a GPU of the cluster, held by a task of
            its own; cpu if left out.
        dtype: of weights and activations: float32, float16 or bfloat16; float32 if left out.
        batch_size: images in one pass, of which latency_ms is the time; 1 if left out.
    """

    device: Literal["cpu", "cuda"] | None = None
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    batch_size: Annotated[int, whole(1, 4096)] | None = None


@checked
class ResourceOptions:
    """What a trial needs and where it runs.

    Attributes:
        cpus: CPU cores of one trial.
        gpus: GPUs of one trial; fractions share one.
        retries: how often a failed trial is started again.
        address: of a running Ray cluster, "auto" or host:port; by default RAY_ADDRESS, else this machine alone.
        local_cpus: cores to use on this machine; all by default.
    """

    cpus: Annotated[float, number(maximum=MAX_CORES, gt=0)] = 1.0
    gpus: Annotated[float, number(0, MAX_CORES)] = 0.0
    retries: Annotated[int, whole(0, MAX_RETRIES)] = 3
    address: Text | None = None
    local_cpus: Annotated[int, whole(1, MAX_CORES)] | None = None

    def __post_init__(self) -> None:
        TrialResources(**vars(self))


@checked
class Experiment:
    """One search, completely described.

    Attributes:
        name: of the experiment, and of its run folder.
        seed: same seed, same search.
        evaluations: architectures to evaluate.
        batch_size: architectures in one trial; a 64th of the evaluations if left out, at most 1024.
        in_flight: trials at a time; part of the experiment, since the search depends on it; 2 if left out.
        data: detection data of all recipes below, instead of their own: as in `nasray train`.
        images: image folder of the recipes for classification, instead of their own.
        minimize: costs to minimize beside maximizing the score (multi-objective searchers).
        reference: a named architecture to set the winner beside in the report.
        space: what can be built.
        supernet: what is trained before the search.
        searcher: how to search it.
        evaluator: what an architecture is worth.
        winner: what is trained after it.
        budget: bounds on costs.
        latency: where and how latency_ms is measured.
        resources: what a trial needs and where it runs.
    """

    name: Name
    seed: Seed = 0
    evaluations: Positive = 10_000
    batch_size: Annotated[int, whole(1, MAX_BATCH)] | None = None
    in_flight: Annotated[int, whole(1, MAX_IN_FLIGHT)] | None = None
    data: Text | None = None
    images: Text | None = None
    minimize: tuple[Text, ...] = ()
    reference: Annotated[str, AfterValidator(_check_reference)] | None = None
    space: SpaceOptions = field(default_factory=SpaceOptions)
    supernet: SupernetOptions = field(default_factory=SupernetOptions)
    searcher: SearcherOptions = field(default_factory=SearcherOptions)
    evaluator: EvaluatorOptions = field(default_factory=EvaluatorOptions)
    winner: WinnerOptions = field(default_factory=WinnerOptions)
    budget: BudgetOptions = field(default_factory=BudgetOptions)
    latency: LatencyOptions = field(default_factory=LatencyOptions)
    resources: ResourceOptions = field(default_factory=ResourceOptions)

    def __post_init__(self) -> None:
        make_searcher(self)  # whatever does not fit together is refused here, before anything is written
        make_evaluator(self)
        trial_resources(self)
        check_stages(self)


_ADAPTER: TypeAdapter[Experiment] = TypeAdapter(Experiment)


def make_space(experiment: Experiment) -> Any:
    """The experiment's space."""
    kind: Any = SPACES[experiment.space.name]
    options = given_options(experiment.space)
    if "image_size" in options:
        options["image_hw"] = options.pop("image_size")
    refuse_foreign(options, _arguments(kind), f"space {experiment.space.name!r}")
    try:
        return kind(**options)
    except ValueError as error:
        raise NasrayError(f"space {experiment.space.name!r}: {error}") from error


def part_keys(section: str, name: str) -> set[str] | None:
    """The keys of a section that the part of this name has; None for a section or a name that there is not."""
    if section == "space" and name in SPACES:
        return {"image_size" if key == "image_hw" else key for key in _arguments(SPACES[name])}
    if section == "searcher" and name in SEARCHERS:
        return _arguments(SEARCHERS[name])
    if section == "evaluator" and name in EVALUATORS:
        kind, preset = _evaluator_kind(name)
        keys = set(kind.__dataclass_fields__) - {"space", "seed", *preset}
        return {"image_size" if key == "image_hw" else key for key in keys}
    return None


def check_stages(experiment: Experiment) -> None:
    """Refuse stages that do not go together with the space or the evaluator.

    Raises:
        NasrayError: naming the option.
    """
    supernet, name = experiment.supernet, experiment.evaluator.name
    given = [option for option in ("pretrain", "train", "weights") if getattr(supernet, option) is not None]
    if name != "path":
        if given:
            raise NasrayError(
                f"supernet.{given[0]} is for evaluator 'path'; {name!r} needs no supernet. Set it to null, or take "
                "--evaluator.name path"
            )
        return
    if not given:
        raise NasrayError(
            "evaluator 'path' needs a supernet: name a recipe with supernet.pretrain or supernet.train, or a "
            "checkpoint with supernet.weights"
        )
    if supernet.holdout and not (supernet.pretrain or supernet.train):
        raise NasrayError(
            "supernet.holdout is of a supernet that this run trains; one that is given keeps its own. Set it to 0 "
            "(on the command line --supernet.holdout 0)"
        )
    if supernet.pretrain and supernet.weights:
        raise NasrayError(
            "supernet.weights take the place of supernet.pretrain: set one of the two to null (on the command line "
            "--supernet.pretrain null)"
        )
    if experiment.space.name not in SUPERNETS:
        raise NasrayError(
            f"there is no supernet of space {experiment.space.name!r}; there are those of {', '.join(SUPERNETS)}"
        )


def make_searcher(experiment: Experiment) -> Searcher:
    """A fresh searcher."""
    kind = SEARCHERS[experiment.searcher.name]
    options = given_options(experiment.searcher)
    refuse_foreign(options, _arguments(kind), f"searcher {experiment.searcher.name!r}")
    space = make_space(experiment)
    bounds = {name: value for name, value in vars(experiment.budget).items() if value is not None}
    budget = Budget(
        upper={name: value for name, value in bounds.items() if not name.startswith("min_")},
        lower={name.removeprefix("min_"): value for name, value in bounds.items() if name.startswith("min_")},
    )
    cost: CostFunction = space.cost
    if "latency_ms" in budget.upper or "latency_ms" in experiment.minimize:
        from nasray.latency import LatencyCost

        cost = LatencyCost(space, resources=trial_resources(experiment), **given_options(experiment.latency))
    elif given := given_options(experiment.latency):
        raise NasrayError(
            f"latency.{next(iter(given))} is for searches with a bound on latency_ms, or that minimize it. Leave it "
            "out, or set budget.latency_ms"
        )
    known = [*space.cost(np.empty((0, space.num_genes), dtype=np.int64)), "latency_ms"]
    for index, name in enumerate(experiment.minimize):
        if name not in known or name in experiment.minimize[:index]:
            what = "twice the same cost" if name in known else "unknown cost"
            raise NasrayError(
                f"minimize: {what} {shortened(name)}; the score is maximized, and these costs can be minimized beside "
                f"it: {', '.join(known)}"
            )
    objectives = (Objective("score"), *(Objective(name, "min") for name in experiment.minimize))
    return kind(
        space, budget=budget, cost=cost, objectives=objectives, seed=experiment.seed,
        evaluations=experiment.evaluations, **options,
    )  # fmt: skip


def with_defaults(experiment: Experiment) -> Experiment:
    """The same experiment with what its number of evaluations decides written out, so that a run keeps it for good."""
    batch_size, in_flight = default_batches(experiment.evaluations)
    options = make_searcher(experiment).options()
    return dataclasses.replace(
        experiment,
        batch_size=experiment.batch_size or batch_size,
        in_flight=experiment.in_flight or in_flight,
        searcher=dataclasses.replace(experiment.searcher, **options),
    )


def make_evaluator(experiment: Experiment) -> Evaluator:
    """The experiment's evaluator."""
    options = given_options(experiment.evaluator)
    if "image_size" in options:
        options["image_hw"] = options.pop("image_size")
    name = experiment.evaluator.name
    space = make_space(experiment)
    kind, preset = _evaluator_kind(name)
    if "seed" in kind.__dataclass_fields__:
        preset["seed"] = experiment.seed
    refuse_foreign(options, set(kind.__dataclass_fields__) - {"space", *preset}, f"evaluator {name!r}")
    if name in CLOSED_FORM and not isinstance(space, StagedSpace):
        raise NasrayError(
            f"evaluator {name!r} is defined for staged spaces; space {experiment.space.name!r} is none. Take one of "
            f"{', '.join(other for other in EVALUATORS if other not in CLOSED_FORM)}"
        )
    return kind(space, **preset, **options)


def _evaluator_kind(name: str) -> tuple[Any, dict[str, Any]]:
    """The class of a named evaluator, and what its name alone says of it."""
    if name == "single-scale-entropy":
        return ClosedFormEntropy, {"weights": (0.0, 0.0, 0.0, 0.0, 1.0)}
    if name == "path":
        return PathEvaluator, {"checkpoint": ""}  # trained in a stage before; see `nasray.stages`
    kinds: dict[str, Any] = {"entropy": ClosedFormEntropy, "sampled-entropy": SampledEntropy, "log-width": LogWidth}
    return (kinds[name], {}) if name in kinds else (Proxy, {"proxy": name})


def trial_resources(experiment: Experiment) -> TrialResources:
    """What a trial needs and where it runs."""
    return TrialResources(**vars(experiment.resources))


def _arguments(kind: type) -> set[str]:
    """Keyword options that a searcher or a space and its bases take, beside what every searcher has."""
    import inspect

    names = {
        parameter.name
        for cls in kind.__mro__
        if "__init__" in vars(cls)
        for parameter in inspect.signature(vars(cls)["__init__"]).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    return names - {
        "self", "space", "budget", "cost", "objectives", "seed", "evaluations", "predictor", "oversample"
    }  # fmt: skip


# ---- reading and writing -----------------------------------------------------------------------------------------


def experiment_names() -> list[str]:
    """The experiments that come with nasray."""
    return shipped_names(PACKAGE)


def load_experiment(
    name_or_path: str, arguments: Sequence[str] = (), *, declared: Iterable[str] = ()
) -> Experiment:  # fmt: skip
    """An experiment that comes with nasray, or one from a YAML file, with what the command line changes.

    Args:
        name_or_path: of the experiment.
        arguments: of the command line, such as `["--budget.gmacs", "60"]`; see `nasray.options.override`.
        declared: further options of the command, for suggestions alone.

    Raises:
        NasrayError: if there is none, or it is not valid; the message names the key and what is allowed.
    """
    content = load_content(name_or_path, PACKAGE, "experiment")
    return overridden(
        _ADAPTER, Experiment, content, arguments, shown(name_or_path), part_keys=part_keys, declared=declared
    )  # fmt: skip


def override_resources(
    given: ResourceOptions, arguments: Sequence[str], *, declared: Iterable[str] = ()
) -> ResourceOptions:
    """The resources of a run with what the command line changes.

    Raises:
        NasrayError: if an option is unknown, or a value out of range.
    """
    adapter = TypeAdapter(ResourceOptions)
    return overridden(adapter, ResourceOptions, vars(given), arguments, "resources", declared=declared)


def parse_experiment(content: dict[str, Any], source: str) -> Experiment:
    """An experiment from nested dicts; `source` names them in errors."""
    return validate(_ADAPTER, Experiment, content, source)


def describe_experiment(experiment: Experiment) -> dict[str, Any]:
    """The content of a run's experiment.yaml."""
    return {
        "experiment": _ADAPTER.dump_python(experiment, mode="json"),
        "versions": describe_versions(),
        "git_revision": git_revision(),
    }


def version_changes(description: dict[str, Any]) -> list[str]:
    """What differs between the code that began a run and this code; each a line for the user who continues it."""
    before, now = description.get("versions", {}), describe_versions()
    lines = [
        f"the run was begun with {name} {before.get(name)}, this is {now[name]}"
        for name in ("nasray", "numpy", "optuna")  # what a zero-shot search's numbers can depend on
        if before.get(name) != now[name]
    ]
    revision = git_revision()
    if revision and description.get("git_revision") and description["git_revision"] != revision:
        lines.append(f"the run was begun at revision {description['git_revision'][:12]}, this is {revision[:12]}")
    if lines:
        lines.append("if scores changed in between, the run's later part does not compare with its earlier one")
    return lines


def experiment_of_run(description: dict[str, Any], source: str) -> Experiment:
    """The experiment that a run's experiment.yaml holds."""
    content = description.get("experiment")
    if not isinstance(content, dict):
        raise NasrayError(
            f"{source} was begun from Python with parts of its own; continue it there, with nasray.search(..., "
            "resume=True)"
        )
    return parse_experiment(with_current_keys(content), source)
