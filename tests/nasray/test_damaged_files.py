"""Files of runs and trainings that are cut short, empty, binary or foreign: one line from whatever reads them."""

import json
import shutil

import pytest

from nasray.cli import main
from nasray.cluster import OrderedSearch, RunFolder
from nasray.cluster.recorder import Recorder
from nasray.experiment import describe_experiment
from nasray.loading import load_plan
from nasray.measured import read_rank
from nasray.recipe import load_recipe
from nasray.spaces import Architecture, NasrayError
from nasray.stages import Records, read_recipes, read_records, resolve_recipes, write_recipes
from nasray.training.folder import Description, create_folder, drop_damaged_summary, read_summary


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small finished search with stages' records and a rank.json beside it."""
    plan = load_plan("maedet-tiny")
    folder = RunFolder.create(tmp_path_factory.mktemp("whole") / "run", describe_experiment(plan.experiment))
    search = OrderedSearch(plan.parts.searcher, evaluations=64, batch_size=32, in_flight=1)
    recorder, evaluate = Recorder(folder, search), plan.parts.evaluator
    where = {"started": 1.0, "seconds": 2.0, "host": "here", "process": 3, "trial": "a"}

    def write(batch):
        recorder.write(batch, {"batch": batch.index, **where})

    search.run(evaluate, write)
    recorder.finish()
    Records(folder).result("search", {"score": 0.5})
    interval = {"value": 0.5, "low": 0.1, "high": None}
    nothing = {"value": None, "low": None, "high": None}
    rows = [{"id": f"{i}", "mAP": 0.1 * i, "supernet": 0.2} for i in range(3)]
    rank = {
        "architectures": rows,
        "agreement": {
            "supernet": {"num": 3, "kendall": nothing, "spearman": None},
            "zen": {"kendall": interval, "spearman": interval},  # of an earlier version
        },
        "random": {"mean": 0.2, "sd": 0.1, "num": 3},
    }
    (folder.path / "rank").mkdir()
    (folder.path / "rank" / "rank.json").write_text(json.dumps(rank))
    return folder.path


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def refused(capsys, *arguments):
    assert main(list(map(str, arguments))) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("nasray: ")
    return message


