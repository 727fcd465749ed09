"""Families of other packages: found by entry point, named like ours, built in detectors."""

import json
import os
import subprocess
import sys

import pytest

PACKAGE = """
from torch import nn

from nasray.architectures import Family
from nasray.spaces import Architecture, NasrayError


class Mixer(nn.Module):
    def __init__(self, width, *, in_channels, num_levels):
        super().__init__()
        self.out_channels = width
        self.conv = nn.Conv2d(in_channels, width, 1)

    def towers(self, level, index):
        return self.conv(level), self.conv(level).relu()


def check(spec):
    if set(spec) != {"width"}:
        raise NasrayError(f"spec of a mixer has the key width; got {list(spec)}")
    return dict(spec)


NAMED = {"mixer-small": Architecture.create("mixer", {"width": 8})}
FAMILY = Family("head", "mixers:Mixer", check, named=NAMED)
"""


@pytest.fixture(scope="module")
def nasray(tmp_path_factory):
    """A function that runs the command line with the package installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "mixers.py").write_text(PACKAGE)
    info = folder / "mixers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mixers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nasray.architectures]\nmixer = mixers:FAMILY\n")
    environment = {**os.environ, "PYTHONPATH": str(folder)}

    def run(*arguments):
        command = [sys.executable, "-m", "nasray", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=folder, timeout=120, check=False
        )

    return run


def test_a_published_head_of_another_package(nasray):
    done = nasray("cost", "basic-tiny", "--detector", "fcos", "--head", "mixer-small", "--image-size", "128", "--json")
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout)["detectors"]["basic-tiny"]
    cells = sum((128 // stride) ** 2 for stride in (8, 16, 32, 64, 128))
    expected = cells * (2 * 256 * 8 + 9 * 8 * (80 + 5)) / 1e9  # its convolution runs once for each of the two features
    assert parts["head"]["gmacs"] == pytest.approx(expected)


def test_a_mistake_in_its_spec_is_told_like_ours(nasray, tmp_path):
    (tmp_path / "bad.json").write_text('{"family": "mixer", "spec": {"depth": 3}}')
    done = nasray("cost", "basic-tiny", "--detector", "fcos", "--head", str(tmp_path / "bad.json"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "spec of a mixer has the key width; got ['depth']" in done.stderr
