"""Batch norms that are frozen, or synchronized over workers.

On GPUs synchronized norms are PyTorch's. PyTorch has none for CPUs, so there is a small one here, which is made to be
right rather than fast: training on CPUs with several workers equals that of one worker with all images.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasray.spaces import NasrayError


class FrozenBatchNorm(nn.BatchNorm2d):
    """A batch norm whose statistics, scale and shift stay as they are, in training too; its state is that of one."""

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stay in inference mode."""
        super().train(False)
        return self


class SyncedBatchNorm(nn.BatchNorm2d):
    """A batch norm over the images of all workers, for gradients that are averaged over workers.

    Args:
        channels: Number of channels; this and all other options are as of `nn.BatchNorm2d`.
        group: Group of workers; all by default. One of its own keeps its messages apart from those of the gradients.
    """

    def __init__(self, channels: int, *, group: Any = None, **options: Any) -> None:
        super().__init__(channels, **options)
        self.group = group

    def __deepcopy__(self, memo: dict[int, Any]) -> SyncedBatchNorm:
        """Return a copy in the same group, which cannot be copied."""
        twin = type(self).__new__(type(self))
        memo[id(self)], memo[id(self.group)] = twin, self.group
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape and dtype."""
        if not self.training:
            return super().forward(x)
        return synchronized_batch_norm(self, x, self.group)


def synchronized_batch_norm(norm: nn.BatchNorm2d, x: Tensor, group: Any) -> Tensor:
    """Normalize (B, C, H, W) by the statistics of all workers' images, and let a norm learn its running ones.

    Args:
        norm: Norm of C channels, or of more, of which the leading ones take part.
        x: Images of this worker; those of the others have as many channels.
        group: Workers; None for all.
    """
    num, values = x.shape[1], x.to(torch.promote_types(x.dtype, torch.float32))
    count = values.numel() // num
    totals = _Sum.apply(torch.cat([values.sum(dim=(0, 2, 3)), values.new_tensor([count])]), group)
    total = totals[-1]
    mean = totals[:-1] / total
    centered = values - mean[:, None, None]
    variance = _Sum.apply(centered.square().sum(dim=(0, 2, 3)), group) / total
    with torch.no_grad():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        norm.running_mean[:num].lerp_(mean, norm.momentum)
        norm.running_var[:num].lerp_(variance * total / (total - 1), norm.momentum)
        norm.num_batches_tracked.add_(1)
    scale = norm.weight[:num] * (variance + norm.eps).rsqrt()
    scaled: Tensor = centered * scale[:, None, None] + norm.bias[:num, None, None]
    return scaled.to(x.dtype)


DONE = (FrozenBatchNorm, SyncedBatchNorm, nn.SyncBatchNorm)
"""Norms that stay as they are."""


class _Sum(torch.autograd.Function):
    """The sum of a tensor over workers. Its gradient is the sum over workers of what each of them makes of it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.group = group
        value = value.clone()
        distributed.all_reduce(value, group=group)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone()
        distributed.all_reduce(gradient, group=ctx.group)
        return gradient, None


def freeze(module: nn.Module) -> nn.Module:
    """Return the module without gradients and with frozen norms, for good. Weights are shared with what was given."""
    return freeze_norms(module.requires_grad_(False))


def freeze_norms(module: nn.Module) -> nn.Module:
    """Return the module with its batch norms frozen. Weights are shared with what was given.

    A norm of a class of its own brings a method `frozen() -> nn.Module`, which returns it frozen.

    Raises:
        NasrayError: If a batch norm has a class of its own without this method.
    """

    def frozen(norm: nn.BatchNorm2d) -> nn.Module:
        other = FrozenBatchNorm(norm.num_features, **norm_options(norm)).requires_grad_(False).eval()
        return with_state_of(norm, other)

    return _replace_norms(module, frozen, "frozen")


def synchronize_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Return the module with its batch norms, but for frozen ones, synchronized over workers. Weights are shared.

    To be called by all workers at the same time. A norm of a class of its own brings a method
    `synchronized(group) -> nn.Module`, which returns it synchronized over a process group (None for the default one).

    Raises:
        NasrayError: If a batch norm has a class of its own without this method.
    """
    if device.type == "cuda":
        return _replace_norms(module, nn.SyncBatchNorm.convert_sync_batchnorm, "synchronized", None)
    group = distributed.new_group()

    def synchronized(norm: nn.BatchNorm2d) -> nn.Module:
        return with_state_of(norm, SyncedBatchNorm(norm.num_features, group=group, **norm_options(norm)))

    return _replace_norms(module, synchronized, "synchronized", group)


def norm_options(norm: nn.BatchNorm2d) -> dict[str, Any]:
    """Return the options of a norm beside its channels, as keywords."""
    return {"eps": norm.eps, "momentum": norm.momentum}


def with_state_of(norm: nn.BatchNorm2d, other: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """Return the other norm with weights and statistics of the first."""
    requires_grad = other.weight.requires_grad
    other.weight, other.bias = norm.weight, norm.bias
    other.requires_grad_(requires_grad and norm.weight.requires_grad)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(other, name, getattr(norm, name))
    return other


def _replace_norms(
    module: nn.Module, replace: Callable[[nn.BatchNorm2d], nn.Module], own: str, *arguments: Any
) -> nn.Module:
    """Return the module with its batch norms replaced: PyTorch's by `replace`, others by their method `own`."""
    if type(module) is nn.BatchNorm2d:
        return replace(module)
    if isinstance(module, _BatchNorm) and not isinstance(module, DONE):
        if not hasattr(module, own):
            raise NasrayError(
                f"{type(module).__name__} is a batch norm of a class of its own, which cannot be {own}: give it a "
                f"method `{own}`, see nasray.models.norms; or train with one worker and backbone_norm batch"
            )
        replaced: nn.Module = getattr(module, own)(*arguments)
        return replaced
    for name, child in module.named_children():
        setattr(module, name, _replace_norms(child, replace, own, *arguments))
    return module
