"""What came of a search: its report, its front, and how it compares."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.architectures import resolution_of
from nasray.cli.common import (
    IMAGE_SIZE,
    add_setting,
    command,
    given_setting,
    number_text,
    print_json,
    print_table,
    rounded_up,
)
from nasray.cli.parsing import image_hw, read_budget, seed, whole
from nasray.cluster.files import check_output
from nasray.cluster.progress import say
from nasray.spaces import NasrayError
from nasray.spaces.resolutions import size_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nasray.beside import Trained
    from nasray.cluster import RunFolder
    from nasray.cluster.leaders import Entry
    from nasray.latency.front import FrontLatency


def add_commands(commands: Any) -> None:
    """Declare `report`, `front`, `compare`, `rank`."""
    sub = command(commands, "report", _report, "write report.html of a run or a training, and its figures")
    sub.add_argument("folder", help="a run, or a training such as RUN/train")
    text = "a run in which `nasray rank` measured this one's score on the same space; the run itself if left out"
    sub.add_argument("--measured", metavar="RUN", help=text)

    text = "the best architectures of a run: its Pareto front, or the best within a budget"
    sub = command(commands, "front", _front, text, takes_overrides=True)
    sub.add_argument("folder", help="a run; with --budget.gmacs 20 (any cost, min_gmacs too) the best within it alone")
    sub.add_argument("--to", metavar="FILE.png", help="the picture; report/front.png of the run if left out")
    text = "measure each of them on this device as it would be exported; what was measured before is taken"
    sub.add_argument("--latency", action="store_true", help=text)
    text = "trained detectors that are measured on the same images and drawn beside it: trainings or checkpoints"
    sub.add_argument("--beside", nargs="+", metavar="FOLDER", default=[], help=text)
    text = f"--latency: {IMAGE_SIZE} (default: that of an export, or of backbones the one of their costs)"
    sub.add_argument("--image-size", type=image_hw, help=text)
    add_setting(sub, "--latency: ")

    text = "is a run's winner better than random architectures and baselines, trained alike? Or: compare trainings"
    sub = command(commands, "compare", _compare, text, when_interrupted=_compare_hint)
    sub.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="a run; or several runs (their winners) or trainings, the first against the others",
    )
    text = "random architectures of the run's space and budget to compare with; those missing are trained"
    sub.add_argument("--random", type=whole(0, 10_000), default=0, help=text)
    sub.add_argument("--baselines", nargs="+", default=[], metavar="NAME", help="architectures to train alike as well")
    text = "trainings of the winner, and of each baseline, with different seeds (default 1)"
    sub.add_argument("--repeats", type=whole(1, 1000), default=1, help=text)
    sub.add_argument("--recipe", help="the recipe of all trainings; that of the run's winner if left out")
    sub.add_argument("--seed", type=seed, default=0, help="of the random choice")
    sub.add_argument("--to", metavar="FILE.png", help="the picture; compare/compare.png of a run if left out")

    text = "does a run's score, or its supernet, rank architectures as training them by themselves does?"
    sub = command(commands, "rank", _rank, text, takes_overrides=True, when_interrupted=_rank_hint)
    sub.add_argument("folder", help="a run that searches by a score without training, or one with a supernet")
    sub.add_argument(
        "--architectures", type=whole(3, 100_000), default=12, help="random ones within the budget (default 12)"
    )
    sub.add_argument("--recipe", help="the recipe of their trainings; that of the run's winner if left out")
    sub.add_argument("--seed", type=seed, default=0, help="of their choice")


def _report(known: Any) -> None:
    from nasray.architectures import ARCHITECTURES
    from nasray.cluster import RunFolder
    from nasray.loading import plan_of_run
    from nasray.reports import report_figures, write_report
    from nasray.training.folder import is_training

    folder = Path(known.folder)
    if is_training(folder):
        from nasray.reports.training import training_figures, write_training_report

        if known.measured:
            raise NasrayError("--measured is of a run's score, and this is a training. Leave it out")
        if known.json:
            print_json(training_figures(folder))
        else:
            print(write_training_report(folder))
        return
    run = RunFolder.open(known.folder)
    plan = plan_of_run(run)
    space, searching = plan.parts.space, plan.parts.searching
    evaluator = None if searching is None else searching.evaluator
    reference = ARCHITECTURES[name] if (name := plan.experiment.reference) else None
    measured = RunFolder.open(known.measured) if known.measured else None
    if measured is not None and not getattr(evaluator, "zero_shot", False):
        raise NasrayError("--measured is of a score without training, and this run has none. Leave it out")
    options: dict[str, Any] = {"evaluator": evaluator, "reference": reference, "measured": measured}
    if known.json:
        print_json(report_figures(run, space, **options))
        return
    print(write_report(run, space, **options))


# ---- the best -----------------------------------------------------------------------------------------------------


def _front(known: Any) -> None:
    from nasray.cluster import RunFolder
    from nasray.cluster.leaders import best_within
    from nasray.reports.sections.front import front_plots
    from nasray.searchers import Objective

    if known.to:
        check_output(known.to, [".png"])
    setting = given_setting(known)
    if (setting or known.image_size) and not known.latency:
        name = "image-size" if known.image_size else next(iter(setting)).replace("_", "-")
        raise NasrayError(f"--{name} is for --latency. Add --latency, or leave --{name} out")
    budget = read_budget(known.overrides, known.declared)
    run = RunFolder.open(known.folder)
    best, entries = run.read_best(), run.read_entries()
    objectives = [Objective(**objective) for objective in best["objectives"]]
    chosen = best_within(entries, budget) if budget.names else None
    shown = entries if chosen is None else [chosen]
    beside = _measure_beside(run, known.beside)
    latency, fast = None, None
    if known.latency:
        from nasray.latency.front import fast_front, measure_front

        latency = measure_front(run, shown, known.image_size, **setting)
        fast = fast_front(shown, objectives[0], latency)
    is_front = len(objectives) > 1
    if known.json:
        about = {
            name: best.get(name) for name in ("objectives", "cost_scope", "evaluations", "finished", "ended_early")
        }
        rows = [entry.to_json() for entry in shown]
        if latency is not None and fast is not None:
            about["latency"] = latency.to_json()
            for row, is_fast in zip(rows, fast.tolist(), strict=True):
                row |= {"latency": latency.rows[row["id"]], "on_latency_front": is_fast}
        if beside:
            about["beside"] = [each._asdict() for each in beside]
        print_json({**about, "front" if is_front else "best": rows})
        return
    print_table(*_front_table(shown, latency, fast))
    print()
    if beside:
        print_table(*_beside_table(beside, shown[0]))
        print()
    if scope := _scope_text(best.get("cost_scope")):
        print(f"{scope}, rounded up")
    if latency is not None:
        print(_latency_text(latency))
        if warning := latency.steadiness.warning:
            say(f"latency: {warning}: remove {latency.path} before")
    if not best["finished"]:
        print("the search is not finished", file=sys.stderr)
    if chosen is not None:
        print_json(shown[0].to_json()["architecture"], indent=None)
    elif is_front and (bounds := [one.name for one in objectives[1:] if one.name in entries[0].costs]):
        entry = shown[len(shown) // 2]
        words = [f"--budget.{name.replace('_', '-')} {rounded_up(entry.costs[name])}" for name in bounds]
        words = ["nasray export", shlex.quote(known.folder), *words, "--to FILE"]
        print(f"each is the best within its costs: {' '.join(words)}")
    if entries[0].costs:
        picture = Path(known.to) if known.to else run.path / "report" / "front.png"
        _print_pictures(picture, lambda: front_plots(entries, objectives, chosen, latency, fast, beside))


def _measure_beside(run: RunFolder, folders: Sequence[str]) -> list[Trained]:
    if not folders:
        return []
    from nasray.beside import measure_beside

    return measure_beside(run, folders)


def _beside_table(beside: Sequence[Trained], entry: Entry) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of trained detectors, with the metrics and costs that an entry of the front has."""
    metrics, costs = [name for name in entry.metrics if name in beside[0].metrics], list(entry.costs)
    rows = [
        [
            each.name,
            *(number_text(each.metrics[name], ".5g") for name in metrics),
            *(rounded_up(each.costs[name]) if name in each.costs else "-" for name in costs),
        ]
        for each in beside
    ]
    return ["trained by itself", *metrics, *costs], rows


