"""The stages of a run: what is refused, that each is done once, and that a killed run ends as one that was not."""

import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from nasray.checkpoint import Checkpoint
from nasray.cluster import Resources, RunFolder, ray_session, training
from nasray.cluster.callbacks import BatchEvent, LogEvent, StageEvent
from nasray.cluster.progress import ProgressLine
from nasray.configuration import read_mapping
from nasray.experiment import describe_experiment, parse_description, parse_experiment
from nasray.loading import load_plan, parse_plan
from nasray.rank import rank_run
from nasray.searching import resume_experiment, search_experiment
from nasray.spaces import NasrayError
from nasray.stages import (
    make_plan,
    read_recipes,
    resolve_recipes,
    site_of,
    write_recipes,
)
from nasray.stages import run as run_module
from nasray.stages.records import Records
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
resources: {workers: 1, gpus: 0, cpus: 1}
"""
DETECT = """
backbone: basic-tiny
batch_size: 8
detector: {name: fcos, channels: 16, num_convs: 1}
augmentation: {short_side: [64], long_side: 64}
loader: {processes: 0, cache: true}
optimizer: {name: adamw, learning_rate: 0.004, clip: 10}
schedule: {name: cosine, epochs: 1, milestones: [], warmup_iterations: 2}
resources: {workers: 1, gpus: 0, cpus: 1}
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
        "holdout": 16, "recipe": detect, "space": SPACE,
        "searcher": {"name": "evolution", "population_size": 4, "parents": 2, "mutation": 0.5, "crossover": 0.5,
                     "initial": 4},
        "evaluator": {"name": "path", "supernet": "supernet-train", "images": 32},
        "stages": {
            "supernet-pretrain": {"kind": "train", "of": "supernet", "recipe": classify},
            "supernet-train": {"kind": "train", "of": "supernet", "weights": "supernet-pretrain"},
            "search": {"kind": "search"},
            "pretrain": {"kind": "train", "of": "search", "recipe": classify},
            "train": {"kind": "train", "of": "search", "weights": "pretrain"},
        },
    }  # fmt: skip
    return parse_experiment(content, "test")


def changed(experiment, **stages):
    """The experiment with options of stages changed; a stage that is None is left out."""
    content = describe_experiment(experiment)["experiment"]
    for name, options in stages.items():
        name = name.replace("_", "-")
        content["stages"][name] = {**content["stages"][name], **options} if options else None
    content["stages"] = {name: options for name, options in content["stages"].items() if options}
    return parse_experiment(content, "test")


def test_recipes_are_resolved_with_the_experiments_data(experiment):
    recipes = resolve_recipes(make_plan(dataclasses.replace(experiment, seed=7)))
    assert list(recipes) == ["supernet-pretrain", "supernet-train", "pretrain", "train"]
    assert [recipe.holdout for recipe in recipes.values()] == [0, 16, 0, 0]
    assert {recipe.seed for recipe in recipes.values()} == {7}
    on_classes = dataclasses.replace(experiment.evaluator, supernet="supernet-pretrain")
    recipes = resolve_recipes(make_plan(dataclasses.replace(experiment, evaluator=on_classes)))
    assert [recipe.holdout for recipe in recipes.values()] == [16, 0, 0, 0]


def test_recipes_of_a_run_stay_as_they_were(experiment, tmp_path):
    run = RunFolder.create(tmp_path / "run", describe_experiment(experiment))
    plan = make_plan(experiment)
    assert read_recipes(run, plan) is None
    write_recipes(run, resolve_recipes(plan))
    (tmp_path / "detect.yaml").write_text(DETECT.replace("fcos", "gfl"))
    assert read_recipes(run, plan)["train"].detector.name == "fcos"
    assert read_recipes(run, plan) != resolve_recipes(plan)


def test_mistakes_show_before_anything_is_written(experiment, tmp_path):
    folder = tmp_path / "run"
    for broken, text in (
        (lambda: dataclasses.replace(experiment, holdout=160), "hold out fewer"),
        (lambda: changed(experiment, train={"recipe": "detnas-fpm-1x"}), "unknown recipe"),
        (lambda: dataclasses.replace(experiment, recipe=None), "needs a recipe"),
        (lambda: dataclasses.replace(experiment, data=str(tmp_path / "nowhere")), "does not exist"),
        (lambda: dataclasses.replace(experiment, images=str(tmp_path / "nowhere")), "no folder"),
        (lambda: changed(experiment, supernet_train={"weights": str(tmp_path / "x.pt")}), "no file at .*x.pt"),
        (lambda: dataclasses.replace(experiment, budget=type(experiment.budget)(gmacs=1e-6)), "meets the budget"),
    ):
        with pytest.raises(NasrayError, match=text):
            search_experiment(make_plan(broken()), folder)
        assert not folder.exists()


