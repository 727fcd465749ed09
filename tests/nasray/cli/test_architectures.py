import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nasray.architectures import ARCHITECTURES
from nasray.cli import main
from nasray.models import build
from tests.nasray.cli.common import figures, refused
from tests.nasray.models.detectors.toys import HEAD, toys  # noqa: F401


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


def test_cost_says_what_it_is_of(capsys):
    assert figures(capsys, "cost", "resnet18")["convention"]["scope"] == "backbone"
    shown = figures(capsys, "cost", "msnas-r18-1", "resnet18", "--image-size", "832x1280")
    assert shown["convention"]["scope"] == "encoder and RPN; backbone"
    assert shown["architectures"][0]["gmacs"] == 145.84663392


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


def test_export_refuses_odd_targets(capsys):
    assert "no checkpoint at maedet-m" in refused(capsys, "export", "maedet-m", "--to", "model.onnx")
    assert "there is no folder" in refused(capsys, "export", "maedet-m", "--to", "no/such/folder.py")
    assert "cannot be imported" in refused(capsys, "export", "maedet-m", "--to", "1.py")
    assert "does not end in .py or .onnx or .pt2" in refused(capsys, "export", "maedet-m", "--to", "backbone.txt")
