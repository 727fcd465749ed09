"""Texts and image sizes: what they may be. The ranges of numbers hold for Python as for files."""

import pytest

import nasray
from nasray.cluster import Resources
from nasray.devices import choose_device
from nasray.evaluators import ClosedFormEntropy, LogWidth, SampledEntropy, ZenScore
from nasray.experiment import ResourceOptions
from nasray.recipe_options import WorkerOptions
from nasray.searchers import Evolution, RandomSearch
from nasray.spaces import BottleneckSpace, NasrayError
from nasray.values import check_text, read_image_hw


@pytest.mark.parametrize("text", ["", "a\0b", "a\nb", "\udcff", "a" * 256, "a/" * 2100, "a/" + "\u00e9" * 128])
def test_texts_that_are_no_names(text):
    with pytest.raises(NasrayError):
        check_text(text)


@pytest.mark.parametrize("value", ["640", 640, [640, 640], (640, 640), "640x640"])
def test_one_form_of_image_sizes(value):
    assert read_image_hw(value) == (640, 640)


@pytest.mark.parametrize("value", ["640x", "x640", "640X640", "1e3", "-640", "640x640x3", "9" * 5000, True, None, 31])
def test_what_is_no_image_size(value):
    with pytest.raises(NasrayError):
        read_image_hw(value)


NAN = float("nan")


@pytest.mark.parametrize(
    "make",
    [
        lambda space: Evolution(space, mutation=NAN),
        lambda space: Evolution(space, mutation=0.5, crossover=NAN),
        lambda space: Evolution(space, seed=-1),
        lambda space: RandomSearch(space, seed=2**63),
        lambda space: RandomSearch(space, seed=1.5),
        lambda space: Resources(cpus=NAN),
        lambda space: Resources(cpus=0),
        lambda space: Resources(gpus=1.5),
        lambda space: Resources(gpus=float("inf")),
        lambda space: Resources(retries=-1),
        lambda space: Resources(local_cpus=0),
        lambda space: Resources(address="nowhere"),
        lambda space: Resources(address="http://head:8265"),
        lambda space: Resources(address="head:99999"),
        lambda space: ClosedFormEntropy(space, weights=(0, 0, NAN, 1, 6)),
        lambda space: ClosedFormEntropy(space, weights=(0, 0, 0, 0, 0)),
        lambda space: LogWidth(space, weights=(1, 1)),
        lambda space: SampledEntropy(space, image_hw=(-384, 384)),
        lambda space: ZenScore(space, batch_size=0),
        lambda space: choose_device("tpu"),
        lambda space: nasray.search(space, len, folder="runs/x", evaluations=0),
        lambda space: nasray.search(space, len, folder="runs/x", evaluations=10, batch_size=NAN),
        lambda space: nasray.search(space, len, folder="runs/x", evaluations=10, in_flight=10**9),
        lambda space: ResourceOptions(cpus=NAN),
        lambda space: WorkerOptions(address=""),
    ],
)
def test_python_has_the_same_ranges(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"got|finite|weights|address"):  # pydantic's own error is one
        make(BottleneckSpace())
    assert not list(tmp_path.iterdir())