def begun(experiment, folder):
    """A run whose first stage is done, and whose second one has half of its epoch behind it."""
    run, plan = RunFolder.create(folder, describe_experiment(experiment)), make_plan(experiment)
    write_recipes(run, resolve_recipes(plan))
    for stage, epoch in (("supernet-pretrain", 0.4), ("supernet-train", 0.5)):
        (folder / stage).mkdir()
        (folder / stage / "recipe.yaml").touch()
        (folder / stage / "log.jsonl").write_text(f'{{"epoch": {epoch}}}\n')
    times = {"supernet-pretrain": {"seconds": 40.0, "sessions": 2, "result": {}}}
    times["supernet-train"] = {"seconds": 30.0, "sessions": 1}
    (folder / "stages.json").write_text(json.dumps(times))
    return site_of(run, plan)


def test_how_far_the_stages_of_a_run_are(experiment, tmp_path, monkeypatch, capsys):
    site = begun(experiment, tmp_path / "run")
    stages = run_module.stages_ahead(site, Records(site.run).content)
    assert [stage.work_text() for stage in stages] == [
        "0.4 of 0.4 epochs", "0.5 of 1 epochs", "0 of 6 evaluations", "0 of 0.4 epochs", "0 of 1 epochs",
    ]  # fmt: skip
    assert [stage.left for stage in stages] == [0, 30, None, None, None]
    for batch in range(3):
        (site.run.history / f"{batch:06d}.parquet").touch()
    assert run_module.stages_ahead(site, {"search": {"seconds": 10.0}})[2].left == 10
    # What the user sees: a stage's place among all, and the rest of the run, with every line of progress.
    lines = []
    monkeypatch.setattr(type(site.stages["supernet-train"]), "is_done", lambda *_: True)
    monkeypatch.setattr(type(site.stages["supernet-train"]), "run", lambda *_: lines.append(shown()) or {})

    def shown():
        stream = io.StringIO()
        ProgressLine("training", 10, stream=stream, interval=0).update(0)
        return stream.getvalue()

    run_module._run_stage(site.at("supernet-train"), site.stages["supernet-train"], (), Records(site.run))
    assert "stage 2/5 supernet-train  run ETA at least 0:30\n" in capsys.readouterr().err
    assert lines == ["training  0/10   0%  run ETA at least 0:30\n"]


def test_runs_of_the_former_format(tmp_path):
    """A search alone is read as before; one with a supernet is refused with the version that can finish it."""
    content = describe_experiment(load_plan("maedet-tiny").experiment)
    del content["experiment"]["stages"], content["experiment"]["holdout"], content["experiment"]["recipe"]
    content["experiment"] |= {"supernet": {"pretrain": None, "weights": None, "holdout": 0}, "winner": {"train": None}}
    assert list(parse_description(content, "x").stages) == ["search"]
    content["experiment"]["supernet"]["pretrain"] = "shapes-classify"
    with pytest.raises(NasrayError, match=r"with a supernet. Finish it with nasray "):
        parse_description(content, "x")


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


def check_heard(heard, folder, done):
    """Check what a callback heard of a whole run: stages, batches, the log of the training on Ray."""
    assert {event.run for event in heard} == {str(folder)}
    stages = [event for event in heard if isinstance(event, StageEvent)]
    assert [(event.source, event.state) for event in stages] == [
        (name, state) for name in done["stages"] for state in ("begin", "end")
    ]
    assert stages[-1].figures == done["stages"]["train"]["result"]
    assert [event.step for event in heard if isinstance(event, BatchEvent)] == [1, 2, 3, 4, 5, 6]
    (first, *_) = done["stages"]
    lines = [json.loads(text) for text in (folder / first / "log.jsonl").read_text().splitlines()]
    told = [event.line for event in heard if isinstance(event, LogEvent)]
    assert told == lines
    assert "losses" in {key for line in told for key in line}


