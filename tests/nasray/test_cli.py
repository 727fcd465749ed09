"""Bad input: one message, exit status 2, nothing written or lost. And what the cheap commands print."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from nasray.architectures import ARCHITECTURES
from nasray.cli import main
from nasray.cluster.reading import parse_json
from nasray.experiment import experiment_names, load_experiment, parse_experiment
from nasray.models import build
from nasray.parts import make_searcher
from nasray.scores.ranking import rank_agreement
from nasray.spaces import NasrayError
from tests.nasray.detectors.toys import HEAD, toys  # noqa: F401


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NASRAY_RUNS", raising=False)


def refused(capsys, *arguments):
    """The one message of a command that is refused."""
    assert main(list(arguments)) == 2
    message = capsys.readouterr().err
    assert message.startswith("nasray: ")
    assert message.count("\n") == 1, "one line"
    return message


def figures(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return parse_json(capsys.readouterr().out, " ".join(arguments))  # NaN is no JSON


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
    from nasray.parts import make_evaluator

    experiment = load_experiment("maedet-tiny")
    search = OrderedSearch(make_searcher(experiment), evaluations=2048, batch_size=128, in_flight=2)
    recorder = Recorder(RunFolder.create(tmp_path / "run", describe_experiment(experiment)), search)
    search.fill()
    for index in range(3):
        for batch in search.receive(index, make_evaluator(experiment)(search.pending[index].genes)):
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


@pytest.mark.parametrize("size", ["800", "800x", "0x0", "8x8", "ax3"])
def test_image_sizes(capsys, size):
    if size == "800":
        assert main(["cost", "maedet-m", "--image-size", size]) == 0
    else:
        assert "HEIGHTxWIDTH" in refused(capsys, "cost", "maedet-m", "--image-size", size)


def test_unknown_architecture(capsys, tmp_path):
    assert "did you mean 'maedet-m'" in refused(capsys, "cost", "maedet-mm")
    (tmp_path / "a.json").write_text("{}")
    assert "holds no architecture" in refused(capsys, "cost", "a.json")


def test_cost_prints_the_papers_figures(capsys):
    names = ["maedet-s", "maedet-m", "maedet-l", "resnet50", "resnet101"]
    shown = figures(capsys, "cost", *names)
    assert shown["convention"]["image_hw"] == [800, 1280]
    # Sun et al., "MAE-DET", Table 1.
    paper = {"maedet-s": (48.7, 21.2), "maedet-m": (89.9, 25.8), "maedet-l": (152.9, 43.9)}
    paper |= {"resnet50": (83.6, 23.5), "resnet101": (159.5, 42.4)}
    for row in shown["architectures"]:
        gmacs, params_m = paper[row["name"]]
        assert row["gmacs"] == pytest.approx(gmacs, rel=0.01)
        assert row["gmacs_mmcv"] == pytest.approx(gmacs, rel=0.01)
        assert row["params_m"] == pytest.approx(params_m, rel=0.01)
    assert main(["cost", "maedet-m"]) == 0
    assert "89.93" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "recipe", "name"),
    [
        ("my model (2).json", None, "my-model-2-.json-gfl"),
        ("sub/_x.json", None, "x-gfl"),
        ("resnet18", None, "resnet18-gfl"),
        ("resnet18", "sub/mine.yaml", "mine"),
        ("resnet18", "maedet-fcos-3x", "maedet-fcos-3x"),
    ],
)
def test_a_training_has_a_name_whatever_the_file_is_called(tmp_path, what, recipe, name):
    from nasray.cli import make_parser
    from nasray.cli.detectors import train_recipe
    from nasray.cli.parsing import parse_arguments

    (tmp_path / "sub").mkdir()
    for file in ("my model (2).json", "sub/_x.json"):
        (tmp_path / file).write_text(ARCHITECTURES["basic-tiny"].text)
    (tmp_path / "sub" / "mine.yaml").write_text("seed: 3\n")
    arguments = ["train", what, *(["--recipe", recipe] if recipe else [])]
    assert train_recipe(parse_arguments(make_parser(), arguments)).name == name


@pytest.fixture
def trained(tmp_path):
    """The folder of a training whose detector is not the usual one."""
    from nasray.recipe import load_recipe, override_recipe
    from nasray.training.folder import Description, create_folder

    options = ["--detector.name", "fcos", "--detector.channels", "32", "--detector.num-convs", "1"]
    recipe = override_recipe(load_recipe("shapes-detect-tiny"), options)
    create_folder(tmp_path / "trained", Description(recipe, ARCHITECTURES["basic-tiny"], ("a", "b", "c"), (1, 2, 3)))
    return "trained"


def test_cost_counts_the_detector_that_was_trained(capsys, trained):
    from nasray.models.cost import detector_cost

    image = ["--image-size", "128x128"]
    shown = figures(capsys, "cost", trained, "--detector", "fcos", *image)
    expected = detector_cost(
        "fcos", ARCHITECTURES["basic-tiny"], (128, 128), num_classes=3, channels=32, num_convs=1
    )  # fmt: skip
    assert shown["detectors"][trained] == expected
    assert shown["convention"]["classes"] == {trained: 3}
    usual = detector_cost("fcos", ARCHITECTURES["basic-tiny"], (128, 128), num_classes=80)
    assert usual["head"]["params_m"] > 3 * expected["head"]["params_m"]
    assert figures(capsys, "cost", "basic-tiny", "--detector", "fcos", *image)["detectors"]["basic-tiny"] == usual
    other = figures(capsys, "cost", trained, "--detector", "retinanet", *image)["convention"]["classes"]
    assert other == {trained: 80}, "another detector than the one that was trained"
    assert figures(capsys, "cost", trained, *image)["architectures"][0]["params_m"] == pytest.approx(
        figures(capsys, "cost", "basic-tiny", *image)["architectures"][0]["params_m"]
    )


def test_heads_of_costs_and_trainings(capsys, tmp_path, toys):  # noqa: F811
    from nasray.cli import make_parser
    from nasray.cli.detectors import train_recipe
    from nasray.cli.parsing import parse_arguments

    (tmp_path / "head.json").write_text(HEAD.text)
    arguments = ("--detector", "fcos", "--image-size", "128x128")
    own, other = (
        figures(capsys, "cost", "basic-tiny", *arguments, *more)["detectors"]["basic-tiny"]
        for more in ((), ("--head", "head.json"))
    )
    assert own["backbone"] == other["backbone"]
    assert own["head"] != other["head"]
    assert main(["cost", "basic-tiny", "--head", "head.json"]) == 2
    assert "--head fills a slot of a detector: name the detector too" in capsys.readouterr().err
    message = refused(capsys, "train", "resnet50", "--backbone", "resnet18")
    assert "resnet50 and --backbone resnet18 fill the same slot" in message
    message = refused(capsys, "train", "head.json", "--detector", "fcos", "--head", "other.json")
    assert "head.json and --head other.json fill the same slot" in message
    assert "'centernet' has no slot for a head" in refused(
        capsys, "train", "basic-tiny", "--head", "head.json", "--detector", "centernet"
    )
    assert not Path("runs").exists()
    recipe = train_recipe(parse_arguments(make_parser(), ["train", "head.json", "--detector", "fcos"]))
    assert (recipe.backbone, recipe.head, recipe.detector.name) == ("resnet50", "head.json", "fcos")


@pytest.mark.parametrize("what", ["spaces", "searchers", "evaluators", "detectors", "experiments", "architectures"])
def test_list(capsys, what):
    assert len(figures(capsys, "list", what)) >= 4
    assert main(["list", what]) == 0


def test_list_of_a_parts_options(capsys):
    shown = figures(capsys, "list", "searchers", "evolution")
    assert shown["name"] == "evolution"
    assert shown["options"]["mutations_per_child"]["default"] == 1
    assert shown["options"]["parents"] == {
        "default": None, "required": False,
        "text": "Number of the best that may breed; a fifth of the population if left out.",
    }  # fmt: skip
    assert main(["list", "evaluators", "sampled-entropy"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("sampled-entropy: Multi-scale entropy by forward passes")
    assert '\nsize_factor "log-channels"\n    How the size of a feature map' in printed
    assert "One of log-channels, map-size, none." in printed
    assert "unknown searcher 'evolutoin'; did you mean 'evolution'" in refused(capsys, "list", "searchers", "evolutoin")
    assert "NAME is for spaces, searchers, evaluators, detectors" in refused(capsys, "list", "recipes", "x")


@pytest.mark.parametrize("name", experiment_names())
def test_every_shipped_experiment_loads_and_is_feasible(name):
    experiment = load_experiment(name)
    make_searcher(experiment).check_feasible()
    assert experiment.reference is None or experiment.reference in ARCHITECTURES


@pytest.mark.parametrize(
    "name", ["maedet-m", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet50", "mobilenet-v2"))]
)
def test_export_needs_no_nasray(capsys, tmp_path, name):
    shown = figures(capsys, "export", name, "--to", "exported.py")
    assert shown["max_difference"] == 0.0
    network = build(ARCHITECTURES[name]).eval()
    torch.save(network.state_dict(), "weights.pt")
    images = torch.rand(1, 3, 65, 97, generator=torch.Generator().manual_seed(3))
    torch.save(images, "images.pt")
    code = (
        "import sys; sys.modules['nasray'] = None\n"
        "import torch, exported\n"
        "network = exported.build().eval()\n"
        "network.load_state_dict(torch.load('weights.pt'))\n"
        "torch.save(dict(network(torch.load('images.pt'))), 'features.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with torch.no_grad():
        for level, ours in network(images).items():
            assert torch.equal(ours, torch.load("features.pt")[level])


def test_agreement_tells_how_far_it_is(capsys):
    options = ["--architectures", "2", "--repeats", "2", "--max-gmacs", "1", "--min-gmacs", "0", "--workers", "1"]
    assert main(["agreement", "maedet-tiny", *options, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["num"] == 2
    assert captured.err.splitlines()[-1].startswith("agreement  2/2 100%  ")


def test_export_refuses_odd_targets(capsys):
    assert "no checkpoint at maedet-m" in refused(capsys, "export", "maedet-m", "--to", "model.onnx")
    assert "there is no folder" in refused(capsys, "export", "maedet-m", "--to", "no/such/folder.py")
    assert "cannot be imported" in refused(capsys, "export", "maedet-m", "--to", "1.py")
    assert "does not end in .py or .onnx or .pt2" in refused(capsys, "export", "maedet-m", "--to", "backbone.txt")


def test_a_run_begun_from_python_cannot_be_continued_by_the_command_line(tmp_path, capsys):
    from nasray.cluster import RunFolder

    RunFolder.create(tmp_path / "run", {"space": "mine"})
    assert "begun from Python" in refused(capsys, "resume", "run")


def test_the_command_line_starts_without_ray_and_torch():
    code = (
        "import sys; from nasray.cli import main; main(['list', 'experiments', '--json']);"
        "sys.exit(str([name for name in ('ray', 'torch', 'matplotlib', 'optuna') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"


def test_overrides_reach_the_experiment():
    experiment = load_experiment("maedet-m", ["--budget.gmacs", "60", "--seed", "3"])
    assert (experiment.budget.gmacs, experiment.seed, experiment.budget.layers) == (60.0, 3, 91.0)
    with pytest.raises(NasrayError, match="sed"):
        parse_experiment({"name": "x", "sed": 1}, "x")


RANKED = {
    "architectures": [{"id": f"{n}", "mAP": n / 10, "supernet": n / 5} for n in range(3)],
    "agreement": {"supernet": rank_agreement(range(3), range(3))},
    "random": {"mean": 0.1, "sd": 0.1, "num": 3},
}


@pytest.fixture
def ranked(tmp_path, monkeypatch):
    (tmp_path / "runs" / "x" / "rank").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nasray.rank.rank_run", lambda *_, **__: RANKED)


@pytest.mark.usefixtures("ranked")
def test_rank_measures_where_matplotlib_is_missing(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["rank", "runs/x", "--architectures", "3"]) == 0
    printed = capsys.readouterr()
    assert "random architectures: mAP 0.1000 (sd 0.1000, 3 of them)" in printed.out
    assert "nasray: no pictures: a report's figures need matplotlib" in printed.err


@pytest.mark.usefixtures("ranked")
def test_rank_claims_nothing_of_three(capsys, monkeypatch):
    assert main(["rank", "runs/x", "--architectures", "3"]) == 0
    printed = capsys.readouterr().out
    assert "3 architectures are too few to say how predictors agree with training; at least 8 are needed" in printed
    assert "1.000" not in printed
    assert str(Path("runs/x/rank/rank.png")) in printed
    assert "agreement.png" not in printed
    many = {**RANKED, "architectures": RANKED["architectures"] * 4, "agreement": {
        "supernet": rank_agreement(range(12), range(12)), "zen": rank_agreement(range(5), range(5)),
    }}  # fmt: skip
    monkeypatch.setattr("nasray.rank.rank_run", lambda *_, **__: many)
    assert main(["rank", "runs/x"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert str(Path("runs/x/rank/agreement.png")) in lines
    assert any(line.split() == ["supernet", "1.000", "0.818", "to", "1.000", "1.000"] for line in lines)
    assert any(line.split() == ["zen", "-", "too", "few:", "5,", "at", "least", "8", "-"] for line in lines)


@pytest.mark.parametrize(
    ("command", "function", "advice"),
    [
        (["rank", "my runs/x", "--seed", "4"], "nasray.rank.rank_run",
         ". `nasray rank 'my runs/x' --architectures 12 --seed 4` continues"),
        (["resume", "begun"], "nasray.cluster.RunFolder.open", ". `nasray resume begun` continues"),
        (["search", "maedet-tiny", "--folder", "new"], "nasray.searching.search_experiment", ""),
        (["train", "shapes-detect", "--folder", "new"], "nasray.training.begin_training", ""),
        (["evaluate", "x.pt"], "nasray.checkpoint.Checkpoint.load", ""),
        (["job", "logs", "job-1", "--address", "http://head:8265"], "nasray.cluster.jobs.job_logs",
         ". The job goes on: `nasray job logs job-1 --address http://head:8265 --follow` prints its log"),
        (["job", "stop", "job-1", "--address", "http://head:8265"], "nasray.cluster.jobs.stop_job", ""),
        (["cost", "maedet-m"], "nasray.finding.find_architecture", ""),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_advice_after_an_interrupt_can_be_followed(command, function, advice, capsys, monkeypatch, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    Path("begun").mkdir()
    Path("begun/experiment.yaml").touch()
    Path("x.pt").touch()
    monkeypatch.setattr(function, interrupted)
    assert main(command) == 130
    assert capsys.readouterr().err.endswith(f"nasray: interrupted{advice}\n")
