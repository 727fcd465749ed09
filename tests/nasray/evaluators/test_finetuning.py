"""A path is fine-tuned on a copy, the same one whenever and wherever it is its turn."""

import dataclasses
import hashlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nasray.checkpoint import Checkpoint, make_network
from nasray.data import TrainLoader, open_data
from nasray.data.order import SAMPLING, divide, seed_sequence
from nasray.data.shapes import write_shapes
from nasray.evaluators import EVALUATORS, PathEvaluator
from nasray.evaluators.finetuning import FinetuneOptions
from nasray.evaluators.seeding import seed_of
from nasray.extraction import extract_network
from nasray.models.detectors import DETECTORS
from nasray.models.supernets import supernet_architecture
from nasray.models.supernets.base import supernet_of
from nasray.options import options_of
from nasray.recipe import Recipe
from nasray.recipe_options import AugmentationOptions, ClassifierOptions, LoaderOptions, OptimizerOptions
from nasray.spaces import NasrayError, OFAResNetSpace, ShuffleNetSpace

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 1, 1, 1))
ROWS = SPACE.sample(3, np.random.default_rng(0))
STEPS = FinetuneOptions(iterations=3, batch_size=4, learning_rate=0.01)
RECIPE = Recipe(
    name="detect", batch_size=8, holdout=8, seed=3,
    detector=options_of(DETECTORS, "fcos", channels=16, num_convs=1, norm="batch"),
    augmentation=AugmentationOptions(short_side=(64,), long_side=64),
    loader=LoaderOptions(processes=0, cache=True),
    optimizer=OptimizerOptions(learning_rate=0.1, clip=10),
)  # fmt: skip
CLASSIFY = dataclasses.replace(
    RECIPE, task="classification", classifier=ClassifierOptions(16, 0.2, 0.1),
    augmentation=AugmentationOptions(square=32),
)  # fmt: skip


def write_supernet(path, recipe=RECIPE, space=SPACE):
    """A checkpoint of a supernet with the weights that a training begins with."""
    architecture = supernet_architecture(space)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make_network(recipe, architecture, 3)
    Checkpoint(recipe, architecture, ("a", "b", "c"), (1, 2, 3), network.state_dict()).save(path)
    return str(path)


def digest(network):
    """SHA-256 of all weights and statistics."""
    sha = hashlib.sha256()
    for name, value in network.state_dict().items():
        sha.update(name.encode())
        sha.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """50 images of 64 x 64 pixels, of which 32 are to train on."""
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, 50, image_hw=(64, 64))
    return str(folder / "data.yaml")


@pytest.fixture(scope="module")
def file(tmp_path_factory, data):
    return write_supernet(tmp_path_factory.mktemp("supernet") / "x.pt", dataclasses.replace(RECIPE, data=data))


@pytest.fixture(scope="module")
def evaluator(file):
    return PathEvaluator(SPACE, file, finetune=STEPS, measure="loss", images=16, seed=5)


def test_a_copy_is_trained_by_steps_of_its_own(file, data, evaluator):
    """The same as by hand, with momentum, decay and clipping of the supernet's training."""
    described = Checkpoint.load(file)
    network = extract_network(described.network(), ROWS[0], described).train()
    whole = open_data(data).split("train")
    kept, _ = divide(RECIPE.seed, len(whole), 8)
    seed = seed_of(5, SPACE.to_architecture(ROWS[0]))
    loader = TrainLoader(
        whole.select(kept),
        RECIPE.augmentation,
        batch_size=4,
        stride=32,
        seed=seed,
        options=LoaderOptions(0),
    )
    momenta = {}
    for index, batch in zip(range(3), loader.epoch(0), strict=False):
        generator = torch.Generator().manual_seed(int(seed_sequence(seed, SAMPLING, index).generate_state(1)[0]))
        network.zero_grad()
        sum(network(batch.images, batch.targets, generator=generator).values()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                momenta[name] = 0.9 * momenta.get(name, 0) + parameter.grad + 1e-4 * parameter
                parameter -= 0.01 * momenta[name]
    found = dataclasses.replace(evaluator, images=0).loaded.standalone(ROWS[0])
    assert not found.training
    # Sums in another order are amplified by norms over few pixels.
    first, by_hand, ours = (
        torch.nn.utils.parameters_to_vector(one.parameters())
        for one in (extract_network(described.network(), ROWS[0], described), network, found)
    )
    assert (by_hand - ours).norm() <= 0.01 * (by_hand - first).norm()


def test_shared_weights_are_only_read(file):
    evaluator = PathEvaluator(SPACE, file, finetune=dataclasses.replace(STEPS, iterations=1), measure="loss", images=8)
    network = evaluator.loaded.network
    supernet_of(network).set_path(ROWS[1])
    before, held = digest(network), hashlib.sha256(Path(file).read_bytes()).hexdigest()
    rows = SPACE.sample(20, np.random.default_rng(1))
    assert len(set(evaluator(rows)["loss"].tolist())) == len(np.unique(rows, axis=0))
    assert digest(network) == before
    assert hashlib.sha256(Path(file).read_bytes()).hexdigest() == held
    assert np.array_equal(supernet_of(network).path, ROWS[1]), "the path that was set is another"
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())