def test_a_run_goes_through_its_stages(experiment, tmp_path, one_ray, one_on_ray, capfd):
    folder = tmp_path / "run"
    names = list(experiment.stages)
    heard = []
    done = search_experiment(make_plan(experiment), folder, callbacks=[heard.append])
    assert list(done["stages"]) == names
    check_heard(heard, folder, done)
    assert all("result" in record for record in done["stages"].values())
    assert done["evaluations"] == 6
    said = [line.split("  ")[0] for line in capfd.readouterr().err.splitlines() if line.startswith("stage ")]
    assert said == [f"stage {number}/5 {name}" for number, name in enumerate(names, 1)]
    assert one_on_ray == [folder / name for name in names if name != "search"]
    winner = done["best"][0]["id"]
    for name in names:
        if name != "search":
            description = read_description(folder / name)
            assert (description.architecture.family == "supernet") == name.startswith("supernet")
            assert name.startswith("supernet") or description.architecture.id == winner
    assert read_description(folder / "supernet-train").recipe.weights.endswith("supernet-pretrain/checkpoints/last.pt")
    assert read_description(folder / "train").recipe.weights.endswith("/pretrain/checkpoints/last.pt")
    # Once more, when nothing is left to do: at once, and nothing changes; also where the run was moved.
    before = {path: path.read_bytes() for path in folder.rglob("*.json") if "tune" not in path.parts}
    begin = time.monotonic()
    heard.clear()
    assert resume_experiment(folder, callbacks=[heard.append])["best"] == done["best"]
    assert time.monotonic() - begin < 30
    assert not heard, "nothing is told twice"
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.slow
def test_a_run_is_ranked_and_its_supernet_searched_again(experiment, tmp_path, one_ray, one_on_ray):
    folder = tmp_path / "run"
    done = search_experiment(make_plan(experiment), folder)
    winner = done["best"][0]["id"]
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
    assert (folder / "rank" / "rank.json").is_file()
    assert ranked["agreement"]["supernet"]["kendall"] == {"value": None, "low": None, "high": None}
    with pytest.raises(NasrayError, match="was begun with --seed 0"):
        rank_run(folder, 3, seed=1)
    # A search that begins from this supernet, without training it: the same paths, the same scores. Then two random
    # architectures are trained twice each, with the weights of their own trainings before.
    checkpoint = site_of(RunFolder.open(folder), make_plan(experiment)).checkpoint("supernet-train")
    content = describe_experiment(experiment)["experiment"]
    both = {"kind": "train", "of": ["random-2"], "repeats": 2}
    content["evaluator"]["supernet"] = str(checkpoint)
    content["stages"] = {
        "search": {"kind": "search"},
        "before": {**both, "recipe": str(tmp_path / "classify.yaml")},
        "baselines": {**both, "weights": "before"},
    }
    second = tmp_path / "second"
    again = search_experiment(parse_plan(content, "second"), second)
    assert again["best"] == done["best"]
    assert list(again["stages"]) == ["search", "before", "baselines"]
    best = RunFolder(second / "baselines").read_best()
    assert [entry["metrics"]["mAP"] for entry in best["best"]] == sorted(
        (entry["metrics"]["mAP"] for entry in best["best"]), reverse=True
    )
    (each, other) = sorted((second / "baselines").glob("1-*/seed-*"))
    assert read_description(each).recipe.weights == str(
        second / "before" / each.parent.name / "seed-0/checkpoints/last.pt"
    )
    assert read_description(other).recipe.seed == read_description(each).recipe.seed + 1
    means = [Checkpoint.load(path).metrics["mAP"] for path in (each, other)]
    id_ = each.parent.name.partition("-")[2]
    (found,) = [entry["metrics"]["mAP"] for entry in best["best"] if entry["id"] == id_]
    assert found == pytest.approx(sum(means) / 2)


def test_a_supernet_that_was_replaced_under_a_search_is_noticed(experiment, tmp_path):
    run = RunFolder.create(tmp_path / "run", describe_experiment(experiment))
    plan = make_plan(experiment)
    write_recipes(run, resolve_recipes(plan))
    site, takes = site_of(run, plan), plan.references["search"]
    path = run.path / "supernet-train" / "checkpoints" / "last.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one")
    inputs = run_module.inputs_of(site, takes)
    run_module.refuse_other_inputs(site, inputs, run_module.inputs_of(site, takes))
    path.write_bytes(b"two")
    with pytest.raises(
        NasrayError, match=r"stage search was begun with another evaluator\.supernet .*move .*history and .*tune"
    ):
        run_module.refuse_other_inputs(site, inputs, run_module.inputs_of(site, takes))


