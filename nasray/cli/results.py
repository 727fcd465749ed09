"""What came of a search: its report, its front, and how it compares."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nasray.cli.common import command, number_text, print_json, print_table
from nasray.cli.parsing import seed, whole
from nasray.spaces import NasrayError


def add_commands(commands: Any) -> None:
    """Declare `report`, `rank`."""
    sub = command(commands, "report", _report, "write a run's report.html and its figures")
    sub.add_argument("folder")

    text = "does a run's supernet rank architectures as training them by themselves does?"
    sub = command(commands, "rank", _rank, text, takes_overrides=True, when_interrupted=_rank_hint)
    sub.add_argument("folder", help="of a run with a supernet, such as runs/detnas-300m")
    sub.add_argument(
        "--architectures", type=whole(3, 100_000), default=12, help="random ones within the budget (default 12)"
    )
    sub.add_argument("--seed", type=seed, default=0, help="of their choice")


def _report(known: Any) -> None:
    from nasray.architectures import ARCHITECTURES
    from nasray.cluster import RunFolder
    from nasray.experiment import experiment_of_run, make_evaluator, make_searcher
    from nasray.reports import report_figures, write_report

    run = RunFolder.open(known.folder)
    experiment = experiment_of_run(run.description(), known.folder)
    space, evaluator = make_searcher(experiment).space, make_evaluator(experiment)
    reference = ARCHITECTURES[experiment.reference] if experiment.reference else None
    if known.json:
        print_json(report_figures(run, space, evaluator=evaluator, reference=reference))
        return
    print(write_report(run, space, evaluator=evaluator, reference=reference))


def _rank_hint(known: Any) -> str:
    options = ["--architectures", str(known.architectures), "--seed", str(known.seed), *known.overrides]
    return f"`nasray rank {shlex.join([known.folder, *options])}` continues"


def _rank(known: Any) -> None:
    from nasray.cluster import Resources, RunFolder
    from nasray.experiment import experiment_of_run, override_resources
    from nasray.rank import FOLDER, rank_run, too_few
    from nasray.reports.sections.rank import rank_plots

    resources = None
    if known.overrides:
        given = experiment_of_run(RunFolder.open(known.folder).description(), known.folder).resources
        resources = Resources(**vars(override_resources(given, known.overrides, declared=known.declared)))
    result = rank_run(known.folder, known.architectures, seed=known.seed, resources=resources)
    if known.json:
        print_json(result)
        return
    rows = result["architectures"]
    names = list(rows[0])[1:]
    cells = [[row["id"], *(number_text(row[name], ".4g") for name in names)] for row in rows]
    print_table(["architecture", *names], cells)
    print()
    if few := too_few(result):
        print(f"{few}: nasray rank {shlex.quote(known.folder)} --architectures 12")
    else:
        table = [[name, *_agreement_cells(found)] for name, found in result["agreement"].items()]
        print_table(["agreement with training", "kendall", "95 % interval", "spearman"], table)
    spread = result["random"]
    print(f"\nrandom architectures: mAP {spread['mean']:.4f} (sd {spread['sd']:.4f}, {spread['num']} of them)")
    if "winner" in result:
        print(f"winner of the search {result['winner']['id']}: mAP {result['winner']['mAP']:.4f}")
    _print_pictures(Path(known.folder) / FOLDER, lambda: rank_plots(result))


def _print_pictures(folder: Path, make: Callable[[], Iterable[Any]]) -> None:
    """Draw pictures into a folder and print their paths; where matplotlib is missing, say so and go on."""
    from nasray.reports.page import write_pictures

    try:
        paths = write_pictures(folder, make())
    except NasrayError as error:
        print(f"nasray: no pictures: {error}", file=sys.stderr)
        return
    for path in paths:
        print(path)


def _agreement_cells(found: dict[str, Any]) -> list[str]:
    """Cells of `rank_agreement`: tau, its interval, rho."""
    from nasray.scores.ranking import MIN_NUM

    if found["num"] < MIN_NUM:
        return ["-", f"too few: {found['num']}, at least {MIN_NUM}", "-"]
    kendall = found["kendall"]
    interval = f"{number_text(kendall['low'])} to {number_text(kendall['high'])}"
    return [number_text(kendall["value"]), interval, number_text(found["spearman"])]
