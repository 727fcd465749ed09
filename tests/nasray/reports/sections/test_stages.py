import dataclasses
import json
import shutil

from nasray.cluster import RunFolder
from nasray.cluster.files import to_json
from nasray.reports.page import joined_figures
from nasray.reports.section import Subject
from nasray.reports.sections.stages import stage_sections
from tests.nasray.reports.common import write_training


def test_stages_are_a_table_and_the_winners_training_its_curves(shufflenet, tmp_path):
    assert stage_sections(shufflenet) == []
    shutil.copytree(shufflenet.folder.path, tmp_path / "run")
    content = {
        "supernet-train": {"seconds": 75.0, "sessions": 1, "result": {"iterations": 9, "workers": 1}},
        "search": {"seconds": 3.5, "sessions": 2, "result": {"id": "x", "score": 0.25}},
        "train": {"seconds": 7260.0, "sessions": 1},
    }
    (tmp_path / "run" / "stages.json").write_text(json.dumps(content))
    subject = Subject(RunFolder(tmp_path / "run"), shufflenet.run, shufflenet.space)
    (section,) = stage_sections(subject)
    assert section.figures == {"stages": content}
    for part in ("1 min 15 s", "3.5 s", "2 h 01 min", "id x, score 0.25", "not done"):
        assert part in section.html
    write_training(tmp_path / "run" / "train", shufflenet.folder.read_entries()[0].architecture, 0.5)
    _, curves = stage_sections(subject)
    assert [plot.name for plot in curves.drawings] == ["train-metrics", "train-losses"]


def test_stages_that_fit_filters_prune_and_search_have_their_sections(detofa, tmp_path):
    titles = [section.title for section in stage_sections(detofa)]
    assert titles == ["Stages", "Path filter of stage filter", "Pruning by stage prune"]
    shutil.copytree(detofa.folder.path, tmp_path / "run")
    content = json.loads((detofa.folder.path / "stages.json").read_text())
    content["search"] = {"seconds": 1.0, "sessions": 1}
    (tmp_path / "run" / "stages.json").write_text(json.dumps(content))
    subject = dataclasses.replace(detofa, folder=RunFolder(tmp_path / "run"))
    found = stage_sections(subject)
    assert [section.title for section in found] == [*titles, "The front and chance"]
    joined = joined_figures(found)
    assert {"filter.filter", "prune.pruning", "front_against_chance"} <= set(joined)
    assert to_json(joined)
