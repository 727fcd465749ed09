"""Two workers compute what one does with all images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nasray.checkpoint import Checkpoint
from nasray.cluster.training import Worker
from nasray.data.shapes import write_shapes
from nasray.models.detectors import DETECTORS
from nasray.models.supernets import supernet_architecture
from nasray.options import options_of
from nasray.recipe_options import AugmentationOptions, OptimizerOptions, ScheduleOptions
from nasray.spaces import MSNASSpace, OFAResNetSpace, ShuffleNetSpace
from nasray.training import recipe_of_training, setup

DRIVE = Path(__file__).with_name("drive.py")


def train(folder, world):
    """Train in as many processes; one of them is this one if there is only one."""
    if world == 1:
        setup.train(recipe_of_training(folder), folder, Worker())
    else:
        processes = [
            subprocess.Popen([sys.executable, str(DRIVE), str(folder), str(rank), str(world)], stderr=subprocess.PIPE)
            for rank in range(world)
        ]
        errors = [process.communicate(timeout=200)[1].decode() for process in processes]
        assert not any(process.returncode for process in processes), errors
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


FCOS = options_of(DETECTORS, "fcos", channels=16, num_convs=1, norm="batch")
SUPERNET = supernet_architecture(ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 1, 1, 1)))
ELASTIC = supernet_architecture(OFAResNetSpace("tiny"))


@pytest.mark.parametrize(("detector", "architecture"), [
    (FCOS, None),
    pytest.param(FCOS, SUPERNET, marks=pytest.mark.slow),
    pytest.param(FCOS, ELASTIC, marks=pytest.mark.slow),
    pytest.param(options_of(DETECTORS, "gfl", channels=16, num_convs=1), None, marks=pytest.mark.slow),
    pytest.param(options_of(DETECTORS, "retinanet", channels=16, num_convs=1), None, marks=pytest.mark.slow),
], ids=["fcos", "supernet", "elastic", "gfl", "retinanet"])  # fmt: skip
def test_two_workers_are_one_with_the_doubled_batch(begin, tmp_path, one_thread, detector, architecture):
    # float64 would show equality to the last digits; in float32 rounding grows from step to step, so there are few;
    # of a fresh supernet it grows tenfold each, so there are two small ones, of an elastic one a single one.
    is_supernet = architecture is not None
    num = 1 if architecture == ELASTIC else 2 if is_supernet else 4
    changes = {
        "detector": detector,
        "channels_last": not is_supernet,  # for ShuffleNets convolutions round a hundred times more in NHWC
        "log_every": 1,
        "ema": 0.5,
        "schedule": ScheduleOptions(epochs=num / 10, name="constant", warmup_iterations=0 if is_supernet else 3),
        "optimizer": OptimizerOptions(learning_rate=0.001 if is_supernet else 0.02, clip=5.0),
    }
    logs, models = [], []
    for world in (1, 2):
        folder = tmp_path / str(world)
        begin(folder, architecture, **changes)
        logs.append(train(folder, world))
        models.append(Checkpoint.load(folder / "checkpoints" / "last.pt"))
    validations = [] if is_supernet else [num]  # a supernet is measured path by path, by whoever searches it
    assert [line["iteration"] for line in logs[0]] == [*range(1, num + 1), *validations]
    for one, two in zip(*logs, strict=True):
        assert one.keys() == two.keys()
        for name in one.get("losses", ()):
            assert two["losses"][name] == pytest.approx(one["losses"][name], rel=2e-4)
        if "grad_norm" in one:
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=2e-3)
        if "metrics" in one:
            assert two["metrics"]["mAP"] == pytest.approx(one["metrics"]["mAP"], abs=0.01)
    for state in ("model", "training"):
        weights = [vars(model)[state] for model in models]
        if state == "training":
            weights = [value["weights"] for value in weights]
        for name, value in weights[0].items():
            close = {"rtol": 0, "atol": 1e-6} if architecture == ELASTIC else {"rtol": 1e-3, "atol": 5e-4}
            torch.testing.assert_close(weights[1][name], value, **close, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("is_supernet", [False, True], ids=["encoder", "supernet"])
def test_norms_of_a_pyramid_are_synchronized(begin, tmp_path, one_thread, is_supernet):
    """MSNAS, section 4.1: in encoder and box head; with blocks that no head needs, and groups that have no regions."""
    write_shapes(tmp_path / "data", 60, image_hw=(64, 64))
    data = str(tmp_path / "data" / "data.yaml")
    space = MSNASSpace("tiny", blocks=6, stem_width=8, width=8)
    path = space.to_architecture([2, 1, 0, 2, 2, 0, 8, 8, 16, 16, 16])  # the last block is dead
    architecture = supernet_architecture(space) if is_supernet else path
    changes = {
        "detector": options_of(DETECTORS, "faster-rcnn", box_head="2conv1fc", norm="batch", separate_heads=True),
        "schedule": ScheduleOptions(epochs=0.17, name="constant", warmup_iterations=0),
        "optimizer": OptimizerOptions(learning_rate=1e-6),
        "augmentation": AugmentationOptions(short_side=(64,), long_side=64),
        "batch_size": 4,
        "log_every": 1,
        "data": data,
    }
    models = []
    for world in (1, 2):
        begin(tmp_path / str(world), architecture, **changes)
        assert len(train(tmp_path / str(world), world)) >= 2
        models.append(Checkpoint.load(tmp_path / str(world) / "checkpoints" / "last.pt").model)
    means = [name for name in models[0] if name.startswith("backbone.") and name.endswith("running_mean")]
    assert sum(bool(models[0][name].any()) for name in means) >= 13
    for name in means:  # regions are drawn by each worker, and so those of the box head differ
        torch.testing.assert_close(models[1][name], models[0][name], rtol=1e-3, atol=1e-4)