def _front_table(
    shown: Sequence[Entry], latency: FrontLatency | None, fast: NDArray[np.bool_] | None
) -> tuple[list[str], list[list[str]]]:
    """Return head and rows; costs are rounded up, so that each row is within a budget of what it shows."""
    metrics, costs = list(shown[0].metrics), list(shown[0].costs)
    sizes = [resolution_of(entry.architecture) for entry in shown]
    head = ["id", *metrics, *costs]
    rows = [
        [
            entry.id,
            *(number_text(entry.metrics[name], ".5g") for name in metrics),
            *(rounded_up(entry.costs[name]) for name in costs),
        ]
        for entry in shown
    ]
    if any(sizes):
        head.append("resolution")
        for row, size in zip(rows, sizes, strict=True):
            row.append(size_text(size) if size is not None else "-")
    if latency is not None and fast is not None:
        measured = [latency.rows[entry.id] for entry in shown]
        has_map = any("mAP" in found for found in measured)
        head += ["measured ms", "spread ms", *(["measured mAP"] if has_map else []), "on its front"]
        for row, found, is_fast in zip(rows, measured, fast.tolist(), strict=True):
            row += [f"{found['median_ms']:.4g}", f"{found['spread_ms']:.2g}"]
            row += [number_text(found.get("mAP"), ".4f")] if has_map else []
            row.append("yes" if is_fast else "-")
    return head, rows


