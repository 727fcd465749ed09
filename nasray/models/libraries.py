"""Models of torchvision and timm as backbones: the feature map of every stage, and nothing behind the last.

A stage ends where height and width are halved next: of each reduction from 4 to 32 the outermost module whose output
is the last of that size.

Shapes: B images, C channels, H x W pixels.
"""

from __future__ import annotations

import copy
import functools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nasray.architectures.libraries import check_model, import_library
from nasray.spaces import NasrayError

REDUCTIONS = (4, 8, 16, 32)
"""Of the maps that are returned, where a model has them."""
PROBE_HW = (256, 320)
"""Height and width of the image that tells the maps: divisible by all reductions, and different from each other."""


class LibraryBackbone(nn.Module):
    """A library's model whose `forward` returns its maps by stage.

    Args:
        body: Model that maps images to its maps, a list or a dictionary, finest first.
        maps: Reduction, channels, layout and module of each map.
        published: Names of the state of `body`, as keys, in the library's own published weights.

    Attributes:
        feature_info: For every map, `num_chs`, `reduction` and `module` (the module whose output it is).
        out_channels: Number of channels of every map.
        published_names: Names of the state of this module in the library's published weights.
    """

    def __init__(self, body: nn.Module, maps: list[StageMap], published: Mapping[str, str]) -> None:
        super().__init__()
        self.body = body
        self.feature_info = [
            {"num_chs": one.channels, "reduction": one.reduction, "module": f"body.{one.module}"} for one in maps
        ]
        self.out_channels = [one.channels for one in maps]
        self.published_names = {f"body.{name}": theirs for name, theirs in published.items()}
        self.levels = [f"c{one.reduction.bit_length() - 1}" for one in maps]
        self.is_last = [one.is_channels_last for one in maps]

    def __deepcopy__(self, memo: dict[int, Any]) -> LibraryBackbone:
        """Copy the module, each part in its own mode: torchvision's traced models come out of a copy in training."""
        twin: LibraryBackbone = type(self).__new__(type(self))
        memo[id(self)] = twin
        nn.Module.__init__(twin)
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        twin.body.train(self.body.training)
        modes = {name: module.training for name, module in self.named_modules()}
        for name, module in twin.named_modules():
            module.training = modes[name]
        return twin

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map (B, 3, H, W) images to an ordered dictionary of (B, C, H', W') maps, from "c2" to "c5"."""
        found = self.body(images)
        values = list(found.values()) if isinstance(found, Mapping) else list(found)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for level, x, is_last in zip(self.levels, values, self.is_last, strict=True):
            maps[level] = x.permute(0, 3, 1, 2) if is_last else x
        return maps


@dataclass(frozen=True)
class StageMap:
    """A map of a model.

    Attributes:
        reduction: Pixels of the image for one of the map.
        channels: Number of channels.
        is_channels_last: Whether the model returns (B, H, W, C).
        module: Module whose output it is.
        place: Place among all maps of the model.
    """

    reduction: int
    channels: int
    is_channels_last: bool
    module: str
    place: int = 0


def torchvision_backbone(name: str) -> LibraryBackbone:
    """Build a model of torchvision with fresh weights, cut behind its last stage.

    Raises:
        NasrayError: if there is no such model, or its maps do not come in stages.
    """
    check_model("torchvision", name)
    from torchvision.models.feature_extraction import create_feature_extractor

    maps = list(_torchvision_maps(name))
    nodes = {one.module: f"c{one.reduction}" for one in maps}
    body = create_feature_extractor(_torchvision_model(name), nodes, suppress_diff_warning=True)
    return LibraryBackbone(body, maps, {key: key for key in body.state_dict()})


def timm_backbone(name: str) -> LibraryBackbone:
    """Build a model of timm with fresh weights, cut behind its last stage.

    Raises:
        NasrayError: if timm is not installed, there is no such model, or its maps do not come in stages.
    """
    check_model("timm", name)
    maps, published = _timm_maps(name)
    indices = tuple(one.place for one in maps)
    return LibraryBackbone(_timm_model(name, out_indices=indices), list(maps), published)


# ---- which maps a model has --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _torchvision_maps(name: str) -> tuple[StageMap, ...]:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = _torchvision_model(name).eval()
    seen: list[tuple[str, Any]] = []

    def hook(path: str) -> Callable[..., None]:
        return lambda module, inputs, output: seen.append((path, output))

    for path, module in model.named_modules():
        if path:
            module.register_forward_hook(hook(path))
    _probe(model, f"torchvision:{name}")
    best: dict[int, tuple[int, StageMap]] = {}
    for path, output in seen:
        found = _stage_map(path, output)
        depth = path.count(".")
        if found is not None and depth <= best.get(found.reduction, (depth, found))[0]:
            best[found.reduction] = depth, found
    return _checked_maps([best[reduction][1] for reduction in sorted(best)], f"torchvision:{name}")


@functools.lru_cache(maxsize=64)
def _timm_maps(name: str) -> tuple[tuple[StageMap, ...], Mapping[str, str]]:
    """Return the maps of a model, and the names of its parts' state in the whole model's."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model, whole = _timm_model(name).eval(), _timm_model(name, whole=True)
    outputs = _probe(model, f"timm:{name}")
    modules = model.feature_info.module_name()
    last: dict[int, StageMap] = {}
    for place, (output, module) in enumerate(zip(outputs, modules, strict=True)):
        found = _stage_map(module, output)
        if found is not None:
            last[found.reduction] = replace(found, place=place)
    maps = _checked_maps([last[reduction] for reduction in sorted(last)], f"timm:{name}")
    # timm flattens the names of modules whose maps it returns: stages.0 becomes stages_0.
    names = {key.replace(".", "_"): key for key in whole.state_dict()}
    own = [(key, key.removeprefix("model.").replace(".", "_")) for key in model.state_dict()]
    return maps, {key: names[flat] for key, flat in own if flat in names}


def _stage_map(module: str, output: Any) -> StageMap | None:
    """Return what kind of map an output is; None if it is none."""
    if not isinstance(output, Tensor) or output.dim() != 4:
        return None
    for reduction in REDUCTIONS:
        sides = tuple(side // reduction for side in PROBE_HW)
        if tuple(output.shape[2:]) == sides:
            return StageMap(reduction, output.shape[1], False, module)
        if tuple(output.shape[1:3]) == sides:
            return StageMap(reduction, output.shape[3], True, module)
    return None


def _checked_maps(maps: list[StageMap], name: str) -> tuple[StageMap, ...]:
    if not maps:
        raise NasrayError(
            f"{name} has no maps whose height and width are the image's over {REDUCTIONS}: it cannot be a backbone. "
            "Choose another model"
        )
    return tuple(maps)


@torch.no_grad()
def _probe(model: nn.Module, name: str) -> Any:
    """Return outputs of a model on the meta device for an image of `PROBE_HW`."""
    try:
        return model(torch.empty(1, 3, *PROBE_HW, device="meta"))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
        raise NasrayError(
            f"{name} does not take images of any size, as detectors need: at {PROBE_HW[0]}x{PROBE_HW[1]}, {reason}. "
            "Choose another model"
        ) from error


# ---- the libraries -----------------------------------------------------------------------------------------------


def _torchvision_model(name: str) -> nn.Module:
    return _on_default_device(lambda: import_library("torchvision").get_model(name, weights=None))


def _timm_model(name: str, *, whole: bool = False, **options: Any) -> Any:
    options = {} if whole else {"features_only": True, **options}
    try:
        return _on_default_device(lambda: import_library("timm").create_model(name, pretrained=False, **options))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
        raise NasrayError(f"timm:{name} cannot be a backbone: {reason}. Choose another model") from error


def _on_default_device(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a model, without what libraries warn their own users of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return make()
        except NotImplementedError:  # some look at values while they are made, which meta tensors do not have
            with torch.device("cpu"):
                model = make()
            return model.to(torch.get_default_device())
