"""Hooks of the documentation site.

Pages that stand elsewhere in the repository are taken from there, so that no text is there twice; and the four folders
are laid out, by links, as the package that they install as, where mkdocstrings finds it.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository's top, and the pages that they are."""
LINK = re.compile(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)]*)?\)")
"""A link to a file of the repository: its text, the file, and the place in it."""


_layout: list[Path] = []


@event_priority(100)
def on_config(config: Any) -> Any:
    """Lay the package out, before mkdocstrings asks where it is."""
    layout = Path(tempfile.mkdtemp(prefix="nasray-docs-"))
    _layout.append(layout)
    (layout / "nasray").mkdir()
    for path in [*(ROOT / "nasray").iterdir(), *(ROOT / room for room in ("cluster", "searchers", "spaces"))]:
        (layout / "nasray" / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(layout)]
    return config


def on_shutdown() -> None:
    """Remove the layout."""
    while _layout:
        shutil.rmtree(_layout.pop())


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the repository's top."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=LINK.sub(_from_docs, text)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave of links that lead out of docs/ the text."""
    return LINK.sub(lambda link: link[1] if link[2].startswith("../") else link[0], markdown)


def _from_docs(link: re.Match[str]) -> str:
    """Return a link of a file at the repository's top as a page of docs/ has it; where no page is meant, its text."""
    text, target, place = link.groups(default="")
    is_page = target in PAGES or target.startswith("docs/")
    return f"[{text}]({PAGES.get(target, target.removeprefix('docs/'))}{place})" if is_page else text
