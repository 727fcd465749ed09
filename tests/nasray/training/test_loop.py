"""The loop in this process, on the real detector, loader and data."""

import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nasray.checkpoint import Checkpoint, checkpoint_path
from nasray.cluster.training import Worker
from nasray.data import open_data
from nasray.data.image_files.pixels import PixelRules
from nasray.recipe_options import OptimizerOptions, ScheduleOptions
from nasray.spaces import NasrayError
from nasray.training import setup
from nasray.training.folder import drop_damaged_summary, read_description
from nasray.training.loop import Loop, StoppedError
from tests.nasray.data.pictures import as_stored, encode, exif, picture

pytestmark = pytest.mark.usefixtures("quick_validation")

EVERYTHING = {"ema": 0.9, "checkpoint_every": 4, "evaluate_every": 0.5, "keep_best": 2,
              "optimizer": OptimizerOptions(learning_rate=0.02, clip=1.0)}  # fmt: skip


class BrokenError(Exception):
    """Stands for the end of a process."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Makes a training once for each set of options; gives its folder."""
    made = {}

    def run(begin, **changes):
        key = repr(changes)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("uninterrupted") / "run"
            setup.train(begin(made[key], **changes), made[key])
        return made[key]

    return run


def broken_after(monkeypatch, iteration):
    """Let the process end after some steps, at the worst of moments: between the step and what follows it."""
    after_step = Loop._after_step

    def break_down(loop):
        if loop.iteration == iteration:
            raise BrokenError
        after_step(loop)

    monkeypatch.setattr(Loop, "_after_step", break_down)


def test_what_a_training_leaves_behind(uninterrupted, begin, log_of):
    folder = uninterrupted(begin, **EVERYTHING)
    lines = log_of(folder)
    steps = [line for line in lines if "loss" in line]
    assert [line["iteration"] for line in steps] == [2, 4, 6, 8, 10, 12, 14, 15]
    assert [line["iteration"] for line in lines if "metrics" in line] == [5, 10, 15]
    assert set(steps[0]["losses"]) == {"classes", "boxes", "centerness"}
    assert steps[0]["loss"] == pytest.approx(sum(steps[0]["losses"].values()))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert [line["lr"] for line in steps] == pytest.approx([0.02 * (0.001 + 0.999 / 3)] + [0.02] * 4 + [0.002] * 3)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["iterations"], summary["epochs"]) == (15, 1.5)
    maps = {line["iteration"]: line["metrics"]["mAP"] for line in lines if "metrics" in line}
    best = max(maps, key=maps.get)
    assert summary["best"] == {"iteration": best, "mAP": maps[best]}
    assert checkpoint_path(folder).name == "best.pt"
    assert Checkpoint.load(folder).iteration == best
    assert Checkpoint.load(folder).metrics == {"mAP": maps[best]}
    detector = Checkpoint.load(folder).detector()
    # The sum of weights depends on how they lie in memory, by a rounding.
    assert next(detector.parameters()).abs().mean().item() == pytest.approx(maps[best], rel=1e-6)
    assert len({round(value, 6) for value in maps.values()}) == len(maps)


def test_tensorboard_holds_the_curves(uninterrupted, begin):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(uninterrupted(begin, **EVERYTHING) / "tensorboard"))
    events.Reload()
    tags = {"loss", "loss/boxes", "train/lr", "train/grad_norm", "speed/images_per_s", "val/mAP"}
    assert tags <= set(events.Tags()["scalars"])
    assert [point.step for point in events.Scalars("val/mAP")] == [5, 10, 15]


def test_a_librarys_backbone_is_averaged_and_goes_on_exactly(begin, log_of, same, tmp_path, monkeypatch):
    """It is traced by torch.fx, copied for the average, and switched between training and inference."""
    options = EVERYTHING | {"backbone": "torchvision:shufflenet_v2_x0_5", "schedule": ScheduleOptions(epochs=0.8)}
    for name in ("whole", "broken"):
        recipe = begin(tmp_path / name, **options)
        with monkeypatch.context() as patch:
            if name == "broken":
                broken_after(patch, 6)
                with pytest.raises(BrokenError):
                    setup.train(recipe, tmp_path / name)
        setup.train(recipe, tmp_path / name)
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "broken")
    one, other = (Checkpoint.load(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "broken"))
    assert same(one.model, other.model)
    assert same(one.training["weights"], other.training["weights"])
    assert not same(one.model, one.training["weights"]), "the average lags behind"


