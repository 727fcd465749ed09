"""The stages of a run: what is refused, that each is done once, and that a killed run ends as one that was not."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from nasray import stages
from nasray.checkpoint import Checkpoint
from nasray.cluster import Resources, RunFolder, ray_session, training
from nasray.configuration import read_mapping
from nasray.evaluators import EVALUATORS
from nasray.experiment import describe_experiment, load_experiment, parse_experiment
from nasray.options import options_of
from nasray.rank import rank_run, read_rank
from nasray.registry import SPACES
from nasray.searching import resume_experiment, search_experiment
from nasray.spaces import NasrayError
from nasray.stages import (
    FOLDERS,
    Records,
    check_stages_fit,
    has_stages,
    read_recipes,
    resolve_recipes,
    supernet_checkpoint,
    write_recipes,
)
from nasray.training.folder import read_description

TINY = "detnas-300m-tiny"
CLASSIFY = """
task: classification
batch_size: 32
classifier: {width: 32, dropout: 0.1}
augmentation: {square: 32}
loader: {processes: 0, cache: true}
optimizer: {name: adamw, learning_rate: 0.004, clip: 10}
schedule: {name: cosine, epochs: 0.4, milestones: [], warmup_iterations: 2}
resources: {workers: 1, gpus: 0}
"""
DETECT = """
backbone: basic-tiny
batch_size: 8
detector: {name: fcos, channels: 16, num_convs: 1}
augmentation: {short_side: [64], long_side: 64}
loader: {processes: 0, cache: true}
optimizer: {name: adamw, learning_rate: 0.004, clip: 10}
schedule: {name: cosine, epochs: 1, milestones: [], warmup_iterations: 2}
resources: {workers: 1, gpus: 0}
"""
SPACE = {
    "name": "shufflenet", "stem_width": 8, "widths": [16, 24, 32, 48], "depths": [1, 1, 1, 1], "image_hw": [64, 64],
}  # fmt: skip


@pytest.fixture
def experiment(tmp_path):
    """All five stages, a few iterations each."""
    (tmp_path / "classify.yaml").write_text(CLASSIFY)
    (tmp_path / "detect.yaml").write_text(DETECT)
    classify, detect = str(tmp_path / "classify.yaml"), str(tmp_path / "detect.yaml")
    content = {
        "name": "stages", "evaluations": 6, "batch_size": 1, "in_flight": 1, "data": "shapes", "images": "shapes",
        "space": SPACE,
        "supernet": {"pretrain": classify, "train": detect, "holdout": 16},
        "searcher": {"name": "evolution", "population_size": 4, "parents": 2, "mutation": 0.5, "crossover": 0.5,
                     "initial": 4},
        "evaluator": {"name": "path", "images": 32},
        "winner": {"pretrain": classify, "train": detect},
    }  # fmt: skip
    return parse_experiment(content, "test")


def changed(experiment, **parts):
    content = {
        name: dataclasses.replace(getattr(experiment, name), **values) if isinstance(values, dict) else values
        for name, values in parts.items()
    }
    return dataclasses.replace(experiment, **content)


def test_recipes_are_resolved_with_the_experiments_data(experiment):
    recipes = resolve_recipes(dataclasses.replace(experiment, seed=7))
    assert list(recipes) == ["supernet-pretrain", "supernet-train", "pretrain", "train"]
    assert [recipe.holdout for recipe in recipes.values()] == [0, 16, 0, 0]
    assert {recipe.seed for recipe in recipes.values()} == {7}
    only_classes = resolve_recipes(changed(experiment, supernet={"train": None}))
    assert only_classes["supernet-pretrain"].holdout == 16


def test_recipes_of_a_run_stay_as_they_were(experiment, tmp_path):
    run = RunFolder.create(tmp_path / "run", describe_experiment(experiment))
    assert read_recipes(run) is None
    write_recipes(run, resolve_recipes(experiment))
    (tmp_path / "detect.yaml").write_text(DETECT.replace("fcos", "gfl"))
    assert read_recipes(run)["train"].detector.name == "fcos"
    assert read_recipes(run) != resolve_recipes(experiment)


def test_what_does_not_go_together_is_refused(experiment):
    def refuse(text, **parts):
        with pytest.raises(Exception, match=text):
            changed(experiment, **parts)

    refuse("needs a supernet", supernet={"pretrain": None, "train": None})
    refuse("'zen' needs no supernet", evaluator=options_of(EVALUATORS, "zen"))
    refuse("keeps its own", supernet={"pretrain": None, "train": None, "weights": "x.pt"})
    refuse("take the place of", supernet={"weights": "x.pt"})
    no_supernet = {"pretrain": None, "train": None}
    refuse("defined for staged spaces", evaluator=options_of(EVALUATORS, "entropy"), supernet=no_supernet)
    refuse("needs a supernet; there are those of shufflenet", space=options_of(SPACES, "basic"))
    refuse("widths are multiples of 4", space={"widths": (10, 20, 30, 40)})


def test_mistakes_show_before_anything_is_written(experiment, tmp_path):
    folder = tmp_path / "run"
    for broken, text in (
        (changed(experiment, supernet={"train": str(tmp_path / "classify.yaml")}), "is for classification"),
        (changed(experiment, supernet={"holdout": 160}), "hold out fewer"),
        (changed(experiment, winner={"train": "detnas-fpm-1x"}), "unknown recipe"),
        (dataclasses.replace(experiment, data=str(tmp_path / "nowhere")), "does not exist"),
        (dataclasses.replace(experiment, images=str(tmp_path / "nowhere")), "no folder"),
        (changed(experiment, supernet={"pretrain": None, "weights": str(tmp_path / "x.pt")}), "no file at supernet"),
        (changed(experiment, budget={"gmacs": 1e-6}), "meets the budget"),
    ):
        with pytest.raises(NasrayError, match=text):
            search_experiment(broken, folder)
        assert not folder.exists()


def test_records_count_sessions_and_keep_results(tmp_path):
    run = RunFolder.create(tmp_path / "run", {})
    records = Records(run)
    with pytest.raises(KeyboardInterrupt), records.timed("search"):
        raise KeyboardInterrupt
    assert not Records(run).is_done("search")
    again = Records(run)
    with again.timed("search"):
        pass
    again.result("search", {"score": 0.5})
    with Records(run).timed("search"):
        pass
    assert Records(run).content["search"]["sessions"] == 2
    assert Records(run).is_done("search")


def test_the_time_of_a_session_that_is_killed_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "INTERVAL", 0.01)
    run = RunFolder.create(tmp_path / "run", {})
    with Records(run).timed("search"):
        begin = time.monotonic()
        while not Records(run).content["search"]["seconds"]:  # what would be left of it
            assert time.monotonic() < begin + 30
            time.sleep(0.01)


def test_shipped_experiments_with_stages_load():
    for name in (TINY, "detnas-300m", "detnas-1.3g", "detnas-300m-scratch", "clsnas-300m", "detnas-laptop"):
        loaded = load_experiment(name)
        assert has_stages(loaded)
        assert resolve_recipes(loaded)
    check_stages_fit(load_experiment(TINY), resolve_recipes(load_experiment(TINY)))


# ---- whole runs --------------------------------------------------------------------------------------------------


@pytest.fixture
def one_ray():
    """Ray, started once for all that a test runs."""
    with ray_session(Resources(local_cpus=2)):
        yield


@pytest.fixture
def one_on_ray(monkeypatch):
    """The first training runs on Ray Train, as all do; the others here, where PyTorch is imported already."""
    on_ray, folders = training.run_training, []

    def run_training(loop, config, *, folder, group):
        folders.append(folder)
        if len(folders) == 1:
            on_ray(loop, config, folder=folder, group=group)
        else:
            loop(config, training.Worker())

    monkeypatch.setattr(training, "run_training", run_training)
    return folders


def test_a_run_goes_through_its_stages_and_starts_another(experiment, tmp_path, one_ray, one_on_ray):
    folder = tmp_path / "run"
    done = search_experiment(experiment, folder)
    assert list(done["stages"]) == list(FOLDERS)
    assert all("result" in record for record in done["stages"].values())
    assert done["evaluations"] == 6
    assert one_on_ray == [folder / path for stage, path in FOLDERS.items() if stage != "search"]
    winner = done["best"][0]["id"]
    for stage, path in FOLDERS.items():
        if stage != "search":
            description = read_description(folder / path)
            assert (description.architecture.family == "supernet") == stage.startswith("supernet")
            assert stage.startswith("supernet") or description.architecture.id == winner
    assert read_description(folder / "supernet/train").recipe.weights.endswith("supernet/pretrain/checkpoints/last.pt")
    assert read_description(folder / "train").recipe.weights.endswith("/pretrain/checkpoints/last.pt")
    # Once more, when nothing is left to do: at once, and nothing changes.
    before = {path: path.read_bytes() for path in folder.rglob("*.json") if "tune" not in path.parts}
    begin = time.monotonic()
    assert resume_experiment(folder)["best"] == done["best"]
    assert time.monotonic() - begin < 30
    assert before == {path: path.read_bytes() for path in before}
    # Does the supernet rank as training does? Three random architectures, again without a second time.
    ranked = rank_run(folder, 3)
    assert rank_run(folder, 3) == ranked
    rows = ranked["architectures"]
    assert len({row["id"] for row in rows}) == 3
    assert [row["mAP"] for row in rows] == sorted((row["mAP"] for row in rows), reverse=True)
    assert {"supernet", "zen", "naswot", "synflow", "gmacs", "params_m"} <= rows[0].keys()
    assert ranked["winner"]["id"] == winner
    trained = Checkpoint.load(folder / "rank" / "trainings" / rows[0]["id"] / "train")
    assert trained.architecture.id == rows[0]["id"]
    assert trained.metrics["mAP"] == rows[0]["mAP"]
    assert read_rank(RunFolder.open(folder))["random"] == ranked["random"]
    assert ranked["agreement"]["supernet"]["kendall"] == {"value": None, "low": None, "high": None}
    with pytest.raises(NasrayError, match="was begun with --seed 0"):
        rank_run(folder, 3, seed=1)
    # A search that begins from this supernet, without training it: the same paths, the same scores.
    checkpoint = supernet_checkpoint(experiment, RunFolder.open(folder))
    given = {"pretrain": None, "train": None, "holdout": 0, "weights": str(checkpoint)}
    second = changed(experiment, supernet=given, winner={"pretrain": None, "train": None})
    again = search_experiment(second, tmp_path / "second")
    assert again["best"] == done["best"]
    assert list(again["stages"]) == ["search"]


def start(arguments):
    command = [sys.executable, "-m", "nasray", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def kill_when(process, condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)  # Ray's own processes follow their driver


def last_iteration(folder):
    """Steps that the log of a training knows of."""
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return json.loads(lines[-1])["iteration"] if lines else 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_is_killed_in_every_stage_finds_the_same_winner(tmp_path):
    """The tiny experiment, as a user runs it; SIGKILL in the middle of each of its five stages."""
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    whole = start(["search", TINY, "--folder", folders["whole"]])
    output, _ = whole.communicate(timeout=900)
    assert whole.returncode == 0, output
    folder = folders["killed"]
    process = start(["search", TINY, "--folder", folder])
    for stage, path in FOLDERS.items():
        parts = folder / "history"
        if stage == "search":
            kill_when(process, lambda parts=parts: len(list(parts.glob("*.parquet"))) >= 4)
            assert len(list(parts.glob("*.parquet"))) < 12
        else:
            kill_when(process, lambda path=path: last_iteration(folder / path) >= 40)
            assert not (folder / path / "summary.json").exists()
        process = start(["resume", folder])
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    names = ["best.json", *(f"{path}/summary.json" for stage, path in FOLDERS.items() if stage != "search")]
    for name in names:
        assert json.loads((folder / name).read_text()) == json.loads((folders["whole"] / name).read_text()), name
    histories = [
        {path.name: path.read_bytes() for path in sorted((each / "history").glob("*"))} for each in folders.values()
    ]
    assert histories[0] == histories[1]
    stages = json.loads((folder / "stages.json").read_text())
    assert [record["sessions"] for record in stages.values()] == [2] * 5
    assert read_mapping((folder / "recipes.yaml").read_text(), "recipes.yaml").keys() == stages.keys() - {"search"}
