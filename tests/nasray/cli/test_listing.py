import json

import pytest

from nasray.cli import main
from tests.nasray.cli.common import figures, refused


def printed(capsys, *words):
    assert main(["list", *words]) == 0
    return capsys.readouterr().out


def test_the_page_of_a_space_says_what_a_budget_leaves_of_it(capsys):
    page = printed(capsys, "spaces", "shufflenet", "--budget.gmacs", "0.3")
    assert "architectures: 1,099,511,627,776, counted exactly" in page
    assert "costs: backbone at 224x224, 20,000 random ones" in page
    least, median, most = next(line.split()[1:] for line in page.splitlines() if line.startswith("gmacs "))
    assert (least, most) == ("0.23722", "0.36547")
    assert 0.29 < float(median) < 0.30
    assert "gmacs <= 0.3: met by 68.6 % [68, 69.2] of random architectures (95 % interval)" in page


def test_a_profile_is_of_the_options_that_are_given(capsys):
    words = ("--space.stem-width", "4", "--space.widths", "8", "12", "16", "24", "--space.depths", "1", "1", "1", "1")
    page = json.loads(printed(capsys, "spaces", "shufflenet", *words, "--budget.layers", "17", "--json"))
    profile = page["profile"]
    assert "widths" in page["options"]
    assert (profile["num_architectures"], profile["num_looked_at"], profile["is_whole"]) == (256, 256, True)
    assert profile["share"] == profile["interval"][0] == 189 / 256  # at most one of the four blocks is xception
    assert profile["budget"] == "layers <= 17"


def test_every_kind_of_part_is_listed_and_each_part_has_a_page(capsys):
    kinds = ("spaces", "searchers", "evaluators", "stages", "detectors", "path-samplers")
    for kind in kinds:
        names = json.loads(printed(capsys, kind, "--json"))
        for name, text in names.items():
            assert text
            assert printed(capsys, kind, name).startswith(f"{name}: {text}")
    assert set(json.loads(printed(capsys, "callbacks", "--json"))) == {"mlflow", "wandb"}
    page = printed(capsys, "stages", "train")
    assert "weights" in page
    assert "Stage or checkpoint from which weights are taken" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("spaces", "shufflenet", "--budget.gmac", "1"), "did you mean '--budget.gmacs'"),
        (("spaces", "shufflenet", "--space.size", "huge"), "'huge' is not one of small, large"),
        (("spaces", "shufflenet", "--space.name", "basic"), "the space is 'shufflenet' already"),
        (("spaces", "shufflenet", "--budget.latency-ms", "3"), "is measured by a search"),
        (("searchers", "evolution", "--budget.gmacs", "3"), "is for `nasray list spaces NAME`"),
        (("spaces", "--jsn"), "unrecognized option '--jsn'; did you mean '--json'"),
    ],
)
def test_what_does_not_belong_to_a_list_is_refused(words, message, capsys):
    error = refused(capsys, "list", *words)
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("what", ["spaces", "searchers", "evaluators", "detectors", "experiments", "architectures"])
def test_list(capsys, what):
    assert len(figures(capsys, "list", what)) >= 4
    assert main(["list", what]) == 0


def test_list_of_a_parts_options(capsys):
    shown = figures(capsys, "list", "searchers", "evolution")
    assert shown["name"] == "evolution"
    assert shown["options"]["mutations_per_child"]["default"] == 1
    assert shown["options"]["parents"] == {
        "default": None, "required": False,
        "text": "Number of the best that may breed; a fifth of the population if left out, and with several objectives "
        "more than there are objectives.",
    }  # fmt: skip
    assert main(["list", "evaluators", "sampled-entropy"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("sampled-entropy: Multi-scale entropy by forward passes")
    assert '\nsize_factor "log-channels"\n    How the size of a feature map' in printed
    assert "One of log-channels, map-size, none." in printed
    assert "unknown searcher 'evolutoin'; did you mean 'evolution'" in refused(capsys, "list", "searchers", "evolutoin")
    assert "NAME is for spaces, searchers, evaluators, stages, detectors" in refused(capsys, "list", "recipes", "x")
