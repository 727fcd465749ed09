"""Options of the command line become keys of the mapping; what is no option is refused with what was meant."""

import dataclasses

import pytest

from nasray.experiment import Experiment
from nasray.loading import load_plan
from nasray.overrides import dotted_keys, option_texts, override, part_rows
from nasray.recipe import Recipe, load_recipe, override_recipe
from nasray.registry import SEARCHERS
from nasray.signatures import attribute_texts
from nasray.spaces import NasrayError


def changed(*arguments, owner=Experiment):
    return override({}, arguments, owner)[0]


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        (["--seed", "3"], {"seed": 3}),
        (["--seed=3"], {"seed": 3}),
        (["--seed", "-1"], {"seed": -1}),
        (["--batch-size", "8"], {"batch_size": 8}),
        (["--budget.min-gmacs", "1e-3"], {"budget": {"min_gmacs": 1e-3}}),
        (["--budget.min_gmacs", "2"], {"budget": {"min_gmacs": 2}}),
        (["--space.image-hw", "640", "480"], {"space": {"image_hw": [640, 480]}}),
        (["--space.image-hw", "640x480"], {"space": {"image_hw": "640x480"}}),
        (["--space.image-hw", "640"], {"space": {"image_hw": 640}}),
        (["--space.image-hw", "[640, 480]"], {"space": {"image_hw": [640, 480]}}),
        (["--space.kernels", "3"], {"space": {"kernels": [3]}}),
        (["--space.kernels", "null"], {"space": {"kernels": None}}),
        (["--minimize", "gmacs", "params_m"], {"minimize": ["gmacs", "params_m"]}),
        (["--minimize", "gmacs"], {"minimize": ["gmacs"]}),
        (["--minimize", "[]"], {"minimize": []}),
        (["--recipe", "None"], {"recipe": None}),
        (["--name", "2024"], {"name": "2024"}),
        (["--name", "no"], {"name": "no"}),
        (["--name", "None"], {"name": "None"}),
        (["--supernet.shared", "false"], {"supernet": {"shared": False}}),
        (
            ["--supernet.sort-channels", "--supernet.kernels", "3", "5"],
            {"supernet": {"sort_channels": True, "kernels": [3, 5]}},
        ),
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
            load_plan("maedet-m", arguments)
    else:
        assert changed(*arguments) == content


def test_pairs_of_pairs():
    for given in (["0.1", "0.2", "0.3", "0.4"], ["[[0.1, 0.2], [0.3, 0.4]]"], ["[0.1, 0.2]", "[0.3, 0.4]"]):
        found = changed("--paths.name", "windows", "--paths.windows", *given, owner=Recipe)
        assert found == {"paths": {"name": "windows", "windows": [[0.1, 0.2], [0.3, 0.4]]}}


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
    before = load_plan("maedet-m").experiment
    assert (before.searcher.population_size, before.searcher.keep) == (256, 10)
    experiment = load_plan("maedet-m", ["--searcher.name", "evolution"]).experiment
    assert experiment.searcher.population_size == 256
    assert not hasattr(experiment.searcher, "keep")
    assert capsys.readouterr().err == "nasray: searcher 'evolution' has no keep: left out\n"


def test_what_is_given_for_another_part_is_not_left_out():
    with pytest.raises(NasrayError, match="searcher 'evolution' has no option 'keep'"):
        load_plan("maedet-m", ["--searcher.name", "evolution", "--searcher.keep", "3"])


def test_another_detector_keeps_the_keys_that_it_has_too(capsys):
    recipe = load_recipe("detnas-fpn-1x")
    assert recipe.detector.box_head is not None
    other = override_recipe(recipe, ["--detector.name", "retinanet"])
    assert (other.detector.name, other.detector.norm) == ("retinanet", recipe.detector.norm)
    assert "box_head" in capsys.readouterr().err


def test_the_mapping_itself_is_left_alone():
    content = {"budget": {"gmacs": 1}}
    assert override(content, ["--budget.gmacs", "2"], Experiment)[0] == {"budget": {"gmacs": 2}}
    assert content == {"budget": {"gmacs": 1}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--searcher.name", "evolution", "--searcher.popsize", "3"],
            "searcher 'evolution' has no option 'popsize'; did you mean 'population_size'? It has: name, ",
        ),
        (
            ["--searcher.name", "evolutoin"],
            "unknown searcher 'evolutoin'; did you mean 'evolution'? There are: ",
        ),
        (
            ["--searcher.population-size", "1"],
            "searcher.population_size: Input should be greater than or equal to 2",
        ),
        (["--searcher.no-keep"], "searcher 'coarse-to-fine' has no option 'no_keep'; did you mean 'keep'?"),
        (["--evaluator.name", "no"], "unknown evaluator 'no'"),
        (["--searcher.mutation", "yes"], "searcher.mutation: Input should be a valid number, got 'yes'"),
    ],
)
def test_one_style_of_error_for_options_of_parts(arguments, message):
    with pytest.raises(NasrayError) as refusal:
        load_plan("maedet-m", arguments)
    assert message in str(refusal.value)


def test_an_unknown_part_of_a_file_is_mended_by_another_name():
    content = {"searcher": {"name": "evolutoin", "keep": 3}}
    found, notes = override(content, ["--searcher.name", "evolution"], Experiment)
    assert found == {"searcher": {"name": "evolution"}}
    assert notes == ["searcher 'evolution' has no keep: left out"]


@pytest.mark.parametrize("owner", [Experiment, Recipe])
def test_every_option_is_listed_with_its_text(owner):
    value = load_plan("maedet-m").experiment if owner is Experiment else load_recipe("maedet-gfl-3x")
    options = option_texts(value)
    content = {"searcher": {"name": "coarse-to-fine"}, "detector": {"name": "gfl"}}
    whole = [name for name in options if not name.startswith("--stages.")]
    assert whole == [f"--{key.replace('_', '-')}" for key in dotted_keys(owner, content) if key != "stages"]
    assert all(text for _, text in options.values())
    assert set(attribute_texts(owner)) == {field.name for field in dataclasses.fields(owner)}


def test_options_of_the_part_that_is_named():
    options = option_texts(load_plan("maedet-m").experiment)
    assert options["--searcher.keep"][0] == 10
    assert not {"--space.size", "--evaluator.repeats", "--evaluator.cache-gib"} & set(options)


def test_rows_of_a_part():
    rows = {row.key: row for row in part_rows(SEARCHERS, "coarse-to-fine")}
    assert (rows["keep"].default, rows["keep"].is_required) == (10, False)
    assert rows["population_size"].default is None
    assert "name" not in rows
    assert "or all, as in the paper" in rows["mutation"].text  # the class's own words, not its base's
    with pytest.raises(NasrayError, match="unknown searcher 'keep'"):
        part_rows(SEARCHERS, "keep")
