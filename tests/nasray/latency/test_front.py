"""Each of a run's best is measured once for a setting, and an interrupted measurement goes on."""

import json

import pytest

from nasray.cluster import RunFolder
from nasray.experiment import describe_experiment
from nasray.latency import front
from nasray.latency.front import fast_front, measure_front
from nasray.loading import parse_plan
from nasray.searchers import Objective, ParetoEvolution
from nasray.spaces import NasrayError, ShuffleNetSpace
from tests.nasray.reports.common import SCORE, Grid, write_run

REST = {"spread_ms": 2.0, "min_ms": 1.0, "fps": 3.0, "reference_ms": [[4.9, 5.0, 5.1], [4.9, 5.0, 5.1]]}
SPACE = ShuffleNetSpace(stem_width=8, widths=(16, 32, 64, 96), depths=(1, 1, 2, 1), image_hw=(64, 96))


@pytest.fixture
def run(tmp_path):
    searcher = ParetoEvolution(SPACE, objectives=(SCORE, Objective("gmacs", "min")), population_size=16, seed=1)
    return write_run(tmp_path / "run", searcher, 16, evaluator=lambda genes: SPACE.cost(genes)["gmacs"])


@pytest.fixture
def measured(monkeypatch):
    """What was measured: image sizes and parameters. Latencies count down."""
    found = []

    def measure(network, setting):
        found.append((setting.image_hw, sum(parameter.numel() for parameter in network.parameters())))
        return {"median_ms": 100.0 - len(found), **REST, "repeats": 20}

    monkeypatch.setattr(front, "prepared", lambda network, setting: network)
    monkeypatch.setattr(front, "measure_program", measure)
    return found


def test_backbones_are_measured_once_at_the_size_of_their_costs(run, measured):
    entries = run.read_entries()
    assert len(entries) > 3
    found = measure_front(run, entries, device="cpu")
    assert (found.what, found.setting.image_hw, found.num_before) == ("backbone", (64, 96), 0)
    assert [size for size, _ in measured] == [(64, 96)] * len(entries)
    assert [params / 1e6 for _, params in measured] == [entry.costs["params_m"] for entry in entries]
    assert {name: dict(row) for name, row in found.rows.items()} == {
        entry.id: {"median_ms": 99.0 - place, **REST} for place, entry in enumerate(entries)
    }
    assert found.steadiness.warning is None
    again = measure_front(run, entries, device="cpu")
    assert (again.num_before, again.rows, again.path) == (len(entries), found.rows, found.path)
    assert len(measured) == len(entries), "nothing is measured twice"
    other = measure_front(run, entries[:2], (32, 32), device="cpu", batch_size=2)
    assert other.path != found.path
    assert [size for size, _ in measured[len(entries) :]] == [(32, 32)] * 2
    assert json.loads(json.dumps(other.to_json()))["batch_size"] == 2


def test_an_interrupted_measurement_goes_on(run, measured, monkeypatch):
    entries, ours = run.read_entries(), front.measure_program

    def interrupted(*arguments, **options):
        if len(measured) == 2:
            raise KeyboardInterrupt
        return ours(*arguments, **options)

    monkeypatch.setattr(front, "measure_program", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_front(run, entries, device="cpu")
    monkeypatch.setattr(front, "measure_program", ours)
    found = measure_front(run, entries, device="cpu")
    assert (found.num_before, len(measured)) == (2, len(entries))
    assert [row["median_ms"] for row in found.rows.values()] == [99.0 - place for place in range(len(entries))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"Remove it: everything is measured again"),
        ('{"format": 1, "what": "backbone", "rows": {}}', r"is not as nasray wrote it: setting"),
    ],
)
def test_a_damaged_file_is_refused_in_a_line(run, measured, content, message):
    entries = run.read_entries()[:1]
    path = measure_front(run, entries, device="cpu").path
    path.write_text(content)
    with pytest.raises(NasrayError, match=message):
        measure_front(run, entries, device="cpu")
    for number, other in enumerate(
        ({"format": 1, "what": "backbone"}, {"format": 2, "what": "detector fcos"}), start=2
    ):
        path.write_text(json.dumps({**other, "setting": {}, "rows": {"a": {"b": 1.0}}}))
        measure_front(run, entries, device="cpu")
        assert len(measured) == number, "of something else, or an earlier version, nothing is taken"
    content = json.loads(path.read_text())
    del content["rows"][entries[0].id]["reference_ms"]
    path.write_text(json.dumps(content))
    with pytest.raises(NasrayError, match=r"reference_ms: Field required. Remove it: everything is measured again"):
        measure_front(run, entries, device="cpu")


