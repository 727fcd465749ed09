"""Detectors trained by themselves beside a front: the same images, the same costs, or a refusal."""

import dataclasses
import json

import pytest

from nasray import cli
from nasray.beside import measure_beside
from nasray.checkpoint import Checkpoint
from nasray.spaces import NasrayError, OFAResNetSpace
from nasray.subnets import subnet
from tests.nasray.test_subnets import searched_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    sizes = ((64, 64), (96, 96))
    options = {
        "name": "ofa-resnet",
        "size": "tiny",
        "image_hw": [96, 96],
        "resolutions": [list(size) for size in sizes],
    }
    space = OFAResNetSpace("tiny", image_hw=(96, 96), resolutions=sizes)
    return searched_run(tmp_path_factory.mktemp("resolved"), space, options)


@pytest.fixture(scope="module")
def detectors(resolved, tmp_path_factory):
    """Two rows of the front, as detectors by themselves."""
    folder, entries = tmp_path_factory.mktemp("detectors"), resolved.read_entries()[:2]
    for entry in entries:
        subnet(resolved, entry, folder / f"{entry.id}.pt")
    return {str(folder / f"{entry.id}.pt"): entry for entry in entries}


def test_a_row_by_itself_is_worth_what_the_front_says(resolved, detectors):
    for found in measure_beside(resolved, list(detectors)):
        entry = detectors[found.name]
        assert found.id == entry.id
        assert found.metrics == pytest.approx(dict(entry.metrics), abs=1e-6)
        assert found.costs == entry.costs


def test_what_has_seen_the_images_is_refused(resolved, detectors, tmp_path):
    checkpoint = Checkpoint.load(next(iter(detectors)))
    for changes, message in (
        ({"holdout": 0}, "x.pt was trained on shapes, none held out, and the front is measured on images that its"),
        ({"holdout_seed": 4}, "shapes, 24 held out by seed 4.*Train it so, with --holdout 24 --holdout-seed 3"),
    ):
        other = dataclasses.replace(checkpoint, recipe=dataclasses.replace(checkpoint.recipe, **changes))
        other.save(tmp_path / "x.pt")
        with pytest.raises(NasrayError, match=message):
            measure_beside(resolved, [str(tmp_path / "x.pt")])


def test_other_classes_are_refused(resolved, detectors, tmp_path):
    checkpoint = Checkpoint.load(next(iter(detectors)))
    dataclasses.replace(checkpoint, classes=checkpoint.classes[::-1]).save(tmp_path / "x.pt")
    with pytest.raises(NasrayError, match=r"the supernet of .*in another order"):
        measure_beside(resolved, [str(tmp_path / "x.pt")])


def test_front_shows_them_in_table_and_picture(resolved, detectors, tmp_path, capsys):
    picture = tmp_path / "front.png"
    assert cli.main(["front", str(resolved.path), "--beside", *detectors, "--to", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("trained by itself") for line in lines)
    for name, entry in detectors.items():
        assert any(name in line and f"{entry.metrics['score']:.5g}" in line for line in lines)
    assert picture.stat().st_size > 1000
    assert cli.main(["front", str(resolved.path), "--beside", *detectors, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["beside"]
    assert [row["id"] for row in found] == [entry.id for entry in detectors.values()]
