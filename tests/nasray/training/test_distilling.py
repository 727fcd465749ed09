"""A classifier learns from a teacher."""

import copy
import dataclasses

import pytest
import torch
from torch.nn import functional as F

from nasray.architectures import ARCHITECTURES
from nasray.checkpoint import Checkpoint, make_network
from nasray.cluster.training import Worker
from nasray.models.classifier import Classifier
from nasray.models.supernets import supernet_architecture
from nasray.recipe import Recipe
from nasray.recipe_options import (
    AugmentationOptions,
    ClassifierOptions,
    DistilOptions,
    LoaderOptions,
    OptimizerOptions,
    ScheduleOptions,
)
from nasray.spaces import NasrayError, OFAResNetSpace, ShuffleNetSpace
from nasray.training import setup, try_out
from nasray.training.distilling import load_teacher, probabilities_of
from nasray.training.folder import Description, create_folder
from nasray.training.loop import Loop

RECIPE = Recipe(
    name="x",
    task="classification",
    backbone="basic-tiny",
    batch_size=16,
    ema=0.5,
    classifier=ClassifierOptions(width=16, dropout=0.0),
    augmentation=AugmentationOptions(square=32),
    loader=LoaderOptions(processes=0, cache=True),
    optimizer=OptimizerOptions(learning_rate=0.05),
    schedule=ScheduleOptions(epochs=0.4, warmup_iterations=0),
    log_every=1,
    checkpoint_every=2,
)
BASIC = ARCHITECTURES["basic-tiny"]
OFA = supernet_architecture(OFAResNetSpace("tiny"))
CLASSES = ("rectangle", "circle", "triangle")


class BrokenError(Exception):
    """Stands for the end of a process."""


def saved(path, architecture=BASIC, recipe=RECIPE, classes=CLASSES, seed=5):
    torch.manual_seed(seed)
    network = make_network(recipe, architecture, len(classes))
    Checkpoint(recipe, architecture, classes, tuple(range(len(classes))), network.state_dict()).save(path)
    return network


def taught(path, **changes):
    return dataclasses.replace(RECIPE, distil=DistilOptions(teacher=str(path)), **changes)


def described(recipe, architecture=BASIC):
    return Description(recipe, architecture, CLASSES, (0, 1, 2))


def test_the_loss_is_the_cross_entropy_with_the_teachers_probabilities():
    torch.manual_seed(0)
    student, teacher = (make_network(RECIPE, BASIC, 3) for _ in range(2))
    images, labels = torch.rand(4, 3, 32, 32) * 255, torch.tensor([0, 1, 2, 0])
    teacher.eval()
    alone = student(images, labels)
    student.teacher, student.teacher_weight = probabilities_of(teacher), 0.5
    losses = student(images, labels)
    assert losses.keys() == {"loss_classes", "loss_teacher"}
    assert torch.equal(losses["loss_classes"], alone["loss_classes"])
    soft = teacher(images).softmax(dim=1)
    expected = -(soft * student(images).log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(losses["loss_teacher"], 0.5 * expected)
    losses["loss_teacher"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    # Nothing of the teacher is part of the student, nor of its copies.
    twin = copy.deepcopy(student)
    assert twin.teacher is student.teacher
    assert twin.state_dict().keys() == Classifier(student.backbone, 3, width=16).state_dict().keys()
    # The loss is least where the student has the teacher's probabilities.
    entropy = -(soft * soft.log()).sum(dim=1).mean()
    assert F.cross_entropy(teacher(images), soft).item() == pytest.approx(entropy.item(), rel=1e-5)
    assert expected > entropy


def test_a_supernet_teaches_by_its_largest_path(tmp_path):
    theirs = saved(tmp_path / "x.pt", OFA).eval()
    teacher = load_teacher(taught(tmp_path / "x.pt"), described(RECIPE))
    supernet = theirs.backbone
    supernet.set_path(supernet.largest)
    images = torch.rand(2, 3, 64, 64) * 255
    assert torch.equal(probabilities_of(teacher)(images), theirs(images).softmax(dim=1))
    assert not teacher.training
    assert load_teacher(RECIPE, described(RECIPE)) is None


def test_teachers_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(NasrayError, match="distil is of classification: detectors learn from labels alone"):
        Recipe(name="x", distil=DistilOptions(teacher="x.pt"))
    detection = Recipe(name="x", backbone="basic-tiny")
    cases = {
        "detector": (BASIC, detection, CLASSES, "is of a detector. Name the checkpoint of a classifier"),
        "classes": (BASIC, RECIPE, ("a", "b"), "knows 2 classes, and not those of the data set"),
        "order": (BASIC, RECIPE, CLASSES[::-1], "in the same order"),
        "choice": (supernet_architecture(ShuffleNetSpace("small")), RECIPE, CLASSES, "none of whose paths is the larg"),
    }
    for name, (architecture, recipe, classes, message) in cases.items():
        saved(tmp_path / f"{name}.pt", architecture, recipe, classes)
        with pytest.raises(NasrayError, match=message) as caught:
            load_teacher(taught(tmp_path / f"{name}.pt"), described(RECIPE))
        assert "\n" not in str(caught.value)
    with pytest.raises(NasrayError, match=r"none.pt"):
        try_out(taught(tmp_path / "none.pt"))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_training_with_a_teacher_goes_on_exactly(tmp_path, monkeypatch, log_of, same):
    saved(tmp_path / "teacher.pt")
    recipe = taught(tmp_path / "teacher.pt")
    after_step = Loop._after_step

    def break_down(loop):
        if loop.iteration == 3:
            raise BrokenError
        return after_step(loop)

    for name in ("whole", "broken"):
        folder = tmp_path / name
        description = try_out(recipe)
        create_folder(folder, description)
        if name == "broken":
            with monkeypatch.context() as patch:
                patch.setattr(Loop, "_after_step", break_down)
                with pytest.raises(BrokenError):
                    setup.train(recipe, folder, Worker())
        setup.train(recipe, folder, Worker())
    logs = [log_of(tmp_path / name) for name in ("whole", "broken")]
    assert logs[0] == logs[1]
    assert logs[0][0]["losses"].keys() == {"classes", "teacher"}
    one, other = (Checkpoint.load(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "broken"))
    assert same(one.model, other.model)
    assert one.model.keys() == make_network(RECIPE, BASIC, 3).state_dict().keys()