DAMAGES = {
    "empty": lambda whole: b"",
    "cut short": lambda whole: whole[: len(whole) // 2],
    "binary": lambda whole: b"\x00\xff" + whole,
    "UTF-16": lambda whole: whole.decode().encode("utf-16"),
    "null": lambda whole: b"null",
    "list": lambda whole: b"[1, 2]",
    "text": lambda whole: b'"text"',
    "another's": lambda whole: b'{"name": "left-pad", "version": "1.0.0"}',
    "deep": lambda whole: b"[" * 500,
}
READERS = {
    "best.json": [("export", "--to", "x.py"), ("latency", "--image-size", "64x64"), ("cost",)],
    "experiment.yaml": [("resume",), ("report",), ("rank",), ("export", "--to", "x.py")],
    "trials/000001.json": [("report",)],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_one_line_names_the_file_and_what_to_do(run, capsys, monkeypatch, name, damage):
    monkeypatch.chdir(run.parent)
    path = run / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for command, *options in READERS[name]:
        message = refused(capsys, command, run, *options)
        assert str(path) in message, message
        assert any(word in message for word in ("Remove it", "Restore it", "writes it anew")), message


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("name", "read"), [("stages.json", read_records), ("rank/rank.json", read_rank)])
def test_so_do_readers_of_what_a_report_shows_at_its_end(run, name, read, damage):
    path = run / name
    assert read(RunFolder.open(run))
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(NasrayError, match=rf"{path}.*(Remove it|writes it anew)") as caught:
        read(RunFolder.open(run))
    assert "\n" not in str(caught.value)


def test_a_report_says_so_too(run, capsys):
    (run / "stages.json").write_text("[]")
    assert f"{run / 'stages.json'} is not as nasray wrote it" in refused(capsys, "report", run)


WRONG = [
    ("best.json", ("evaluations",), "64", "evaluations: Input should be a valid integer"),
    ("best.json", ("best",), [], "best: List should have at least 1 item"),
    ("best.json", ("finished",), 1, "finished: Input should be a valid boolean"),
    ("best.json", ("best", 0, "architecture"), {}, "best.0.architecture.family: Field required"),
    ("best.json", ("best", 0, "architecture", "family"), "resnet", "best.0.architecture has not the id beside it"),
    ("best.json", ("best", 2, "id"), "0" * 16, "best.2.architecture has not the id beside it"),
    ("best.json", ("best", 3, "metrics", "score"), "0.5", "best.3.metrics.score: Input should be a valid number"),
    ("best.json", ("objectives", 0, "direction"), "up", "objectives.0.direction: Input should be 'max' or 'min'"),
    ("trials/000000.json", ("seconds",), -1, "seconds: Input should be greater than or equal to 0"),
    ("trials/000000.json", ("process",), None, "process: Input should be a valid integer"),
    ("stages.json", ("search", "seconds"), None, "search.seconds: Input should be a valid number"),
    ("stages.json", ("search", "inputs"), {"weights": 1}, "search.inputs.weights: Input should be a valid string"),
    ("rank/rank.json", ("random", "num"), 3.5, "random.num: Input should be a valid integer"),
    ("rank/rank.json", ("architectures", 1, "mAP"), True, "architectures.1.mAP: Input should be a valid number"),
]


@pytest.mark.parametrize(("name", "place", "value", "expected"), WRONG)
def test_values_of_the_wrong_kind_are_named(run, name, place, value, expected):
    path = run / name
    content = json.loads(path.read_text())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(content))
    readers = {"best.json": RunFolder.read_best, "stages.json": read_records, "rank/rank.json": read_rank}
    with pytest.raises(NasrayError) as caught:
        readers.get(name, RunFolder.read_trials)(RunFolder.open(run))
    assert str(caught.value).startswith(f"{path} ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_best_json_is_written_anew_from_the_history(run, whole, damage):
    path = run / "best.json"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    plan = load_plan("maedet-tiny")
    search = OrderedSearch(plan.parts.searcher, evaluations=64, batch_size=32, in_flight=1)
    recorder = Recorder(RunFolder.open(run), search)
    recorder.catch_up()
    recorder.finish()
    assert path.read_bytes() == (whole / "best.json").read_bytes()


def test_numbers_that_were_none_come_back_as_nan(run):
    content = json.loads((run / "best.json").read_text())
    content["best"][0]["metrics"]["score"] = None
    (run / "best.json").write_text(json.dumps(content))
    value = RunFolder.open(run).read_best()["best"][0]["metrics"]["score"]
    assert value != value


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.8, 0.95])
def test_what_is_left_of_a_yaml_file_is_not_taken_with_defaults_for_the_rest(run, share):
    path = run / "experiment.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: int(share * len(lines))]))  # valid YAML, but for its end
    with pytest.raises(NasrayError, match=r"experiment.yaml is cut short. Restore it from a copy"):
        RunFolder.open(run)
    path.write_text("".join(lines[1:-1]))  # of an earlier version
    RunFolder.open(run)


# ---- trainings ---------------------------------------------------------------------------------------------------


@pytest.fixture
def training(tmp_path):
    recipe = load_recipe("shapes-detect")
    folder = tmp_path / "train"
    create_folder(folder, Description(recipe, Architecture.create("resnet", {"depth": 18}), ("a",), (1,)))
    summary = {"iterations": 3, "epochs": 1.0, "best": {"iteration": 3, "mAP": None}, "last": {"mAP": 0.1}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["recipe.yaml", "summary.json"])
def test_files_of_a_training(training, capsys, name, damage):
    path = training / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    if name == "recipe.yaml":
        assert str(path) in refused(capsys, "resume", training)
        return
    with pytest.raises(NasrayError, match=f"{path}.*writes it anew"):
        read_summary(training)
    drop_damaged_summary(training)
    assert not path.exists()
    assert str(path) in capsys.readouterr().err


def test_a_sound_summary_stays(training):
    drop_damaged_summary(training)
    assert read_summary(training)["last"] == {"mAP": 0.1}


@pytest.mark.parametrize("damage", DAMAGES)
def test_recipes_of_a_run(tmp_path, damage):
    plan = load_plan("detnas-300m-tiny")
    run = RunFolder.create(tmp_path / "run", describe_experiment(plan.experiment))
    write_recipes(run, resolve_recipes(plan))
    assert read_recipes(run, plan)
    path = run.path / "recipes.yaml"
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    with pytest.raises(NasrayError, match=rf"{path}.*Restore it"):
        read_recipes(run, plan)
    path.write_text("{}")
    with pytest.raises(NasrayError, match=r"holds recipes of none; the run's trainings are .*Restore it"):
        read_recipes(run, plan)
