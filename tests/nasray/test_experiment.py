"""Experiments from files and from the command line have the same rules, YAML's traps included."""

import pytest

from nasray.architectures import ARCHITECTURES
from nasray.cluster.reading import to_yaml
from nasray.experiment import experiment_names
from nasray.loading import load_plan, parse_plan
from nasray.options import PartOptions
from nasray.spaces import NasrayError


def from_file(folder, text):
    (folder / "mine.yaml").write_bytes(text)
    return load_plan(str(folder / "mine.yaml")).experiment


def outcome(load):
    """What is loaded, or the message without the name of its source."""
    try:
        return load()
    except NasrayError as error:
        return str(error).rpartition(".yaml: ")[2]


@pytest.mark.parametrize(
    ("section", "key", "text", "value"),
    [
        ("budget", "min_gmacs", "1e-3", 1e-3),
        ("searcher", "mutation", "1e-1", 0.1),
        ("searcher", "mutation", "01", 1.0),
        ("searcher", "keep", "1e1", "searcher.keep: Input should be a valid integer, got 10.0"),
        ("searcher", "keep", "0x10", 16),
        ("searcher", "keep", "12:30", "searcher.keep: Input should be a valid integer, got '12:30'"),
        ("evaluator", "residual", "no", "evaluator.residual: Input should be a valid boolean, got 'no'"),
        ("evaluator", "residual", "true", True),
        ("evaluator", "name", "no", "unknown evaluator 'no'. There are: entropy"),
        ("evaluator", "size_factor", "none", "none"),
        ("evaluator", "size_factor", "off", "evaluator.size_factor: 'off' is not one of log-channels, map-size, none"),
        ("evaluator", "image_hw", "640x480", (640, 480)),
        ("evaluator", "image_hw", "640", (640, 640)),
        ("space", "kernels", "[3, 5]", (3, 5)),
        ("space", "kernels", "[3, 3.0]", "space.kernels.1: Input should be a valid integer, got 3.0"),
        ("space", "max_width", ".inf", "space.max_width: Input should be a valid integer, got inf"),
        ("space", "max_width", "null", 2048),
    ],
)
def test_a_value_means_the_same_in_a_file_and_on_the_command_line(tmp_path, section, key, text, value):
    option = f"--{section}.{key.replace('_', '-')}"
    for found in (
        outcome(lambda: from_file(tmp_path, f"name: mine\n{section}: {{{key}: {text}}}\n".encode())),
        outcome(lambda: load_plan(str(tmp_path / "plain.yaml"), [option, text]).experiment),
    ):
        if not isinstance(found, str):
            found = getattr(getattr(found, section), key)
        if isinstance(value, str):
            assert found.startswith(value)
        else:
            assert found == value


@pytest.fixture(autouse=True)
def plain(tmp_path):
    (tmp_path / "plain.yaml").write_text("name: mine\n")


def test_a_byte_order_mark_is_passed_over_and_keys_twice_are_refused(tmp_path):
    assert from_file(tmp_path, b"\xef\xbb\xbfname: mine\nseed: 3\n").seed == 3
    for text in (b"seed: 1\nseed: 2\n", b"searcher: {keep: 1, keep: 2}\n"):
        with pytest.raises(NasrayError, match=r"key '(seed|keep)' occurs twice"):
            from_file(tmp_path, text)
    with pytest.raises(NasrayError, match="option --seed is given twice"):
        load_plan(str(tmp_path / "plain.yaml"), ["--seed", "1", "--seed", "2"])


@pytest.mark.parametrize("name", experiment_names())
def test_a_shipped_experiment_is_what_its_file_says(name, tmp_path):
    """Written out and read again it is the same; its parts' options are those of the parts."""
    from nasray.experiment import describe_experiment

    experiment = load_plan(name).experiment
    content = describe_experiment(experiment)["experiment"]
    assert from_file(tmp_path, to_yaml(content).encode()) == experiment
    parts = (experiment.space, *filter(None, (experiment.searcher, experiment.evaluator)))
    assert all(isinstance(part, PartOptions) for part in parts)
    searches = any(options.kind == "search" for options in experiment.stages.values())
    assert len(parts) == (3 if searches else 1)


@pytest.mark.parametrize("name", experiment_names())
def test_every_shipped_experiment_loads_and_is_feasible(name):
    plan = load_plan(name)
    plan.parts.random_searcher(0).check_feasible()
    if plan.parts.searching is not None:
        plan.parts.searcher.check_feasible()
    experiment = plan.experiment
    assert experiment.reference is None or experiment.reference in ARCHITECTURES


def test_overrides_reach_the_experiment():
    experiment = load_plan("maedet-m", ["--budget.gmacs", "60", "--seed", "3"]).experiment
    assert (experiment.budget.gmacs, experiment.seed, experiment.budget.layers) == (60.0, 3, 91.0)
    with pytest.raises(NasrayError, match="sed"):
        parse_plan({"name": "x", "sed": 1}, "x")
