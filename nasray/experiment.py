"""Experiments: one frozen configuration of a run, as a user writes it, from YAML and the command line.

Here each value is checked by its type and range, and unknown keys are errors with a suggestion. Space, searcher,
evaluator and stages are looked up in registries, and own their options. What does not go together is found where an
experiment is planned: `nasray.loading` is the door for all that comes from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, TypeAdapter

from nasray.architectures import ARCHITECTURES
from nasray.callbacks import CallbackName
from nasray.cluster.ordering import Order
from nasray.cluster.resources import Resources as TrialResources
from nasray.configuration import describe_versions, git_revision, overridden, shipped_names
from nasray.counting import CountedOptions, Scope
from nasray.evaluators import EVALUATORS
from nasray.options import Chosen, ChosenEach, options_of
from nasray.registry import SEARCHERS, SPACES, Registry
from nasray.runtimes import RuntimeName
from nasray.searchers.base import MAX_OVERSAMPLE
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import MAX_BATCH, MAX_CORES, MAX_IN_FLIGHT, MAX_RETRIES, MAX_SECONDS, shortened
from nasray.spaces.references import From
from nasray.validation import checked, validate
from nasray.values import AboveZero, AtLeastZero, Name, Natural, Positive, Seed, Text, number, whole

PACKAGE = "nasray.experiments"
SPACE = Chosen(SPACES, default="bottleneck")
SEARCHER = Chosen(SEARCHERS, default="coarse-to-fine")
EVALUATOR = Chosen(EVALUATORS, default="entropy")
STAGES = Registry(
    "stage",
    {
        "train": "nasray.stages.train:TrainStage",
        "search": "nasray.stages.search:SearchStage",
        "gradient": "nasray.stages.gradient:GradientStage",
        "fit-filter": "nasray.stages.fit_filter:FitFilterStage",
        "prune": "nasray.stages.prune:PruneStage",
    },
    given=frozenset({"experiment", "parts"}),
    tag="kind",
)
RESERVED = frozenset(
    {"history", "trials", "tune", "tensorboard", "report", "rank", "compare", "subnets", "seeds", "callbacks"}
)
"""Names of a run's other folders."""


def _search_alone() -> dict[str, Any]:
    return {"search": options_of(STAGES, "search")}


def _at_least_search(stages: dict[str, Any]) -> dict[str, Any]:
    return stages or _search_alone()


def _check_reference(name: str) -> str:
    if name not in ARCHITECTURES:
        raise NasrayError(
            f"unknown architecture {shortened(name)}{did_you_mean(name, ARCHITECTURES)} `nasray list architectures` "
            "prints all"
        )
    return name


@checked
class BudgetOptions:
    """Bounds on costs at the space's image size, of what `costs` says; what is left out is unbounded.

    Attributes:
        gmacs: Maximum multiply-adds of convolutions, / 1e9.
        params_m: Maximum parameters, / 1e6.
        layers: Maximum layers of the main branch, the stem included.
        latency_ms: Maximum latency of one image, from the device's block table, which whole networks correct.
        min_gmacs: Minimum multiply-adds, / 1e9.
        min_params_m: Minimum parameters, / 1e6.
        min_layers: Minimum layers.
    """

    gmacs: AboveZero | None = None
    params_m: AboveZero | None = None
    layers: AboveZero | None = None
    latency_ms: AboveZero | None = None
    min_gmacs: AtLeastZero | None = None
    min_params_m: AtLeastZero | None = None
    min_layers: AtLeastZero | None = None


@checked
class PreselectOptions:
    """A path filter that pre-selects what a searcher asks for.

    Attributes:
        filter: Stage or file of the path filter.
        candidates: Candidates within the budget for each architecture asked for, of which the filter takes the best;
            only those of one of its buckets, which cost about the same, compare.
        references: Options whose values name stages or files, each with what is taken of them.
    """

    references: ClassVar[Mapping[str, From]] = {"filter": From("filter")}

    filter: Text
    candidates: Annotated[int, whole(1, MAX_OVERSAMPLE)] = 10


