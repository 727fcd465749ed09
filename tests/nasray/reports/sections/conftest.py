"""Runs as sections see them."""

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.reports.data import read_run
from nasray.reports.section import Subject
from nasray.searchers import CoarseToFineEvolution, Evolution, Objective, ParetoEvolution
from nasray.spaces import BottleneckSpace, Budget, MSNASSpace, ShuffleNetSpace
from tests.nasray.reports import detofa as made
from tests.nasray.reports.common import SCORE, write_run


def subject_of(folder, space, **options):
    return Subject(folder, read_run(folder), space, **options)


@pytest.fixture(scope="session")
def staged(tmp_path_factory):
    space = BottleneckSpace()
    searcher = CoarseToFineEvolution(space, fine_after=80, budget=Budget({"gmacs": 91.0}), seed=3)
    experiment = {"name": "staged", "evaluations": 160, "searcher": {"name": "coarse-to-fine", "fine_after": 80}}
    experiment["budget"] = {"gmacs": 91.0}
    folder = write_run(tmp_path_factory.mktemp("staged") / "run", searcher, 160, {"experiment": experiment})
    return subject_of(folder, space, reference=ARCHITECTURES["maedet-m"])


@pytest.fixture(scope="session")
def front(tmp_path_factory):
    space = BottleneckSpace()
    searcher = ParetoEvolution(space, objectives=(SCORE, Objective("gmacs", "min")), population_size=16, seed=1)
    return subject_of(write_run(tmp_path_factory.mktemp("front") / "run", searcher, 96), space)


@pytest.fixture(scope="session")
def shufflenet(tmp_path_factory):
    space = ShuffleNetSpace(stem_width=8, widths=(16, 32, 64, 96), depths=(1, 1, 2, 1), image_hw=(128, 128))
    searcher = Evolution(space, population_size=8, parents=4, initial=16, seed=0)
    folder = write_run(tmp_path_factory.mktemp("shufflenet") / "run", searcher, 64)
    return subject_of(folder, space)


@pytest.fixture(scope="session")
def msnas(tmp_path_factory):
    space = MSNASSpace("tiny", image_hw=(128, 128))
    folder = write_run(tmp_path_factory.mktemp("msnas") / "run", Evolution(space, population_size=8, seed=0), 64)
    return subject_of(folder, space)


@pytest.fixture(scope="session")
def detofa(tmp_path_factory):
    path = tmp_path_factory.mktemp("detofa") / "run"
    return subject_of(made.write_detofa_run(path), made.SPACE)
