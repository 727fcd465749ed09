"""ShuffleNets, a kind of block in every place: DetNAS's networks and their baselines.

References: Chen et al., "DetNAS", NeurIPS 2019, with the encodings of its released code; Guo et al., "Single Path
One-Shot", ECCV 2020, the same.

Differs from the papers in: networks end with their last block; the 1x1 convolution to 1024 channels belongs to the
classifier.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nasray.architectures.family import Family
from nasray.architectures.specs import check_keys, check_numbers
from nasray.spaces import Architecture, LayerTable, NasrayError, ShuffleNetSpace
from nasray.spaces.ranges import shortened
from nasray.spaces.shufflenet import CHOICES, SHUFFLES, Size, SizeName, check_size, shufflenet_layers


def check_spec(spec: Any) -> dict[str, Any]:
    """Return the checked spec of a ShuffleNet: `stem`, `stages` of `width` and `blocks`, and `shuffle`.

    Raises:
        NasrayError: naming the first key or value that is not understood.
    """
    check_keys(spec, "spec", needed=("stem", "stages", "shuffle"))
    if spec["shuffle"] not in SHUFFLES:
        raise NasrayError(f"spec.shuffle is one of {', '.join(SHUFFLES)}; got {shortened(spec['shuffle'])}")
    check_keys(spec["stem"], "spec.stem", needed=("width",))
    check_numbers(spec["stem"], "spec.stem", ("width",))
    if not isinstance(spec["stages"], list):
        raise NasrayError(f"spec.stages is a list of the four stages C2 to C5, got {shortened(spec['stages'])}")
    for index, stage in enumerate(spec["stages"]):
        check_keys(stage, f"spec.stages[{index}]", needed=("width", "blocks"))
        check_numbers(stage, f"spec.stages[{index}]", ("width",))
        blocks = stage["blocks"]
        if not isinstance(blocks, list) or (strange := [name for name in blocks if name not in CHOICES]):
            got = shortened(strange[0] if isinstance(blocks, list) else blocks)
            raise NasrayError(f"spec.stages[{index}].blocks is a list of {', '.join(CHOICES)}; got {got}")
    try:
        check_size(_size(spec))
    except ValueError as error:
        raise NasrayError(f"no network can be built of this spec: {error}") from error
    return dict(spec)


def layers(spec: dict[str, Any], image_hw: tuple[int, int]) -> LayerTable:
    """Return the layers of a checked spec for an input of `image_hw` pixels."""
    choices = [[CHOICES.index(name) for stage in spec["stages"] for name in stage["blocks"]]]
    return shufflenet_layers(_size(spec), np.array(choices), image_hw)


def _size(spec: dict[str, Any]) -> Size:
    widths = tuple(stage["width"] for stage in spec["stages"])
    return Size(spec["stem"]["width"], widths, tuple(len(stage["blocks"]) for stage in spec["stages"]))


def _named(size: SizeName, genes: str) -> Architecture:
    """Return the architecture of a released encoding's digits; retrained networks take the shuffle "even-odd"."""
    space = ShuffleNetSpace(size, shuffle="even-odd")
    return space.to_architecture(np.array([int(digit) for digit in genes.replace(" ", "")]))


_DETNASNET = "00312102 03123320 2113202221310333 13333333"

NAMED = {
    # DetNAS, Tables 2 and 3: encodings of its released code
    "detnasnet": _named("large", _DETNASNET),
    "detnasnet-3.8g": _named("large-wide", _DETNASNET),
    "detnas-coco-fpn": _named("small", "2120 2112 33130031 3132"),
    "detnas-coco-retinanet": _named("small", "2311 3213 31113320 3333"),
    "detnas-voc-fpn": _named("small", "2103 1303 20113333 3331"),
    "detnas-voc-retinanet": _named("small", "1300 2333 23333220 2311"),
    # its baselines, at the widths of its spaces
    "shufflenetv2-20": _named("small", "0" * 20),
    "shufflenetv2-40": _named("large", "0" * 40),
    "shufflenetv2-40-3.8g": _named("large-wide", "0" * 40),
    # Single Path One-Shot: searched on ImageNet in the same space
    "spos-imagenet": _named("small", "2101 2020 20230000 3233"),
}

FAMILIES = {
    ShuffleNetSpace.family: Family(
        slot="backbone", network="nasray.models.shufflenet:ShuffleNet", check=check_spec, layers=layers, named=NAMED
    )
}