@checked
class LatencyOptions:
    """Where and how `latency_ms` is measured.

    Attributes:
        device: cpu is that of the machine on which the search is started, cuda a GPU of the cluster, held by a task of
            its own; cpu if left out.
        runtime: What runs the networks: eager (PyTorch), compile (torch.compile), onnxruntime or openvino; eager if
            left out.
        dtype: Data type of weights and activations: float32, float16 or bfloat16, and int8 where the runtime has it;
            float32 if left out.
        batch_size: Images in one pass, of which latency_ms is the time; 1 if left out.
        threads: Threads that compute on a CPU; as many as PyTorch takes if left out.
    """

    device: Literal["cpu", "cuda"] | None = None
    runtime: RuntimeName | None = None
    dtype: Literal["float32", "float16", "bfloat16", "int8"] | None = None
    batch_size: Annotated[int, whole(1, 4096)] | None = None
    threads: Annotated[int, whole(1, 1024)] | None = None


@checked
class ResourceOptions:
    """What a trial needs and where it runs.

    Attributes:
        cpus: CPU cores of one trial.
        gpus: GPUs of one trial; fractions share one.
        retries: How often a failed trial is started again.
        address: Address of a running Ray cluster, "auto" or host:port; by default RAY_ADDRESS, else this machine alone.
        local_cpus: Cores to use on this machine; all by default.
        timeout_s: Seconds after which a trial that has not finished is taken to hang: it is ended, and started again
            as one that failed. Never if left out.
    """

    cpus: Annotated[float, number(maximum=MAX_CORES, gt=0)] = 1.0
    gpus: Annotated[float, number(0, MAX_CORES)] = 0.0
    retries: Annotated[int, whole(0, MAX_RETRIES)] = 3
    address: Text | None = None
    local_cpus: Annotated[int, whole(1, MAX_CORES)] | None = None
    timeout_s: Annotated[float, number(1, MAX_SECONDS)] | None = None

    def __post_init__(self) -> None:
        TrialResources(**vars(self))


@checked
class Experiment:
    """One run, completely described.

    Attributes:
        name: Name of the experiment, and of its run folder.
        seed: Same seed, same search.
        evaluations: Architectures to evaluate.
        batch_size: Architectures in one trial; a 64th of the evaluations if left out, at most 1024.
        in_flight: Trials at a time; part of the experiment, since the search depends on it; 2 if left out.
        order: Order in which trials are told to the searcher: `asked`, which neither workers nor kills change, or
            `finished`, so that none waits for one that takes long; such a search is not found a second time.
        data: Detection data of all trainings but those whose stage names others, instead of their recipes' own: as in
            `nasray train`.
        images: Image folder of the trainings for classification, instead of their recipes' own.
        holdout: Images of the training set that a supernet is not trained on, on which its paths are compared, and
            from which a gradient search learns; 0 compares paths on the split val.
        recipe: Recipe of the stages that train and name none; its detector is what `costs: detector` counts.
        costs: What budgets and costs count: the backbone, or the whole detector of `recipe`; what the space counts if
            left out. Only gmacs and params_m are of a detector.
        minimize: Costs to minimize beside maximizing the score (multi-objective searchers).
        reference: A named architecture to set the winner beside in the report.
        space: Space of the architectures.
        supernet: Options of the space's supernet, such as `{shared: false}`; its defaults if left out.
        searcher: Searcher of the space; of stages of kind search, coarse-to-fine if left out.
        evaluator: Evaluator of architectures; of stages of kind search, entropy if left out.
        counted: Detector that `costs: detector` counts.
        budget: Bounds on costs.
        preselect: Path filter that pre-selects what the searcher of the stage `search` asks for; none if left out.
        latency: Where and how latency_ms is measured.
        resources: Resources of a trial, and where it runs.
        callbacks: Callbacks that hear what the run tells, such as wandb and mlflow; none if left out.
        stages: Stages of the run, in this order; the search alone if left out.
    """

    name: Name
    seed: Seed = 0
    evaluations: Positive = 10_000
    batch_size: Annotated[int, whole(1, MAX_BATCH)] | None = None
    in_flight: Annotated[int, whole(1, MAX_IN_FLIGHT)] | None = None
    order: Order = "asked"
    data: Text | None = None
    images: Text | None = None
    holdout: Natural = 0
    recipe: Text | None = None
    costs: Scope | None = None
    minimize: tuple[Text, ...] = ()
    reference: Annotated[str, AfterValidator(_check_reference)] | None = None
    space: Annotated[Any, SPACE] = field(default_factory=SPACE.make_default)
    supernet: dict[str, Any] = field(default_factory=dict)
    searcher: Annotated[Any, SEARCHER] | None = None
    evaluator: Annotated[Any, EVALUATOR] | None = None
    counted: CountedOptions = field(default_factory=CountedOptions)
    budget: BudgetOptions = field(default_factory=BudgetOptions)
    preselect: PreselectOptions | None = None
    latency: LatencyOptions = field(default_factory=LatencyOptions)
    resources: ResourceOptions = field(default_factory=ResourceOptions)
    callbacks: tuple[CallbackName, ...] = ()
    stages: Annotated[dict[str, Any], ChosenEach(STAGES, RESERVED), AfterValidator(_at_least_search)] = field(
        default_factory=_search_alone
    )