def _latency_text(latency: FrontLatency) -> str:
    """Return what was measured, where, and where it is kept."""
    setting, num = latency.setting, len(latency.rows)
    size = "each at its resolution" if latency.sizes else f"{size_text(setting.image_hw)} pixels"
    text = f"measured ms: median of a pass of the {latency.what}, {size}, {setting.text}"
    if any("mAP" in row for row in latency.rows.values()):
        text += "\nmeasured mAP: of just what was measured, on the images that the search compared paths on"
    if latency.num_before:
        text += f"\n{latency.num_before} of {num} were measured before; without {latency.path} all are measured again"
    return text


def _scope_text(scope: Any) -> str:
    """Return what the costs of best.json are of."""
    if not isinstance(scope, dict):
        return ""
    size = size_text(scope.get("image_hw") or ())
    at = f" at {size} pixels" if size else ""
    return f"costs are of the {scope.get('scope', 'architecture')}{at}"


# ---- comparisons --------------------------------------------------------------------------------------------------


def _compare_hint(known: Any) -> str | None:
    options = ["--random", str(known.random), "--repeats", str(known.repeats), "--seed", str(known.seed)]
    options += ["--baselines", *known.baselines] if known.baselines else []
    options += ["--recipe", known.recipe] if known.recipe else []
    return f"`nasray compare {shlex.join([*known.folders, *options])}` continues"


