"""The Python API: what the names are, and the whole way from a run to an export."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nasray
import nasray.searching
from nasray.cluster import Resources, ray_session
from nasray.drawing import picture_bytes

RECIPE = {
    "data": "shapes",
    "batch_size": 8,
    "detector": {"name": "fcos", "channels": 16, "num_convs": 1},
    "augmentation": {"short_side": [64], "long_side": 64},
    "loader": {"processes": 0, "cache": True},
    "optimizer": {"name": "adamw", "learning_rate": 0.004},
    "schedule": {"name": "cosine", "epochs": 0.2, "milestones": [], "warmup_iterations": 2},
    "resources": {"workers": 1, "gpus": 0},
}


def test_names_are_listed_and_documented():
    names = set(nasray.__all__)
    assert names <= set(dir(nasray))
    assert {"run", "search", "train", "load", "build", "Run", "Detector", "Space"} <= names
    for name in names - {"__version__"}:
        assert getattr(nasray, name).__doc__
    with pytest.raises(AttributeError, match="module 'nasray' has no attribute 'trian'"):
        nasray.trian  # noqa: B018


@pytest.mark.slow
def test_types_are_their_own(tmp_path):
    """mypy sees the lazy names as what they are, not as Any."""
    root = Path(nasray.__file__).parents[1]
    layout = tmp_path / "layout" / "nasray"
    layout.mkdir(parents=True)
    for path in (root / "nasray").iterdir():
        (layout / path.name).symlink_to(path)
    for room in ("cluster", "searchers", "spaces"):
        (layout / room).symlink_to(root / room)
    names = ("search", "run", "load", "train", "build", "Space", "Run")
    code = "import nasray\n" + "".join(f"reveal_type(nasray.{name})\n" for name in names)
    (tmp_path / "look.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--ignore-missing-imports", "look.py"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"MYPYPATH": str(layout.parent), "PATH": "/usr/bin"},
        check=False,
    )  # fmt: skip
    revealed = [line for line in done.stdout.splitlines() if "Revealed type" in line]
    assert len(revealed) == len(names), done.stdout
    assert not [line for line in revealed if 'is "Any"' in line]
    for word in ("def (space: ", "-> nasray.api.Run", "-> nasray.api.Detector", "torch.nn"):
        assert word in done.stdout


def test_mistakes_are_those_of_the_command_line(tmp_path):
    with pytest.raises(nasray.NasrayError, match=r"did you mean '--budget.gmacs'"):
        nasray.run("maedet-tiny", folder=tmp_path / "run", budget={"gmac": 60})
    with pytest.raises(nasray.NasrayError, match="unknown experiment 'maedet-tiy'; did you mean 'maedet-tiny'"):
        nasray.run("maedet-tiy", folder=tmp_path / "run")
    with pytest.raises(nasray.NasrayError, match="unknown detector 'fcoss'; did you mean 'fcos'"):
        nasray.train("resnet18", detector="fcoss", folder=tmp_path / "train")
    assert not list(tmp_path.iterdir())


def test_the_way_from_a_run_to_an_export(tmp_path):
    with ray_session(Resources(local_cpus=2)):
        run = nasray.run(
            "maedet-tiny", folder=tmp_path / "run", evaluations=64, batch_size=32, budget={"gmacs": 4.0},
            space={"kernels": [3, 5]},
        )  # fmt: skip
        assert run.is_finished
        assert run.best.costs["gmacs"] <= 4.0
        assert run.best == run.front[0] == run.within({"gmacs": 4.0})
        with pytest.raises(nasray.NasrayError):
            run.within({"gmacs": 1e-6})
        table = run.history()
        assert table.num_rows == 64
        assert max(table["metric.score"].to_pylist()) == run.best.metrics["score"]
        assert nasray.run("maedet-tiny", folder=tmp_path / "run", resume=True).best == run.best
        module = nasray.build("basic-tiny")
        assert [info["reduction"] for info in module.feature_info] == [4, 8, 16, 32]
        assert nasray.build(run.best.architecture).feature_info
        detector = nasray.train("basic-tiny", folder=tmp_path / "train", **RECIPE)
    assert nasray.train("basic-tiny", folder=tmp_path / "train", resume=True).file == detector.file
    loaded = nasray.load(tmp_path / "train")
    assert loaded.classes == detector.classes
    rng = np.random.default_rng(0)
    (tmp_path / "photo.png").write_bytes(picture_bytes(rng.integers(0, 256, (3, 64, 80), dtype=np.uint8), "PNG"))
    (found,) = loaded.predict(tmp_path / "photo.png", threshold=0.0)
    assert found.keys() == {"image", "detections"}
    assert found["detections"]
    (drawn,) = loaded.predict([tmp_path / "photo.png"], to=tmp_path / "drawn.png")
    assert Path(drawn["picture"]).is_file()
    assert 0 <= loaded.evaluate()["coco"]["mAP"] <= 1
    assert loaded.export(tmp_path / "model.pt2")["file"] == str(tmp_path / "model.pt2")


def test_search_is_a_function_every_time():
    assert callable(nasray.search)
    assert nasray.search is nasray.search
    assert nasray.search is nasray.searching.search
