import dataclasses

from nasray.architectures import ARCHITECTURES
from nasray.reports.data import read_run
from nasray.reports.section import Section, Subject
from nasray.searchers import RandomSearch
from nasray.spaces import Architecture
from tests.nasray.reports.common import PricedGrid, write_run


def test_a_subject_knows_its_winner_and_the_name_of_its_reference(tmp_path):
    folder = write_run(tmp_path / "run", RandomSearch(PricedGrid(), seed=0), 40)
    subject = Subject(folder, read_run(folder), PricedGrid(), reference=ARCHITECTURES["maedet-m"])
    assert subject.best == folder.read_entries()[0].evaluation
    assert subject.reference_name == "maedet-m"
    own = Architecture.create("grid", {"x": 1, "y": 2})
    assert dataclasses.replace(subject, reference=own).reference_name == own.id


def test_sections_share_nothing():
    one, other = Section("a"), Section("b")
    one.figures["key"] = 1
    assert other.figures == {}
