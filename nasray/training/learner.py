"""One training step: forward, backward, and the optimizer's update. It knows nothing of epochs, files or Ray.

The training loop uses it, and so does whatever trains a network for a few steps only. What a step computes depends on
the network, the optimizer's state, the batch, the iteration and the seed, and on nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from nasray.data.examples import Examples, moved_targets
from nasray.devices import autocast
from nasray.recipe_options import OptimizerOptions
from nasray.training.exchange import GradientExchange, share_state
from nasray.training.optimizers import make_optimizer, scale_learning_rate


class StepResult(NamedTuple):
    """What one step computed, on this worker.

    Attributes:
        names: Names of the L losses.
        losses: (L,) losses, means over the parts of the batch.
        grad_norm: Norm of the gradient before clipping, over all workers.
        factor: What the learning rate was multiplied by.
    """

    names: list[str]
    losses: Tensor
    grad_norm: Tensor
    factor: float


class Learner:
    """Trains a network, a step at a time.

    Args:
        network: Module on its device, in training mode, which maps images and targets to named losses.
        options: Optimizer, accumulation and clipping.
        schedule: Function from an iteration, counted from 0, to the factor of the learning rate.
        parameters: Parameters to move; all that have a gradient by default.
        precision: "float32", "bfloat16" or "float16", of the forward pass. Weights stay in float32.
        channels_last: Whether images are laid out with channels last.
        world: Number of workers, which exchange their gradients. Above 1, PyTorch's process group is ready.
        uses_all: Whether every step gives all parameters of the network gradients, which workers then exchange during
            the backward pass. With a supernet's paths, for one, it does not; they are exchanged behind it.

    Attributes:
        network: As given.
        optimizer: Its optimizer.

    Raises:
        NasrayError: If no parameter has a gradient.
    """

    def __init__(
        self,
        network: nn.Module,
        options: OptimizerOptions,
        schedule: Callable[[int], float],
        *,
        parameters: Iterable[nn.Parameter] | None = None,
        precision: str = "float32",
        channels_last: bool = False,
        world: int = 1,
        uses_all: bool = True,
    ) -> None:
        self.network, self.options, self.schedule = network, options, schedule
        given = network.parameters() if parameters is None else parameters
        self.parameters = [parameter for parameter in given if parameter.requires_grad]
        self.device = next(network.parameters()).device
        self.precision = precision
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.optimizer = make_optimizer(network, options, self.parameters)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "float16")
        self.generator = torch.Generator(self.device)
        self.model: nn.Module = network
        self.exchange: GradientExchange | None = None
        if world > 1 and uses_all:
            # Buffers are those of norms, which are frozen or synchronized: the same in all workers anyway.
            self.model = DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)
        elif world > 1:
            share_state(network)
            self.exchange = GradientExchange(network, self.parameters)

    @property
    def skips_overflows(self) -> bool:
        """Whether steps whose gradient is not finite are skipped, as in float16, until its scale fits."""
        return bool(self.scaler.is_enabled())

    def step(self, batch: Examples, iteration: int, seed: int) -> StepResult:
        """Learn from one batch of this worker.

        Args:
            batch: Images and targets, on any device. B is a multiple of `options.accumulate`.
            iteration: Number of this step, from 0, for the schedule.
            seed: Seed of all that losses and dropout draw. The global random state is left as it was.
        """
        factor = self.schedule(iteration)
        scale_learning_rate(self.optimizer, factor)
        self.optimizer.zero_grad(set_to_none=True)
        images = batch.images.to(self.device, memory_format=self.layout, non_blocking=True)
        self.generator.manual_seed(seed)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # dropout takes no generator
            torch.manual_seed(seed)
            names, losses = self._backward(images, moved_targets(batch.targets, self.device))
        return StepResult(names, losses, self._update(), factor)

    def state_dict(self) -> dict[str, Any]:
        """Return what continuing needs beside the network's own state: `optimizer` and `scaler`."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned; other entries are ignored.

        Raises:
            KeyError: If an entry is missing.
            ValueError: If it is of other parameters.
        """
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def _backward(self, images: Tensor, targets: Tensor | Sequence[Any]) -> tuple[list[str], Tensor]:
        """Leave the gradient of the batch's mean loss in the parameters; return names and values of the L losses."""
        num_parts = self.options.accumulate
        size = len(images) // num_parts
        names: list[str] = []
        total = torch.zeros((), device=self.device)
        for part in range(num_parts):
            chosen = slice(part * size, (part + 1) * size)
            with self._synchronizing(part == num_parts - 1):
                with autocast(self.device, self.precision):
                    losses = self.model(images[chosen], targets[chosen], generator=self.generator)
                values = torch.stack([value.float() for value in losses.values()]) / num_parts
                self.scaler.scale(values.sum()).backward()
            total = total + values.detach()
            names = [name.removeprefix("loss_") for name in losses]
        return names, total

    def _synchronizing(self, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        """Let workers that exchange gradients during backward passes do so once a step, with the batch's last part."""
        if isinstance(self.model, DistributedDataParallel) and not is_last:
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _update(self) -> Tensor:
        """Move the parameters along their gradient; return its norm before clipping."""
        if self.exchange is not None:
            self.exchange()
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        if self.options.clip is not None:
            clip_grads_with_norm_(self.parameters, self.options.clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm
