"""Published architectures by name, and the layer table of any architecture. Needs no PyTorch.

References: Sun et al., "MAE-DET", ICML 2022, Tables 1 and 10-15; He et al., "Deep residual learning for image
recognition", CVPR 2016, Table 1; Sandler et al., "MobileNetV2", CVPR 2018, Table 2; Chen et al., "DetNAS", NeurIPS
2019, with the encodings of its released code; Guo et al., "Single Path One-Shot", ECCV 2020, the same.

Differs from the papers in:
- Depth counts blocks. A "ResBlock" of MAE-DET's tables is two blocks, so their "# layers" is doubled.
- ResNets have their stride in the 3x3 convolution (as MAE-DET's baselines and torchvision have), and no classifier.
- MobileNetV2 ends with its last block: the 1x1 convolution to 1280 channels belongs to the classifier. Likewise
  ShuffleNets and the one to 1024 channels.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nasray.cluster.reading import read_json, shown
from nasray.options import check_text
from nasray.spaces import Architecture, LayerTable, NasrayError, ShuffleNetSpace, staged_layers
from nasray.spaces.ranges import (
    MAX_BLOCKS,
    MAX_EXPANSION,
    MAX_KERNEL,
    MAX_PARAMS_M,
    MAX_WIDTH,
    MIN_SIDE,
    check_whole,
    shortened,
)
from nasray.spaces.shufflenet import CHOICES, SHUFFLES, Size, check_size, shufflenet_layers

MID_KEYS: dict[str, str | None] = {
    "bottleneck": "bottleneck",
    "basic": None,
    "inverted": "expansion",
    "inverted-se": "expansion",
}
"""The families of staged networks, and the key of a stage that only this kind of block has."""


_MAXIMA = {
    "kernel": MAX_KERNEL,
    "width": MAX_WIDTH,
    "bottleneck": MAX_WIDTH,
    "expansion": MAX_EXPANSION,
    "depth": MAX_BLOCKS,
    "stride": 2,
}
"""The largest number for each key of a spec."""


def layer_table(architecture: Architecture, image_hw: tuple[int, int]) -> LayerTable:
    """The layers of one architecture (N = 1), whether or not a space holds it.

    Args:
        architecture: of one of the families in `MID_KEYS`, or a ShuffleNet.
        image_hw: height and width of the input in pixels.

    Raises:
        NasrayError: if it is of another family, or its spec is not one of its family.
    """
    if architecture.family == ShuffleNetSpace.family:
        return _shufflenet_table(architecture, image_hw)
    spec = staged_spec(architecture)
    mid = MID_KEYS[architecture.family]
    keys = ("kernel", "width", *([mid] if mid else []), "depth")
    parts = np.array([[stage[key] for key in keys] for stage in spec["stages"]], dtype=np.float64)
    stem = spec["stem"]
    return staged_layers(
        architecture.family,
        np.array([stem["width"]], dtype=np.float64),
        parts[:, :, None],
        [stage["stride"] for stage in spec["stages"]],
        image_hw,
        stem_kernel=stem["kernel"],
        stem_pool=stem["pool"],
        shortcut=spec["shortcut"],
    )


def _shufflenet_table(architecture: Architecture, image_hw: tuple[int, int]) -> LayerTable:
    spec = shufflenet_spec(architecture)
    stages = spec["stages"]
    widths, depths = (stage["width"] for stage in stages), (len(stage["blocks"]) for stage in stages)
    choices = [[CHOICES.index(name) for stage in stages for name in stage["blocks"]]]
    return shufflenet_layers(Size(spec["stem"]["width"], tuple(widths), tuple(depths)), np.array(choices), image_hw)


def shufflenet_spec(architecture: Architecture) -> dict[str, Any]:
    """The checked spec of a ShuffleNet: `stem`, `stages` of `width` and `blocks`, and `shuffle`.

    Raises:
        NasrayError: naming the first key or value that is not understood.
    """
    spec = architecture.spec
    _check_keys(spec, "spec", needed=("stem", "stages", "shuffle"))
    if spec["shuffle"] not in SHUFFLES:
        raise NasrayError(f"spec.shuffle is one of {', '.join(SHUFFLES)}; got {shortened(spec['shuffle'])}")
    _check_keys(spec["stem"], "spec.stem", needed=("width",))
    _check_numbers(spec["stem"], "spec.stem", ("width",))
    if not isinstance(spec["stages"], list):
        raise NasrayError(f"spec.stages is a list of the four stages C2 to C5, got {shortened(spec['stages'])}")
    for index, stage in enumerate(spec["stages"]):
        _check_keys(stage, f"spec.stages[{index}]", needed=("width", "blocks"))
        _check_numbers(stage, f"spec.stages[{index}]", ("width",))
        blocks = stage["blocks"]
        if not isinstance(blocks, list) or (strange := [name for name in blocks if name not in CHOICES]):
            got = shortened(strange[0] if isinstance(blocks, list) else blocks)
            raise NasrayError(f"spec.stages[{index}].blocks is a list of {', '.join(CHOICES)}; got {got}")
    widths = tuple(stage["width"] for stage in spec["stages"])
    try:
        check_size(Size(spec["stem"]["width"], widths, tuple(len(stage["blocks"]) for stage in spec["stages"])))
    except ValueError as error:
        raise NasrayError(f"no network can be built of this spec: {error}") from error
    return spec


def staged_spec(architecture: Architecture) -> dict[str, Any]:
    """The checked spec of a staged architecture: `stem` (with `pool`), `stages`, `shortcut`; defaults filled in.

    Raises:
        NasrayError: naming the first key or value that is not understood.
    """
    family, spec = architecture.family, architecture.spec
    if family not in MID_KEYS:
        raise NasrayError(
            f"family {family!r} is not one of staged networks, which are: {', '.join(MID_KEYS)}"
            + _did_you_mean(str(family), MID_KEYS)
        )
    _check_keys(spec, "spec", needed=("stem", "stages"), optional=("shortcut",))
    shortcut = spec.get("shortcut", "pool")
    if shortcut not in ("pool", "stride"):
        raise NasrayError(f'spec.shortcut is "pool" or "stride", got {shortened(shortcut)}')
    _check_keys(spec["stem"], "spec.stem", needed=("kernel", "width"), optional=("pool",))
    pool = spec["stem"].get("pool", False)
    if not isinstance(pool, bool):
        raise NasrayError(f"spec.stem.pool is true or false, got {shortened(pool)}")
    _check_numbers(spec["stem"], "spec.stem", ("kernel", "width"))
    if not isinstance(spec["stages"], list) or not spec["stages"]:
        raise NasrayError(f"spec.stages is a list of at least one stage, got {shortened(spec['stages'])}")
    mid = MID_KEYS[family]
    needed = ("kernel", "width", "depth", "stride", *([mid] if mid else []))
    for index, stage in enumerate(spec["stages"]):
        _check_keys(stage, f"spec.stages[{index}]", needed=needed)
        _check_numbers(stage, f"spec.stages[{index}]", needed)
    if (blocks := sum(stage["depth"] for stage in spec["stages"])) > MAX_BLOCKS:
        raise NasrayError(f"networks have at most {MAX_BLOCKS:,} blocks; the depths of this spec add up to {blocks:,}")
    levels = 1 + pool + sum(stage["stride"] == 2 for stage in spec["stages"])
    if levels != 5:
        raise NasrayError(f"a staged network ends at C5 (stride 32); the strides of this one end at C{levels}")
    return {"stem": {**spec["stem"], "pool": pool}, "stages": spec["stages"], "shortcut": shortcut}


def _check_keys(value: Any, place: str, *, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    if not isinstance(value, dict):
        raise NasrayError(f"{place} is an object with the keys {', '.join(needed)}; got {shortened(value)}")
    known = (*needed, *optional)
    for key in value:
        if key not in known:
            raise NasrayError(
                f"{place} has an unknown key {shortened(key)}; its keys are {', '.join(known)}"
                + _did_you_mean(key, known)
            )
    if missing := [key for key in needed if key not in value]:
        raise NasrayError(f"{place} lacks {', '.join(missing)}")


def _check_numbers(value: dict[str, Any], place: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        check_whole(f"{place}.{key}", value[key], 1, _MAXIMA[key])
    if value.get("kernel", 1) % 2 == 0:
        raise NasrayError(f"{place}.kernel is odd, got {value['kernel']}")


def check_size_to_build(architecture: Architecture) -> None:
    """Refuse a network whose weights would not fit, before memory is taken for them.

    Raises:
        NasrayError: if it has more than `MAX_PARAMS_M` parameters / 1e6.
    """
    params_m = float(layer_table(architecture, (MIN_SIDE, MIN_SIDE)).cost()["params_m"][0])
    if params_m > MAX_PARAMS_M:
        raise NasrayError(
            f"this network has {params_m:,.0f} M parameters; those that are built have at most {MAX_PARAMS_M:,} M. "
            "Lower widths or depths (in a search: budget.params_m)"
        )


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f". Did you mean {near[0]!r}?" if near else ""


def _bottlenecks(stem: int, stages: list[tuple[int, int, int, int, int]]) -> Architecture:
    """From rows as MAE-DET's tables have them: kernel, out, stride, bottleneck, depth in blocks."""
    names = ("kernel", "width", "stride", "bottleneck", "depth")
    rows = [dict(zip(names, stage, strict=True)) for stage in stages]
    return Architecture.create("bottleneck", {"stem": {"kernel": 3, "width": stem}, "stages": rows})


