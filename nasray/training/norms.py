"""Batch norms that are frozen, or synchronized over workers.

On GPUs synchronized norms are PyTorch's. PyTorch has none for CPUs, so there is a small one here, which is made to be
right rather than fast: training on CPUs with several workers equals that of one worker with all images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn


class FrozenBatchNorm(nn.BatchNorm2d):
    """A batch norm whose statistics, scale and shift stay as they are, in training too; its state is that of one."""

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stay in inference mode."""
        super().train(False)
        return self


class SyncedBatchNorm(nn.BatchNorm2d):
    """A batch norm over the images of all workers, for gradients that are averaged over workers.

    Args:
        channels: as of `nn.BatchNorm2d`, like all other options.
        group: workers; all by default. One of its own keeps its messages apart from those of the gradients.
    """

    def __init__(self, channels: int, *, group: Any = None, **options: Any) -> None:
        super().__init__(channels, **options)
        self.group = group

    def __deepcopy__(self, memo: dict[int, Any]) -> SyncedBatchNorm:
        """A copy in the same group, which cannot be copied."""
        twin = SyncedBatchNorm(self.num_features, group=self.group, **_options(self))
        twin.load_state_dict(self.state_dict())
        return twin.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape and dtype."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = values.numel() // values.shape[1]
        totals = _Sum.apply(torch.cat([values.sum(dim=(0, 2, 3)), values.new_tensor([count])]), self.group)
        total = totals[-1]
        mean = totals[:-1] / total
        centered = values - mean[:, None, None]
        variance = _Sum.apply(centered.square().sum(dim=(0, 2, 3)), self.group) / total
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


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
    """The module without gradients and with frozen norms, for good. Weights are shared with what was given."""
    return freeze_norms(module.requires_grad_(False))


def freeze_norms(module: nn.Module) -> nn.Module:
    """The module with its batch norms frozen. Weights are shared with what was given."""

    def frozen(norm: nn.BatchNorm2d) -> nn.Module:
        return _like(norm, FrozenBatchNorm(norm.num_features, **_options(norm)).requires_grad_(False).eval())

    return _replace_norms(module, frozen)


def synchronize_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with its batch norms, but for frozen ones, synchronized over workers. Weights are shared.

    To be called by all workers at the same time.
    """
    if device.type == "cuda":
        return _replace_norms(module, nn.SyncBatchNorm.convert_sync_batchnorm)
    group = distributed.new_group()
    return _replace_norms(
        module, lambda norm: _like(norm, SyncedBatchNorm(norm.num_features, group=group, **_options(norm)))
    )


def _options(norm: nn.BatchNorm2d) -> dict[str, Any]:
    return {"eps": norm.eps, "momentum": norm.momentum}


def _like(norm: nn.BatchNorm2d, other: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """The other norm with weights and statistics of the first."""
    requires_grad = other.weight.requires_grad
    other.weight, other.bias = norm.weight, norm.bias
    other.requires_grad_(requires_grad and norm.weight.requires_grad)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(other, name, getattr(norm, name))
    return other


def _replace_norms(module: nn.Module, replace: Callable[[nn.BatchNorm2d], nn.Module]) -> nn.Module:
    """The module with each batch norm of PyTorch's own class replaced."""
    if type(module) is nn.BatchNorm2d:
        return replace(module)
    for name, child in module.named_children():
        setattr(module, name, _replace_norms(child, replace))
    return module