def test_a_machine_that_became_slower_is_said(run, measured, monkeypatch):
    """Also where the measurement was interrupted in between."""
    entries, ours, factor = run.read_entries(), front.measure_program, [1.0]

    def slower(network, setting):
        factor[0] *= 1.1
        looks = [[factor[0] * value for value in look] for look in REST["reference_ms"]]
        return ours(network, setting) | {"reference_ms": looks}

    monkeypatch.setattr(front, "measure_program", slower)
    found = measure_front(run, entries[:1], device="cpu")
    assert found.steadiness.warning is None
    found = measure_front(run, entries[:3], device="cpu")
    assert "the machine was 21% slower at the end than at the beginning" in found.steadiness.warning
    content = found.to_json()
    assert (content["steady"], round(content["change_percent"])) == (False, 21)


def test_the_setting_is_that_of_the_budget(tmp_path, measured):
    space = {"name": "shufflenet", "stem_width": 8, "widths": [16, 32, 64, 96], "depths": [1, 1, 2, 1]}
    content = {
        "name": "n", "evaluations": 2, "space": space | {"image_hw": [64, 96]}, "searcher": {"name": "random"},
        "evaluator": {"name": "synflow"}, "budget": {"latency_ms": 5.0},
        "latency": {"runtime": "onnxruntime", "threads": 1},
    }  # fmt: skip
    experiment = parse_plan(content, "test").experiment
    searcher = ParetoEvolution(SPACE, objectives=(SCORE, Objective("gmacs", "min")), population_size=4, seed=1)
    score = lambda genes: genes[:, 0] * 1.0  # noqa: E731
    run = write_run(tmp_path / "run", searcher, 4, describe_experiment(experiment), evaluator=score)
    entries = run.read_entries()[:1]
    found = measure_front(run, entries)
    assert (found.setting.runtime, found.setting.threads) == ("onnxruntime", 1)
    assert measure_front(run, entries, runtime="eager").setting.runtime == "eager"


def test_what_has_no_image_size_needs_one(tmp_path):
    searcher = ParetoEvolution(Grid(), objectives=(SCORE, Objective("y", "min")), population_size=8, seed=0)
    run = write_run(
        tmp_path / "run", searcher, 32, evaluator=lambda genes: {"score": genes[:, 0] * 1.0, "y": genes[:, 1] * 1.0}
    )
    with pytest.raises(NasrayError, match="give one with --image-size"):
        measure_front(run, run.read_entries(), device="cpu")


def test_the_front_of_latency(run, measured):
    """Latencies count down while scores do: of those that are alike in score the faster one is ahead."""
    entries = run.read_entries()
    found = measure_front(run, entries, device="cpu")
    for objective in (SCORE, Objective("score", "min")):
        values = [(objective.sign * entry.metrics["score"], -found.rows[entry.id]["median_ms"]) for entry in entries]
        beaten = [any(a[0] >= b[0] and a[1] >= b[1] and a != b for a in values) for b in values]
        assert [not one for one in beaten] == fast_front(entries, objective, found).tolist()


def test_it_is_a_run(tmp_path):
    with pytest.raises(NasrayError):
        measure_front(RunFolder(tmp_path), [])


def test_a_run_that_counts_a_detector_has_it_measured(tmp_path, measured):
    """With the head and classes that its costs are of."""
    space = {"name": "shufflenet", "stem_width": 8, "widths": [16, 32, 64, 96], "depths": [1, 1, 2, 1]}
    counted = {"detector": {"name": "fcos", "channels": 16, "num_convs": 1}, "classes": 5}
    content = {
        "name": "n", "evaluations": 2, "space": space | {"image_hw": [64, 96]}, "searcher": {"name": "random"},
        "evaluator": {"name": "synflow"}, "costs": "detector", "counted": counted,
    }  # fmt: skip
    plan = parse_plan(content, "test")
    score = lambda genes: genes[:, 0] * 1.0  # noqa: E731
    run = write_run(tmp_path / "run", plan.parts.searcher, 2, describe_experiment(plan.experiment), evaluator=score)
    entries = run.read_entries()
    found = measure_front(run, entries, device="cpu")
    assert found.what == "detector fcos"
    assert measured == [((64, 96), round(entry.costs["params_m"] * 1e6)) for entry in entries]
