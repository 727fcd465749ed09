from __future__ import annotations

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.comparison import Group, Training, compare, groups_of_folders
from nasray.reports.page import draw_plots
from nasray.reports.sections.comparison import comparison_section
from tests.nasray.reports.common import write_training


@pytest.fixture
def result(tmp_path):
    values = {"resnet18": (0.50, 0.52, 0.51), "resnet34": (0.40, 0.41, 0.42), "resnet50": (0.5,)}
    folders = [
        write_training(tmp_path / f"{name}-{seed}", ARCHITECTURES[name], value, seed=seed)
        for name, of_name in values.items()
        for seed, value in enumerate(of_name)
    ]
    return compare(groups_of_folders(folders))


def test_groups_and_verdicts_are_tables_and_a_picture(result):
    section = comparison_section(result)
    assert section.figures == {"comparison": result}
    for part in ("resnet18", "0.5100", "0.4852 to 0.5348", "resnet18 against resnet34", "+0.1000", "better",
                 "cannot be told apart", "–"):  # fmt: skip
        assert part in section.html, part
    (drawing,) = draw_plots(section.drawings).values()
    assert "resnet34: mean 0.4100" in drawing.svg
    for name in ("resnet18", "resnet34", "resnet50"):
        assert f">{name}<" in drawing.svg, "every group has its row"


def test_what_was_not_done_alike_is_said(tmp_path):
    one = write_training(tmp_path / "one", ARCHITECTURES["resnet18"], 0.5)
    other = write_training(tmp_path / "other", ARCHITECTURES["resnet34"], 0.4, batch_size=32)
    assert "batch_size 32 instead of 16" in comparison_section(compare(groups_of_folders([one, other]))).html


def test_nothing_is_claimed_of_two_trainings(tmp_path):
    trainings = [Training("a", 0, 0.5, write_training(tmp_path / "a", ARCHITECTURES["resnet18"], 0.5)),
                 Training("b", 0, 0.1, write_training(tmp_path / "b", ARCHITECTURES["resnet34"], 0.1))]  # fmt: skip
    section = comparison_section(compare([Group("winner", tuple(trainings[:1])), Group("other", tuple(trainings[1:]))]))
    assert "too few to tell" in section.html
    assert "better" not in section.html
