"""The documentation site: every page stands in it, and it is built without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nasray.cluster.reading import read_yaml

ROOT = Path(__file__).parents[1]


def pages(nav):
    """The pages of a navigation, in their order."""
    for entry in nav:
        for item in entry.values() if isinstance(entry, dict) else [entry]:
            yield from pages(item) if isinstance(item, list) else [item]


def test_every_page_stands_in_the_navigation():
    found = list(pages(read_yaml(ROOT / "mkdocs.yml")["nav"]))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(found) == written | {"index.md", "contributing.md", "changelog.md"}
    assert len(found) == len(set(found))


@pytest.mark.slow
@pytest.mark.timeout(900)  # a busy machine
def test_it_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=850,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "site/reference/nasray/index.html").read_text()
    assert all(f'id="nasray.api.{name}"' in text for name in ("run", "train", "load", "Detector.predict"))
    assert 'id="nasray.searchers.Evolution"' in (tmp_path / "site/reference/searchers/index.html").read_text()
    for path in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)', path.read_text())
        assert not loaded, f"{path.name} loads {loaded[0]}"
