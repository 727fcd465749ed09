"""Source that needs no nasray computes what the module computes."""

import subprocess
import sys
from types import ModuleType

import pytest

from nasray.models import shufflenet
from nasray.sources import standalone_source


def test_a_module_that_needs_nothing_of_nasray_stays_as_it_is():
    text = standalone_source("nasray.models.shufflenet")
    with open(shufflenet.__file__, encoding="utf-8") as file:
        assert file.read().endswith(text)


def test_what_a_module_imports_from_nasray_is_written_into_it():
    text = standalone_source("nasray.models.fad")
    assert "nasray" not in text
    assert text.index("class Unit(") < text.index("class Transformation(") < text.index("BY_NAME =")
    module = ModuleType("head")
    exec(compile(text, "head.py", "exec"), module.__dict__)
    assert module.BY_NAME["separable-2+d2"].receptive_field == 9


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "from nasray.b import g\ndef f(): return g()", "b": "from nasray.c import g as h\ndef g(): return h()"},
         "g of nasray.c is imported as h"),
        ({"a": "from nasray import b\ndef f(): return b.g()", "b": ""}, "imported by its names, not as a whole"),
        ({"a": "from nasray.b import g\ndef h(): pass\ndef f(): return g() + h()",
          "b": "def g(): return h()\ndef h(): return 1"}, "h is defined in nasray.a and in nasray.b"),
    ],
    ids=["renamed", "whole", "twice"],
)  # fmt: skip
def test_what_cannot_be_written_into_one_file_is_refused(files, message, tmp_path):
    package = tmp_path / "nasray"
    package.mkdir()
    for name, text in {"__init__": "", **files}.items():
        (package / f"{name}.py").write_text(text)
    with open(standalone_source.__code__.co_filename, encoding="utf-8") as file:
        (tmp_path / "sources.py").write_text(file.read())
    code = "import sources; sources.standalone_source('nasray.a')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert message in done.stderr
