"""What the image files of a data set say of themselves, held against its annotations and against how they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from nasray.data.dataset import Defect, DetectionSet
from nasray.data.formats.parquet_images import ParquetImages
from nasray.data.image_files.decoding import size_fault
from nasray.data.image_files.images import ImageFiles
from nasray.data.image_files.pixels import ImageError, PixelRules
from nasray.spaces import NasrayError

PROBED = 500
"""Images of a split whose headers are read before it is used; `nasray data check` reads all."""
PROBED_GROUPS = 50
"""Row groups of Parquet files whose first image's header is read, likewise."""
DEEP_TRIED = 50
"""Images of more than 8 bits that are decoded to see whether the range of their values can be known."""


@dataclass
class Headers:
    """What was found in the headers of a split.

    Attributes:
        turned: Images with an EXIF orientation other than 1, by the rule that their annotated size fits: "upright",
            "stored", "both" or "neither".
        deep: Images of more than 8 bits.
        defects: What was wrong.
    """

    turned: Counter[str] = field(default_factory=Counter)
    deep: int = 0
    defects: list[Defect] = field(default_factory=list)


def examine_headers(
    dataset: DetectionSet,
    indices: Iterable[int],
    *,
    decode: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Headers:
    """Return what headers say; files that are not there are left out, they are known already.

    Args:
        dataset: Data set.
        indices: Images to look at.
        decode: Also decode every image, not only some of those with more than 8 bits.
        progress: Called with the number of images that are done.
    """
    found = Headers()
    for done, index in enumerate(indices, start=1):
        try:
            _examine(dataset, index, decode, found)
        except ImageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                found.defects.append(Defect(error.kind, str(error)))
        except NasrayError as error:  # of a shard
            found.defects.append(Defect("unreadable-image", str(error)))
        if progress is not None:
            progress(done)
    return found


def _examine(dataset: DetectionSet, index: int, decode: bool, found: Headers) -> None:
    if not dataset.image_hw[index].all():  # a defect of its own
        return
    header = dataset.read_header(index)
    height, width = dataset.image_hw[index].tolist()
    if header.orientation != 1:
        fits = [rule for rule in ("upright", "stored") if header.image_hw(rule) == (height, width)]
        found.turned["both" if len(fits) == 2 else fits[0] if fits else "neither"] += 1
    found.deep += header.deep
    if header.several:
        found.defects.append(Defect("frames", dataset.describe(index)))
    if message := size_fault(header, dataset.describe(index), dataset.pixel_rules.orientation, (height, width)):
        raise ImageError(message, "other-size")
    if decode or (header.deep and found.deep <= DEEP_TRIED):
        dataset.read_image(index)


def describe_orientation(rules: PixelRules, turned: Counter[str]) -> str | None:
    """Return a line on how turned images are read and why, None if there are none."""
    number = sum(turned.values())
    if not number:
        return None
    origin = "the default" if rules.orientation == "upright" else "as the data set says"
    sizes = ", ".join(
        f"{turned[key]:,} {text}"
        for key, text in (
            ("upright", "fit upright only"),
            ("stored", "fit as stored only"),
            ("both", "fit both ways"),
            ("neither", "fit neither way"),
        )
        if turned[key]
    )
    text = f"{number:,} images are turned by EXIF, read {rules.orientation} ({origin}); by their annotated size {sizes}"
    if turned["both"] and not turned["upright"] + turned["stored"]:
        text += (
            ". Whether boxes were drawn upright or on stored pixels, only a look at the images tells (`orientation`)"
        )
    return text


def describe_values(rules: PixelRules, deep: int) -> str | None:
    """Return a line on how images of more than 8 bits are read, None if there are none."""
    if not deep:
        return None
    low, high = rules.value_range or (0, 65535)
    origin = "as the data set says" if rules.value_range else "their whole range, or what the file states"
    return f"{deep:,} images have more than 8 bits: {low:g} becomes 0 and {high:g} 255 ({origin})"


def refuse_other_pixels(dataset: DetectionSet, source: str) -> None:
    """Look at the headers of some images before a split is used, so that a training does not stop in its midst.

    Raises:
        NasrayError: if one is not of its annotated size, cannot be read, or is of unknown range.
    """
    if isinstance(dataset.files, ParquetImages) and not dataset.files.is_packed:
        indices = dataset.files.probes(PROBED_GROUPS)
    elif isinstance(dataset.files, ImageFiles):
        indices = np.unique(np.linspace(0, len(dataset) - 1, min(PROBED, len(dataset))).astype(int)).tolist()
    else:  # packed images were all read when they were packed
        return
    found = examine_headers(dataset, indices)
    errors = [defect for defect in found.defects if defect.severity == "error"]
    if errors:
        others = f" (and {len(errors) - 1:,} more of {len(indices):,} images looked at)" if len(errors) > 1 else ""
        raise NasrayError(
            f"data set {source}, split {dataset.name!r}, cannot be used: {errors[0].message}{others}. "
            f"`nasray data check {source}` lists all"
        )
