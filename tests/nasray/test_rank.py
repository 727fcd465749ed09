"""What `nasray rank` makes of measured and trained architectures, without training anything."""

from contextlib import nullcontext

import numpy as np
import pytest

from nasray import rank
from nasray.architectures import ARCHITECTURES
from nasray.cluster import OrderedSearch, RunFolder
from nasray.cluster.recorder import Recorder
from nasray.evaluators import AZNAS
from nasray.experiment import describe_experiment
from nasray.loading import parse_plan
from nasray.measured import read_rank
from nasray.models import build
from nasray.rank import summarize, train_measured
from nasray.scores.aznas import rank_sum
from nasray.searchers import RandomSearch
from nasray.spaces import NasrayError, ShuffleNetSpace
from nasray.training.folder import read_summary
from tests.nasray.reports.common import RECIPE, write_run, write_training

WHERE = {"started": 1.0, "seconds": 1.0, "host": "a", "process": 0}

SPACE = ShuffleNetSpace(stem_width=8, widths=(16, 32, 64, 96), depths=(1, 1, 2, 1), image_hw=(128, 128))


def measured(genes):
    worth = genes.sum(axis=1) / 20
    return {"score": worth, "supernet": worth, "zen": -worth}


def measured_before(genes):
    """As earlier versions did: they trained within the trials."""
    return {**measured(genes), "score": np.full(len(genes), 0.9)}


@pytest.mark.parametrize("evaluator", [measured, measured_before])
def test_architectures_are_ranked_by_their_trainings(tmp_path, evaluator):
    run = write_run(tmp_path / "run", RandomSearch(SPACE, seed=1), 32, evaluator=lambda genes: genes.sum(axis=1) / 20)
    inner = write_run(run.path / "rank", RandomSearch(SPACE, seed=0), 12, evaluator=evaluator)
    (batch,) = inner.read_batches()
    architectures = [SPACE.to_architecture(row) for row in batch.genes]
    recipes = {"pretrain": RECIPE, "train": RECIPE}
    for place, architecture in enumerate(architectures):
        folder = inner.path / "trainings" / architecture.id
        write_training(folder / "train", architecture, 0.2 + batch.metrics["supernet"][place] / 10)
    values = train_measured(inner, SPACE, recipes)
    assert list(values) == batch.ids
    result = summarize(inner, values, run, run.path / "train")
    rows = result["architectures"]
    assert [row["mAP"] for row in rows] == sorted(values.values(), reverse=True)
    assert {"supernet", "zen", "gmacs"} < rows[0].keys()
    assert "score" not in result["agreement"]
    assert result["agreement"]["supernet"]["kendall"]["value"] == pytest.approx(1)
    assert result["agreement"]["zen"]["kendall"]["value"] == pytest.approx(-1)
    assert "winner" not in result
    write_training(run.path / "train", ARCHITECTURES["resnet18"], 0.5)
    assert summarize(inner, values, run, run.path / "train")["winner"]["mAP"] == 0.5


CONTENT = {
    "name": "tiny",
    "evaluations": 32,
    "space": {"name": "basic", "max_width": 32, "max_depth": 1},
    "evaluator": {"name": "zen", "image_hw": [32, 32], "batch_size": 2},
    "seed": 3,
}


def search_here(searcher, evaluator, folder, *, evaluations, batch_size, in_flight, **_):
    """What `run_search` does, in this process."""
    search = OrderedSearch(searcher, evaluations=evaluations, batch_size=batch_size, in_flight=in_flight)
    recorder = Recorder(folder, search)
    search.run(evaluator, lambda batch: recorder.write(batch, {"batch": batch.index, **WHERE}))
    recorder.finish()


def train_here(trainings, recipes, folder):
    """What `train_in_stages` does: the more parameters, the better."""
    for training in trainings:
        path = folder / training.label / "train"
        if not path.exists():
            write_training(path, training.architecture, build_size(training.architecture))
    return {one.label: read_summary(folder / one.label / "train") for one in trainings}


def build_size(architecture):
    return sum(weight.numel() for weight in build(architecture).parameters()) / 1e8


