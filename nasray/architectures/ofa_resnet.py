"""Once-for-all ResNets: the networks of DetOFA, each a setting of depths, widths and expansions.

References: Cai et al., "Once-for-All", ICLR 2020, and its released ResNet-50; Oyama et al., "DetOFA".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nasray.architectures.family import Family
from nasray.architectures.specs import check_keys
from nasray.spaces import Architecture, LayerTable, NasrayError, OFAResNetSpace
from nasray.spaces.ofa_layers import DEPTHS, EXPANSIONS, STEM_DEPTHS, WIDTHS, Size, check_size, ofa_layers
from nasray.spaces.ofa_resnet import row_of
from nasray.spaces.ranges import check_image_hw, shortened
from nasray.spaces.resolutions import NAME

SIZE_KEYS = ("stem_width", "widths", "depths", "divisor")


def check_spec(spec: Any) -> dict[str, Any]:
    """Return the checked spec of a once-for-all ResNet: its widest network, `stem`, and `stages`.

    The resolution, which it may have, is left out: it is no matter of the network.

    Raises:
        NasrayError: naming the first key or value that is not understood.
    """
    check_keys(spec, "spec", needed=(*SIZE_KEYS, "stem", "stages"), optional=(NAME,))
    if NAME in spec:
        check_image_hw(spec[NAME])
    for key in ("widths", "depths", "stages"):
        if not isinstance(spec[key], list) or len(spec[key]) != 4:
            raise NasrayError(f"spec.{key} is a list, one for each of the stages C2 to C5; got {shortened(spec[key])}")
    try:
        check_size(_size(spec))
    except (TypeError, ValueError) as error:
        raise NasrayError(f"no network can be built of this spec: {error}") from error
    _check_values(spec["stem"], "spec.stem", {"depth": STEM_DEPTHS, "mid": WIDTHS, "width": WIDTHS})
    for index, (stage, least) in enumerate(zip(spec["stages"], spec["depths"], strict=True)):
        place = f"spec.stages[{index}]"
        check_keys(stage, place, needed=("depth", "width", "expand"))
        _check_values({key: stage[key] for key in ("depth", "width")}, place, {"depth": DEPTHS, "width": WIDTHS})
        expand = stage["expand"]
        if not isinstance(expand, list) or len(expand) != least + stage["depth"]:
            raise NasrayError(
                f"{place}.expand is a list of {least + stage['depth']} numbers, one a block; got {shortened(expand)}"
            )
        for percent in expand:
            _check_values({"expand": percent}, place, {"expand": EXPANSIONS})
    return {key: value for key, value in spec.items() if key != NAME}


def _check_values(content: Any, place: str, allowed: dict[str, tuple[int, ...]]) -> None:
    check_keys(content, place, needed=tuple(allowed))
    for key, values in allowed.items():
        if isinstance(content[key], bool) or content[key] not in values:
            raise NasrayError(f"{place}.{key} is one of {', '.join(map(str, values))}; got {shortened(content[key])}")


def layers(spec: dict[str, Any], image_hw: tuple[int, int]) -> LayerTable:
    """Return the layers of a checked spec for an input of `image_hw` pixels."""
    return ofa_layers(_size(spec), row_of(spec, _size(spec))[None], image_hw)


def _size(spec: dict[str, Any]) -> Size:
    return Size(spec["stem_width"], tuple(spec["widths"]), tuple(spec["depths"]), spec["divisor"])


def _extreme(space: OFAResNetSpace, place: int) -> Architecture:
    """Return the network of the first or the last value of every gene."""
    row = np.array([[gene.values[place] for gene in space.genes]])
    return space.to_architecture(space.repair(row)[0])


NAMED = {
    "ofa-resnet50-largest": _extreme(OFAResNetSpace(), -1),
    "ofa-resnet50-smallest": _extreme(OFAResNetSpace(), 0),
}
FAMILIES = {
    OFAResNetSpace.family: Family(
        slot="backbone", network="nasray.models.ofa_resnet:OFAResNet", check=check_spec, layers=layers, named=NAMED
    )
}
