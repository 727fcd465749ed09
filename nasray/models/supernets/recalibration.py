"""Statistics of batch norms for one path, computed anew.

The statistics that training leaves in a supernet are averages over all paths and belong to none of them. Chen et al.,
"DetNAS: Backbone Search for Object Detection", NeurIPS 2019, section 3.3, recompute them for every path from 500
images of the training set, before the path is evaluated.

Differs from the released code in:
- Every image counts the same (a cumulative mean); there, an average of momentum 0.1 forgets all but some 20 batches.
- 500 are images, as in the paper; there, 500 batches of 8.
- Only batch norms are in training mode: dropout, if there is any, stays off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasray.devices import autocast

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@torch.no_grad()
def recalibrate(
    module: nn.Module,
    batches: Iterable[Tensor],
    num_images: int = 500,
    *,
    forward: Callable[[Tensor], Any] | None = None,
    precision: str = "float32",
) -> None:
    """Replace the statistics of all batch norms that run by those of `num_images` images.

    A norm's mean and (unbiased) variance become the averages of those of its batches, weighted by their images. A norm
    that runs several times for a batch, as in a head that levels share, averages all its inputs. Weights stay as they
    are, and so do the statistics of norms that do not run, or that are frozen (they stay in inference mode). The new
    statistics are new tensors: memory that the old ones share with other networks or processes is not written to. The
    mode of all modules is afterwards what it was.

    Args:
        module: A network, such as a whole detector around a supernet whose path is set.
        batches: (B, ...) inputs. The last one needed is cut so that the number is exact.
        num_images: Number of images, at least 1.
        forward: Function that runs the module on a batch; by default the module itself. For a detector, `forward_raw`.
        precision: "float32", or "bfloat16" or "float16" for automatic mixed precision; statistics are in float32.

    Raises:
        ValueError: if there are fewer images.
    """
    if num_images < 1:
        raise ValueError(f"num_images is at least 1, got {num_images}")
    seen = 0
    with _averaging(module) as weigh:
        for batch in batches:
            batch = batch[: num_images - seen]
            weigh(len(batch))
            with autocast(batch.device, precision):
                (forward or module)(batch)
            seen += len(batch)
            if seen == num_images:
                return
    raise ValueError(f"statistics of {num_images} images are asked for, and there are only {seen}")


def up_to_the_last_norm(network: nn.Module) -> Callable[[Tensor], Any]:
    """Return what runs all batch norms of a detector or classifier, and no more than it has to.

    That is its part that takes images, a backbone for one, where all batch norms are in it; else the whole network.
    """
    first = getattr(network, "backbone", None)
    if isinstance(first, nn.Module) and hasattr(network, "normalize"):
        inside = set(first.modules())
        if all(module in inside for module in network.modules() if isinstance(module, _BatchNorm)):
            return lambda images: first(network.normalize(images))  # type: ignore[operator]
    forward: Callable[[Tensor], Any] = getattr(network, "forward_raw", network)
    return forward


@contextmanager
def kept_statistics(module: nn.Module) -> Iterator[None]:
    """Put the statistics of all batch norms back at the end: `recalibrate` and evaluate a path within it."""
    kept = [(norm, name, getattr(norm, name)) for norm in _norms(module) for name in STATISTICS]
    try:
        yield
    finally:
        for norm, name, value in kept:
            setattr(norm, name, value)


@contextmanager
def _averaging(module: nn.Module) -> Iterator[Callable[[int], None]]:
    """Let batch norms begin anew and average; yield a function that is told how many images come next."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    norms = [norm for norm in _norms(module) if norm.train().training]
    momenta = {norm: norm.momentum for norm in norms}
    total: dict[nn.Module, int] = {}
    images = 0

    def weigh(num: int) -> None:
        nonlocal images
        images = num

    def before(norm: nn.Module, _: Any) -> None:
        assert isinstance(norm, _BatchNorm)
        if norm not in total:
            for name in STATISTICS:
                setattr(norm, name, torch.zeros_like(getattr(norm, name)))
            total[norm] = 0
        total[norm] += images
        norm.momentum = images / total[norm]  # 1 at first, so that what was there before does not matter

    hooks = [norm.register_forward_pre_hook(before) for norm in norms]
    try:
        yield weigh
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for part, training in modes.items():
            part.training = training


def _norms(module: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms that have statistics."""
    parts = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    return [norm for norm in parts if norm.track_running_stats and norm.running_mean is not None]