@pytest.fixture
def zero_shot(tmp_path, monkeypatch):
    """A run that searched without training; rank works in this process, without Ray."""
    monkeypatch.setattr(rank, "run_search", search_here)
    monkeypatch.setattr(rank, "train_in_stages", train_here)
    monkeypatch.setattr(rank, "search_session", lambda resources: nullcontext())
    monkeypatch.setattr(rank, "try_out", lambda recipe, architecture: None)
    small = {name: {"image_hw": (32, 32)} for name in ("naswot", "aznas")}
    monkeypatch.setattr(rank, "proxy_options", lambda space: {"entropy": {}, **small})
    plan = parse_plan(CONTENT, "tiny")
    folder = RunFolder.create(tmp_path / "run", describe_experiment(plan.experiment))
    search_here(plan.parts.searcher, lambda genes: {"score": genes.sum(axis=1) / 9}, folder,
                evaluations=32, batch_size=32, in_flight=1)  # fmt: skip
    return folder


def test_a_score_without_training_is_ranked(zero_shot):
    with pytest.raises(NasrayError, match=r"Train it first, `nasray train .*run --recipe"):
        rank.rank_run(zero_shot.path, 3)
    found = rank.rank_run(zero_shot.path, 3, recipe="cpu-scratch")
    assert read_rank(zero_shot)["agreement"].keys() == found["agreement"].keys()
    row, plan = found["architectures"][0], parse_plan(CONTENT, "tiny")
    assert [*row][:2] == ["id", "mAP"]
    assert {"zen", "entropy", "naswot", *AZNAS.components, "aznas-ranks", "gmacs", "params_m"} <= row.keys()
    assert not {"score", "supernet", "complexity", "aznas"} & row.keys()
    assert [one["params_m"] for one in found["architectures"]] == sorted(
        (one["params_m"] for one in found["architectures"]), reverse=True
    )
    assert "winner" not in found
    assert found["measured"]["score"] == "zen"
    assert found["measured"]["recipe"] == "cpu-scratch"
    # The figures are those of the run's own evaluator, and of the whole population.
    architectures = {one.id: one for one in plan.parts.random_architectures(3, 0)}
    assert architectures.keys() == {one["id"] for one in found["architectures"]}
    genes = plan.parts.space.from_architecture(architectures[row["id"]])[None]
    assert row["zen"] == plan.parts.evaluator(genes)["score"][0]
    columns = [[one[name] for one in found["architectures"]] for name in (*AZNAS.components, "gmacs")]
    np.testing.assert_allclose([one["aznas-ranks"] for one in found["architectures"]], rank_sum(columns))
    # The same again; with more of them, the first ones stay.
    assert rank.rank_run(zero_shot.path, 3, recipe="cpu-scratch") == found
    more = rank.rank_run(zero_shot.path, 4, recipe="cpu-scratch")
    assert {one["id"] for one in more["architectures"]} > architectures.keys()
    with pytest.raises(NasrayError, match="was begun by another recipe"):
        rank.rank_run(zero_shot.path, 3, recipe="cpu-fcos")
    with pytest.raises(NasrayError, match="trains classifiers, which have no mAP"):
        rank.rank_run(zero_shot.path, 3, recipe="cpu-classify")


def test_architectures_are_trained_as_the_winner_was(zero_shot):
    winner = zero_shot.read_entries()[0]
    write_training(zero_shot.path / "train", winner.architecture, 0.5)
    found = rank.rank_run(zero_shot.path, 3)
    assert found["winner"] == {"id": winner.id, "mAP": 0.5, "zen": winner.metrics["score"]}
    assert found["measured"]["recipe"] == RECIPE.name


def test_what_earlier_versions_did_not_measure_is_left_out():
    batches = [
        {"zen": np.array([1.0]), "old": np.array([2.0])},
        {"zen": np.array([3.0, 4]), "swap": np.array([5.0, 6])},
    ]
    columns = rank._columns(batches)
    np.testing.assert_array_equal(columns["zen"], [1, 3, 4])
    np.testing.assert_array_equal(columns["old"], [2, np.nan, np.nan])
    np.testing.assert_array_equal(columns["swap"], [np.nan, 5, 6])
    ranks = rank._az_ranks([columns["swap"], columns["zen"]])
    np.testing.assert_allclose(ranks, [np.nan, 2 * np.log(0.5), 0])