_ADAPTER: TypeAdapter[Experiment] = TypeAdapter(Experiment)


# ---- reading and writing -----------------------------------------------------------------------------------------


def experiment_names() -> list[str]:
    """Return the experiments that come with nasray."""
    return shipped_names(PACKAGE)


def override_resources(
    given: ResourceOptions, arguments: Sequence[str], *, declared: Iterable[str] = ()
) -> ResourceOptions:
    """Return the resources of a run with what the command line changes.

    Raises:
        NasrayError: if an option is unknown, or a value out of range.
    """
    adapter = TypeAdapter(ResourceOptions)
    return overridden(adapter, ResourceOptions, vars(given), arguments, "resources", declared=declared)


def parse_experiment(content: dict[str, Any], source: str) -> Experiment:
    """Read an experiment from nested dicts; `source` names them in errors."""
    return validate(_ADAPTER, Experiment, content, source)


def describe_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return the content of a run's experiment.yaml."""
    return {
        "experiment": _ADAPTER.dump_python(experiment, mode="json"),
        "versions": describe_versions(),
        "git_revision": git_revision(),
    }


def version_changes(description: dict[str, Any]) -> list[str]:
    """Return what differs between the code that began a run and this code, each a line for the user."""
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


def parse_description(description: dict[str, Any], source: str) -> Experiment:
    """Read the experiment that a run's experiment.yaml holds; `source` names the run in errors.

    Raises:
        NasrayError: if it holds none, or that of an earlier version that this one cannot continue.
    """
    content = description.get("experiment")
    if not isinstance(content, dict):
        raise NasrayError(
            f"{source} was begun from Python with parts of its own; continue it there, with nasray.search(..., "
            "resume=True)"
        )
    is_former = "winner" in content  # run format 1
    former = [content.get(name) or {} for name in ("supernet", "winner")] if is_former else []
    if any(value for section in former for value in section.values()):
        before = description.get("versions", {}).get("nasray", "that began it")
        raise NasrayError(
            f"{source} was begun by an earlier version of nasray, with a supernet. Finish it with nasray {before}, or "
            "begin it anew with this one"
        )
    if is_former:
        content = {name: value for name, value in content.items() if name not in ("supernet", "winner")}
    experiment: Experiment = validate(_ADAPTER, Experiment, content, source, is_record=True)
    return experiment