@pytest.mark.parametrize("iteration", [3, 6, 14])
def test_a_killed_training_goes_on_as_if_it_had_not_been(
    uninterrupted, begin, log_of, same, tmp_path, monkeypatch, iteration
):
    expected = uninterrupted(begin, **EVERYTHING)
    folder = tmp_path / "run"
    recipe = begin(folder, **EVERYTHING)
    with monkeypatch.context() as patch:
        broken_after(patch, iteration)
        with pytest.raises(BrokenError):
            setup.train(recipe, folder)
    setup.train(recipe, folder)
    assert log_of(folder) == log_of(expected)
    names = sorted(path.name for path in (expected / "checkpoints").iterdir())
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == names
    for name in names:
        one, other = (vars(Checkpoint.load(path / "checkpoints" / name)) for path in (expected, folder))
        for checkpoint in (one, other):
            checkpoint["training"].pop("log_size")  # times have more or fewer digits
        assert same(one, other), name


def test_stopping_saves_and_a_finished_training_is_not_run_again(uninterrupted, begin, log_of, tmp_path):
    folder = tmp_path / "run"
    recipe = begin(folder, **EVERYTHING)
    asked = iter([False] * 6 + [True])
    said = []
    with pytest.raises(StoppedError, match="stopped after 7 of 15 iterations"):
        setup.train(recipe, folder, Worker(should_stop=lambda: next(asked)))
    assert Checkpoint.load(folder / "checkpoints" / "last.pt").iteration == 7
    first = setup.train(recipe, folder, Worker(progress=lambda *told: said.append(told)))
    assert log_of(folder) == log_of(uninterrupted(begin, **EVERYTHING))
    assert (said[0][:2], said[-1][:2]) == ((7, 15), (15, 15))
    assert "mAP 0." in said[-1][2]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    assert setup.train(recipe, folder) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt") if path.stem == "last"}.items() <= (
        before.items()
    )


def test_sigkill_in_the_middle_of_an_epoch(uninterrupted, begin, log_of, tmp_path):
    expected = uninterrupted(begin, **EVERYTHING)
    folder = tmp_path / "run"
    recipe = begin(folder, **EVERYTHING)
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from nasray.training import recipe_of_training, setup\n"
        "setup.make_validation = lambda *_: lambda model: setup_validation(model)\n"
        "from nasray.training.loop import Validation\n"
        "def setup_validation(model): return Validation({'mAP': next(model.parameters()).abs().mean().item()}, {})\n"
        "folder = Path(sys.argv[1]); setup.train(recipe_of_training(folder), folder)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    log = folder / "log.jsonl"
    while not (log.exists() and b'"iteration": 6,' in log.read_bytes()):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert Checkpoint.load(folder / "checkpoints" / "last.pt").iteration < 15, "it was killed too late"
    setup.train(recipe, folder)
    assert log_of(folder) == log_of(expected)


def test_a_damaged_last_checkpoint_falls_back(uninterrupted, begin, log_of, tmp_path):
    folder = tmp_path / "run"
    recipe = begin(folder, **EVERYTHING)
    setup.train(recipe, folder)
    last = folder / "checkpoints" / "last.pt"
    content = last.read_bytes()
    last.unlink()
    last.write_bytes(content[:-1000])
    best = max(int(path.stem.removeprefix("best-")) for path in last.parent.glob("best-*.pt"))
    if best == 15:
        (last.parent / "best-15.pt").unlink()
    said = []
    setup.train(recipe, folder, Worker(say=said.append))
    assert "last.pt is no checkpoint, or damaged" in said[0]
    assert "goes on from iteration" in said[1]
    assert log_of(folder) == log_of(uninterrupted(begin, **EVERYTHING))
    # A damaged summary is written anew from the checkpoint.
    summary = (folder / "summary.json").read_bytes()
    (folder / "summary.json").write_bytes(summary[:20])
    drop_damaged_summary(folder)
    setup.train(recipe, folder)
    assert (folder / "summary.json").read_bytes() == summary
    # A checkpoint of another training.
    torch.save({**torch.load(last, weights_only=True), "training": {"per_epoch": "five"}}, last)
    with pytest.raises(NasrayError, match="the training set has changed"):
        setup.train(recipe, folder)
    torch.save({**torch.load(last, weights_only=True), "training": {"per_epoch": 10}}, last)
    with pytest.raises(NasrayError, match=r"is not one of this training: KeyError: 'weights'"):
        setup.train(recipe, folder)


