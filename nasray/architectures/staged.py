"""Networks of a stem and residual stages: MAE-DET's, ResNets, MobileNetV2.

References: Sun et al., "MAE-DET", ICML 2022, Tables 1 and 10-15; He et al., "Deep residual learning for image
recognition", CVPR 2016, Table 1; Sandler et al., "MobileNetV2", CVPR 2018, Table 2.

Differs from the papers in:
- Depth counts blocks. A "ResBlock" of MAE-DET's tables is two blocks, so their "# layers" is doubled.
- ResNets have their stride in the 3x3 convolution (as MAE-DET's baselines and torchvision have), and no classifier.
- MobileNetV2 ends with its last block: the 1x1 convolution to 1280 channels belongs to the classifier.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from nasray.architectures.family import Family
from nasray.architectures.specs import check_keys, check_numbers
from nasray.spaces import Architecture, LayerTable, NasrayError, staged_layers
from nasray.spaces.ranges import MAX_BLOCKS, shortened

MID_KEYS: dict[str, str | None] = {
    "bottleneck": "bottleneck",
    "basic": None,
    "inverted": "expansion",
    "inverted-se": "expansion",
}
"""Kinds of blocks, each a family, and the key of a stage that only this kind has."""


def check_spec(spec: Any, block: str) -> dict[str, Any]:
    """Return the checked spec of a staged network, defaults filled in: `block`, `stem`, `stages`, `shortcut`.

    Args:
        spec: Spec of an architecture.
        block: Kind of its blocks, a key of `MID_KEYS`.

    Raises:
        NasrayError: naming the first key or value that is not understood.
    """
    check_keys(spec, "spec", needed=("stem", "stages"), optional=("shortcut",))
    shortcut = spec.get("shortcut", "pool")
    if shortcut not in ("pool", "stride"):
        raise NasrayError(f'spec.shortcut is "pool" or "stride", got {shortened(shortcut)}')
    check_keys(spec["stem"], "spec.stem", needed=("kernel", "width"), optional=("pool",))
    pool = spec["stem"].get("pool", False)
    if not isinstance(pool, bool):
        raise NasrayError(f"spec.stem.pool is true or false, got {shortened(pool)}")
    check_numbers(spec["stem"], "spec.stem", ("kernel", "width"))
    if not isinstance(spec["stages"], list) or not spec["stages"]:
        raise NasrayError(f"spec.stages is a list of at least one stage, got {shortened(spec['stages'])}")
    mid = MID_KEYS[block]
    needed = ("kernel", "width", "depth", "stride", *([mid] if mid else []))
    for index, stage in enumerate(spec["stages"]):
        check_keys(stage, f"spec.stages[{index}]", needed=needed)
        check_numbers(stage, f"spec.stages[{index}]", needed)
    if (blocks := sum(stage["depth"] for stage in spec["stages"])) > MAX_BLOCKS:
        raise NasrayError(f"networks have at most {MAX_BLOCKS:,} blocks; the depths of this spec add up to {blocks:,}")
    levels = 1 + pool + sum(stage["stride"] == 2 for stage in spec["stages"])
    if levels != 5:
        raise NasrayError(f"a staged network ends at C5 (stride 32); the strides of this one end at C{levels}")
    return {
        "block": block,
        "stem": {**spec["stem"], "pool": pool},
        "stages": spec["stages"],
        "shortcut": shortcut,
    }


def layers(spec: dict[str, Any], image_hw: tuple[int, int]) -> LayerTable:
    """Return the layers of a checked spec for an input of `image_hw` pixels."""
    mid = MID_KEYS[spec["block"]]
    keys = ("kernel", "width", *([mid] if mid else []), "depth")
    parts = np.array([[stage[key] for key in keys] for stage in spec["stages"]], dtype=np.float64)
    stem = spec["stem"]
    return staged_layers(
        spec["block"],
        np.array([stem["width"]], dtype=np.float64),
        parts[:, :, None],
        [stage["stride"] for stage in spec["stages"]],
        image_hw,
        stem_kernel=stem["kernel"],
        stem_pool=stem["pool"],
        shortcut=spec["shortcut"],
    )


def _bottlenecks(stem: int, stages: list[tuple[int, int, int, int, int]]) -> Architecture:
    """Return the architecture of rows as in MAE-DET's tables: kernel, out, stride, bottleneck, depth in blocks."""
    names = ("kernel", "width", "stride", "bottleneck", "depth")
    rows = [dict(zip(names, stage, strict=True)) for stage in stages]
    return Architecture.create("bottleneck", {"stem": {"kernel": 3, "width": stem}, "stages": rows})


