"""Batch norms that are frozen, or synchronized over workers.

Training with several workers equals that of one worker with all images. PyTorch has synchronized norms for GPUs alone,
and they make the host wait for the GPU three times a norm; those here do not. On CPUs they are made to be right rather
than fast.
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
    num = x.shape[1]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    weight, bias, running_mean, running_var = (
        value[:num] for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    norm.num_batches_tracked.add_(1)
    if x.device.type != "cpu":
        fused: Tensor = _Fused.apply(x, weight, bias, running_mean, running_var, norm.eps, norm.momentum, group)
        return fused
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    count = values.numel() // num
    totals = _Sum.apply(torch.cat([values.sum(dim=(0, 2, 3)), values.new_tensor([count])]), group)
    total = totals[-1]
    mean = totals[:-1] / total
    centered = values - mean[:, None, None]
    variance = _Sum.apply(centered.square().sum(dim=(0, 2, 3)), group) / total
    with torch.no_grad():
        running_mean.lerp_(mean, norm.momentum)
        running_var.lerp_(variance * total / (total - 1), norm.momentum)
    scale = weight * (variance + norm.eps).rsqrt()
    scaled: Tensor = centered * scale[:, None, None] + bias[:, None, None]
    return scaled.to(x.dtype)


NOTHING = 1e-30
"""Number of values that a worker without any counts as: of 0 the first worker would divide by 0."""
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


class _Fused(torch.autograd.Function):
    """A synchronized norm in the operations that PyTorch has for it on GPUs: one message forward and one back.

    PyTorch's own module makes the host wait, to leave out workers without values. Here these count as good as nothing.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        eps: float,
        momentum: float,
        group: Any,
    ) -> Tensor:
        x, num = x.contiguous(memory_format=_layout(x)), x.shape[1]
        if x.numel():
            mean, invstd = torch.batch_norm_stats(x, eps)  # invstd is 1 / deviation
        else:
            mean, invstd = weight.new_zeros(num), weight.new_ones(num)
        own = torch.cat([mean, invstd, mean.new_full((1,), max(x.numel() // num, NOTHING))])
        every = own.new_empty(distributed.get_world_size(group), len(own))
        distributed.all_gather_into_tensor(every, own, group=group)
        means, invstds, counts = every.split([num, num, 1], dim=1)
        counts = counts.flatten()
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            x, means, invstds, running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(x, weight, mean, invstd, counts.int())
        ctx.group = group
        return torch.batch_norm_elemt(x, weight, bias, mean, invstd, eps) if x.numel() else torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd, counts = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=_layout(x))
        if x.numel():
            total, product, of_weight, of_bias = torch.batch_norm_backward_reduce(
                gradient, x, mean, invstd, weight, *ctx.needs_input_grad[:3]
            )
        else:
            total = product = of_weight = of_bias = torch.zeros_like(mean)
        of_x = None
        if ctx.needs_input_grad[0]:
            sums = torch.cat([total, product])
            distributed.all_reduce(sums, group=ctx.group)
            of_x = torch.empty_like(x)
            if x.numel():
                total, product = sums.split(len(mean))
                of_x = torch.batch_norm_backward_elemt(gradient, x, mean, invstd, weight, total, product, counts)
        return of_x, of_weight, of_bias, None, None, None, None, None


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


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
    # On CPUs a group of its own keeps messages apart from those of gradients; a GPU's are in the order of its stream.
    group = distributed.new_group() if device.type == "cpu" else None

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
