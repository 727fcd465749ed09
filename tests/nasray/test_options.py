"""Options of the command line become keys of the mapping; what is no option is refused with what was meant."""

import dataclasses

import pytest

import nasray
from nasray.cluster import Resources
from nasray.evaluators import ClosedFormEntropy, LogWidth, Proxy, SampledEntropy, choose_device
from nasray.experiment import Experiment, ResourceOptions, load_experiment, part_keys
from nasray.options import attribute_texts, check_text, dotted_keys, option_texts, override, read_image_hw
from nasray.recipe import Recipe, WorkerOptions, load_recipe, override_recipe
from nasray.searchers import Evolution, RandomSearch
from nasray.spaces import BottleneckSpace, NasrayError


def changed(*arguments, owner=Experiment):
    return override({}, arguments, owner, part_keys=part_keys)[0]


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        (["--seed", "3"], {"seed": 3}),
        (["--seed=3"], {"seed": 3}),
        (["--seed", "-1"], {"seed": -1}),
        (["--batch-size", "8"], {"batch_size": 8}),
        (["--budget.min-gmacs", "1e-3"], {"budget": {"min_gmacs": 1e-3}}),
        (["--budget.min_gmacs", "2"], {"budget": {"min_gmacs": 2}}),
        (["--space.image-size", "640", "480"], {"space": {"image_size": [640, 480]}}),
        (["--space.image-size", "640x480"], {"space": {"image_size": "640x480"}}),
        (["--space.image-size", "640"], {"space": {"image_size": 640}}),
        (["--space.image-size", "[640, 480]"], {"space": {"image_size": [640, 480]}}),
        (["--space.kernels", "3"], {"space": {"kernels": [3]}}),
        (["--space.kernels", "null"], {"space": {"kernels": None}}),
        (["--minimize", "gmacs", "params_m"], {"minimize": ["gmacs", "params_m"]}),
        (["--minimize", "gmacs"], {"minimize": ["gmacs"]}),
        (["--minimize", "[]"], {"minimize": []}),
        (["--supernet.pretrain", "None"], {"supernet": {"pretrain": None}}),
        (["--name", "2024"], {"name": "2024"}),
        (["--name", "no"], {"name": "no"}),
        (["--name", "None"], {"name": "None"}),
        (["--evaluator.residual"], {"evaluator": {"residual": True}}),
        (["--evaluator.no-residual"], {"evaluator": {"residual": False}}),
        (["--evaluator.residual", "false"], {"evaluator": {"residual": False}}),
        (["--evaluator.weights", "0", "0", "1", "1", "6"], {"evaluator": {"weights": [0, 0, 1, 1, 6]}}),
        (["--budget.gmacs", ".nan", "--seed", "1"], None),
    ],
)
def test_values(arguments, content):
    if content is None:  # NaN equals nothing; it is refused by the range of the option
        with pytest.raises(NasrayError, match="finite number"):
            load_experiment("maedet-m", arguments)
    else:
        assert changed(*arguments) == content


def test_pairs_of_pairs():
    for given in (["0.1", "0.2", "0.3", "0.4"], ["[[0.1, 0.2], [0.3, 0.4]]"], ["[0.1, 0.2]", "[0.3, 0.4]"]):
        assert changed("--paths.windows", *given, owner=Recipe) == {"paths": {"windows": [[0.1, 0.2], [0.3, 0.4]]}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budgt.gmacs", "3"], "unrecognized option '--budgt.gmacs'; did you mean '--budget.gmacs'"),
        (["--sed", "3"], "did you mean '--seed'"),
        (["--budget", "3"], "--budget is a section. Its options are --budget.gmacs"),
        (["--seed.x", "3"], "unrecognized option '--seed.x'"),
        (["--seed"], "--seed needs a value"),
        (["--seed", "3", "4"], "--seed takes one value, got 2"),
        (["--seed", "3", "--seed", "4"], "given twice"),
        (["--seed", "3", "--seed=4"], "given twice"),
        (["3"], "unexpected argument '3'"),
        (["-s", "3"], "unrecognized option '-s'"),
        (["--seed", "[1"], "--seed is not valid YAML"),
        (["--no-seed"], "unrecognized option '--no-seed'"),
        (["--"], "unrecognized option"),
        (["--a." + "b." * 5000], "unrecognized option"),
    ],
)
def test_what_is_no_option(arguments, message):
    with pytest.raises(NasrayError, match=message) as refusal:
        changed(*arguments)
    assert len(str(refusal.value)) < 400


def test_another_part_keeps_the_keys_that_it_has_too(capsys):
    before = load_experiment("maedet-m")
    assert (before.searcher.population_size, before.searcher.keep) == (256, 10)
    experiment = load_experiment("maedet-m", ["--searcher.name", "evolution"])
    assert (experiment.searcher.population_size, experiment.searcher.keep) == (256, None)
    assert capsys.readouterr().err == "nasray: searcher 'evolution' has no keep: left out\n"


def test_what_is_given_for_another_part_is_not_left_out():
    with pytest.raises(NasrayError, match="searcher 'evolution' has no option 'keep'"):
        load_experiment("maedet-m", ["--searcher.name", "evolution", "--searcher.keep", "3"])


def test_another_detector_keeps_the_keys_that_it_has_too(capsys):
    recipe = load_recipe("detnas-fpn-1x")
    assert recipe.detector.box_head is not None
    other = override_recipe(recipe, ["--detector.name", "retinanet"])
    assert (other.detector.name, other.detector.box_head) == ("retinanet", None)
    assert "box_head" in capsys.readouterr().err


def test_the_mapping_itself_is_left_alone():
    content = {"budget": {"gmacs": 1}}
    assert override(content, ["--budget.gmacs", "2"], Experiment)[0] == {"budget": {"gmacs": 2}}
    assert content == {"budget": {"gmacs": 1}}


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


@pytest.mark.parametrize("owner", [Experiment, Recipe])
def test_every_option_is_listed_with_its_text(owner):
    value = load_experiment("maedet-m") if owner is Experiment else load_recipe("maedet-gfl-3x")
    options = option_texts(value)
    assert list(options) == [f"--{key.replace('_', '-')}" for key in dotted_keys(owner)]
    assert all(text for _, text in options.values())
    assert set(attribute_texts(owner)) == {field.name for field in dataclasses.fields(owner)}


def test_options_of_the_part_that_is_named():
    options = option_texts(load_experiment("maedet-m"), part_keys)
    assert options["--searcher.keep"][0] == 10
    assert not {"--space.size", "--evaluator.repeats", "--evaluator.cache-gib"} & set(options)


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
        lambda space: Proxy(space, "zen", batch_size=0),
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
