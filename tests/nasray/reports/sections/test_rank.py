import json
import shutil

import pytest

from nasray.cluster import RunFolder
from nasray.reports.page import draw_plots
from nasray.reports.section import Subject
from nasray.reports.sections.rank import rank_plots, rank_sections
from nasray.scores.ranking import rank_agreement


def result(num):
    rows = [{"id": f"{n}", "mAP": n / 20, "supernet": n / 30} for n in range(num)]
    agreement = {"supernet": rank_agreement(range(num), range(num)), "zen": rank_agreement(range(num), [0] * num)}
    return {"architectures": rows, "agreement": agreement, "random": {"mean": 0.2, "sd": 0.1, "num": num}}


def test_a_run_that_was_not_ranked_has_no_section(shufflenet):
    assert rank_sections(shufflenet) == []


@pytest.mark.parametrize("num", [3, 12])
def test_what_rank_wrote_is_read_and_shown(shufflenet, tmp_path, num):
    shutil.copytree(shufflenet.folder.path, tmp_path / "run")
    (tmp_path / "run" / "rank").mkdir()
    winner = {"id": "w", "mAP": 0.61, "supernet": 0.3}
    (tmp_path / "run" / "rank" / "rank.json").write_text(json.dumps({**result(num), "winner": winner}))
    subject = Subject(RunFolder(tmp_path / "run"), shufflenet.run, shufflenet.space)
    (section,) = rank_sections(subject)
    assert f"{num} random architectures within the budget" in section.html
    assert "trained alike: 0.6100" in section.html
    assert [plot.name for plot in section.drawings] == (["rank"] if num == 3 else ["rank", "agreement"])
    assert ("too few" in section.html) == (num == 3)
    assert ("tau 1.00" in section.drawings[0].alternative) == (num == 12)
    if num == 12:
        svg = draw_plots(section.drawings)["agreement"].svg
        assert ">supernet<" in svg
        assert ">zen<" not in svg, "a constant predictor agrees with nothing"


def test_figures_need_no_file():
    assert [plot.name for plot in rank_plots(result(12))] == ["rank", "agreement"]


def test_a_score_without_training_stands_where_a_supernet_does(shufflenet, tmp_path):
    found = result(12)
    rows = [{"zen": row["supernet"], "id": row["id"], "mAP": row["mAP"]} for row in found["architectures"]]
    agreement = {"zen": found["agreement"]["supernet"], "gmacs": found["agreement"]["supernet"]}
    measured = {"run": "x", "score": "zen", "space": {}, "budget": {}, "scores": {}, "recipe": "r", "data": "d"}
    content = {**found, "architectures": rows, "agreement": agreement, "measured": measured}
    shutil.copytree(shufflenet.folder.path, tmp_path / "run")
    (tmp_path / "run" / "rank").mkdir()
    (tmp_path / "run" / "rank" / "rank.json").write_text(json.dumps(content))
    (section,) = rank_sections(Subject(RunFolder(tmp_path / "run"), shufflenet.run, shufflenet.space))
    assert section.title == "Does the score rank as training does?"
    assert "mAP after training over zen" in section.drawings[0].alternative
    assert "score zen, without training" in draw_plots(section.drawings)["rank"].svg