def _resnet(family: str, depths: tuple[int, int, int, int], first: int = 64) -> Architecture:
    """Return a ResNet; `first` is the width of its stem and of the first stage's blocks."""
    expansion = 4 if family == "bottleneck" else 1
    stages = []
    for width, stride, depth in zip((first, 2 * first, 4 * first, 8 * first), (1, 2, 2, 2), depths, strict=True):
        stage = {"kernel": 3, "width": expansion * width, "stride": stride, "depth": depth}
        stages.append(stage | ({"bottleneck": width} if family == "bottleneck" else {}))
    stem = {"kernel": 7, "width": first, "pool": True}
    return Architecture.create(family, {"stem": stem, "stages": stages, "shortcut": "stride"})


def _mobilenet_v2() -> Architecture:
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    names = ("expansion", "width", "depth", "stride")
    stages = [{"kernel": 3, **dict(zip(names, row, strict=True))} for row in table]
    return Architecture.create("inverted", {"stem": {"kernel": 3, "width": 32}, "stages": stages})


NAMED = {
    # MAE-DET, Table 13
    "maedet-s": _bottlenecks(32, [(5, 48, 2, 32, 2), (3, 272, 2, 120, 4), (5, 1024, 2, 80, 10), (3, 2048, 2, 240, 10)]),
    # MAE-DET, Table 12
    "maedet-m": _bottlenecks(
        64, [(3, 120, 2, 64, 2), (5, 512, 2, 72, 10), (5, 1632, 2, 112, 10), (5, 2048, 2, 184, 8)]
    ),
    # MAE-DET, Table 14
    "maedet-l": _bottlenecks(
        80, [(3, 144, 2, 80, 2), (5, 608, 2, 88, 12), (5, 1912, 2, 136, 12), (5, 2400, 2, 220, 10)]
    ),
    # MAE-DET, Table 10
    "maedet-single-scale": _bottlenecks(
        96,
        [
            (5, 208, 2, 32, 4),
            (5, 560, 2, 56, 2),
            (5, 1264, 2, 112, 4),
            (5, 1712, 2, 224, 6),
            (5, 2048, 1, 224, 6),
            (5, 2048, 1, 256, 8),
        ],
    ),
    # MAE-DET, Table 11
    "maedet-multi-scale-coarse": _bottlenecks(
        32, [(5, 128, 2, 24, 2), (5, 512, 2, 72, 10), (5, 1632, 2, 112, 10), (5, 2048, 2, 216, 8)]
    ),
    # MAE-DET, Table 15
    "maedet-initial": _bottlenecks(
        64, [(3, 256, 2, 64, 2), (3, 512, 2, 128, 2), (3, 1024, 2, 256, 2), (3, 2048, 2, 512, 2)]
    ),
    "resnet18": _resnet("basic", (2, 2, 2, 2)),
    "resnet34": _resnet("basic", (3, 4, 6, 3)),
    "resnet50": _resnet("bottleneck", (3, 4, 6, 3)),
    "resnet101": _resnet("bottleneck", (3, 4, 23, 3)),
    "mobilenet-v2": _mobilenet_v2(),
    # for processors: a quarter as wide
    "resnet18-quarter": _resnet("basic", (2, 2, 2, 2), 16),
    # for tests and tiny recipes
    "basic-tiny": Architecture.create(
        "basic",
        {
            "stem": {"kernel": 3, "width": 16},
            "stages": [{"kernel": 3, "width": width, "depth": 1, "stride": 2} for width in (16, 32, 64, 96)],
        },
    ),
}

PUBLISHED: dict[str, dict[str, float]] = {
    "maedet-s": {"gmacs": 48.7, "params_m": 21.2},
    "maedet-m": {"gmacs": 89.9, "params_m": 25.8},
    "maedet-l": {"gmacs": 152.9, "params_m": 43.9},
    "resnet50": {"gmacs": 83.6, "params_m": 23.5},
    "resnet101": {"gmacs": 159.5, "params_m": 42.4},
}
"""MAE-DET, Table 1: figures of the backbone, `gmacs` at 1280x800 pixels (the paper's "FLOPs")."""

FAMILIES = {
    block: Family(
        slot="backbone",
        network="nasray.models.backbone:Backbone",
        check=partial(check_spec, block=block),
        layers=layers,
        named={name: architecture for name, architecture in NAMED.items() if architecture.family == block},
    )
    for block in MID_KEYS
}
