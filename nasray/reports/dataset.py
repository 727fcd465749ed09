"""The page of a data set: annotated images, classes, sizes of boxes against a detector's levels, what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.reading import shown
from nasray.data.check import read_splits
from nasray.data.dataset import DetectionSet
from nasray.data.source import open_data
from nasray.reports.box_levels import levels_of
from nasray.reports.figures import require_matplotlib
from nasray.reports.page import joined_figures, write_page
from nasray.reports.section import Section
from nasray.reports.sections.dataset import (
    classes_section,
    defects_section,
    images_section,
    opening_section,
    sizes_section,
    split_statistics,
)
from nasray.reports.sections.samples import sample_sections
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean

if TYPE_CHECKING:
    from nasray.recipe import Recipe


def dataset_figures(source: str, *, recipe: Recipe | None = None) -> dict[str, Any]:
    """Return the figures of a data set's page as a JSON-serializable dict.

    Args:
        source: Source as `open_data` takes it.
        recipe: Recipe whose size of images and detector boxes are held against; as stored, and a pyramid, without.

    Raises:
        NasrayError: if the source is none, or the files of its first split cannot be read at all.
    """
    return {"source": source, **joined_figures(_sections(read_splits(open_data(source)), source, recipe))}


def write_dataset_page(
    source: str,
    folder: Path,
    *,
    recipe: Recipe | None = None,
    split: str | None = None,
    num_images: int = 12,
    seed: int = 0,
) -> Path:
    """Write `report.html` with its figures into a folder, which is made, and return its path.

    Args:
        source: Source as `open_data` takes it.
        folder: Folder of the page.
        recipe: As in `dataset_figures`.
        split: Split that images are shown of; the first one if left out.
        num_images: Number of images that are shown.
        seed: Seed of their choice.

    Raises:
        NasrayError: if matplotlib is missing, the source is none, there is no such split, or the folder holds
            something else.
    """
    require_matplotlib()
    _check_folder(folder)
    data = open_data(source)
    names = ", ".join(data.splits)
    if split is not None and split not in data.splits:
        hint = did_you_mean(split, data.splits)
        raise NasrayError(f"data set {source} has no split {split!r}{hint} It has: {names}")
    datasets = read_splits(data)
    chosen = next(dataset for dataset in datasets if split in (None, dataset.name))
    opening, wrong, *statistics = _sections(datasets, source, recipe)
    sections = [opening, wrong, *sample_sections(chosen, num_images, seed), *statistics]
    about = [("splits", names), ("images shown from", chosen.name), ("seed", str(seed))]
    if recipe is not None:
        about.insert(1, ("recipe", recipe.name))
    return write_page(folder, Path(source).name or source, about, sections)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be made, or holds something else than a page, before anything is read."""
    if not folder.absolute().parent.is_dir():
        raise NasrayError(f"there is no folder {shown(folder.absolute().parent)} for the page. Make it first")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "report.html").is_file():
        raise NasrayError(f"{shown(folder)} holds other files than a page. Choose a new folder with --to")


def _sections(datasets: Sequence[DetectionSet], source: str, recipe: Recipe | None) -> list[Section]:
    splits = [split_statistics(dataset, _scaled_hw(dataset, recipe)) for dataset in datasets]
    if recipe is None:
        about = (
            "At the size that images are stored in, beside the levels of a feature pyramid with anchors of 8 strides, "
            "as gfl has them. A recipe (`--recipe`) brings its own size and detector."
        )
    else:
        about = (
            f"At the size that recipe {recipe.name} brings images to, beside the levels of its {recipe.detector.name}."
        )
    return [
        opening_section(splits),
        defects_section(splits, source),
        classes_section(splits),
        sizes_section(splits, levels_of(recipe), about),
        images_section(splits),
    ]


def _scaled_hw(dataset: DetectionSet, recipe: Recipe | None) -> NDArray[np.int64]:
    """Return the (I, 2) heights and widths that a recipe brings images to when it measures; as stored without one."""
    if recipe is None or not len(dataset):
        return dataset.image_hw
    from nasray.data.transforms import EvaluationTransform

    transform = EvaluationTransform(recipe.augmentation)
    sizes, places = np.unique(np.maximum(dataset.image_hw, 1), axis=0, return_inverse=True)
    scaled = np.array([transform.resized_hw((height, width)) for height, width in sizes.tolist()], dtype=np.int64)
    return scaled[places.reshape(-1)]
