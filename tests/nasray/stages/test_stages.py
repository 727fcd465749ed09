"""DetOFA's tiny experiment, as a user runs it: all stages of Algorithm 1, killed in each, and what it hands out."""

import json
import subprocess
import sys

import pytest

from nasray.cluster import RunFolder
from nasray.filters.pruned import FILTER, PRUNED
from nasray.loading import load_plan
from nasray.stages import Site
from tests.nasray.stages.test_run import kill_when, last_iteration, start

TINY = "detofa-tiny"
TRAININGS, SEARCHES = ("warm-up", "supernet"), ("sample", "resample", "predict", "search")


def finished(arguments, timeout=1800):
    """What a command prints."""
    process = start(arguments)
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run from its beginning to its end."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finished(["search", TINY, "--folder", folder])
    return folder


def kept(folder):
    """All of a run that the next stage, or a user, takes up."""
    searches = {name: folder if name == "search" else folder / name for name in SEARCHES}
    files = [folder / "best.json", folder / "prune" / PRUNED, folder / "prune" / FILTER]
    files += [folder / name / FILTER for name in ("filter", "refilter")]
    files += [folder / name / "summary.json" for name in TRAININGS]
    files += [part for path in searches.values() for part in sorted((path / "history").glob("*.parquet"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_it_ends_with_a_front(whole):
    folder = whole
    stages = json.loads((folder / "stages.json").read_text())
    assert list(stages) == list(load_plan(TINY).stages)
    assert all("result" in record for record in stages.values())
    pruned = stages["prune"]["result"]
    assert 0.2 < pruned["pruned"] / pruned["operations"] < 0.5
    assert pruned["settings_left"] < pruned["settings_before"] == 3_372_996_978
    best = RunFolder(folder).read_best()
    assert best["finished"]
    assert len(best["best"]) >= 3
    rows = sorted((entry["costs"]["gmacs"], entry["metrics"]["score"]) for entry in best["best"])
    assert rows == sorted(rows, key=lambda row: row[1]), "what costs more is better"
    plan = load_plan(TINY)
    left = plan.search.parts_at(Site(RunFolder(folder), "search", plan.stages)).space
    for name in ("resample", "predict", "."):
        assert left.is_valid(RunFolder(folder / name).read_history().genes).all()
    assert not left.is_valid(RunFolder(folder / "sample").read_history().genes).all()


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_run_that_is_killed_in_every_stage_ends_with_the_same_bytes(whole, tmp_path):
    folder = tmp_path / "killed"
    process = start(["search", TINY, "--folder", folder])
    for stage in load_plan(TINY).stages:
        path = folder if stage == "search" else folder / stage
        if stage in TRAININGS:
            kill_when(process, lambda path=path: last_iteration(path) >= 20)
            assert not (path / "summary.json").exists()
        elif stage in SEARCHES:
            kill_when(process, lambda path=path: len(list((path / "history").glob("*.parquet"))) >= 2)
            assert not RunFolder(path).is_finished()
        else:
            kill_when(process, lambda stage=stage: is_begun(folder, stage))
            assert not (path / (PRUNED if stage == "prune" else FILTER)).exists()
        process = start(["resume", folder])
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, output
    assert kept(folder) == kept(whole)
    stages = json.loads((folder / "stages.json").read_text())
    assert [record["sessions"] for record in stages.values()] == [2] * len(stages)


def is_begun(folder, stage):
    path = folder / "stages.json"
    return path.is_file() and stage in json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_is_exported_has_the_figure_that_the_search_printed(whole, tmp_path):
    folder = whole
    front = sorted(RunFolder(folder).read_best()["best"], key=lambda entry: entry["costs"]["gmacs"])
    for place in (0, len(front) // 2, len(front) - 1):
        entry = front[place]
        budget = ["--budget.gmacs", str(entry["costs"]["gmacs"])]
        model = tmp_path / f"{place}.onnx"
        finished(["export", folder, *budget, "--to", model])
        assert model.stat().st_size > 10_000
        command = [sys.executable, "-m", "nasray", "evaluate", str(folder), *budget, "--split", "held", "--json"]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout)
        assert found["coco"]["mAP"] == pytest.approx(entry["metrics"]["score"], abs=1e-6)
