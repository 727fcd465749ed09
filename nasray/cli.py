"""The command line. Ray and torch are imported by the commands that need them, not before."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nasray._version import __version__
from nasray.spaces import NasrayError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or 2 for a mistake that its message explains, 130 when interrupted."""
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and not known.takes_overrides:
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    try:
        if known.takes_overrides:
            known.overrides = rest
        known.run(known)
    except NasrayError as error:
        print(f"nasray: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        folder = getattr(known, "folder", None)
        print(f"\nnasray: interrupted. `nasray resume {folder or 'FOLDER'}` continues", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nasray", description="Neural architecture search for object detectors.")
    parser.add_argument("--version", action="version", version=f"nasray {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Any], None], text: str, **options: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, **options)
        sub.set_defaults(run=run, takes_overrides=False)
        return sub

    def figures(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--json", action="store_true", help="print the figures as JSON")

    sub = command("search", _search, "run a search; any key of the experiment is an option too, see --options")
    sub.add_argument("experiment", help="a name from `nasray list experiments`, or a YAML file")
    sub.add_argument("--folder", help="the run's folder; runs/NAME by default ($NASRAY_RUNS/NAME where it is set)")
    sub.add_argument("--options", action="store_true", help="print the options of the experiment and stop")
    sub.set_defaults(takes_overrides=True)
    figures(sub)

    sub = command("resume", _resume, "continue an interrupted search; --cpus, --gpus, --address, ... may change")
    sub.add_argument("folder")
    sub.set_defaults(takes_overrides=True)
    figures(sub)

    sub = command("report", _report, "write a run's report.html and its figures")
    sub.add_argument("folder")
    figures(sub)

    architecture = "a name from `nasray list architectures`, a JSON file, or a run's folder"
    sub = command("cost", _cost, "multiply-adds, parameters and layers of a backbone")
    sub.add_argument("architecture", nargs="+", help=architecture)
    sub.add_argument("--image-size", default="800x1280", help="height x width in pixels (default 800x1280)")
    figures(sub)

    sub = command("latency", _latency, "measured latency of a backbone on this machine")
    sub.add_argument("architecture", help=architecture)
    sub.add_argument("--image-size", default="800x1280", help="height x width in pixels (default 800x1280)")
    sub.add_argument("--batch-size", type=int, default=1)
    sub.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    sub.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    sub.add_argument("--table", action="store_true", help="also predict it from the device's block table")
    figures(sub)

    sub = command("export", _export, "write a backbone as one plain PyTorch file that needs no nasray")
    sub.add_argument("architecture", help=architecture)
    sub.add_argument("--to", required=True, metavar="FILE.py")
    figures(sub)

    sub = command("agreement", _agreement, "does the closed-form score rank like the sampled one?")
    sub.add_argument("experiment", help="whose space and evaluator; a name or a YAML file")
    sub.add_argument("--architectures", type=int, default=200)
    sub.add_argument("--repeats", type=int, default=16, help="sampled passes of each architecture")
    sub.add_argument("--min-gmacs", type=float, help="lower end of the random architectures (10/13 of the upper)")
    sub.add_argument("--max-gmacs", type=float, help="upper end (default: the experiment's budget)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--workers", type=int, help="processes; one a core by default")
    figures(sub)

    sub = command("submit", _submit, "run a nasray command as a job on a Ray cluster")
    sub.add_argument("--address", required=True, help="of the cluster's dashboard, such as http://head:8265")
    sub.add_argument("--follow", action="store_true", help="print the job's log until it ends")
    sub.add_argument("command", nargs=argparse.REMAINDER, help="-- and then the command, such as: -- search maedet-m")
    figures(sub)

    sub = command("job", _job, "status, log or end of a submitted job")
    sub.add_argument("action", choices=["status", "logs", "stop"])
    sub.add_argument("job", help="what `nasray submit` printed")
    sub.add_argument("--address", required=True, help="of the cluster's dashboard, such as http://head:8265")
    sub.add_argument("--follow", action="store_true", help="logs: print until the job ends")
    figures(sub)

    sub = command("list", _list, "what comes with nasray")
    sub.add_argument("what", choices=["spaces", "searchers", "evaluators", "experiments", "architectures"])
    figures(sub)
    return parser


# ---- searching ---------------------------------------------------------------------------------------------------


def _search(known: Any) -> None:
    from nasray.experiment import load_experiment
    from nasray.search import search_experiment

    overrides = [*known.overrides, "--help"] if known.options else known.overrides
    experiment = _override(load_experiment(known.experiment), overrides, f"nasray search {known.experiment}")
    known.folder = known.folder or str(Path(os.environ.get("NASRAY_RUNS", "runs")) / experiment.name)
    begin = time.monotonic()
    best = search_experiment(experiment, known.folder)
    _tell_winner(best, known, time.monotonic() - begin)


def _resume(known: Any) -> None:
    from nasray.cluster import Resources, RunFolder
    from nasray.experiment import experiment_of_run
    from nasray.search import resume_experiment

    resources = None
    run = RunFolder.open(known.folder)
    if known.overrides:
        given = experiment_of_run(run.description(), known.folder).resources
        resources = Resources(**vars(_override(given, known.overrides, "nasray resume FOLDER")))
    begin = time.monotonic()
    best = resume_experiment(known.folder, resources)
    _tell_winner(best, known, time.monotonic() - begin)


def _override(default: Any, arguments: list[str], program: str) -> Any:
    """The same configuration with what the command line changes."""
    import tyro
    from pydantic import ValidationError

    if not arguments:
        return default
    try:
        return tyro.cli(type(default), default=default, args=arguments, prog=program)
    except ValidationError as error:
        first = error.errors()[0]
        raise NasrayError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first.get('input')!r}") from error


def _tell_winner(best: dict[str, Any], known: Any, seconds: float) -> None:
    if known.json:
        print(json.dumps({**best, "seconds": round(seconds, 2), "folder": known.folder}, indent=1))
        return
    entries = best["best"]
    many = len(best["objectives"]) > 1
    print(f"\n{best['evaluations']:,} evaluations in {seconds:.1f} s")
    print(f"Pareto front of {len(entries)}:" if many else "winner:")
    names = [*entries[0]["metrics"], *entries[0]["costs"]]
    shown = entries[:: max(len(entries) // 10, 1)] if many else entries[:1]
    rows = [[e["id"], *(f"{({**e['metrics'], **e['costs']})[n]:.5g}" for n in names)] for e in shown]
    _print_table(["id", *names], rows)
    if not many:
        print(json.dumps(entries[0]["architecture"]))
    print(f"\nnasray report {known.folder}    # figures\nnasray export {known.folder} --to backbone.py")


def _report(known: Any) -> None:
    from nasray.architectures import ARCHITECTURES
    from nasray.cluster import RunFolder
    from nasray.experiment import experiment_of_run, make_searcher
    from nasray.report import report_summary, write_report

    run = RunFolder.open(known.folder)
    experiment = experiment_of_run(run.description(), known.folder)
    searcher = make_searcher(experiment)
    if known.json:
        print(json.dumps(report_summary(run, searcher.space), indent=1))
        return
    reference = ARCHITECTURES[experiment.reference] if experiment.reference else None
    print(write_report(run, searcher.space, objectives=searcher.objectives, reference=reference))


# ---- architectures -----------------------------------------------------------------------------------------------


def _cost(known: Any) -> None:
    from nasray.architectures import PUBLISHED, find_architecture, layer_table

    image_hw = _image_hw(known.image_size)
    rows = []
    for name in known.architecture:
        table = layer_table(find_architecture(name), image_hw)
        cost = {key: float(value[0]) for key, value in table.cost().items()}
        gmacs_mmcv = float(table.gmacs_mmcv()[0])
        rows.append({"name": name, **cost, "gmacs_mmcv": gmacs_mmcv, "published": PUBLISHED.get(name)})
    note = {
        "scope": "backbone",
        "image_hw": list(image_hw),
        "gmacs": "multiply-adds of convolutions and fully connected layers / 1e9",
        "gmacs_mmcv": "as mmcv counts, and so the paper: also 2 per batch-norm output, 1 per pooling input",
    }
    if known.json:
        print(json.dumps({"convention": note, "architectures": rows}, indent=1))
        return
    print(f"backbone at {image_hw[0]}x{image_hw[1]} (height x width)")
    print(f"gmacs: {note['gmacs']}")
    print(f"gmacs_mmcv: {note['gmacs_mmcv']}\n")
    table_rows = []
    for row in rows:
        published = row["published"] if image_hw in ((800, 1280), (1280, 800)) else None
        paper = [f"{published['gmacs']:g}", f"{published['params_m']:g}"] if published else ["", ""]
        figures = [f"{row['gmacs']:.4g}", f"{row['gmacs_mmcv']:.4g}", f"{row['params_m']:.4g}", f"{row['layers']:.0f}"]
        table_rows.append([row["name"], *figures, *paper])
    _print_table(["architecture", "gmacs", "gmacs_mmcv", "params_m", "layers", "paper: G", "paper: M"], table_rows)


def _latency(known: Any) -> None:
    from nasray.architectures import find_architecture
    from nasray.latency import measure_architecture

    result = measure_architecture(
        find_architecture(known.architecture), image_hw=_image_hw(known.image_size), batch_size=known.batch_size,
        device=known.device, dtype=known.dtype, with_table=known.table,
    )  # fmt: skip
    if known.json:
        print(json.dumps(result, indent=1))
        return
    for name, value in result.items():
        print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")


def _export(known: Any) -> None:
    from nasray.architectures import find_architecture
    from nasray.export import export_backbone

    result = export_backbone(find_architecture(known.architecture), Path(known.to))
    print(json.dumps(result, indent=1) if known.json else f"{known.to}: {result['params_m']:.4g} M parameters, "
          f"the same outputs as nasray's to {result['max_difference']:g}")  # fmt: skip


def _agreement(known: Any) -> None:
    from nasray.cluster.progress import ProgressLine
    from nasray.experiment import load_experiment, make_space
    from nasray.scores.agreement import agreement_report
    from nasray.spaces import Budget

    experiment = load_experiment(known.experiment)
    evaluator = experiment.evaluator
    most = known.max_gmacs or experiment.budget.gmacs or 91.0
    least = known.min_gmacs if known.min_gmacs is not None else most * 10 / 13
    upper = {"gmacs": most, **({"layers": experiment.budget.layers} if experiment.budget.layers else {})}
    line = ProgressLine("agreement", known.architectures)
    result = agreement_report(
        make_space(experiment), Budget(upper, {"gmacs": least}), num=known.architectures, repeats=known.repeats,
        seed=known.seed, image_hw=evaluator.image_size or (384, 384), weights=evaluator.weights or (0, 0, 1, 1, 6),
        size_factor=evaluator.size_factor or "log-channels", workers=known.workers,
        progress=lambda done, total: line.update(done, final=done == total),
    )  # fmt: skip
    if known.json:
        print(json.dumps(result, indent=1))
        return
    _print_nested(result)


def _print_nested(values: dict[str, Any], indent: str = "") -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            _print_nested(value, indent + "  ")
        elif not isinstance(value, list) or len(value) <= 5:
            print(f"{indent}{name:32} {value:.4f}" if isinstance(value, float) else f"{indent}{name:32} {value}")


# ---- clusters ----------------------------------------------------------------------------------------------------


def _submit(known: Any) -> None:
    from nasray.cluster.jobs import follow_job, submit_job

    command = known.command[1:] if known.command[:1] == ["--"] else known.command
    if known.json and known.follow:
        raise NasrayError("submit takes --json or --follow, not both: a job's log is no JSON")
    job = submit_job(known.address, command)
    if known.json:
        print(json.dumps({"job": job, "address": known.address}))
    else:
        print(job)
        print(f"nasray job logs {job} --address {known.address} --follow", file=sys.stderr)
    if known.follow:
        follow_job(known.address, job)


def _job(known: Any) -> None:
    from nasray.cluster.jobs import follow_job, job_logs, job_status, stop_job

    if known.action == "logs":
        if known.follow and not known.json:
            follow_job(known.address, known.job)
        elif known.json:
            print(json.dumps({"job": known.job, "log": job_logs(known.address, known.job)}))
        else:
            print(job_logs(known.address, known.job), end="")
        return
    status = (stop_job if known.action == "stop" else job_status)(known.address, known.job)
    print(json.dumps(status) if known.json else status["status"])


# ---- what there is -----------------------------------------------------------------------------------------------


def _list(known: Any) -> None:
    entries = _ENTRIES[known.what]()
    if known.json:
        print(json.dumps(entries, indent=1))
    else:
        _print_table([known.what.removesuffix("s"), "what it is"], [[name, text] for name, text in entries.items()])


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def _spaces() -> dict[str, str]:
    from nasray.spaces import SPACES

    return {name: _first_line(space) for name, space in SPACES.items()}


def _searchers() -> dict[str, str]:
    from nasray.searchers import SEARCHERS

    return {name: _first_line(searcher) for name, searcher in SEARCHERS.items()}


def _evaluators() -> dict[str, str]:
    from nasray.experiment import EVALUATORS

    return dict(EVALUATORS)


def _experiments() -> dict[str, str]:
    from importlib import resources

    from nasray.experiment import experiment_names

    folder = resources.files("nasray.experiments")
    return {
        name: (folder / f"{name}.yaml").read_text().splitlines()[0].removeprefix("# ") for name in experiment_names()
    }


def _architectures() -> dict[str, str]:
    from nasray.architectures import ARCHITECTURES, layer_table

    texts = {}
    for name, architecture in ARCHITECTURES.items():
        cost = {key: float(value[0]) for key, value in layer_table(architecture, (800, 1280)).cost().items()}
        texts[name] = (
            f"{architecture.family}, {cost['gmacs']:.1f} G at 800x1280, {cost['params_m']:.1f} M, "
            f"{cost['layers']:.0f} layers"
        )
    return texts


_ENTRIES: dict[str, Callable[[], dict[str, str]]] = {
    "spaces": _spaces,
    "searchers": _searchers,
    "evaluators": _evaluators,
    "experiments": _experiments,
    "architectures": _architectures,
}


def _image_hw(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(height, width) < 32:
        raise NasrayError(
            f"image size must be HEIGHTxWIDTH in pixels, each at least 32, such as 800x1280; got {text!r}"
        )
    return height, width


def _print_table(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        left = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(left if len(head) == 2 else left[:1] + right[1:]).rstrip())


if __name__ == "__main__":
    sys.exit(main())
