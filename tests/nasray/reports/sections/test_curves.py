from __future__ import annotations

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.reports.page import draw_plots
from nasray.reports.sections.curves import curves
from nasray.spaces import NasrayError
from nasray.training.folder import read_log
from tests.nasray.reports.common import write_training


def test_a_log_is_steps_and_validations_and_two_figures(tmp_path):
    folder = write_training(tmp_path / "train", ARCHITECTURES["resnet18"], 0.5)
    log = read_log(folder)
    assert [line["iteration"] for line in log.steps] == [10, 20]
    assert [line["metrics"]["mAP"] for line in log.validations] == [0.25, 0.5]
    drawings = draw_plots(curves(log, "x-"))
    assert list(drawings) == ["x-metrics", "x-losses"]
    assert "mAP ends at 0.500" in drawings["x-metrics"].svg
    for name in ("loss", "classes", "boxes"):
        assert f">{name}<" in drawings["x-losses"].svg


def test_a_last_line_that_is_cut_short_is_left_out_and_another_is_refused(tmp_path):
    folder = write_training(tmp_path / "train", ARCHITECTURES["resnet18"], 0.5)
    path = folder / "log.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"iteration": 30, "epo')
    assert len(read_log(folder).steps) == 2
    path.write_text('{"iteration": 30, "epo\n' + whole)
    with pytest.raises(NasrayError, match=r"log.jsonl, line 1"):
        read_log(folder)


def test_a_training_without_a_log_has_no_figures(tmp_path):
    assert curves(read_log(tmp_path)) == ()
