"""A path's score is that of its own network, with statistics of its own, whatever was evaluated before."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

from nasray.architectures import slots
from nasray.checkpoint import Checkpoint
from nasray.data import EvaluationLoader, open_data
from nasray.data.order import CALIBRATION, divide, seed_sequence
from nasray.data.work import WorkQueue
from nasray.evaluation.coco import coco_metrics
from nasray.evaluation.predictions import predict
from nasray.evaluators import PathEvaluator
from nasray.extraction import extract_network
from nasray.models.detectors import DETECTORS
from nasray.models.supernets import supernet_architecture
from nasray.models.supernets.recalibration import recalibrate
from nasray.options import options_of
from nasray.recipe import Recipe as TrainingRecipe
from nasray.recipe_options import (
    AugmentationOptions,
    ClassifierOptions,
    LoaderOptions,
    OptimizerOptions,
    ScheduleOptions,
)
from nasray.spaces import FADSpace, NasrayError, ShuffleNetSpace
from nasray.training.jobs import train_here

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 1, 1, 1), image_hw=(64, 64))
DETECTION = TrainingRecipe(
    name="detect", batch_size=8, holdout=24, seed=3,
    detector=options_of(DETECTORS, "fcos", channels=16, num_convs=1, norm="batch"),
    augmentation=AugmentationOptions(short_side=(64,), long_side=64),
    loader=LoaderOptions(processes=0, cache=True),
    optimizer=OptimizerOptions(name="adamw", learning_rate=0.004, clip=10),
    schedule=ScheduleOptions(name="cosine", epochs=3, milestones=(), warmup_iterations=5),
)  # fmt: skip
CLASSIFICATION = dataclasses.replace(
    DETECTION, name="classify", task="classification", batch_size=32, classifier=ClassifierOptions(32, 0.2, 0.1),
    augmentation=AugmentationOptions(square=32), schedule=ScheduleOptions(name="constant", epochs=1, milestones=()),
)  # fmt: skip
ROWS = SPACE.sample(3, np.random.default_rng(0))


@pytest.fixture(scope="module")
def supernets(tmp_path_factory):
    """The checkpoints of a supernet as a detector and as a classifier."""
    folder = tmp_path_factory.mktemp("supernets")
    for recipe in (CLASSIFICATION, DETECTION):
        train_here(recipe, folder / recipe.name, supernet_architecture(SPACE))
    return {name: str(folder / name / "checkpoints" / "last.pt") for name in ("classify", "detect")}


@pytest.fixture(scope="module")
def evaluator(supernets):
    return PathEvaluator(SPACE, supernets["detect"], images=40)


def by_hand(checkpoint, row, *, measure="mAP"):
    """The metrics of a path, from its extracted network, with loaders of their own."""
    supernet = checkpoint.network()
    detector = copy.deepcopy(supernet)
    detector.backbone = supernet.backbone.extract(row)
    whole = open_data("shapes").split("train")
    kept, held = divide(checkpoint.recipe.seed, len(whole), 24)
    train = whole.select(kept)
    order = np.random.default_rng(seed_sequence(checkpoint.recipe.seed, CALIBRATION)).permutation(len(train))
    loaders = [
        EvaluationLoader(
            dataset,
            checkpoint.recipe.augmentation,
            batch_size=8,
            stride=32,
            options=LoaderOptions(0),
            with_targets=measure == "loss",
        )
        for dataset in (train.select(np.sort(order[:40])), whole.select(held))
    ]
    recalibrate(detector, (batch.images for batch in loaders[0]), 40, forward=detector.forward_raw)
    if measure == "loss":
        with torch.no_grad():
            losses = [detector.eval().loss(batch.images, batch.targets) for batch in loaders[1]]
        return np.mean([sum(loss.item() for loss in each.values()) for each in losses])  # batches of one size
    found = predict(detector.eval(), loaders[1], channels_last=True)
    return coco_metrics(whole.select(held), found).summary


def test_score_is_that_of_the_extracted_network(supernets, evaluator):
    metrics = evaluator(ROWS)
    checkpoint = Checkpoint.load(supernets["detect"])
    for index, row in enumerate(ROWS):
        expected = by_hand(checkpoint, row)
        assert metrics["score"][index] == pytest.approx(expected["mAP"], abs=1e-6)
        assert metrics["AP50"][index] == pytest.approx(expected["AP50"], abs=1e-6)
    assert len(set(metrics["score"].tolist())) > 1
    assert (metrics["score"] > 0).all()


def test_loss_is_that_of_the_extracted_network(supernets, evaluator):
    evaluator = dataclasses.replace(evaluator, measure="loss")
    metrics = evaluator(ROWS)
    assert set(metrics) == {"score", "loss"}
    checkpoint = Checkpoint.load(supernets["detect"])
    expected = [by_hand(checkpoint, row, measure="loss") for row in ROWS]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert (metrics["score"] == -metrics["loss"]).all()
    assert len(set(metrics["loss"].tolist())) == 3
    before, now = Checkpoint.load(supernets["detect"]).model, evaluator.loaded.network.state_dict()
    assert all(torch.equal(before[name], now[name]) for name in before)


def test_losses_depend_on_nothing_but_the_path_and_the_seed(supernets):
    for name in ("detect", "classify"):
        evaluator = PathEvaluator(SPACE, supernets[name], measure="loss", images=24, seed=5)
        expected = evaluator(ROWS)["loss"]
        assert (expected > 0).all()
        again = pickle.loads(pickle.dumps(evaluator))
        assert again(ROWS[[2, 0, 1]])["loss"].tolist() == expected[[2, 0, 1]].tolist()


def test_regions_are_sampled_by_seed_and_architecture(supernets, monkeypatch):
    """Whatever a loss draws: the same for a path wherever it is evaluated, another for each path and seed."""
    drawn = {}

    def sampled(self, images, targets, generator=None):
        return {"loss_drawn": torch.rand((), generator=generator)}

    monkeypatch.setattr(DETECTORS["fcos"], "loss", sampled)
    for seed in (0, 1):
        evaluator = PathEvaluator(SPACE, supernets["detect"], measure="loss", images=8, seed=seed)
        drawn[seed] = evaluator(ROWS)["loss"].tolist()
        assert evaluator(ROWS[[1]])["loss"].tolist() == drawn[seed][1:2]
    assert len({*drawn[0], *drawn[1]}) == 6


def test_an_unknown_measure_is_refused():
    with pytest.raises(NasrayError, match="measure is mAP or loss, got 'AP'"):
        PathEvaluator(SPACE, "x.pt", measure="AP")
    assert "negative loss" in PathEvaluator(SPACE, "x.pt", measure="loss").meaning


def test_score_depends_on_nothing_but_the_path(supernets, evaluator):
    expected = evaluator(ROWS)
    for name in ("other order", "another process"):
        fresh = pickle.loads(pickle.dumps(evaluator))
        assert fresh._loaded is None
        order = [2, 0, 1] if name == "other order" else [0, 1, 2]
        found = fresh(ROWS[order])
        assert {key: value.tolist() for key, value in found.items()} == {
            key: value[order].tolist() for key, value in expected.items()
        }


def test_weights_and_statistics_stay(supernets, evaluator):
    before = Checkpoint.load(supernets["detect"]).model
    evaluator(ROWS)
    now = evaluator.loaded.network.state_dict()
    assert before.keys() == now.keys()
    assert all(torch.equal(before[name], now[name]) for name in before)


def test_scores_are_the_same_however_images_are_kept(supernets, evaluator, monkeypatch):
    """In a file for all processes, in memory of this one, or not at all."""
    mapped, kept, anew = (
        dataclasses.replace(evaluator, disk_gib=disk, cache_gib=memory) for disk, memory in ((1, 0), (0, 1), (0, 0))
    )
    expected = mapped(ROWS[:2])["score"].tolist()
    assert kept(ROWS[:2])["score"].tolist() == anew(ROWS[:2])["score"].tolist() == expected
    for one, lengths, is_mapped in ((mapped, (3, 5), True), (kept, (3, 5), False), (anew, (None, None), False)):
        batches = (one.loaded.measured, one.loaded.calibration)
        assert tuple(each.kept and len(each.kept) for each in batches) == lengths
        assert all(each.is_mapped == is_mapped for each in batches)
    monkeypatch.setattr(WorkQueue, "__call__", None)
    assert pickle.loads(pickle.dumps(mapped))(ROWS[:1])["score"].tolist() == expected[:1], "nothing is loaded"


def test_paths_of_a_classifier_are_worth_their_accuracy(supernets):
    metrics = PathEvaluator(SPACE, supernets["classify"], images=64)(ROWS)
    assert set(metrics) == {"score", "top5"}
    assert ((metrics["score"] >= 0) & (metrics["score"] <= 1)).all()
    assert (metrics["top5"] == 1).all()  # of three classes
    right = metrics["score"] * 24
    assert right == pytest.approx(right.round())


def test_the_number_of_threads_is_the_evaluators():
    class Loaded:
        def evaluate(self, row):
            return {"score": float(torch.get_num_threads())}

    before = torch.get_num_threads()
    for threads in (1, 2):
        one = PathEvaluator(SPACE, "x.pt", threads=threads)
        one._loaded = Loaded()
        assert one(ROWS)["score"].tolist() == [threads] * 3
    assert torch.get_num_threads() == before


def test_another_space_is_refused(supernets):
    other = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 1, 1, 1), shuffle="even-odd")
    with pytest.raises(NasrayError, match="no supernet of this space"):
        PathEvaluator(other, supernets["detect"])(ROWS)


def test_checkpoints_of_supernets_and_classifiers_are_no_detectors(supernets):
    for name, text in (("classify", "of a classifier"), ("detect", "of a supernet")):
        with pytest.raises(NasrayError, match=text):
            Checkpoint.load(supernets[name]).detector()
    shared = Checkpoint.load(supernets["detect"], shared=True).network()
    plain = Checkpoint.load(supernets["detect"]).network()
    for (name, one), (_, other) in zip(shared.state_dict().items(), plain.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
        assert one.stride() == other.stride(), name


@pytest.mark.slow
def test_paths_of_a_relaxed_head_are_worth_what_their_detectors_are(tmp_path):
    """A head trained path by path on a backbone of the recipe; any searcher can search it."""
    space = FADSpace(channels=8, cells=1, operations="darts")
    recipe = dataclasses.replace(
        DETECTION,
        name="heads",
        backbone="basic-tiny",
        detector=options_of(DETECTORS, "fcos", channels=16, norm="batch"),
    )
    train_here(recipe, tmp_path / "heads", supernet_architecture(space))
    checkpoint = Checkpoint.load(tmp_path / "heads" / "checkpoints" / "last.pt")
    assert list(slots(checkpoint.architecture)) == ["backbone", "head"]
    evaluator = PathEvaluator(space, str(tmp_path / "heads"), images=40)
    rows = space.sample(3, np.random.default_rng(0))
    metrics = evaluator(rows)
    for row, score in zip(rows, metrics["score"], strict=True):
        detector = extract_network(evaluator.loaded.network, row, checkpoint)
        recalibrate(detector, evaluator.loaded.pixels(), 40, forward=detector.forward_raw)
        found = predict(detector, evaluator.loaded.measured, channels_last=True)
        assert score == pytest.approx(coco_metrics(evaluator.loaded.dataset, found).summary["mAP"], abs=1e-6)
    assert (metrics["score"] > 0).all()
    assert len(set(metrics["score"].tolist())) > 1
    assert evaluator(rows[[2, 0]])["score"].tolist() == metrics["score"][[2, 0]].tolist()
    with pytest.raises(NasrayError, match="no supernet of this space"):
        PathEvaluator(FADSpace(channels=8, cells=1), str(tmp_path / "heads"))(rows)


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_a_device_gives_a_path_the_score_of_the_cpu(supernets, device, exact_on_gpus):
    for name in ("detect", "classify"):
        expected, found = (
            PathEvaluator(SPACE, supernets[name], images=24, device=one)(ROWS) for one in ("cpu", device)
        )
        np.testing.assert_allclose(found["score"], expected["score"], atol=0.05)


def test_precision_is_that_of_statistics_detections_and_losses(supernets, evaluator):
    whole, half = (dataclasses.replace(evaluator, images=8, precision=name) for name in (None, "bfloat16"))
    exact, found = (one(ROWS[:1])["score"][0] for one in (whole, half))
    assert 0 < abs(found - exact) < 0.1
    states = [one.loaded.standalone(ROWS[0]).state_dict() for one in (whole, half)]
    for name, value in states[0].items():
        assert states[1][name].dtype == value.dtype, name
        if name.startswith("backbone") and name.endswith("running_var"):
            assert not torch.equal(states[1][name], value)
            torch.testing.assert_close(states[1][name], value, rtol=0.1, atol=0.01)
    losses = [dataclasses.replace(one, measure="loss")(ROWS[:1])["loss"][0] for one in (whole, half)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


def test_an_unknown_precision_is_refused():
    with pytest.raises(NasrayError, match="precision is one of float32, bfloat16, float16; got 'half'"):
        PathEvaluator(SPACE, "x.pt", precision="half")
    assert "computed in float16." in PathEvaluator(SPACE, "x.pt", precision="float16").meaning
