"""What a whole detector costs, part by part, and published figures to hold it against.

Counted on the meta device: no memory, no arithmetic. Modules tell what they do through hooks, so that a part that runs
on several levels counts on each.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nasray.architectures import compose, has_layers, is_supernet, slots
from nasray.models import build
from nasray.models.detectors import assemble_detector, build_detector
from nasray.spaces import Architecture

CONVENTIONS = {
    "gmacs": "multiply-adds of convolutions and fully connected layers / 1e9",
    "gmacs_bias": "the same, and 1 for each output of a layer with bias",
    "gmacs_mmcv": "as mmcv counts: the same with bias, and 2 for each output of a norm, 1 for each of a ReLU, 1 for "
    "each input of a pool",
}
"""How multiply-adds can be counted."""
UNITS = {"params_m": 1e6, **dict.fromkeys(CONVENTIONS, 1e9)}
"""What a count is divided by to be the figure of its name."""


@dataclass(frozen=True)
class PublishedPart:
    """A figure of a paper.

    Attributes:
        name: Name of what it is of.
        architecture: The backbone's name.
        detector: Name of the detector.
        image_hw: Height and width in pixels.
        parts: Parts that it counts, of `detector_cost`.
        convention: Convention, one of `CONVENTIONS`.
        gmacs: The figure.
        params_m: Published millions of parameters, where stated.
        head: Named architecture in the slot for a head; None of the detector's own.
        source: Where it stands, and what meets it.
    """

    name: str
    architecture: str
    detector: str
    image_hw: tuple[int, int]
    parts: tuple[str, ...]
    convention: str
    gmacs: float
    source: str
    params_m: float | None = None
    head: str | None = None


_MSNAS = "MSNAS, Table 1, at 832x1280 with biases"
PUBLISHED_PARTS = (
    PublishedPart(
        "FCOS head",
        "resnet50",
        "fcos",
        (800, 1280),
        ("head",),
        "gmacs_mmcv",
        105.0,
        "FAD, section 4, at 1280x800; its scales are not counted",
        4.92,
    ),
    PublishedPart(
        "FAD head",
        "resnet50",
        "fcos",
        (800, 1280),
        ("head",),
        "gmacs_mmcv",
        89.0,
        "FAD, section 4, at 1280x800; its 4.1 M parameters are 4.17 M",
        head="fad-paper",
    ),
    PublishedPart(
        "ResNet-18-FPN encoder and RPN",
        "resnet18",
        "faster-rcnn",
        (832, 1280),
        ("backbone.stem", "backbone", "neck", "rpn"),
        "gmacs_bias",
        145.45,
        _MSNAS,
    ),
    PublishedPart(
        "ResNet-34-FPN encoder and RPN",
        "resnet34",
        "faster-rcnn",
        (832, 1280),
        ("backbone", "neck", "rpn"),
        "gmacs_bias",
        182.20,
        f"{_MSNAS}, without the stem",
    ),
    PublishedPart(
        "ResNet-50-FPN encoder and RPN",
        "resnet50",
        "faster-rcnn",
        (832, 1280),
        ("backbone", "neck", "rpn"),
        "gmacs_bias",
        197.33,
        f"{_MSNAS}, without the stem",
    ),
)
"""Figures that are reproduced to 1 %. MSNAS counts the stem of ResNet-18 but not those of ResNet-34 and -50; its RPN
has 18 outputs a location where nasray's has 15."""


def backbone_cost(architecture: Architecture, image_hw: tuple[int, int]) -> dict[str, float]:
    """Return `gmacs` and `params_m` of a backbone whose layers no table knows, counted by PyTorch on the meta device.

    Matrix products of attention count as layers do.

    Args:
        architecture: Architecture of the backbone.
        image_hw: Height and width of the image in pixels.

    Raises:
        NasrayError: if no network can be built of it.
    """
    macs, params = _count_backbone(architecture, image_hw)
    return {"gmacs": macs / UNITS["gmacs"], "params_m": params / UNITS["params_m"]}


def _count_backbone(architecture: Architecture, image_hw: tuple[int, int]) -> tuple[int, int]:
    """Return multiply-adds and parameters, counted by PyTorch."""
    with torch.device("meta"):
        network, images = build(architecture).eval(), torch.empty(1, 3, *image_hw)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in network.parameters())


def detector_cost(
    name: str, architecture: Architecture, image_hw: tuple[int, int], *, num_classes: int = 80, **options: Any
) -> dict[str, dict[str, float]]:
    """Return the costs of every part of a detector for one image.

    Args:
        name: Name of the detector.
        architecture: Backbone, pyramid, or a composite of one of them and a head.
        image_hw: Height and width of the image in pixels.
        num_classes: Number of classes of the detector.
        **options: Options of the detector.

    Returns:
        By part: `params_m`, and `gmacs` in the three conventions. Parts are "backbone.stem", "backbone" (the rest of
        it), "neck", what else the detector has under its own names (heads that work on proposals on all of them), and
        "total".

    Raises:
        NasrayError: if detector, architecture and options do not go together.
    """
    with torch.device("meta"):
        detector = assemble_detector(name, architecture, num_classes, **options)
    counts = _count_parts(detector, image_hw)
    backbone = slots(architecture).get("backbone")
    if backbone is not None and not has_layers(backbone) and not is_supernet(backbone):
        # Layers of libraries multiply beside their modules too, as attention does.
        beside = _count_backbone(backbone, image_hw)[0] - counts["backbone"]["gmacs"]
        for convention in CONVENTIONS:
            counts["backbone"][convention] += beside
    parts = {part: numbers for part, numbers in counts.items() if any(numbers.values())}
    parts["total"] = {key: sum(numbers[key] for numbers in parts.values()) for key in UNITS}
    return {part: {key: number / UNITS[key] for key, number in numbers.items()} for part, numbers in parts.items()}


