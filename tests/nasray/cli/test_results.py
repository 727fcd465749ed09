from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from nasray.architectures import ARCHITECTURES
from nasray.cli import main
from nasray.cli.common import rounded_up
from nasray.scores.ranking import rank_agreement
from nasray.searchers import Objective, ParetoEvolution, RandomSearch
from nasray.spaces import ShuffleNetSpace
from tests.nasray.reports.common import SCORE, write_run, write_training

SPACE = ShuffleNetSpace(stem_width=8, widths=(16, 32, 64, 96), depths=(1, 1, 2, 1), image_hw=(128, 128))


def printed(capsys, *arguments):
    assert main(list(map(str, arguments))) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    assert main(list(map(str, arguments))) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("nasray: ")
    return message


@pytest.fixture
def front(tmp_path):
    searcher = ParetoEvolution(SPACE, objectives=(SCORE, Objective("gmacs", "min")), population_size=16, seed=1)
    return write_run(tmp_path / "run", searcher, 96, evaluator=lambda genes: genes.sum(axis=1) / 20)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", RandomSearch(SPACE, seed=0), 32, evaluator=lambda genes: genes.sum(axis=1) / 20)


def test_a_front_is_a_table_a_picture_and_json(front, capsys):
    entries = front.read_entries()
    text = printed(capsys, "front", front.path)
    assert [line.split()[0] for line in text.splitlines()[1 : len(entries) + 1]] == [entry.id for entry in entries]
    assert "costs are of the backbone at 128x128 pixels" in text
    assert str(front.path / "report" / "front.png") in text
    assert (front.path / "report" / "front.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads(printed(capsys, "front", front.path, "--json"))
    assert content["front"] == front.read_best()["best"]
    assert content["cost_scope"]["scope"] == "backbone"


def test_under_a_budget_it_is_the_best_entry_alone(front, capsys, tmp_path):
    entries = front.read_entries()
    assert len(entries) >= 3
    bound = entries[2].costs["gmacs"]
    wanted = max((e for e in entries if e.costs["gmacs"] <= bound), key=lambda e: e.metrics["score"])
    content = json.loads(printed(capsys, "front", front.path, "--budget.gmacs", bound, "--json"))
    assert [entry["id"] for entry in content["front"]] == [wanted.id]
    lower = json.loads(
        printed(capsys, "front", front.path, f"--budget.min-gmacs={entries[0].costs['gmacs']}", "--json")
    )
    assert [entry["id"] for entry in lower["front"]] == [entries[0].id]
    text = printed(capsys, "front", front.path, "--budget.gmacs", bound, "--to", tmp_path / "mine.png")
    assert json.dumps(wanted.architecture.family) in text
    assert (tmp_path / "mine.png").is_file()
    assert "none of the" in refused(capsys, "front", front.path, "--budget.gmacs", 1e-9)
    assert "no such cost" in refused(capsys, "front", front.path, "--budget.price", 1)
    assert "needs a value" in refused(capsys, "front", front.path, "--budget.gmacs")
    assert "unrecognized option '--budgt.gmacs'" in refused(capsys, "front", front.path, "--budgt.gmacs", 3)


def test_a_front_is_measured_on_this_device(front, capsys, monkeypatch):
    def measure(network, setting):
        num = sum(parameter.numel() for parameter in network.parameters())
        looks = [[4.0, 5.0, 6.0]]
        return {"median_ms": num / 1e4, "spread_ms": 0.5, "min_ms": 1.0, "fps": 2.0, "reference_ms": looks}

    monkeypatch.setattr("nasray.latency.front.prepared", lambda network, setting: network)
    monkeypatch.setattr("nasray.latency.front.measure_program", measure)
    content = json.loads(printed(capsys, "front", front.path, "--latency", "--device", "cpu", "--json"))
    assert content["latency"]["steady"] is False, "passes of the reference vary by 20 %"
    rows = content["front"]
    wanted = [row["costs"]["params_m"] * 100 for row in rows]
    assert [row["latency"]["median_ms"] for row in rows] == pytest.approx(wanted)
    assert rows[0]["on_latency_front"], "the best score is on every front"
    assert (content["latency"]["what"], content["latency"]["image_hw"]) == ("backbone", [128, 128])
    text = printed(capsys, "front", front.path, "--latency", "--device", "cpu", "--image-size", "96x64")
    head, *lines = text.splitlines()
    assert head.endswith("measured ms  spread ms  on its front")
    assert [line.split()[-3:-1] for line in lines[: len(rows)]] == [
        [f"{row['latency']['median_ms']:.4g}", "0.5"] for row in rows
    ]
    assert "of a pass of the backbone, 96x64 pixels, eager, float32, batch 1, on" in text
    assert str(front.path / "report" / "front-latency.png") in text
    assert "measured before" not in text
    text = printed(capsys, "front", front.path, "--latency", "--device", "cpu", "--image-size", "96x64")
    assert f"{len(rows)} of {len(rows)} were measured before; without {front.path / 'latency'}" in text
    assert "--image-size is for --latency" in refused(capsys, "front", front.path, "--image-size", "64x64")
    assert "--batch-size is for --latency" in refused(capsys, "front", front.path, "--batch-size", 2)


def test_the_costs_of_a_row_choose_it(front, capsys):
    """As they are printed, that is rounded, and with the command that is printed for one of them."""
    entries = front.read_entries()
    text = printed(capsys, "front", front.path)
    head = text.splitlines()[0].split()
    for entry, line in zip(entries, text.splitlines()[1:], strict=False):
        bound = line.split()[head.index("gmacs")]
        found = json.loads(printed(capsys, "front", front.path, "--budget.gmacs", bound, "--json"))["front"]
        assert [one["id"] for one in found] == [entry.id]
    assert f"each is the best within its costs: nasray export {front.path} --budget.gmacs " in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4, "0.4"), (0.401231, "0.40124"), (0.40123, "0.40123"), (123456.2, "1.2346e+5"), (7.0, "7.0"), (None, "-")],
)
def test_costs_are_rounded_up(value, text):
    assert rounded_up(value) == text
    assert value is None or float(text) >= value