def test_a_candidate_has_its_metric_first_and_last_and_after_a_pickle(evaluator):
    first = evaluator(ROWS)["loss"].tolist()
    assert len(set(first)) == 3
    assert evaluator(ROWS[::-1])["loss"].tolist() == first[::-1]
    assert pickle.loads(pickle.dumps(evaluator))(ROWS[1:2])["loss"].tolist() == first[1:2]


@pytest.mark.slow
def test_a_candidate_has_its_metric_in_another_process(file, evaluator):
    program = f"""
import json, numpy as np
from nasray.evaluators import PathEvaluator
from nasray.evaluators.finetuning import FinetuneOptions
from nasray.spaces import ShuffleNetSpace
space = ShuffleNetSpace(stem_width=8, widths=(16, 24, 32, 48), depths=(1, 1, 1, 1))
evaluator = PathEvaluator(space, {file!r}, finetune={STEPS!r}, measure="loss", images=16, seed=5)
print(json.dumps(evaluator(np.array({ROWS[2:].tolist()}))["loss"].tolist()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == evaluator(ROWS[2:])["loss"].tolist()


def test_seed_steps_rate_and_statistics_matter(file, evaluator):
    expected = evaluator(ROWS[:1])["loss"][0]
    for other in (
        {"seed": 6}, {"images": 0}, {"finetune": None},
        *({"finetune": dataclasses.replace(STEPS, **change)}
          for change in ({"iterations": 4}, {"learning_rate": 0.02}, {"batch_size": 8}, {"accumulate": 2})),
    ):  # fmt: skip
        found = dataclasses.replace(evaluator, **other)(ROWS[:1])["loss"][0]
        assert np.isfinite(found)
        assert found != expected, other


def test_what_is_left_out_follows_the_supernets_training(evaluator):
    tuner = dataclasses.replace(evaluator, finetune=FinetuneOptions(iterations=1)).loaded.tuner
    assert (tuner.loader.batch_size, tuner.optimizer.learning_rate) == (8, pytest.approx(0.01))
    assert dataclasses.replace(tuner.optimizer, learning_rate=0.1) == RECIPE.optimizer


def test_fine_tuning_goes_on_beyond_an_epoch(evaluator):
    """32 images are 4 steps of 8, and 2 are of the next epoch."""
    tuned = dataclasses.replace(evaluator, finetune=FinetuneOptions(iterations=6, batch_size=8))
    batches = list(tuned.loaded.tuner._batches(0))
    assert len(batches) == 6
    firsts = [tuple(batch.indices.tolist()) for batch in batches]
    assert sorted(index for batch in firsts[:4] for index in batch) == list(range(32))
    assert len(set(firsts)) == 6


@pytest.mark.parametrize(
    ("recipe", "space"),
    [(CLASSIFY, SPACE), pytest.param(RECIPE, OFAResNetSpace("tiny"), marks=pytest.mark.slow)],
    ids=["classifier", "once-for-all"],
)
def test_other_tasks_and_supernets(recipe, space, tmp_path):
    evaluator = PathEvaluator(
        space, write_supernet(tmp_path / "x.pt", recipe, space), finetune=STEPS, images=8, measure="loss"
    )
    rows = space.sample(2, np.random.default_rng(0))
    found = evaluator(rows)["loss"].tolist()
    assert np.isfinite(found).all()
    assert evaluator(rows[::-1])["loss"].tolist() == found[::-1]
    assert dataclasses.replace(evaluator, finetune=None)(rows)["loss"].tolist() != found


def test_options_are_read_from_yaml():
    options = options_of(EVALUATORS, "path", supernet="x", finetune={"iterations": 10, "learning_rate": 0.004})
    assert options.finetune == FinetuneOptions(iterations=10, learning_rate=0.004)
    with pytest.raises(NasrayError, match="has no option 'steps'"):
        options_of(EVALUATORS, "path", supernet="x", finetune={"steps": 10})
    with pytest.raises(NasrayError, match="batch_size 5 is no multiple of accumulate 2"):
        options_of(EVALUATORS, "path", supernet="x", finetune={"batch_size": 5, "accumulate": 2})
    with pytest.raises(NasrayError, match="iterations"):
        options_of(EVALUATORS, "path", supernet="x", finetune={"iterations": 0})
    assert "after 10 steps of fine-tuning" in PathEvaluator(SPACE, "x.pt", finetune=options.finetune).meaning


def test_a_batch_that_cannot_be_divided_is_refused(evaluator):
    with pytest.raises(NasrayError, match="batch_size 8 is no multiple of accumulate 3"):
        dataclasses.replace(evaluator, finetune=FinetuneOptions(accumulate=3)).check()
