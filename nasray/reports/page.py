"""One HTML page of sections that needs neither network nor JavaScript, and its figures as PNG beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nasray.cluster import write_atomic
from nasray.reports.figures import Drawing, Plot, draw, require_matplotlib
from nasray.reports.section import Section
from nasray.spaces import NasrayError


def write_page(folder: Path, title: str, about: Sequence[tuple[str, str]], sections: Sequence[Section]) -> Path:
    """Write `report.html` with its figures into a folder, which is made, and return its path.

    Args:
        folder: Folder of the report.
        title: Heading of the page.
        about: Names and values below it.
        sections: Sections in their order.

    Raises:
        NasrayError: if matplotlib is missing, or the folder cannot be made.
    """
    import jinja2

    drawings = draw_plots(plot for section in sections for plot in section.drawings)
    make_folder(folder)
    for name, drawing in drawings.items():
        write_atomic(folder / f"{name}.png", drawing.png)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    svgs = {name: Markup(drawing.svg) for name, drawing in drawings.items()}
    page = environment.get_template("page.html").render(title=title, about=about, sections=sections, drawings=svgs)
    write_atomic(folder / "report.html", page.encode())
    return folder / "report.html"


def draw_plots(plots: Iterable[Plot]) -> dict[str, Drawing]:
    """Draw figures, by name.

    Raises:
        NasrayError: if matplotlib is missing.
    """
    require_matplotlib()
    drawings: dict[str, Drawing] = {}
    for plot in plots:
        assert plot.name not in drawings, f"two figures have the name {plot.name}"
        drawings[plot.name] = draw(plot)
    return drawings


def write_pictures(to: Path, plots: Iterable[Plot]) -> list[Path]:
    """Write figures as PNG, and return their paths.

    Args:
        to: Folder, which is made; or a file `X.png`, to which the first figure goes, the others beside it with their
            own names.
        plots: Figures.

    Raises:
        NasrayError: if matplotlib is missing, or the folder cannot be made.
    """
    drawings = draw_plots(plots)
    folder = to.parent if to.suffix == ".png" else to
    make_folder(folder)
    paths = [folder / f"{name}.png" for name in drawings]
    if to.suffix == ".png":
        paths[0] = to
    for path, drawing in zip(paths, drawings.values(), strict=True):
        write_atomic(path, drawing.png)
    return paths


def make_folder(folder: Path) -> None:
    """Make the folder of a report, in a folder that exists.

    Raises:
        NasrayError: if it cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise NasrayError(f"cannot make {folder}: {error.strerror}. Pictures go into the run's folder") from error


def joined_figures(sections: Sequence[Section]) -> dict[str, Any]:
    """Return the figures of all sections, as `nasray report --json` prints them."""
    joined: dict[str, Any] = {}
    for section in sections:
        assert not joined.keys() & section.figures.keys(), f"section {section.title!r} has figures of another"
        joined |= section.figures
    return joined