def count_around(
    name: str,
    maps: Mapping[int, int],
    image_hw: tuple[int, int],
    /,
    *,
    num_classes: int = 80,
    head: Architecture | None = None,
    **options: Any,
) -> tuple[int, int]:
    """Return multiply-adds and parameters of a detector without its backbone, whole numbers.

    Args:
        name: Name of the detector.
        maps: Channels of the backbone's maps by reduction.
        image_hw: Height and width of the image in pixels.
        num_classes: Classes of the detector.
        head: Architecture in its slot for a head; the detector's own if left out.
        **options: Options of the detector.

    Raises:
        NasrayError: if detector, maps, head and options do not go together.
    """
    make_head = partial(build, head) if head else None
    with torch.device("meta"):
        detector = build_detector(name, _GivenMaps(maps), num_classes, make_head, **options)
    counts = _count_parts(detector, image_hw).values()
    return sum(numbers["gmacs"] for numbers in counts), sum(numbers["params_m"] for numbers in counts)


class _GivenMaps(nn.Module):
    """A backbone that gives maps with these channels by reduction, and computes nothing."""

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        self.channels = channels
        self.feature_info = [{"num_chs": num, "reduction": step, "module": ""} for step, num in channels.items()]
        self.out_channels = list(channels.values())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        num, _, height, width = images.shape
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for step, channels in self.channels.items():
            maps[str(step)] = images.new_empty(num, channels, -(-height // step), -(-width // step))
        return maps


def _count_parts(detector: nn.Module, image_hw: tuple[int, int]) -> dict[str, dict[str, int]]:
    """Return whole numbers by the keys of `UNITS`, of every part of a detector on the meta device."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(UNITS, 0))
    for path, parameter in detector.named_parameters():
        counts[_part(path)]["params_m"] += parameter.numel()
    handles = [
        module.register_forward_hook(_hook(counts[_part(path)]))
        for path, module in detector.named_modules()
        if not any(module.children())
    ]
    with torch.no_grad():
        detector.eval()(torch.empty(1, 3, *image_hw, device="meta"))
    for handle in handles:
        handle.remove()
    return counts


def _part(path: str) -> str:
    return "backbone.stem" if path.startswith("backbone.stem") else path.split(".")[0]


def _hook(numbers: dict[str, int]) -> Any:
    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        macs, bias, other = module_macs(module, inputs[0], output)
        numbers["gmacs"] += macs
        numbers["gmacs_bias"] += macs + bias
        numbers["gmacs_mmcv"] += macs + bias + other

    return count


def module_macs(module: nn.Module, x: Any, output: Any) -> tuple[int, int, int]:
    """Return the multiply-adds of a module's weights, additions of its biases, and what only mmcv counts."""
    if not isinstance(output, Tensor):
        return 0, 0, 0
    if isinstance(module, nn.ConvTranspose2d):
        taps = module.weight.shape[2] * module.weight.shape[3] * module.out_channels // module.groups
        return x.numel() * taps, output.numel() * (module.bias is not None), 0
    if isinstance(module, nn.Conv2d | nn.Linear):
        return output.numel() * module.weight[0].numel(), output.numel() * (module.bias is not None), 0
    if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        return 0, 0, 2 * output.numel()
    if isinstance(module, nn.ReLU | nn.ReLU6):
        return 0, 0, output.numel()
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return 0, 0, x.numel()
    return 0, 0, 0


def compare_published(published: PublishedPart) -> dict[str, Any]:
    """Return our figure beside a paper's: `gmacs`, `published_gmacs`, `difference` (relative), and so `params_m`."""
    from nasray.architectures import ARCHITECTURES

    architecture = ARCHITECTURES[published.architecture]
    if published.head is not None:
        architecture = compose({"backbone": architecture, "head": ARCHITECTURES[published.head]})
    costs = detector_cost(published.detector, architecture, published.image_hw)
    gmacs = sum(costs[part][published.convention] for part in published.parts)
    row: dict[str, Any] = {
        "name": published.name,
        "image_hw": list(published.image_hw),
        "parts": list(published.parts),
        "convention": published.convention,
        "gmacs": gmacs,
        "published_gmacs": published.gmacs,
        "difference": gmacs / published.gmacs - 1,
        "source": published.source,
    }
    if published.params_m is not None:
        params_m = sum(costs[part]["params_m"] for part in published.parts)
        row |= {"params_m": params_m, "published_params_m": published.params_m}
    return row
