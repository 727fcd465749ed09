"""A path taken out of its supernet is the same network, has the score of the search, and is an ordinary checkpoint."""

import dataclasses
import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from nasray import cli
from nasray.architectures import ARCHITECTURES, slots
from nasray.checkpoint import Checkpoint, make_network
from nasray.cluster import RunFolder
from nasray.cluster.leaders import make_entry
from nasray.data import EvaluationLoader, open_data
from nasray.data.order import divide
from nasray.detector_export import evaluation_hw, file_description
from nasray.evaluation import evaluate_checkpoint
from nasray.evaluators import PathEvaluator
from nasray.experiment import describe_experiment
from nasray.export_check import detection_differences
from nasray.latency import front
from nasray.loading import parse_plan
from nasray.models.detectors import DETECTORS
from nasray.models.supernets import supernet_architecture
from nasray.models.supernets.base import supernet_of
from nasray.options import options_of
from nasray.recipe import PATH, Recipe
from nasray.recipe_options import (
    AugmentationOptions,
    LoaderOptions,
    OptimizerOptions,
    ScheduleOptions,
)
from nasray.searchers import Objective
from nasray.spaces import Budget, FADSpace, NasrayError, OFAResNetSpace, ShuffleNetSpace
from nasray.subnets import fingerprint, has_supernet, path_evaluator, subnet, trained_checkpoint
from nasray.training import try_out
from nasray.training.jobs import train_here

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = {"name": "shufflenet", "stem_width": 8, "widths": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}
DETECTION = Recipe(
    name="detect", batch_size=8, holdout=24, seed=3,
    detector=options_of(DETECTORS, "fcos", channels=16, num_convs=1, norm="batch"),
    augmentation=AugmentationOptions(short_side=(64,), long_side=64),
    loader=LoaderOptions(processes=0, cache=True),
    optimizer=OptimizerOptions(name="adamw", learning_rate=0.004, clip=10),
    schedule=ScheduleOptions(name="cosine", epochs=2, milestones=(), warmup_iterations=5),
)  # fmt: skip

MEASURED = {"median_ms": 1.0, "spread_ms": 0.1, "min_ms": 1.0, "fps": 1000.0, "reference_ms": [[4.9, 5.0, 5.1]]}

# ---- of a run ----------------------------------------------------------------------------------------------------


def costs_of(space, row):
    return {name: values[0] for name, values in space.cost(row[None]).items()}


def searched_run(folder, space, options, recipe=DETECTION):
    """A finished run with a supernet and no trained winner, as a search leaves it."""
    content = {"name": "n", "evaluations": 3, "batch_size": 1, "space": options, "searcher": {"name": "random"}}
    if space.resolutions:
        (side, _), own = space.resolutions[-1], {key: value for key, value in options.items() if key != "name"}
        augmentation = AugmentationOptions(short_side=(side,), long_side=side)
        recipe = dataclasses.replace(recipe, augmentation=augmentation, space={"name": options["name"], **own})
    train_here(recipe, folder / "supernet", supernet_architecture(space))
    weights = str(folder / "supernet" / "checkpoints" / "last.pt")
    content |= {"evaluator": {"name": "path", "images": 40, "supernet": weights}}
    run = RunFolder.create(folder / "run", describe_experiment(parse_plan(content, "test").experiment))
    rows = space.sample(3, np.random.default_rng(0))
    if space.resolutions:  # the same network at each, and another one
        rows[1, :-1], rows[:2, -1] = rows[0, :-1], [size[0] for size in space.resolutions]
    metrics = PathEvaluator(space, weights, images=40)(rows)
    entries = [
        make_entry(space, row, index, {name: values[index] for name, values in metrics.items()}, costs_of(space, row))
        for index, row in enumerate(rows)
    ]
    entries.sort(key=lambda entry: -entry.metrics["score"])
    objectives = [{"name": "score", "direction": "max"}]
    best = [entry.to_json() for entry in entries]
    run.write_best({"objectives": objectives, "evaluations": 3, "finished": True, "best": best})
    assert len(set(metrics["score"].tolist())) > 1
    return run


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    space = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 1, 1, 1))
    return searched_run(tmp_path_factory.mktemp("searched"), space, SPACE)


