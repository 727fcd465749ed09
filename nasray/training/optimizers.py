"""Which parameters an optimizer moves, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from nasray.models.norms import freeze, freeze_norms
from nasray.recipe import Recipe
from nasray.recipe_options import OptimizerOptions
from nasray.spaces import NasrayError

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def freeze_backbone(network: nn.Module, recipe: Recipe) -> None:
    """Freeze the recipe's stages and norms of the backbone, in place.

    Raises:
        NasrayError: if the backbone has fewer stages.
    """
    backbone = network.backbone
    assert isinstance(backbone, nn.Module)
    if recipe.frozen_stages:
        stem, stages = getattr(backbone, "stem", None), getattr(backbone, "stages", None)
        if not isinstance(stem, nn.Module) or not isinstance(stages, nn.ModuleList):
            raise NasrayError(
                f"frozen_stages {recipe.frozen_stages}: this backbone is not made of a stem and stages; choose 0"
            )
        if recipe.frozen_stages > 1 + len(stages):
            raise NasrayError(
                f"frozen_stages {recipe.frozen_stages}: the backbone has a stem and {len(stages)} stages; choose at "
                f"most {1 + len(stages)}"
            )
        freeze(stem)
        for stage in list(stages)[: recipe.frozen_stages - 1]:
            freeze(stage)
    if recipe.backbone_norm == "frozen":
        freeze_norms(backbone)


def make_optimizer(
    network: nn.Module, options: OptimizerOptions, parameters: Iterable[nn.Parameter] | None = None
) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over all parameters that have a gradient, or over those given.

    Every group has a `learning_rate`, the one that the schedule's factor multiplies. Weights of norms and all biases
    are in groups of their own, and so is what stands in a slot of the network, as far as the options treat them
    differently.

    Args:
        network: Module that the parameters belong to.
        options: Optimizer options of the recipe.
        parameters: Parameters to move; all by default. Those without a gradient are left out.

    Raises:
        NasrayError: If no parameter has a gradient.
    """
    norms = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, NORMS)
        for parameter in module.parameters(recurse=False)
    }
    places: Mapping[str, str] = getattr(network, "slots", {"backbone": "backbone"})
    factors = {
        f"{place}.": options.head_factor if slot == "head" else options.backbone_factor
        for slot, place in places.items()
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    chosen = None if parameters is None else {id(parameter) for parameter in parameters}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad or (chosen is not None and id(parameter) not in chosen):
            continue
        factor = next((factor for place, factor in factors.items() if name.startswith(place)), 1.0)
        is_light = id(parameter) in norms or name.endswith("bias")
        light_decay = options.weight_decay if options.norm_weight_decay is None else options.norm_weight_decay
        decay = light_decay if is_light else options.weight_decay
        groups.setdefault((options.learning_rate * factor, decay), []).append(parameter)
    if not groups:
        raise NasrayError("everything is frozen: no parameter is left to be trained. Lower frozen_stages")
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    is_sgd = options.name == "sgd"
    special: dict[str, Any] = {"momentum": options.momentum} if is_sgd else {"betas": tuple(options.betas)}
    optimizer: torch.optim.Optimizer = kinds[options.name](
        [
            {"params": members, "lr": rate, "learning_rate": rate, "weight_decay": decay}
            for (rate, decay), members in groups.items()
        ],
        fused=True,
        **special,
    )
    if is_sgd:
        # Fused steps cannot begin some momenta beside others, as paths of supernets do; from 0 it is the same.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def scale_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` times its own."""
    for group in optimizer.param_groups:
        group["lr"] = group["learning_rate"] * factor
