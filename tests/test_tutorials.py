"""The tutorials of docs/: their code is that of examples/, and runs; their commands can be typed one after the other.

That each command parses, every link leads somewhere, and each search runs, test_readme.py and test_examples.py see to.
"""

import importlib
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from nasray.loading import load_plan

from .own_space import FOLDER, registered
from .test_readme import ROOT, blocks, walk

DETECTOR = ROOT / "docs/first-detector.md"
SPACE = ROOT / "docs/own-space.md"


FILES = ("pair_space.py", "pair_net.py", "test_pair.py", "pyproject.toml", "pair.yaml")


def test_the_page_shows_the_files_of_the_space():
    shown = [block for language in ("python", "toml", "yaml") for block in blocks(SPACE, language)]
    assert shown == [(FOLDER / name).read_text() for name in FILES]


def test_the_space_passes_its_own_tests():
    with registered():
        tests = importlib.import_module("test_pair")
        tests.test_the_space_keeps_the_contract()
        tests.test_costs_are_those_of_the_built_networks()


def test_what_its_package_registers_is_there():
    points = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]
    with registered():
        for named in points.values():
            for target in named.values():
                module, _, name = target.partition(":")
                assert hasattr(importlib.import_module(module), name)


def test_its_networks_have_scores():
    with registered():
        plan = load_plan(str(FOLDER / "pair.yaml"), ["--evaluator.image-hw", "32", "32"])
        genes = plan.parts.searcher.ask(2).genes
        assert np.isfinite(plan.parts.evaluator(genes)["score"]).all()


def test_python_of_the_page_prints_detections(tmp_path, monkeypatch, capsys):
    """On a model that stands for an exported detector: it finds one cat, and something below the threshold."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from PIL import Image

    found = {
        "boxes": np.array([[[1, 2, 30, 40], [5, 5, 9, 9]]], dtype=np.float32),
        "scores": np.array([[0.75, 0.1]], dtype=np.float32),
        "labels": np.array([[1, 0]]),
    }
    constants = [
        onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value, name))
        for name, value in found.items()
    ]
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, "height", "width"])
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in found.items()
    ]
    graph = onnx.helper.make_graph(constants, "detector", [images], outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.helper.set_model_props(model, {"classes": '["dog", "cat"]'})
    onnx.save(model, tmp_path / "model.onnx")
    Image.new("RGB", (64, 48)).save(tmp_path / "photo.jpg")
    (code,) = blocks(DETECTOR, "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, DETECTOR.name, "exec"), {})
    assert capsys.readouterr().out == "cat 0.75 [1, 2, 30, 40]\n"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a busy machine
def test_the_newcomers_way_can_be_walked(tmp_path):
    """Its commands in their order, in small, on data that are drawn, and its Python behind them."""
    text = DETECTOR.read_text()
    walk(text[: text.index("## Several budgets")], tmp_path)
    (image, *_) = (tmp_path / "my-images").rglob("*.png")
    shutil.copy(image, tmp_path / "photo.jpg")
    (code,) = blocks(DETECTOR, "python")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=280)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_way_of_a_space_of_ones_own_can_be_walked(tmp_path):
    """The same; an installed package's entry points stand beside its modules."""
    package = tmp_path / "installed"
    shutil.copytree(FOLDER, package)
    information = package / "pair_space-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: pair-space\nVersion: 1\n")
    points = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]
    text = "\n".join(
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in named.items())])
        for group, named in points.items()
    )
    (information / "entry_points.txt").write_text(text)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    walk(SPACE.read_text(), tmp_path, PYTHONPATH=str(package))
    assert (tmp_path / "pair.onnx").is_file()
