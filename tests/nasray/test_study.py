"""A run's history as an Optuna study."""

import json

import numpy as np
import optuna
import pytest

from nasray.cli import main
from nasray.cluster import RunFolder
from nasray.experiment import describe_experiment
from nasray.loading import load_plan
from nasray.spaces import NasrayError
from nasray.study import export_study
from tests.nasray.reports.common import write_run


def written(folder, changes=(), evaluator=lambda genes: genes.sum(axis=1) / 20, num=12):
    plan = load_plan("maedet-pareto", list(changes))
    return write_run(folder, plan.parts.searcher, num, describe_experiment(plan.experiment), evaluator=evaluator), plan


def load(path):
    return optuna.load_study(storage=f"sqlite:///{path}", study_name="run")


def test_every_evaluation_is_a_trial(tmp_path, capsys):
    run, plan = written(tmp_path / "run")
    main(["export", str(run.path), "--to", str(tmp_path / "study.db"), "--json"])
    assert json.loads(capsys.readouterr().out)["trials"] == 12
    study, history, space = load(tmp_path / "study.db"), run.read_history(), plan.parts.space
    assert study.metric_names == ["score", "gmacs"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for place, trial in enumerate(study.trials):
        assert trial.values == [history.metrics["score"][place], history.costs["gmacs"][place]]
        assert trial.user_attrs["id"] == history.ids[place]
        assert trial.user_attrs["params_m"] == history.costs["params_m"][place]
        row = dict(zip([gene.name for gene in space.genes], history.genes[place].tolist(), strict=True))
        again = optuna.trial.FixedTrial(trial.params)
        held = [gene for gene in space.genes if gene.name in trial.params]
        assert {gene.name: gene.suggest(again) for gene in held} == {gene.name: row[gene.name] for gene in held}
        assert again.distributions == trial.distributions
        assert all(row[gene.name] == 0 for gene in space.genes if gene not in held), "a stage that is left out"
    front = {trial.user_attrs["id"] for trial in study.best_trials}
    assert front == {entry.id for entry in run.read_entries()}


def test_what_has_no_value_is_a_failed_trial(tmp_path):
    run, _ = written(tmp_path / "run", evaluator=lambda genes: np.where(np.arange(len(genes)) == 0, np.nan, 1.0))
    export_study(run, tmp_path / "study.db")
    trials = load(tmp_path / "study.db").trials
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    assert 0 < len(failed) < len(trials) == 12
    assert failed[0].user_attrs["score"] is None
    assert failed[0].user_attrs["gmacs"] > 0


def test_the_file_is_written_anew_and_the_run_is_left_alone(tmp_path):
    run, _ = written(tmp_path / "run")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    for _ in range(2):
        export_study(run, tmp_path / "study.db")
    assert len(load(tmp_path / "study.db").trials) == 12
    assert before == {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_what_holds_no_history_is_refused(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--to", str(tmp_path / "study.db")]) != 0
    assert "no experiment.yaml" in capsys.readouterr().err
    run, _ = written(tmp_path / "run")
    assert main(["export", str(run.path), "--to", str(tmp_path / "study.db"), "--raw"]) != 0
    assert "leave all options but --to out" in capsys.readouterr().err
    for path in (run.path / "history").glob("*.parquet"):
        path.unlink()
    with pytest.raises(NasrayError, match="no finished batch yet"):
        export_study(RunFolder.open(run.path), tmp_path / "study.db")
    assert not (tmp_path / "study.db").exists()