def _compare(known: Any) -> None:
    from nasray.cluster import RunFolder
    from nasray.comparison import WINNER, compare, groups_of_folders, groups_of_run, verdict_sentence
    from nasray.reports.sections.comparison import comparison_plots

    if known.to:
        check_output(known.to, [".png"])
    folders = [Path(folder) for folder in known.folders]
    trains = known.random or known.baselines or known.repeats > 1
    picture = Path(known.to) if known.to else None
    if len(folders) == 1 and not (folders[0] / "recipe.yaml").is_file():
        run = RunFolder.open(folders[0])
        if trains:
            from nasray.baselines import train_alike

            options = {"num_random": known.random, "baselines": known.baselines, "repeats": known.repeats}
            train_alike(run.path, **options, recipe=known.recipe, seed=known.seed)
        groups = groups_of_run(run)
        if not groups or groups[0].name != WINNER or len(groups) < 2:
            folder = shlex.quote(known.folders[0])
            if not groups or groups[0].name != WINNER:
                raise NasrayError(
                    f"no winner was trained in {folder} yet. `nasray train {folder} --recipe ...` trains it"
                )
            raise NasrayError(
                f"nothing was trained in {folder} that its winner could be compared with. `nasray compare {folder} "
                "--random 5` trains five random architectures like it"
            )
        picture = picture or run.path / "compare" / "compare.png"
    else:
        if trains or known.recipe:
            raise NasrayError(
                "--random, --baselines, --repeats and --recipe are for a run; trainings are compared as they are"
            )
        groups = groups_of_folders(folders)
        if len(groups) < 2:
            raise NasrayError(
                f"{len(folders)} trainings of one architecture by one recipe are one group. Name others to compare with"
            )
    result = compare(groups)
    if known.json:
        print_json(result)
        return
    _print_comparison(result)
    for found in result["comparisons"]:
        print(f"{verdict_sentence(result, found)}.")
    if picture is not None:
        print()
        _print_pictures(picture, lambda: comparison_plots(result))


def _print_comparison(result: dict[str, Any]) -> None:
    rows = []
    for group in result["groups"]:
        interval = "-" if group["low"] is None else f"{group['low']:.4f} to {group['high']:.4f}"
        mean = number_text(group["mean"], ".4f")
        rows.append([group["name"], str(group["architectures"]), str(len(group["trainings"])), mean, interval])
    print_table(["group", "architectures", "trainings", result["metric"], "95 % interval"], rows)
    print()
    for note in result["notes"]:
        print(f"{note}.")


# ---- ranks --------------------------------------------------------------------------------------------------------


def _rank_hint(known: Any) -> str:
    options = ["--architectures", str(known.architectures), "--seed", str(known.seed), *known.overrides]
    options += ["--recipe", known.recipe] if known.recipe else []
    return f"`nasray rank {shlex.join([known.folder, *options])}` continues"


def _rank(known: Any) -> None:
    from nasray.cluster import Resources, RunFolder
    from nasray.experiment import override_resources
    from nasray.loading import plan_of_run
    from nasray.measured import FOLDER
    from nasray.rank import rank_run, too_few
    from nasray.reports.sections.rank import rank_plots

    resources = None
    if known.overrides:
        given = plan_of_run(RunFolder.open(known.folder)).experiment.resources
        resources = Resources(**vars(override_resources(given, known.overrides, declared=known.declared)))
    options = {"recipe": known.recipe, "seed": known.seed, "resources": resources}
    result = rank_run(known.folder, known.architectures, **options)
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


def _print_pictures(to: Path, make: Callable[[], Iterable[Any]]) -> None:
    """Draw pictures into a folder, or one into a file, and print the paths; without matplotlib say so and go on."""
    from nasray.reports.page import write_pictures

    try:
        paths = write_pictures(to, make())
    except NasrayError as error:
        print(f"nasray: no pictures: {error}", file=sys.stderr)
        return
    for path in paths:
        print(path)


def _agreement_cells(found: dict[str, Any]) -> list[str]:
    """Return cells of `rank_agreement`: tau, its interval, rho."""
    from nasray.scores.ranking import MIN_NUM

    if found["num"] < MIN_NUM:
        return ["-", f"too few: {found['num']}, at least {MIN_NUM}", "-"]
    kendall = found["kendall"]
    interval = f"{number_text(kendall['low'])} to {number_text(kendall['high'])}"
    return [number_text(kendall["value"]), interval, number_text(found["spearman"])]