def start(arguments):
    command = [sys.executable, "-m", "nasray", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def kill_when(process, condition, seconds=240):
    deadline = time.monotonic() + seconds
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


def training_in(folder):
    """The first training of a stage."""
    inner = sorted(folder.glob("1-*"))
    return inner[0] if inner else folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_guided_search_that_is_killed_ends_as_one_that_was_not(tmp_path):
    """Between two fits of its predictor, and again later: what a fit is made of is told anew in the order it was."""
    guided = ["--searcher.name", "guided-evolution", "--searcher.refit", 20, "--evaluations", 240, "--batch-size", 4]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    num_batches = lambda: len(list((killed / "history").glob("*.parquet")))  # noqa: E731
    process = start(["search", "maedet-tiny", *guided, "--folder", killed])
    kill_when(process, lambda: num_batches() >= 22)
    assert num_batches() < 40
    process = start(["resume", killed])
    kill_when(process, lambda: num_batches() >= 41)
    assert num_batches() < 60
    for arguments in (["resume", killed], ["search", "maedet-tiny", *guided, "--folder", whole]):
        process = start(arguments)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
    for path in [whole / "best.json", *sorted((whole / "history").glob("*.parquet"))]:
        assert path.read_bytes() == (killed / path.relative_to(whole)).read_bytes(), path
    assert len(list((whole / "history").glob("*.parquet"))) == num_batches() == 60


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_trainings_that_are_killed_at_the_same_time_go_on(tmp_path):
    """Four of a stage, two at a time, on two cores."""
    recipe = tmp_path / "detect.yaml"
    recipe.write_text(DETECT.replace("epochs: 1", "epochs: 3") + "log_every: 2\ncheckpoint_every: 4\n")
    content = {
        "evaluations": 4, "batch_size": 2, "data": "shapes", "recipe": str(recipe), "space": SPACE,
        "searcher": {"name": "random"}, "evaluator": {"name": "synflow"}, "resources": {"local_cpus": 2},
        "stages": {"search": {"kind": "search"}, "several": {"kind": "train", "of": ["random-2"], "repeats": 2}},
    }  # fmt: skip
    path = tmp_path / "several.yaml"
    path.write_text(json.dumps(content))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(["search", path, "--folder", killed])
    under_way = lambda: [each for each in (killed / "several").glob("*/seed-*") if last_iteration(each) >= 4]  # noqa: E731
    kill_when(process, lambda: len(under_way()) >= 2)
    assert not list((killed / "several").glob("*/seed-*/summary.json")), "two of them were under way"
    for arguments in (["resume", killed], ["search", path, "--folder", whole]):
        process = start(arguments)
        output, _ = process.communicate(timeout=800)
        assert process.returncode == 0, output
    assert "2 trainings at a time, each with 1 CPU" in output
    labels = sorted(str(path.parent.relative_to(whole)) for path in whole.glob("several/*/seed-*/summary.json"))
    assert len(labels) == 4
    for label in labels:
        one, other = (Checkpoint.load(folder / label / "checkpoints/last.pt") for folder in (whole, killed))
        assert all(torch.equal(one.model[name], other.model[name]) for name in one.model)
    for name in ["several/best.json", *(f"{label}/summary.json" for label in labels)]:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert not (killed / "several/.trainings").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_is_killed_in_every_stage_finds_the_same_winner(tmp_path):
    """The tiny experiment, as a user runs it; SIGKILL in the middle of each of its seven stages.

    After each kill the run is somewhere else: moved, and once copied, beside the original.
    """
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    whole = start(["search", TINY, "--folder", folders["whole"]])
    output, _ = whole.communicate(timeout=900)
    assert whole.returncode == 0, output
    folder = folders["killed"]
    process = start(["search", TINY, "--folder", folder])
    names = list(load_plan(TINY).stages)
    for stage in names:
        parts, path = folder / "history", folder / stage
        if stage == "search":
            kill_when(process, lambda parts=parts: len(list(parts.glob("*.parquet"))) >= 4)
            assert len(list(parts.glob("*.parquet"))) < 12
        else:
            kill_when(process, lambda path=path: last_iteration(training_in(path)) >= 40)
            assert not (training_in(path) / "summary.json").exists()
        elsewhere = tmp_path / f"after-{stage}" / "run"
        if stage == "search":
            shutil.copytree(folder, elsewhere)
        else:
            elsewhere.parent.mkdir()
            folder.rename(elsewhere)
        folder = folders["killed"] = elsewhere
        process = start(["resume", folder])
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    summaries = [path.relative_to(folder) for path in folder.rglob("summary.json") if "tune" not in path.parts]
    assert len(summaries) == 8
    for name in ["best.json", "baselines/best.json", *summaries]:
        assert json.loads((folder / name).read_text()) == json.loads((folders["whole"] / name).read_text()), name
    histories = [
        {path.name: path.read_bytes() for path in sorted((each / "history").glob("*"))} for each in folders.values()
    ]
    assert histories[0] == histories[1]
    stages = json.loads((folder / "stages.json").read_text())
    assert [record["sessions"] for record in stages.values()] == [2] * 7
    assert read_mapping((folder / "recipes.yaml").read_text(), "recipes.yaml").keys() == stages.keys() - {"search"}
