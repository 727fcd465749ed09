"""Fine-tuning of a supernet's path by itself, before it is measured.

Reference: "Multi-scale Network Architecture Search for Object Detection" (MSNAS), under review at ICLR 2021, section
3.4, after Zhang et al., "Deeper insights into weight sharing in neural architecture search", 2020: a few steps of a
path alone move the shared weights, and the statistics of batch norms, towards its own, and rank paths better.

Differs from MSNAS in: one process trains a path, on one device; what does not fit its memory is `accumulate`d, which
leaves each part of a batch the statistics of its own images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from nasray.spaces import NasrayError
from nasray.spaces.ranges import MAX_BATCH, Count, Range

if TYPE_CHECKING:
    from torch import nn

    from nasray.data.classification import ClassificationBatch, ClassificationSet
    from nasray.data.dataset import DetectionSet
    from nasray.data.loader import Batch
    from nasray.recipe import Recipe

CONSTANT = 1.0
"""Factor of the learning rate in every step."""


@dataclass(frozen=True)
class FinetuneOptions:
    """How a copy of a path is trained before it is measured. What is not here is as in the supernet's training.

    Attributes:
        iterations: Steps.
        batch_size: Images of a step; as many as in the supernet's training if left out.
        learning_rate: Learning rate of all steps; a tenth of that of the supernet's training if left out.
        accumulate: Backward passes of a step, that divide its images.

    Raises:
        NasrayError: If the images of a step cannot be divided.
    """

    iterations: Count = 100
    batch_size: Annotated[int, Range(1, MAX_BATCH)] | None = None
    learning_rate: Annotated[float, Range(above=0)] | None = None
    accumulate: Annotated[int, Range(1, MAX_BATCH)] = 1

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size % self.accumulate:
            raise NasrayError(f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}")


class FineTuner:
    """Trains networks for a few steps each, with an order of the images of their own.

    Args:
        options: Options of the fine-tuning.
        recipe: Recipe of the supernet's training.
        dataset: Images to learn from.
        network: Detector or classifier around the supernet, to which the images are made to fit.

    Raises:
        NasrayError: If the images of a step cannot be divided.
    """

    def __init__(
        self, options: FinetuneOptions, recipe: Recipe, dataset: DetectionSet | ClassificationSet, network: nn.Module
    ) -> None:
        from nasray.cluster.training import Worker
        from nasray.training.setup import train_loader

        rate = options.learning_rate or recipe.optimizer.learning_rate / 10
        size = options.batch_size or recipe.batch_size
        if size % options.accumulate:
            raise NasrayError(f"finetune: batch_size {size} is no multiple of accumulate {options.accumulate}")
        self.options, self.recipe = options, recipe
        self.optimizer = dataclasses.replace(recipe.optimizer, learning_rate=rate, accumulate=options.accumulate)
        self.loader = train_loader(recipe, dataset, network, size, Worker())

    def train(self, network: nn.Module, seed: int) -> None:
        """Train a network in place; it is afterwards in inference mode.

        Args:
            network: Detector or classifier on its device, whose parameters are its own.
            seed: Seed of the images' order and augmentation, and of what losses and dropout draw.
        """
        from nasray.data.order import SAMPLING, seed_sequence
        from nasray.training.learner import Learner
        from nasray.training.optimizers import freeze_backbone

        freeze_backbone(network, self.recipe)
        learner = Learner(
            network.train(),
            self.optimizer,
            lambda iteration: CONSTANT,
            precision=self.recipe.precision,
            channels_last=self.recipe.channels_last,
        )
        for iteration, batch in enumerate(self._batches(seed)):
            learner.step(batch, iteration, int(seed_sequence(seed, SAMPLING, iteration).generate_state(1)[0]))
        network.zero_grad(set_to_none=True)
        network.eval()

    def _batches(self, seed: int) -> Iterator[Batch | ClassificationBatch]:
        """Yield the batches of a seed, epoch after epoch."""
        epoch, left = 0, self.options.iterations
        while left > 0:
            for batch in self.loader.some(seed, epoch, slice(left)):
                left -= 1
                yield batch
            epoch += 1
