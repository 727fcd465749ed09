"""Backbones and heads as plain PyTorch files: with trained weights where there are any, without nasray."""

import dataclasses
import runpy
import subprocess
import sys

import numpy as np
import pytest
import torch

from nasray.architectures import ARCHITECTURES, compose, slots
from nasray.checkpoint import Checkpoint, make_network
from nasray.cluster import RunFolder
from nasray.export import export_module
from nasray.models.detectors import DETECTORS
from nasray.models.supernets import supernet_architecture
from nasray.options import options_of
from nasray.recipe import Recipe
from nasray.spaces import FADSpace, NasrayError, ShuffleNetSpace

pytestmark = pytest.mark.usefixtures("one_thread")
SHUFFLENET = ShuffleNetSpace(widths=(16, 24, 32, 40), depths=(1, 1, 1, 1), stem_width=8)
TRAINED = {"basic": ARCHITECTURES["basic-tiny"], "shufflenet": SHUFFLENET.to_architecture(np.zeros(4, dtype=np.int64))}


def save_checkpoint(path, architecture, detector="fcos", **options):
    """A detector whose batch norms have seen something."""
    options = {"num_convs": 1} if detector == "fcos" and "head" not in slots(architecture) else options
    recipe = Recipe(
        name="test", backbone="basic-tiny", detector=options_of(DETECTORS, detector, channels=16, **options)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector = make_network(recipe, architecture, 2)
        empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": torch.zeros(0, 64, 64)}
        detector.train()(255 * torch.rand(2, 3, 64, 64), [empty] * 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Checkpoint(recipe, architecture, ("a", "b"), (1, 2), detector.state_dict()).save(path)
    return detector.eval()


def save_run(folder, architecture):
    run = RunFolder.create(folder, {"experiment": {}})
    entry = {
        "id": architecture.id,
        "evaluation": 0,
        "metrics": {"score": 1.0},
        "costs": {},
        "architecture": {"family": architecture.family, "spec": architecture.spec},
    }
    objectives = [{"name": "score", "direction": "max"}]
    run.write_best({"objectives": objectives, "evaluations": 1, "finished": True, "best": [entry]})


@pytest.mark.parametrize("family", list(TRAINED))
def test_trained_weights_lie_beside_the_file(family, tmp_path):
    save_run(tmp_path / "run", TRAINED[family])
    detector = save_checkpoint(tmp_path / "run/train/checkpoints/best.pt", TRAINED[family])
    result = export_module(str(tmp_path / "run"), tmp_path / "backbone.py")
    assert result["weights"] == str(tmp_path / "backbone.weights.pt")
    assert result["checkpoint"].endswith("best.pt")
    assert result["max_difference"] == 0
    images = torch.linspace(0, 255, 3 * 90 * 130).reshape(1, 3, 90, 130)
    with torch.no_grad():
        expected = list(detector.backbone(detector.normalize(images)).values())
    torch.save([images, expected], tmp_path / "expected.pt")
    printed = run_without_nasray(
        tmp_path,
        "import runpy, backbone\n"
        "images, expected = torch.load('expected.pt')\n"
        "with torch.no_grad():\n"
        "    found = backbone.load()(backbone.normalize(images)).values()\n"
        "for ours, theirs in zip(found, expected, strict=True):\n"
        "    torch.testing.assert_close(ours, theirs)\n"
        "assert not backbone.load().training\n"
        "runpy.run_path('backbone.py', run_name='__main__')\n",
    )
    assert len(printed.splitlines()) == len(expected)


def run_without_nasray(folder, code):
    """Run lines of Python where neither nasray nor torchvision can be imported."""
    hidden = "import sys\nsys.modules['nasray'] = sys.modules['torchvision'] = None\nimport torch\n"
    done = subprocess.run(
        [sys.executable, "-c", hidden + code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("detector", [pytest.param("retinanet", marks=pytest.mark.slow), "mask-rcnn"])
def test_the_head_that_won_is_written_with_its_weights(detector, tmp_path):
    space = FADSpace(groups=1 if detector == "mask-rcnn" else 2, channels=8)
    head = space.to_architecture(space.sample(1, np.random.default_rng(0))[0])
    save_run(tmp_path / "run", head)
    whole = compose({"backbone": TRAINED["basic"], "head": head})
    trained = save_checkpoint(tmp_path / "run/train/checkpoints/best.pt", whole, detector)
    result = export_module(str(tmp_path / "run"), tmp_path / "head.py")
    assert (result["slot"], result["max_difference"]) == ("head", 0)
    assert result["checkpoint"].endswith("best.pt")
    network = trained.get_submodule(trained.slots["head"])
    level = torch.randn(2, 16, 14, 14, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = [network(level)] if detector == "mask-rcnn" else list(network.towers(level, 0))
    torch.save([level, expected], tmp_path / "expected.pt")
    call = "[head.load()(level)]" if detector == "mask-rcnn" else "head.load().towers(level, 0)"
    printed = run_without_nasray(
        tmp_path,
        "import runpy, head\n"
        "level, expected = torch.load('expected.pt')\n"
        "with torch.no_grad():\n"
        f"    found = {call}\n"
        "for ours, theirs in zip(found, expected, strict=True):\n"
        "    torch.testing.assert_close(ours, theirs)\n"
        "runpy.run_path('head.py', run_name='__main__')\n",
    )
    assert len(printed.splitlines()) == len(expected)
    backbone = export_module(str(tmp_path / "run/train"), tmp_path / "backbone.py")
    assert (backbone["slot"], backbone["max_difference"]) == ("backbone", 0)


def test_a_named_head_is_written_for_any_width(tmp_path):
    result = export_module("fad-paper", tmp_path / "head.py")
    assert (result["slot"], result["weights"]) == ("head", None)
    printed = run_without_nasray(
        tmp_path,
        "import head\n"
        "print(sum(value.numel() for value in head.build().parameters()))\n"
        "print([tuple(x.shape) for x in head.build(in_channels=32).towers(torch.rand(1, 32, 9, 7), 0)])\n",
    )
    # 4,169,493 with the predictions of FCOS (released code of FAD): 80 classes, 4 distances, centerness
    params = 4_169_493 - 9 * 256 * 85 - 85
    assert printed.split("\n")[:2] == [str(params), "[(1, 32, 9, 7), (1, 32, 9, 7)]"]


@pytest.mark.parametrize("what", ["resnet18", "run", "architecture.json"])
def test_what_was_not_trained_has_no_weights(what, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_run(tmp_path / "run", TRAINED["basic"])
    (tmp_path / "architecture.json").write_text(TRAINED["shufflenet"].text)
    result = export_module(what, tmp_path / "backbone.py")
    assert result["weights"] is None
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".json", ".py"}
    assert "load" not in runpy.run_path("backbone.py", run_name="__main__")
    assert "mean" in capsys.readouterr().out


def test_weights_of_another_architecture_are_not_the_winner_s(tmp_path):
    save_run(tmp_path / "run", TRAINED["shufflenet"])
    save_checkpoint(tmp_path / "run/train/checkpoints/best.pt", TRAINED["basic"])
    assert export_module(str(tmp_path / "run"), tmp_path / "winner.py")["weights"] is None
    assert "ShuffleNet" in (tmp_path / "winner.py").read_text()
    assert export_module(str(tmp_path / "run/train"), tmp_path / "trained.py")["weights"]
    assert export_module(str(tmp_path / "run/train/checkpoints/best.pt"), tmp_path / "trained.py")["weights"]


def test_mistakes(tmp_path):
    checkpoint = tmp_path / "last.pt"
    save_checkpoint(checkpoint, TRAINED["basic"])
    supernet = dataclasses.replace(Checkpoint.load(checkpoint), architecture=supernet_architecture(SHUFFLENET))
    supernet.save(checkpoint)
    (tmp_path / "empty").mkdir()
    for what, path, message in (
        (str(checkpoint), "backbone.py", "is of a supernet"),
        ("resnet18", "my-backbone.py", "writes a Python module"),
        ("resnet18", "no/backbone.py", "there is no folder"),
        ("resnet81", "backbone.py", "unknown architecture"),
        (str(tmp_path / "empty"), "backbone.py", "no checkpoint at"),
    ):
        with pytest.raises(NasrayError, match=message):
            export_module(what, tmp_path / path)
    assert not list(tmp_path.glob("*.py"))