@pytest.fixture(scope="module")
def elastic(tmp_path_factory):
    options = {"name": "ofa-resnet", "size": "tiny", "image_hw": [64, 64]}
    return searched_run(tmp_path_factory.mktemp("elastic"), OFAResNetSpace("tiny", image_hw=(64, 64)), options)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """A run whose architectures are paths of a relaxed head of operations that share nothing."""
    options = {"name": "fad", "channels": 8, "cells": 1, "operations": "darts"}
    detector = options_of(DETECTORS, "fcos", channels=16)
    recipe = dataclasses.replace(DETECTION, backbone="basic-tiny", detector=detector)
    space = FADSpace(channels=8, cells=1, operations="darts")
    return searched_run(tmp_path_factory.mktemp("heads"), space, options, recipe)


@pytest.mark.slow
def test_a_head_is_taken_out_with_the_backbone_that_it_stands_on(heads, tmp_path, capsys):
    winner = heads.read_entries()[0]
    assert cli.main(["evaluate", str(heads.path), "--split", "held", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["coco"]["mAP"] == winner.metrics["score"]
    checkpoint = Checkpoint.load(trained_checkpoint(heads.path))
    assert slots(checkpoint.architecture) == {"backbone": ARCHITECTURES["basic-tiny"], "head": winner.architecture}
    assert (checkpoint.recipe.backbone, checkpoint.recipe.head) == ("basic-tiny", winner.id)
    assert cli.main(["export", str(heads.path), "--to", str(tmp_path / "model.onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["detections"] > 0
    assert_onnx_finds_the_same(tmp_path / "model.onnx", checkpoint)


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    options = {"name": "ofa-resnet", "size": "tiny", "image_hw": [96, 96], "resolutions": [[64, 64], [96, 96]]}
    space = OFAResNetSpace("tiny", image_hw=(96, 96), resolutions=((64, 64), (96, 96)))
    return searched_run(tmp_path_factory.mktemp("resolved"), space, options)


@pytest.mark.slow
def test_a_path_has_its_resolution_in_whatever_is_made_of_it(resolved, tmp_path, capsys):
    """Evaluated, counted and exported without a word about sizes; what the search printed is met."""
    entries, sizes = resolved.read_entries(), []
    for entry in entries:
        file = tmp_path / f"{entry.id}.pt"
        subnet(resolved, entry, file)
        checkpoint = Checkpoint.load(file)
        size = tuple(entry.architecture.spec["resolution"])
        assert checkpoint.architecture == entry.architecture
        assert checkpoint.recipe.augmentation.evaluation_sides == size
        found = evaluate_checkpoint(checkpoint, split="held")["coco"]
        assert found["mAP"] == pytest.approx(entry.metrics["score"], abs=1e-6)
        assert found["AP50"] == pytest.approx(entry.metrics["AP50"], abs=1e-6)
        assert cli.main(["cost", str(file), "--json"]) == 0
        cost = json.loads(capsys.readouterr().out)
        assert cost["convention"]["image_hw"] == list(size)
        assert cost["architectures"][0]["gmacs"] == entry.costs["gmacs"]
        sizes.append(size)
    assert set(sizes) == {(64, 64), (96, 96)}
    low, high = (entries[sizes.index(size)] for size in ((64, 64), (96, 96)))
    assert low.metrics != high.metrics
    assert cli.main(["cost", str(tmp_path / f"{low.id}.pt"), "--image-size", "96x96", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["convention"]["image_hw"] == [96, 96]
    checkpoint = Checkpoint.load(tmp_path / f"{low.id}.pt")
    assert json.loads(file_description(checkpoint, {}, False)["resize"]) == {"short_side": 64, "long_side": 64}
    assert evaluation_hw(checkpoint) == (48, 64), "the example of an export, of 480x640"


def test_a_front_shows_resolutions_and_measures_each_at_its_own(resolved, capsys, monkeypatch):
    found = []

    def measure(network, setting):
        found.append(setting.image_hw)
        return {**MEASURED, "median_ms": float(setting.image_hw[0])}

    monkeypatch.setattr(front, "prepared", lambda network, setting: network)
    monkeypatch.setattr(front, "measure_program", measure)
    sizes = [tuple(entry.architecture.spec["resolution"]) for entry in resolved.read_entries()]
    assert cli.main(["front", str(resolved.path), "--latency", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert found == sizes
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    rows = [lines[entry.id] for entry in resolved.read_entries()]
    assert [(row[-4], row[-3]) for row in rows] == [(f"{side}x{side}", str(side)) for side, _ in sizes]
    assert "each at its resolution" in text
    assert cli.main(["front", str(resolved.path), "--latency", "--device", "cpu", "--json"]) == 0
    latency = json.loads(capsys.readouterr().out)["latency"]
    assert list(latency["image_hws"].values()) == [list(size) for size in sizes]
    assert len(found) == len(sizes), "nothing is measured twice"
    assert cli.main(["front", str(resolved.path), "--latency", "--device", "cpu", "--image-size", "32x32"]) == 0
    assert found[len(sizes) :] == [(32, 32)] * len(sizes)


def test_latency_of_a_run_is_that_of_what_its_front_measures(resolved, capsys, monkeypatch):
    found = []

    def measure(network, image_hw, **setting):
        found.append((supernet_of(network), type(network).__name__, image_hw))
        return dict(MEASURED)

    monkeypatch.setattr("nasray.latency.architecture.measure", measure)
    entries = resolved.read_entries()
    cheapest = min(entries, key=lambda entry: entry.costs["gmacs"])
    run, bound = str(resolved.path), ["--budget.gmacs", repr(cheapest.costs["gmacs"])]
    assert cli.main(["latency", run, *bound, "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scope"] == "detector fcos"
    assert cli.main(["latency", run, "--device", "cpu"]) == 0
    assert cli.main(["latency", run, "--device", "cpu", "--image-size", "32x64"]) == 0
    sizes = [tuple(entry.architecture.spec["resolution"]) for entry in (cheapest, entries[0])]
    assert found == [(None, "FCOS", size) for size in [*sizes, (32, 64)]]
    assert cli.main(["latency", run, "--device", "cpu", "--table"]) == 2
    assert "--table is for backbones" in capsys.readouterr().err


def test_a_subnet_has_the_figures_of_the_search(searched, tmp_path):
    # The best one and the last one: what was evaluated in between changes nothing.
    for entry in (searched.read_entries()[0], searched.read_entries()[2]):
        torch.set_num_threads(2)
        checkpoint = subnet(searched, entry, tmp_path / f"{entry.id}.pt")
        loaded = Checkpoint.load(tmp_path / f"{entry.id}.pt")
        assert loaded.architecture == checkpoint.architecture == entry.architecture
        assert loaded.recipe.backbone == entry.id
        assert loaded.recipe.paths == PATH.make_default()
        torch.set_num_threads(2)  # which moves the last digits of sums; the search computes with one
        try:
            found = evaluate_checkpoint(loaded, split="held")
        finally:
            torch.set_num_threads(1)
        assert found["images"] == 24
        assert found["coco"]["mAP"] == entry.metrics["score"]
        assert found["coco"]["AP50"] == entry.metrics["AP50"]


def test_a_subnet_is_taken_out_once_for_each_supernet(searched, tmp_path, monkeypatch):
    entry, file = searched.read_entries()[0], tmp_path / "subnet.pt"
    subnet(searched, entry, file)
    first = file.stat().st_mtime_ns
    subnet(searched, entry, file)
    assert file.stat().st_mtime_ns == first
    weights = searched.path.parent / "supernet" / "checkpoints" / "last.pt"
    kept = weights.read_bytes()
    other = Checkpoint.load(weights)
    print_before = fingerprint(weights)
    next(iter(other.model.values())).add_(1.0)
    try:
        weights.unlink()  # best.pt may be the same file
        other.save(weights)
        assert fingerprint(weights) != print_before
        subnet(searched, entry, file)
    finally:
        weights.unlink()
        weights.write_bytes(kept)
    assert file.stat().st_mtime_ns != first
    assert fingerprint(weights) == print_before


def test_commands_take_a_run_whose_winner_was_not_trained(searched, tmp_path, capsys):
    winner = searched.read_entries()[0]
    file = searched.path / "subnets" / f"{winner.id}.pt"
    assert cli.main(["evaluate", str(searched.path), "--split", "held", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["coco"]["mAP"] == winner.metrics["score"]
    assert trained_checkpoint(searched.path) == file
    assert cli.main(["export", str(searched.path), "--to", str(tmp_path / "backbone.py"), "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert (exported["checkpoint"], exported["max_difference"]) == (str(file), 0)
    model = Checkpoint.load(file).model
    weights = torch.load(tmp_path / "backbone.weights.pt", weights_only=True)
    assert all(torch.equal(value, model[f"backbone.{name}"]) for name, value in weights.items())
    assert cli.main(["export", str(searched.path), "--to", str(tmp_path / "model.pt2"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["max_difference"] < 1e-3


def test_a_budget_chooses_another_of_the_best(searched, tmp_path, capsys):
    entries = searched.read_entries()
    costs = [entry.costs["gmacs"] for entry in entries]
    bound = repr(min(costs))
    smallest = entries[costs.index(min(costs))]
    assert smallest is not entries[0], "the winner is the smallest anyway"
    assert cli.main(["evaluate", str(searched.path), "--split", "held", "--budget.gmacs", bound, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["coco"]["mAP"] == smallest.metrics["score"]
    file = tmp_path / "backbone.py"
    assert cli.main(["export", str(searched.path), "--to", str(file), "--budget.gmacs", bound, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"].endswith(f"{smallest.id}.pt")
    Image.fromarray(np.full((48, 64, 3), 128, dtype=np.uint8)).save(tmp_path / "image.png")
    where = ["--to", str(tmp_path / "found.png")]  # the bound is none of the images, wherever it stands
    assert cli.main(["predict", str(searched.path), "--budget.gmacs", bound, str(tmp_path / "image.png"), *where]) == 0
    assert (tmp_path / "found.png").is_file()
    capsys.readouterr()
    for arguments, message in (
        (["--budget.gmacs", "1e-9"], "none of the 3 best architectures is within"),
        (["--budget.watts", "1"], "this run has no such cost"),
        (["--splitt", "held"], "unrecognized option '--splitt'; did you mean '--split'"),
    ):
        assert cli.main(["evaluate", str(searched.path), *arguments]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["evaluate", str(searched.path / "best.json"), "--budget.gmacs", "1"]) == 2
    assert "a budget chooses among the best of a run" in capsys.readouterr().err


def test_the_best_within_a_budget_is_trained_on_from_the_weights_of_its_supernet(resolved, capsys, monkeypatch):
    told = []

    def begin(recipe, folder, architecture, **_):
        told.append((try_out(recipe, architecture), folder))
        return {"iterations": 1, "best": {"mAP": 0.5}, "iteration": 1}

    monkeypatch.setattr("nasray.training.begin_training", begin)
    run, weights = resolved.path, resolved.path.parent / "supernet" / "checkpoints" / "last.pt"
    entry = min(resolved.read_entries(), key=lambda entry: entry.costs["gmacs"])
    bound = ["--budget.gmacs", repr(entry.costs["gmacs"])]
    assert cli.main(["train", str(run), *bound, "--data", "shapes", "--weights", str(weights), "--json"]) == 0
    (description, folder), size = told[0], entry.architecture.spec["resolution"]
    assert description.architecture == entry.architecture
    assert (description.recipe.weights, folder) == (str(weights), str(run / f"train-{entry.id}"))
    assert (description.recipe.augmentation.short_side, description.recipe.augmentation.long_side) == ((size[0],), 64)
    assert cli.main(["train", "resnet18", "--budget.gmacs", "1"]) == 2
    assert "a budget chooses among the best of a run" in capsys.readouterr().err


def test_a_path_of_an_elastic_supernet_is_evaluated_by_its_budget(elastic, capsys):
    entries = elastic.read_entries()
    for entry in entries:  # budgets that only one of them, or a better one, meets
        bound = ["--budget.gmacs", repr(entry.costs["gmacs"])]
        wanted = next(one for one in entries if one.costs["gmacs"] <= entry.costs["gmacs"])
        assert cli.main(["evaluate", str(elastic.path), "--split", "held", *bound, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["coco"]
        assert found["mAP"] == pytest.approx(wanted.metrics["score"], abs=1e-6)
        assert found["AP50"] == pytest.approx(wanted.metrics["AP50"], abs=1e-6)


@pytest.mark.slow
def test_what_is_exported_of_an_elastic_supernet_finds_the_same(elastic, tmp_path, capsys):
    bound = ["--budget.gmacs", repr(min(entry.costs["gmacs"] for entry in elastic.read_entries()))]
    assert cli.main(["export", str(elastic.path), "--to", str(tmp_path / "backbone.py"), *bound, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["max_difference"] == 0
    file = tmp_path / "model.onnx"
    assert cli.main(["export", str(elastic.path), "--to", str(file), *bound, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["detections"] > 0
    assert_onnx_finds_the_same(
        file, Checkpoint.load(trained_checkpoint(elastic.path, Budget({"gmacs": float(bound[1])})))
    )


def assert_onnx_finds_the_same(file, checkpoint):
    """On the images that the search looked at, by ONNX Runtime alone."""
    session, detector = onnxruntime.InferenceSession(str(file)), checkpoint.detector()
    recipe = checkpoint.recipe
    whole = open_data(recipe.data).split("train")
    _, held = divide(recipe.seed, len(whole), recipe.holdout)
    num = 0
    for batch in EvaluationLoader(whole.select(held[:8]), recipe.augmentation, batch_size=1, stride=detector.stride):
        with torch.no_grad():
            ours = [part[0] for part in detector(batch.images) if part is not None]
        theirs = [torch.from_numpy(part)[0] for part in session.run(None, {"images": batch.images.float().numpy()})]
        distances, score = detection_differences(ours, theirs)
        assert score <= 1e-4
        assert distances.numel() == 0 or float(distances.max()) <= 1e-3
        num += len(distances)
    assert num > 8


def test_latency_is_that_of_the_networks_by_themselves(elastic, monkeypatch):
    found = []

    def measure(network, setting):
        found.append((supernet_of(network), setting.image_hw, sum(value.numel() for value in network.parameters())))
        return dict(MEASURED)

    monkeypatch.setattr(front, "prepared", lambda network, setting: network)
    monkeypatch.setattr(front, "measure_program", measure)
    entries = elastic.read_entries()
    result = front.measure_front(elastic, entries, device="cpu")
    assert result.what == "detector fcos"
    for entry, (supernet, image_hw, num) in zip(entries, found, strict=True):
        alone = make_network(DETECTION, entry.architecture, 3)
        assert (supernet, image_hw) == (None, (48, 64)), "of 480x640, resized as the recipe says"
        assert num == sum(value.numel() for value in alone.parameters())


def test_a_subnet_is_evaluated_in_the_precision_of_the_search(searched, tmp_path, monkeypatch):
    evaluator = dataclasses.replace(path_evaluator(searched), precision="bfloat16")
    monkeypatch.setattr("nasray.subnets.path_evaluator", lambda run: evaluator)
    entry = searched.read_entries()[0]
    checkpoint = subnet(searched, entry, tmp_path / "subnet.pt")
    score = evaluator(evaluator.space.from_architecture(entry.architecture)[None])["score"][0]
    assert evaluate_checkpoint(checkpoint, split="held")["coco"]["mAP"] == pytest.approx(score, abs=1e-6)
    assert score != entry.metrics["score"]


def test_accuracy_beside_latency_is_that_of_what_is_measured(searched):
    """In bfloat16 it is another than the search's; what the search itself evaluated is not evaluated again."""
    entries = searched.read_entries()[:1]
    assert "mAP" not in front.measure_front(searched, entries, device="cpu").rows[entries[0].id]
    found = front.measure_front(searched, entries, device="cpu", dtype="bfloat16").rows[entries[0].id]
    score = entries[0].metrics["score"]
    assert 0 < abs(found["mAP"] - score) < 0.5 * score


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("int8", 0.3)])
def test_accuracy_of_an_exported_detector(searched, dtype, tolerance):
    """Images are as large as the stride demands, so that float32 has the score of the search."""
    entries = searched.read_entries()[:1]
    found = front.measure_front(searched, entries, device="cpu", runtime="onnxruntime", dtype=dtype, threads=1)
    row, score = found.rows[entries[0].id], entries[0].metrics["score"]
    assert abs(row["mAP"] - score) <= tolerance * score
    assert row["median_ms"] > 0
    assert front.fast_front(entries, Objective("score"), found).all()


def test_a_search_with_an_evaluator_of_its_own_has_a_supernet(tmp_path):
    evaluators = {"entropy": {"name": "entropy"}, "path": {"name": "path", "supernet": "x"}}
    for number, (top, own, wanted) in enumerate(
        (("entropy", "path", True), ("path", "entropy", False), ("path", None, True), ("entropy", None, False))
    ):
        stage = {"kind": "search", "evaluator": own and evaluators[own]}
        content = {"experiment": {"evaluator": evaluators[top], "stages": {"search": stage}}}
        assert has_supernet(RunFolder.create(tmp_path / str(number), content).path) is wanted


def test_held_images_are_those_of_a_training_that_held_some(searched, tmp_path):
    checkpoint = Checkpoint.load(trained_checkpoint(searched.path))
    with pytest.raises(NasrayError, match="held is a part of the training's own data"):
        evaluate_checkpoint(checkpoint, data="shapes", split="held")
    checkpoint.recipe = Recipe(name="none")
    with pytest.raises(NasrayError, match=r"kept no images apart .*Choose --split val"):
        evaluate_checkpoint(checkpoint, split="held")


def test_a_run_that_is_not_finished_has_no_winner_yet(searched, tmp_path):
    run = RunFolder.create(tmp_path / "run", searched.description())
    with pytest.raises(NasrayError, match=r"the search in .* is not finished"):
        trained_checkpoint(run.path)
    zero_shot = RunFolder.create(tmp_path / "other", {"experiment": {"evaluator": {"name": "entropy"}}})
    with pytest.raises(NasrayError, match="no checkpoint at"):
        trained_checkpoint(zero_shot.path)