def _resnet(family: str, depths: tuple[int, int, int, int]) -> Architecture:
    expansion = 4 if family == "bottleneck" else 1
    stages = []
    for width, stride, depth in zip((64, 128, 256, 512), (1, 2, 2, 2), depths, strict=True):
        stage = {"kernel": 3, "width": expansion * width, "stride": stride, "depth": depth}
        stages.append(stage | ({"bottleneck": width} if family == "bottleneck" else {}))
    stem = {"kernel": 7, "width": 64, "pool": True}
    return Architecture.create(family, {"stem": stem, "stages": stages, "shortcut": "stride"})


def _mobilenet_v2() -> Architecture:
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    names = ("expansion", "width", "depth", "stride")
    stages = [{"kernel": 3, **dict(zip(names, row, strict=True))} for row in table]
    return Architecture.create("inverted", {"stem": {"kernel": 3, "width": 32}, "stages": stages})


def _shufflenet(size: str, genes: str) -> Architecture:
    """From the digits of the released encodings; retrained networks take the shuffle "even-odd"."""
    space = ShuffleNetSpace(size, shuffle="even-odd")
    return space.to_architecture(np.array([int(digit) for digit in genes.replace(" ", "")]))


_DETNASNET = "00312102 03123320 2113202221310333 13333333"

