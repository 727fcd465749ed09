import pytest

from nasray.architectures import ARCHITECTURES


@pytest.mark.parametrize(
    ("what", "recipe", "name"),
    [
        ("my model (2).json", None, "my-model-2-.json-gfl"),
        ("sub/_x.json", None, "x-gfl"),
        ("resnet18", None, "resnet18-gfl"),
        ("resnet18", "sub/mine.yaml", "mine"),
        ("resnet18", "maedet-fcos-3x", "maedet-fcos-3x"),
    ],
)
def test_a_training_has_a_name_whatever_the_file_is_called(tmp_path, what, recipe, name):
    from nasray.cli import make_parser
    from nasray.cli.detectors import train_recipe
    from nasray.cli.parsing import parse_arguments

    (tmp_path / "sub").mkdir()
    for file in ("my model (2).json", "sub/_x.json"):
        (tmp_path / file).write_text(ARCHITECTURES["basic-tiny"].text)
    (tmp_path / "sub" / "mine.yaml").write_text("seed: 3\n")
    arguments = ["train", what, *(["--recipe", recipe] if recipe else [])]
    assert train_recipe(parse_arguments(make_parser(), arguments)).name == name