def test_a_full_disk_is_one_message_and_costs_nothing(begin, tmp_path):
    folder = tmp_path / "run"
    recipe = begin(folder, checkpoint_every=4)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up():  # from now on no file can be larger than this, which is smaller than a checkpoint
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

    calls = iter([lambda: None] * 4 + [fill_up] * 20)
    try:
        with pytest.raises(NasrayError, match=r"disk full while writing .*last.pt.*make room, then `nasray resume`"):
            setup.train(recipe, folder, Worker(should_stop=lambda: next(calls)()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Checkpoint.load(folder / "checkpoints" / "last.pt").iteration == 4
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.pt"]
    assert setup.train(recipe, folder)["iterations"] == 15


def test_another_data_set_or_backbone_is_refused(begin, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    recipe = begin(folder)
    asked = iter([True])
    with pytest.raises(StoppedError):
        setup.train(recipe, folder, Worker(should_stop=lambda: next(asked)))
    with pytest.raises(NasrayError, match="the training set has changed: an epoch has 20 batches, and had 10"):
        setup.train(dataclasses.replace(recipe, batch_size=8), folder)
    description = read_description(folder)
    fewer = dataclasses.replace(description, classes=("circle",), category_ids=(2,))
    monkeypatch.setattr(setup, "read_description", lambda _: fewer)
    with pytest.raises(NasrayError, match=r"has 3 classes .*; the data set has 1 classes \(circle\)"):
        setup.train(recipe, folder)


def test_a_checkpoint_keeps_how_images_were_read_and_another_rule_is_refused(begin, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "open_data", open_data)  # anew each time
    content = encode(as_stored(picture(), 6), "PNG", exif=exif(6))
    (tmp_path / "a.png").write_bytes(content)
    records = {"images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 24}],
               "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 9, 9]}],
               "categories": [{"id": 1, "name": "cat"}]}  # fmt: skip
    (tmp_path / "train.json").write_text(json.dumps(records))
    data = tmp_path / "data.yaml"
    split = "{images: ., annotations: train.json}"
    data.write_text(f"format: coco\norientation: stored\nvalue_range: [0, 255]\ntrain: {split}\n")
    folder = tmp_path / "run"
    recipe = begin(folder, data=str(data), batch_size=1, schedule=ScheduleOptions(epochs=1, warmup_iterations=0))
    setup.train(recipe, folder)
    assert Checkpoint.load(folder).pixel_rules == read_description(folder).pixel_rules == PixelRules("stored", (0, 255))
    (folder / "summary.json").unlink()
    data.write_text(f"format: coco\norientation: stored\ntrain: {split}\n")
    with pytest.raises(NasrayError, match="orientation or value_range has changed since the training began"):
        setup.train(recipe, folder)


def losses_that_break(monkeypatch, iteration, how):
    """Let the third loss, or the gradient, of an iteration be no number."""
    step = Loop._step

    def break_down(loop, batch):
        detector = loop.parts.network
        loss = type(detector).loss

        def broken(self, *arguments):
            losses = loss(self, *arguments)
            factor = float("nan")
            if how == "loss":
                return {**losses, "loss_boxes": losses["loss_boxes"] * factor}
            losses["loss_boxes"].register_hook(lambda gradient: gradient * factor)
            return losses

        if loop.iteration == iteration:
            detector.loss = broken.__get__(detector)
        step(loop, batch)

    monkeypatch.setattr(Loop, "_step", break_down)


@pytest.mark.parametrize(("how", "message"), [("loss", "the loss is not finite"), ("gradient", "although the loss is")])
def test_a_loss_that_is_no_number_stops_with_its_batch(begin, tmp_path, monkeypatch, how, message):
    folder = tmp_path / "run"
    recipe = begin(folder, checkpoint_every=2)
    losses_that_break(monkeypatch, 6, how)
    with pytest.raises(NasrayError, match=message) as caught:
        setup.train(recipe, folder)
    text = str(caught.value)
    assert text.startswith("iteration 7: ")
    assert ("boxes nan" in text) == (how == "loss")
    assert text.count("image id") == 16
    content = json.loads((folder / "non-finite.json").read_text())
    parts, _ = setup.make_parts(recipe, read_description(folder), Worker())
    assert content["workers"][0]["indices"] == next(iter(parts.batches.epoch(0, 6))).indices.tolist()
    assert parts.describe(content["workers"][0]["indices"][0]) in text
    assert Checkpoint.load(folder / "checkpoints" / "last.pt").iteration == 6


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_learns_and_resumes(begin, log_of, tmp_path, monkeypatch, precision):
    changes = {"precision": precision, "checkpoint_every": 4,
               "schedule": ScheduleOptions(epochs=0.6, warmup_iterations=2)}  # fmt: skip
    expected, folder = tmp_path / "expected", tmp_path / "run"
    setup.train(begin(expected, **changes), expected)
    losses = [line["loss"] for line in log_of(expected) if "loss" in line]
    assert losses[-1] < losses[0]
    recipe = begin(folder, **changes)
    with monkeypatch.context() as patch:
        broken_after(patch, 5)
        with pytest.raises(BrokenError):
            setup.train(recipe, folder)
    setup.train(recipe, folder)
    assert log_of(folder) == log_of(expected)
    scale = Checkpoint.load(folder / "checkpoints" / "last.pt").training["scaler"]
    assert bool(scale) == (precision == "float16")


class Toy(torch.nn.Module):
    """Counts objects by the color of their image; its losses are means over images."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(self.layer.weight, 0.1)
        torch.nn.init.zeros_(self.layer.bias)
        self.drawn = []

    def forward(self, images, targets, generator=None):
        self.drawn.append(torch.rand(1, generator=generator).item())
        means = self.layer(images.float().mean(dim=(2, 3)) / 255)
        counts = torch.tensor([float(len(target["labels"])) for target in targets])
        return {"loss_a": (means[:, 0] - counts).square().mean(), "loss_b": means[:, 1].square().mean()}


def test_what_losses_draw_follows_from_iteration_and_worker(begin, tmp_path):
    drawn = {}
    for rank, first in ((0, 0), (0, 4), (1, 0)):
        folder = tmp_path / f"{rank}-{first}"
        recipe = begin(folder)
        parts, _ = setup.make_parts(recipe, read_description(folder), Worker())
        parts.network, parts.validate = Toy(), None
        loop = Loop(recipe, folder, parts, Worker(rank))
        loop.iteration = first
        loop.run()
        drawn[rank, first] = parts.network.drawn
    assert len(set(drawn[0, 0])) == 15
    assert drawn[0, 4] == drawn[0, 0][4:]
    assert not set(drawn[0, 0]) & set(drawn[1, 0])


def test_accumulated_parts_are_the_undivided_batch(begin, tmp_path):
    # Where a loss is a mean over images and no norm mixes them; detectors divide each part by its own positives.
    weights, norms = [], []
    for accumulate in (1, 4):
        folder = tmp_path / str(accumulate)
        recipe = begin(folder, optimizer=OptimizerOptions(learning_rate=0.05, accumulate=accumulate, clip=2.0))
        parts, _ = setup.make_parts(recipe, read_description(folder), Worker())
        toy = Toy()
        Loop(recipe, folder, dataclasses.replace(parts, network=toy, validate=None), Worker()).run()
        weights.append(toy.layer.weight.detach())
        norms.append(json.loads((folder / "log.jsonl").read_text().splitlines()[0])["grad_norm"])
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert not Path(tmp_path / "1" / "checkpoints" / "best.pt").exists()


def test_the_gradient_is_clipped(begin, tmp_path):
    folder = tmp_path / "run"
    options = OptimizerOptions(learning_rate=0.1, momentum=0.0, weight_decay=0.0, clip=0.01)
    recipe = begin(folder, optimizer=options, log_every=1, channels_last=False,
                   schedule=ScheduleOptions(epochs=0.1, name="constant", warmup_iterations=0))  # fmt: skip
    parts, _ = setup.make_parts(recipe, read_description(folder), Worker())
    before = [parameter.detach().clone() for parameter in parts.network.parameters()]
    Loop(recipe, folder, parts, Worker()).run()
    moved = [one - other for one, other in zip(parts.network.parameters(), before, strict=True)]
    assert torch.cat([change.detach().flatten() for change in moved]).norm().item() == pytest.approx(0.001, rel=1e-3)
    assert json.loads((folder / "log.jsonl").read_text().splitlines()[0])["grad_norm"] > 0.1