ARCHITECTURES: dict[str, Architecture] = {
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
    # DetNAS, Tables 2 and 3: encodings of its released code
    "detnasnet": _shufflenet("large", _DETNASNET),
    "detnasnet-3.8g": _shufflenet("large-wide", _DETNASNET),
    "detnas-coco-fpn": _shufflenet("small", "2120 2112 33130031 3132"),
    "detnas-coco-retinanet": _shufflenet("small", "2311 3213 31113320 3333"),
    "detnas-voc-fpn": _shufflenet("small", "2103 1303 20113333 3331"),
    "detnas-voc-retinanet": _shufflenet("small", "1300 2333 23333220 2311"),
    # its baselines, at the widths of its spaces
    "shufflenetv2-20": _shufflenet("small", "0" * 20),
    "shufflenetv2-40": _shufflenet("large", "0" * 40),
    "shufflenetv2-40-3.8g": _shufflenet("large-wide", "0" * 40),
    # Single Path One-Shot: searched on ImageNet in the same space
    "spos-imagenet": _shufflenet("small", "2101 2020 20230000 3233"),
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


def read_architecture(path: Path) -> Architecture:
    """Return the architecture in a JSON file, its spec checked where its family is known.

    Raises:
        NasrayError: if the file cannot be read, is not JSON, or holds no architecture.
    """
    try:
        architecture = Architecture.from_dict(read_json(path))
        if architecture.family in MID_KEYS:
            staged_spec(architecture)
        elif architecture.family == ShuffleNetSpace.family:
            shufflenet_spec(architecture)
    except NasrayError as error:
        raise NasrayError(f"{error}" if shown(path) in str(error) else f"{shown(path)}: {error}") from error
    except ValueError as error:
        raise NasrayError(f"{shown(path)} holds no architecture: {error}") from error
    return architecture


def find_architecture(name: str) -> Architecture:
    """A named architecture, the one in a JSON file, a checkpoint or a training, or the winner of a run's folder.

    Raises:
        NasrayError: if `name` is none of these.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    check_text(name)
    path = Path(name)
    if (path / "recipe.yaml").is_file():
        from nasray.training.folder import read_description

        return read_description(path).architecture
    if path.is_file() and path.suffix == ".pt":
        from nasray.checkpoint import Checkpoint

        return Checkpoint.load(path, shared=True).architecture
    if path.is_dir():
        from nasray.cluster import RunFolder

        best = RunFolder.open(path).read_best()["best"][0]["architecture"]
        return Architecture.create(best["family"], best["spec"])
    if path.is_file():
        return read_architecture(path)
    if "/" in name or path.suffix in (".json", ".pt"):
        raise NasrayError(f"{shown(path)} not found. Give a JSON file, the folder of a run or a training, or a name")
    from nasray.configuration import did_you_mean

    raise NasrayError(
        f"unknown architecture {name!r}{did_you_mean(name, ARCHITECTURES)} Named ones: {', '.join(ARCHITECTURES)}. "
        "A JSON file of an architecture and a run's folder also do"
    )