def test_a_front_needs_no_matplotlib(front, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["front", str(front.path)]) == 0
    streams = capsys.readouterr()
    assert front.read_entries()[0].id in streams.out
    assert "no pictures: " in streams.err


def test_a_run_is_compared_with_what_was_trained_like_its_winner(run, capsys):
    assert "no winner was trained in" in refused(capsys, "compare", run.path)
    write_training(run.path / "train", run.read_entries()[0].architecture, 0.5)
    assert "nothing was trained in" in refused(capsys, "compare", run.path)
    for place, row in enumerate(SPACE.sample(6, np.random.default_rng(3))):
        architecture = SPACE.to_architecture(row)
        folder = run.path / "compare" / "random" / architecture.id / "seed-0" / "train"
        write_training(folder, architecture, 0.40 + place / 500)
    text = printed(capsys, "compare", run.path)
    assert "The winner (1 training) is better than random choice (6 architectures): mAP 0.5000 against 0.4050" in text
    assert any(line.split()[:4] == ["random", "6", "6", "0.4050"] for line in text.splitlines())
    assert (run.path / "compare" / "compare.png").is_file()
    content = json.loads(printed(capsys, "compare", run.path, "--json"))
    assert content["comparisons"][0]["verdict"] == "better"
    # Everything that is asked for is there: nothing is trained, and nothing starts.
    assert json.loads(printed(capsys, "compare", run.path, "--random", 6, "--json")) == content


def test_trainings_are_compared_as_they_are(tmp_path, capsys):
    folders = [
        write_training(tmp_path / f"{name}-{seed}", ARCHITECTURES[name], value, seed=seed)
        for name, values in {"resnet18": (0.3, 0.31, 0.32), "resnet34": (0.4, 0.41, 0.42)}.items()
        for seed, value in enumerate(values)
    ]
    text = printed(capsys, "compare", *folders, "--to", tmp_path / "picture.png")
    assert "resnet18 (3 trainings) is worse than resnet34 (3 trainings)" in text
    assert (tmp_path / "picture.png").is_file()
    assert "are for a run" in refused(capsys, "compare", *folders, "--repeats", 2)
    assert "are one group" in refused(capsys, "compare", *folders[:3])


RANKED = {
    "architectures": [{"id": f"{n}", "mAP": n / 10, "supernet": n / 5} for n in range(3)],
    "agreement": {"supernet": rank_agreement(range(3), range(3))},
    "random": {"mean": 0.1, "sd": 0.1, "num": 3},
}


@pytest.fixture
def ranked(tmp_path, monkeypatch):
    (tmp_path / "runs" / "x" / "rank").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nasray.rank.rank_run", lambda *_, **__: RANKED)


@pytest.mark.usefixtures("ranked")
def test_rank_measures_where_matplotlib_is_missing(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["rank", "runs/x", "--architectures", "3"]) == 0
    printed = capsys.readouterr()
    assert "random architectures: mAP 0.1000 (sd 0.1000, 3 of them)" in printed.out
    assert "nasray: no pictures: a report's figures need matplotlib" in printed.err


@pytest.mark.usefixtures("ranked")
def test_rank_claims_nothing_of_three(capsys, monkeypatch):
    assert main(["rank", "runs/x", "--architectures", "3"]) == 0
    printed = capsys.readouterr().out
    assert "3 architectures are too few to say how predictors agree with training; at least 8 are needed" in printed
    assert "1.000" not in printed
    assert str(Path("runs/x/rank/rank.png")) in printed
    assert "agreement.png" not in printed
    many = {**RANKED, "architectures": RANKED["architectures"] * 4, "agreement": {
        "supernet": rank_agreement(range(12), range(12)), "zen": rank_agreement(range(5), range(5)),
    }}  # fmt: skip
    monkeypatch.setattr("nasray.rank.rank_run", lambda *_, **__: many)
    assert main(["rank", "runs/x"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert str(Path("runs/x/rank/agreement.png")) in lines
    assert any(line.split() == ["supernet", "1.000", "0.818", "to", "1.000", "1.000"] for line in lines)
    assert any(line.split() == ["zen", "-", "too", "few:", "5,", "at", "least", "8", "-"] for line in lines)
