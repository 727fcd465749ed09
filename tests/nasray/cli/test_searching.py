"""Bad input: one message, exit status 2, nothing written or lost."""

import json
import subprocess
import sys

import pytest
import yaml

from nasray.cli import main
from nasray.loading import load_plan
from tests.nasray.cli.common import refused


def test_unknown_experiment(capsys, tmp_path):
    assert "did you mean 'maedet-m'" in refused(capsys, "search", "maedet-mm")
    assert "no experiment file" in refused(capsys, "search", "mine.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"budgets": {}}, "unknown key 'budgets'; did you mean 'budget'?"),
        ({"budget": {"gmac": 3}}, "unknown key 'budget.gmac'; did you mean 'gmacs'?"),
        ({"seed": "three"}, "seed: Input should be a valid integer"),
        ({"searcher": {"name": "genetic"}}, "unknown searcher 'genetic'. There are: random, evolution"),
        ({"searcher": {"name": "random", "keep": 3}}, "searcher 'random' has no option 'keep'"),
        ({"evaluator": {"name": "entropy", "repeats": 3}}, "evaluator 'entropy' has no option 'repeats'"),
        ({"searcher": {"name": "evolution", "parents": 300}}, "parents <= population_size"),
        ({"minimize": ["gmacs"]}, "takes 1 to 1 objectives, got 2"),
        ({"minimize": ["score"]}, "minimize: unknown cost 'score'"),
        ({"minimize": ["gmacs", "gmacs"]}, "minimize: twice the same cost 'gmacs'"),
        ({"reference": "resnet500"}, "reference: unknown architecture 'resnet500'; did you mean 'resnet50'?"),
        ({"space": {"kernels": [3, 4]}}, "kernels are distinct odd numbers"),
        ({"space": {"parts": [0, 1, 1, 1]}}, "space.parts.0: Input should be greater than or equal to 1, got 0"),
        ({"space": {"image_hw": [-800, 1280]}}, "space.image_hw: image size is height and width"),
        ({"space": {"max_depth": 10**6}}, "space.max_depth: Input should be less than or equal to 1024"),
        ({"evaluator": {"weights": [0, 0, 1, float("nan"), 6]}}, "evaluator.weights.3: Input should be a finite"),
        ({"evaluator": {"weights": [0, 0, 0, 0, 0]}}, "evaluator 'entropy': weights are all 0"),
        ({"searcher": {"mutation": float("nan")}}, "searcher.mutation: Input should be a finite number"),
        ({"resources": {"cpus": float("nan")}}, "resources.cpus: Input should be a finite number"),
        ({"budget": {"gmacs": 20, "min_gmacs": 30}}, "lower bound 30 is above the upper bound 20"),
        ({"budget": [1]}, "budget: Input should be a mapping of keys to values, got [1]"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0, got -1"),
        ({"seed": 2**63}, "seed: Input should be less than or equal to 9223372036854775807"),
        ({"seed": True}, "seed: Input should be a valid integer, got True"),
        ({"evaluator": {"residual": "no"}}, "evaluator.residual: Input should be a valid boolean, got 'no'"),
        ({"data": ""}, "data is empty"),
        ({"space": {"max_width": 100}}, "multiples of 8"),
        ({"evaluations": 0}, "greater than or equal to 1"),
        ({"name": "../../etc"}, "name is the name of a folder"),
        ({"resources": {"cpus": 0}}, "resources.cpus: Input should be greater than 0, got 0"),
    ],
)
def test_mistakes_in_an_experiment(capsys, tmp_path, content, message):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    assert message in refused(capsys, "search", "mine.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_not_yaml(capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("a: [")
    assert "not valid YAML" in refused(capsys, "search", "mine.yaml")
    (tmp_path / "mine.yaml").write_text("- a")
    assert "must hold a mapping" in refused(capsys, "search", "mine.yaml")


def test_unknown_option(capsys, tmp_path):
    assert "did you mean '--budget.gmacs'?" in refused(capsys, "search", "maedet-m", "--budget.gmac", "60")
    assert "unrecognized option '--imagesize'; did you mean '--image-size'?" in refused(
        capsys, "cost", "maedet-m", "--imagesize", "3"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_budget_that_nothing_meets_is_found_out_before_ray_starts(capsys, tmp_path):
    message = refused(capsys, "search", "maedet-m", "--budget.gmacs", "0.001")
    assert "no architecture of space 'bottleneck' meets the budget (gmacs <= 0.001" in message
    tried = int(message.partition("tried ")[2].partition(",")[0])
    assert tried < 1_000_000
    assert list(tmp_path.iterdir()) == []


def test_run_folders(capsys, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("mine")
    assert "exists and is not empty" in refused(capsys, "search", "maedet-tiny", "--folder", "full")
    assert "is no run" in refused(capsys, "resume", "full")
    assert "is no run" in refused(capsys, "report", "full")
    assert "is no run" in refused(capsys, "resume", "absent")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "experiment.yaml").write_text("format: 3\n")
    assert "newer version of nasray" in refused(capsys, "resume", "newer")
    assert (tmp_path / "full" / "precious").read_text() == "mine"


def test_a_corrupt_history_is_named_and_left_alone(capsys, tmp_path):
    from nasray.cluster import OrderedSearch, RunFolder
    from nasray.cluster.recorder import Recorder
    from nasray.experiment import describe_experiment

    plan = load_plan("maedet-tiny")
    search = OrderedSearch(plan.parts.searcher, evaluations=2048, batch_size=128, in_flight=2)
    recorder = Recorder(RunFolder.create(tmp_path / "run", describe_experiment(plan.experiment)), search)
    search.fill()
    for index in range(3):
        for batch in search.receive(index, plan.parts.evaluator(search.pending[index].genes)):
            recorder.write(batch, {})
            search.tell(batch)
    part = tmp_path / "run" / "history" / "000001.parquet"
    part.write_bytes(part.read_bytes()[:100])
    assert "000001.parquet is corrupt" in refused(capsys, "resume", "run")
    assert part.stat().st_size == 100
    part.write_bytes(b"")
    assert "000001.parquet is corrupt" in refused(capsys, "resume", "run")


def test_unreachable_cluster(capsys, tmp_path):
    message = refused(capsys, "search", "maedet-tiny", "--resources.address", "127.0.0.1:9")
    assert "no Ray cluster at '127.0.0.1:9'" in message
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path):
    """With a limit on the size of files, which the system reports as it reports a full disk."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "from nasray.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "search", "maedet-tiny", "--folder", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("nasray: disk full while writing") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_agreement_tells_how_far_it_is(capsys):
    options = ["--architectures", "2", "--repeats", "2", "--max-gmacs", "1", "--min-gmacs", "0", "--workers", "1"]
    assert main(["agreement", "maedet-tiny", *options, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["num"] == 2
    assert captured.err.splitlines()[-1].startswith("agreement  2/2 100%  ")


def test_a_run_begun_from_python_cannot_be_continued_by_the_command_line(tmp_path, capsys):
    from nasray.cluster import RunFolder

    RunFolder.create(tmp_path / "run", {"space": "mine"})
    assert "begun from Python" in refused(capsys, "resume", "run")
    assert "begun from Python" in refused(capsys, "status", "run")


def test_how_far_a_run_is(tmp_path, capsys):
    from nasray.cluster import RunFolder, owned
    from nasray.experiment import describe_experiment

    assert "is no run" in refused(capsys, "status", "absent")
    run = RunFolder.create(tmp_path / "run", describe_experiment(load_plan("maedet-tiny").experiment))
    assert main(["status", "run"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split() for row in rows[:2]] == [
        ["stage", "work", "took", "left"],
        ["search", "0", "of", "2,048", "evaluations", "-", "?"],
    ]
    assert rows[-1] == "left of the run: ?"
    for batch in range(4):
        (run.history / f"{batch:06d}.parquet").touch()
    (run.path / "stages.json").write_text('{"search": {"seconds": 60.0, "sessions": 1}}')
    assert main(["status", "run"]) == 0
    told = capsys.readouterr()
    assert "512 of 2,048 evaluations  1:00  3:00" in told.out
    assert told.out.endswith("left of the run: 3:00\n")
    assert "nothing runs it now; `nasray resume run` continues" in told.err
    with owned(run.path):
        assert main(["status", "run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["is_running"]
    assert told["stages"] == [
        {"stage": "search", "is_done": False, "unit": "evaluations", "done": 512, "total": 2048, "seconds": 60.0,
         "left_s": 180.0}
    ]  # fmt: skip
