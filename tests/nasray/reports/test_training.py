from __future__ import annotations

import json

import pytest
import torch

from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint, make_network
from nasray.cli import main
from nasray.data import open_data
from nasray.recipe import load_recipe, override_recipe
from nasray.reports.training import training_figures, write_training_report
from nasray.training.folder import Description, create_folder
from tests.nasray.reports.common import write_training

CLASSIFICATION = {"task": "classification", "augmentation": load_recipe("shapes-classify").augmentation}


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A training of a detector with made-up curves, whose checkpoint has fresh weights."""
    folder = tmp_path_factory.mktemp("training") / "train"
    architecture = ARCHITECTURES["basic-tiny"]
    recipe = override_recipe(load_recipe("shapes-detect-tiny"), ["--detector.channels", "16"])
    data = open_data(recipe.data).split("val")
    write_training(folder, architecture, 0.25)
    (folder / "recipe.yaml").unlink()
    moved = folder.rename(folder.with_name("moved"))
    create_folder(folder, Description(recipe, architecture, data.classes, data.category_ids))
    for name in ("summary.json", "log.jsonl"):
        (moved / name).rename(folder / name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = make_network(recipe, architecture, len(data.classes))
    Checkpoint(recipe, architecture, data.classes, data.category_ids, network.state_dict(), iteration=20).save(
        folder / "checkpoints" / "last.pt"
    )
    return folder


def test_a_training_has_a_page_with_curves_classes_and_pictures(detector, capsys):
    assert main(["report", str(detector)]) == 0
    page = detector / "report" / "report.html"
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text()
    for part in (
        "<h1>train</h1>", "mAP 0.2500 on the split val, in the best of its validations, after 20 iterations",
        "basic-tiny", "Detector gfl",
        "3 classes of shapes: rectangle", "<h2>Over time</h2>", "<h2>Class by class</h2>",
        "<h2>Detections beside the truth</h2>", "nasray predict", "data:image/jpeg",
    ):  # fmt: skip
        assert part in text, part
    assert "<script" not in text
    names = {path.stem for path in page.parent.glob("*.png")}
    assert names == {"metrics", "losses", "precision-recall", "sizes"}


def test_its_json_has_the_same_figures(detector, capsys):
    assert main(["report", str(detector), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["training"]["best"] == {"iteration": 20, "mAP": 0.25}
    assert [line["metrics"]["mAP"] for line in figures["validations"]] == [0.125, 0.25]
    assert {row["class"] for row in figures["classes"]} == set(open_data("shapes").split("val").classes)
    assert figures["coco"].keys() >= {"mAP", "AP_small", "AR_100"}


def test_one_that_goes_on_says_how_far_it_is(tmp_path):
    folder = write_training(tmp_path / "train", ARCHITECTURES["maedet-s"], 0.25)
    (folder / "summary.json").unlink()
    figures = training_figures(folder)
    assert figures["training"] | {"folder": ""} == {
        "folder": "", "finished": False, "iterations": 20, "best": {"iteration": 20, "mAP": 0.25}, "recipe": "made",
        "architecture": ARCHITECTURES["maedet-s"].id,
    }  # fmt: skip
    text = write_training_report(folder).read_text()
    for part in ("The training is not finished", "nasray resume", "maedet-s, bottleneck blocks", "Not measured: "):
        assert part in text


def test_a_classifier_has_no_detections(tmp_path):
    folder = write_training(tmp_path / "train", ARCHITECTURES["resnet18"], 0.75, metric="top1", **CLASSIFICATION)
    text = write_training_report(folder).read_text()
    assert "top1 0.7500 on the split val" in text
    assert "Class by class" not in text
    assert "nasray train RECIPE --weights" in text


def test_one_that_was_never_validated_says_so(tmp_path):
    folder = write_training(tmp_path / "train", ARCHITECTURES["resnet18"], 0.5, metric="speed", **CLASSIFICATION)
    assert "Not known: it has not been validated." in write_training_report(folder).read_text()
