"""What `nasray rank` makes of measured and trained architectures, without training anything."""

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES
from nasray.rank import summarize, train_measured
from nasray.searchers import RandomSearch
from nasray.spaces import ShuffleNetSpace
from tests.nasray.reports.common import RECIPE, write_run, write_training

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
