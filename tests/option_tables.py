"""The tables of options in docs/, made from the options themselves; `python -m tests.option_tables` writes them."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from nasray.cluster.files import to_json
from nasray.evaluators import EVALUATORS
from nasray.experiment import STAGES, Experiment
from nasray.models.detectors import DETECTORS
from nasray.models.supernets import PATHS
from nasray.options import Chosen, ChosenEach, mapped_by
from nasray.overrides import part_rows, section_type
from nasray.recipe import Recipe
from nasray.registry import SEARCHERS, SPACES, Registry
from nasray.signatures import attribute_texts

DOCS = Path(__file__).parents[1] / "docs"
MARK = re.compile(
    r"(<!-- options: (\w+), written by tests/option_tables.py -->\n).*?(?=<!-- end of options -->)", re.DOTALL
)


def key_table(owner: type) -> str:
    """Every key of a configuration but those of its parts."""
    rows = [f"| `{key}` | {_shown(default)} | {text} |" for key, default, text in _keys(owner, "")]
    return "\n".join(["| key | default | |", "|---|---|---|", *rows]) + "\n"


def _keys(owner: Any, prefix: str) -> Iterator[tuple[str, Any, str]]:
    texts, hints = attribute_texts(owner), get_type_hints(owner, include_extras=True)
    for field in dataclasses.fields(owner):
        if isinstance(mapped_by(hints[field.name]), Chosen | ChosenEach):
            continue
        section = section_type(hints[field.name], None)
        if section is not None:
            yield from _keys(section, f"{prefix}{field.name}.")
        else:
            default = None if field.default is dataclasses.MISSING else field.default
            yield prefix + field.name, default, texts[field.name]


def part_table(registry: Registry, section: str | None = None) -> str:
    """The options of all parts of ours; a line for those that several have alike."""
    parts: dict[tuple[str, str, str], list[str]] = {}
    for name in registry.own_names():
        for row in part_rows(registry, name):
            default = "required" if row.is_required else _shown(row.default)
            parts.setdefault((row.key, default, row.text), []).append(name)
    every, keys = list(registry.own_names()), list(dict.fromkeys(key for key, *_ in parts))
    sorted_parts = sorted(parts.items(), key=lambda item: keys.index(item[0][0]))
    rows = [
        f"| `{section or registry.what}.{key}` | {'all' if names == every else ', '.join(names)} | {default} | {text} |"
        for (key, default, text), names in sorted_parts
    ]
    return "\n".join(["| key | of | default | |", "|---|---|---|---|", *rows]) + "\n"


def _shown(default: Any) -> str:
    if default is None:
        return ""
    return f"`{default if isinstance(default, str) else to_json(default)}`"


TABLES = {
    "experiment": lambda: key_table(Experiment),
    "space": lambda: part_table(SPACES),
    "searcher": lambda: part_table(SEARCHERS),
    "evaluator": lambda: part_table(EVALUATORS),
    "stage": lambda: part_table(STAGES, "stages.NAME"),
    "recipe": lambda: key_table(Recipe),
    "detector": lambda: part_table(DETECTORS),
    "paths": lambda: part_table(PATHS, "paths"),
}


def with_tables(text: str) -> str:
    """A page with its tables as they should be."""
    return MARK.sub(lambda found: found[1] + TABLES[found[2]](), text)


def pages() -> list[Path]:
    """The pages that have such tables."""
    return [page for page in sorted(DOCS.glob("*.md")) if MARK.search(page.read_text())]


if __name__ == "__main__":
    for page in pages():
        page.write_text(with_tables(page.read_text()))
        print(page)
