"""Searches: begun, continued, and the score's agreement."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from nasray.cli.common import (
    check_folder,
    command,
    number_text,
    print_json,
    print_options,
    print_table,
    print_values,
    resume_hint,
    run_folder,
)
from nasray.cli.parsing import number, seed, whole
from nasray.spaces import NasrayError


def add_commands(commands: Any) -> None:
    """Declare `search`, `resume`, `status`, `agreement`."""
    text = "run a search; any key of the experiment is an option too, see --options"
    sub = command(commands, "search", _search, text, takes_overrides=True, when_interrupted=resume_hint)
    sub.add_argument("experiment", help="a name from `nasray list experiments`, or a YAML file")
    sub.add_argument("--folder", help="the run's folder; runs/NAME by default ($NASRAY_RUNS/NAME where it is set)")
    sub.add_argument("--without", nargs="+", default=[], metavar="STAGE", help="stages to leave out")
    sub.add_argument("--plan", action="store_true", help="print the stages with what they take and give, and stop")
    sub.add_argument("--options", action="store_true", help="print the options of the experiment and stop")

    text = "continue an interrupted search or training; --cpus, --gpus, --address, ... may change"
    sub = command(commands, "resume", _resume, text, takes_overrides=True, when_interrupted=resume_hint)
    sub.add_argument("folder")
    text = "begin Ray Tune anew from the history; nothing is unpickled"
    sub.add_argument("--from-history", action="store_true", help=text)

    sub = command(commands, "status", _status, "how far the stages of a run are, and how long the rest takes")
    sub.add_argument("folder")

    sub = command(commands, "agreement", _agreement, "does the closed-form score rank like the sampled one?")
    sub.add_argument("experiment", help="whose space and evaluator; a name or a YAML file")
    sub.add_argument("--architectures", type=whole(2, 100_000), default=200, help="random ones (default 200)")
    sub.add_argument("--repeats", type=whole(2, 10**6), default=16, help="sampled passes of each architecture")
    sub.add_argument(
        "--min-gmacs", type=number(0, 1e9), help="lower end of the random architectures (10/13 of the upper)"
    )
    sub.add_argument("--max-gmacs", type=number(0, 1e9), help="upper end (default: the experiment's budget)")
    sub.add_argument("--seed", type=seed, default=0)
    sub.add_argument("--workers", type=whole(1, 1024), help="processes; one a core by default")


def _search(known: Any) -> None:
    from nasray.loading import load_plan
    from nasray.searching import search_experiment
    from nasray.stages import without

    plan = load_plan(known.experiment, known.overrides, declared=known.declared)
    if known.without:
        plan = without(plan, known.without)
    if known.options:
        print_options(plan.experiment, known.json)
        return
    if known.plan:
        _print_plan(plan, known.json)
        return
    known.folder = known.folder or run_folder(plan.experiment.name)
    check_folder(known.folder)
    begin = time.monotonic()
    best = search_experiment(plan, known.folder)
    _tell_winner(best, known, time.monotonic() - begin, "from start to end")


def _print_plan(plan: Any, as_json: bool) -> None:
    import dataclasses

    from nasray.cluster.progress import counted
    from nasray.stages import planned_stages

    planned = planned_stages(plan)
    if as_json:
        print_json([dataclasses.asdict(stage) for stage in planned])
        return
    rows = []
    for stage in planned:
        work = stage.work
        counts = [(work.trials, "trial"), (work.trainings, "training")]
        takes = ", ".join(f"{option} {value}" for option, value in stage.takes.items())
        rows.append(
            [
                stage.name,
                stage.kind,
                takes or "-",
                ", ".join(stage.gives) or "-",
                ", ".join(counted(num, what) for num, what in counts if num) or "-",
                "-" if work.gib is None else f"{work.gib:.2g} GiB",
                work.text,
            ]
        )
    print_table(["stage", "kind", "takes", "gives", "runs", "disk", "what"], rows, is_text=True)


def _resume(known: Any) -> None:
    from nasray.cli.detectors import resume_training_command
    from nasray.cluster import Resources, RunFolder
    from nasray.experiment import override_resources
    from nasray.loading import plan_of_run
    from nasray.searching import resume_experiment
    from nasray.training.folder import is_training

    if is_training(Path(known.folder)):
        if known.from_history:
            raise NasrayError("--from-history is for searches; a training reads no pickles. Leave it out")
        resume_training_command(known)
        return
    resources = None
    run = RunFolder.open(known.folder)
    if known.overrides:
        given = plan_of_run(run).experiment.resources
        resources = Resources(**vars(override_resources(given, known.overrides, declared=known.declared)))
    begin = time.monotonic()
    best = resume_experiment(known.folder, resources, from_history=known.from_history)
    _tell_winner(best, known, time.monotonic() - begin, "since it was resumed")


def _status(known: Any) -> None:
    from nasray.cluster import RunFolder, is_owned
    from nasray.cluster.progress import clock
    from nasray.loading import plan_of_run
    from nasray.stages import read_recipes, read_records, site_of, stages_ahead, time_left_text

    run, resume = RunFolder.open(known.folder), f"`nasray resume {shlex.quote(known.folder)}`"
    plan, is_running = plan_of_run(run), is_owned(run.path)
    if read_recipes(run, plan) is None:
        raise NasrayError(
            f"{known.folder} has not begun its first stage yet. {resume} begins it if nothing runs it now"
        )
    stages = stages_ahead(site_of(run, plan), read_records(run))
    if known.json:
        print_json({"is_running": is_running, "stages": [stage.to_json() for stage in stages]})
        return
    rows = []
    for stage in stages:
        left = "done" if stage.is_done else "?" if stage.left is None else clock(stage.left)
        rows.append([stage.stage, stage.work_text(), clock(stage.seconds) if stage.seconds else "-", left])
    print_table(["stage", "work", "took", "left"], rows)
    if not all(stage.is_done for stage in stages):
        print(f"\nleft of the run: {time_left_text(stages) or '?'}")
        if not is_running:
            print(f"nothing runs it now; {resume} continues", file=sys.stderr)


def _tell_winner(best: dict[str, Any], known: Any, seconds: float, span: str) -> None:
    from nasray.architectures import slots
    from nasray.spaces import Architecture

    if known.json:
        print_json({**best, "seconds": round(seconds, 2), "folder": known.folder})
        return
    entries = best["best"]
    many = len(best["objectives"]) > 1
    print(f"\n{best['evaluations']:,} evaluations; {seconds:.1f} s {span}")
    print(f"Pareto front of {len(entries)}:" if many else "winner:")
    names = [*entries[0]["metrics"], *entries[0]["costs"]]
    shown = entries[:: max(len(entries) // 10, 1)] if many else entries[:1]
    rows = [[e["id"], *(number_text({**e["metrics"], **e["costs"]}[n], ".5g") for n in names)] for e in shown]
    print_table(["id", *names], rows)
    if not many:
        print_json(entries[0]["architecture"], indent=None)
    if len(best.get("stages", {})) > 1:
        from nasray.stages import stage_rows

        print()
        for row in stage_rows(best["stages"], lambda value: f"{value:.1f} s"):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, (18, 12, 0), strict=True)).rstrip())
    (slot,) = slots(Architecture.create(**entries[0]["architecture"]))
    folder = shlex.quote(str(known.folder))
    file = "model.onnx" if slot == "pyramid" else f"{slot}.py"  # a pyramid is written within its detector alone
    print(f"\nnasray report {folder}    # figures\nnasray export {folder} --to {file}")


def _entropy_options(evaluator: Any) -> dict[str, Any]:
    """Return options of an entropy that the report takes; its own defaults hold where the evaluator is no entropy."""
    names = ("image_hw", "weights", "size_factor", "residual")
    return {name: getattr(evaluator, name) for name in names} if hasattr(evaluator, "size_factor") else {}


def _agreement(known: Any) -> None:
    from nasray.cluster.progress import ProgressLine
    from nasray.loading import load_plan
    from nasray.scores.agreement import agreement_report
    from nasray.scores.entropy import NARROW
    from nasray.scores.ranking import MIN_NUM
    from nasray.spaces import Budget
    from nasray.spaces.staged import StagedSpace

    plan = load_plan(known.experiment)
    space, budget = plan.parts.space, plan.parts.searcher.budget.upper
    if not isinstance(space, StagedSpace):
        raise NasrayError(
            f"the closed form is of staged spaces; {known.experiment} has space {plan.experiment.space.name!r}. Take "
            "an experiment with another space, such as maedet-m"
        )
    most = known.max_gmacs or budget.get("gmacs", 91.0)
    least = known.min_gmacs if known.min_gmacs is not None else most * 10 / 13
    upper = {"gmacs": most, **({"layers": budget["layers"]} if "layers" in budget else {})}
    line = ProgressLine("agreement", known.architectures)
    result = agreement_report(
        space,
        Budget(upper, {"gmacs": least}),
        cost=plan.parts.cost,
        num=known.architectures,
        repeats=known.repeats,
        seed=known.seed,
        workers=known.workers,
        **_entropy_options(plan.parts.evaluator),
        progress=lambda done, total: line.update(done, final=done == total),
    )
    if known.json:
        print_json(result)
        return
    print_values(result)
    if num_narrow := result["narrowness"]["num_narrow"]:
        text = f"{num_narrow} of {result['num']} architectures are narrow (1 / width adds up to more than {NARROW:g})"
        print(f"{text}: the closed form is less accurate there, see docs/scores.md", file=sys.stderr)
    if known.architectures < MIN_NUM:
        text = f"{known.architectures} architectures are too few to say how scores agree; at least {MIN_NUM} are needed"
        print(text, file=sys.stderr)
