import dataclasses
import shutil

import pytest
from matplotlib.figure import Figure

from nasray.cluster import RunFolder
from nasray.experiment import describe_experiment
from nasray.loading import parse_plan
from nasray.reports.sections.bands import bucket_names, buckets_of, draw_bands, edge_texts
from nasray.spaces.buckets import Buckets
from tests.nasray.reports import detofa as made


def test_every_second_bucket_is_shaded_as_far_as_there_is_something():
    axes = Figure().add_subplot()
    axes.plot([1.5, 9.0], [0.0, 1.0])
    axes.set_xlim(1.5, 9.0)
    draw_bands(axes, Buckets("gmacs", (0.0, 1.0, 2.0, 3.0, 8.0, 10.0)))
    spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    assert spans == [(1.5, 2.0), (3.0, 8.0)]
    assert axes.get_xlim() == (1.5, 9.0)


@pytest.mark.parametrize(
    ("edges", "expected"),
    [((962.2, 2268.1, 3574.0), ["962", "2,268", "3,574"]), ((0.0016, 0.00368, 0.0057), ["0.0016", "0.0037", "0.0057"])],
)
def test_edges_have_the_digits_that_tell_them_apart(edges, expected):
    assert edge_texts(edges) == expected
    assert bucket_names(Buckets("gmacs", edges))[0] == f"{expected[0]}–{expected[1]}"


def test_a_run_without_stages_has_no_buckets(staged):
    assert buckets_of(staged, "gmacs") is None


def test_the_buckets_of_a_run_are_those_of_its_last_stage_that_has_any(detofa, tmp_path):
    assert buckets_of(detofa, "gmacs") == made.buckets()
    assert buckets_of(detofa, "params_m") is None
    plan = parse_plan({**made.CONTENT, "stages": {**made.CONTENT["stages"], "chance": {
        "kind": "search", "searcher": {"name": "buckets", "num": 3}}}}, "test")  # fmt: skip
    run = RunFolder.create(tmp_path / "run", describe_experiment(plan.experiment))
    subject = dataclasses.replace(detofa, folder=run)  # nothing is fitted or pruned yet
    assert len(buckets_of(subject, "gmacs")) == 3
    shutil.copytree(detofa.folder.path / "filter", run.path / "filter")
    assert len(buckets_of(subject, "gmacs")) == 5
