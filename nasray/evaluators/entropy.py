"""Entropies of backbones, in closed form and by forward passes; see `nasray.scores.entropy`.

Reference: Sun et al., "MAE-DET: Revisiting Maximum Entropy Principle in Zero-Shot NAS for Efficient Object Detection",
ICML 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from nasray.devices import Device, Threads, choose_device, computing_threads
from nasray.evaluators.seeding import generator_of
from nasray.scores.entropy import MULTI_SCALE, SizeFactor, entropy_score, log_width_score
from nasray.searchers import Metrics
from nasray.spaces import NasrayError, Population, Space
from nasray.spaces.ranges import MAX_COUNT, Range, check_finite, check_image_hw, check_whole
from nasray.spaces.staged import StagedSpace

Weight = Annotated[float, Range(0, 1e6)]
Weights = tuple[Weight, Weight, Weight, Weight, Weight]
SINGLE_SCALE: Weights = (0.0, 0.0, 0.0, 0.0, 1.0)

MEANING = (
    "The score is MAE-DET's entropy: a weighted sum, over the maps C1 to C5, of the logarithm of the spread of a "
    "random network's features. A larger one means that more can be expressed. It is no accuracy; it ranks networks "
    "of like cost."
)


def staged_only(space: Space) -> str | None:
    """Return why an entropy cannot score the architectures of a space; None if it can."""
    return None if isinstance(space, StagedSpace) else "is defined for staged spaces"


@dataclass(frozen=True)
class ClosedFormEntropy:
    """Multi-scale entropy in closed form (MAE-DET).

    Attributes:
        space: Space of the genes.
        weights: Weights of the entropies of C1 to C5.
        size_factor: How the size of a feature map enters its entropy; see the docs on scores.
        residual: Whether shortcuts count.
        image_hw: Height and width of the image in pixels.
    """

    space: StagedSpace
    weights: Weights = MULTI_SCALE
    size_factor: SizeFactor = "log-channels"
    residual: bool = True
    image_hw: tuple[int, int] = (384, 384)
    closed_form = True
    zero_shot = True
    meaning = MEANING
    fits = staticmethod(staged_only)

    def __post_init__(self) -> None:
        check_weights(self.weights)
        check_image_hw(self.image_hw)

    def __call__(self, genes: Population) -> Metrics:
        """`score`."""
        score = entropy_score(
            self.space.layers(genes),
            weights=self.weights,
            size_factor=self.size_factor,
            residual=self.residual,
            image_hw=self.image_hw,
        )
        return {"score": score}


@dataclass(frozen=True)
class SingleScaleEntropy(ClosedFormEntropy):
    """Entropy of C5 alone in closed form."""

    weights: Weights = field(default=SINGLE_SCALE, init=False)


@dataclass(frozen=True)
class LogWidth:
    """The released MAE-DET code's formula.

    Attributes:
        space: Space of the genes.
        weights: Weights of the levels C1 to C5.
    """

    space: StagedSpace
    weights: Weights = MULTI_SCALE
    closed_form = True
    zero_shot = True
    meaning = (
        "The score is the weighted sum of the logarithms of the widths on the way to C1 to C5, as MAE-DET's released "
        "code computes it. It stands for what a network can express; it is no accuracy."
    )
    fits = staticmethod(staged_only)

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def __call__(self, genes: Population) -> Metrics:
        """`score`; see `log_width_score`."""
        return {"score": log_width_score(self.space.layers(genes), self.weights)}


@dataclass(frozen=True)
class SampledEntropy:
    """Multi-scale entropy by forward passes with random weights (MAE-DET, Eq. 3-5).

    Attributes:
        space: Space of the genes.
        repeats: Forward passes to average.
        seed: Seed of the random numbers, together with the architecture's id.
        device: Device of the network; auto is a GPU where the trial has one.
        weights: Weights of the entropies of C1 to C5.
        size_factor: How the size of a feature map enters its entropy; see the docs on scores.
        residual: Whether shortcuts count.
        image_hw: Height and width of the image in pixels.
        threads: Threads that compute; on CPUs the last digits of a score depend on it.
    """

    space: StagedSpace
    repeats: Annotated[int, Range(1, 10**6)] = 1
    seed: int = 0
    device: Device = "auto"
    weights: Weights = MULTI_SCALE
    size_factor: SizeFactor = "log-channels"
    residual: bool = True
    image_hw: tuple[int, int] = (384, 384)
    threads: Threads = 1
    zero_shot = True
    meaning = MEANING
    fits = staticmethod(staged_only)

    def __post_init__(self) -> None:
        check_whole("repeats", self.repeats, 1, MAX_COUNT)
        check_weights(self.weights)
        check_image_hw(self.image_hw)

    def __call__(self, genes: Population) -> Metrics:
        """`score`."""
        from nasray.scores.sampled import sampled_entropy

        device = choose_device(self.device)
        architectures = [self.space.to_architecture(row) for row in genes]
        with computing_threads(self.threads):
            scores = [
                sampled_entropy(
                    architecture,
                    generator=generator_of(self.seed, architecture),
                    repeats=self.repeats,
                    weights=self.weights,
                    size_factor=self.size_factor,
                    residual=self.residual,
                    image_hw=self.image_hw,
                    device=device,
                )
                for architecture in architectures
            ]
        return {"score": np.array(scores)}


def check_weights(weights: Sequence[float]) -> None:
    """Refuse weights of levels that give no score.

    Raises:
        NasrayError: unless they are five finite numbers of at least 0, of which one is more.
    """
    if len(weights) != len(MULTI_SCALE):
        raise NasrayError(f"weights are of the levels C1 to C5, {len(MULTI_SCALE)} numbers; got {len(weights)}")
    for weight in weights:
        check_finite("a level's weight", weight, 0.0)
    if not any(weights):
        raise NasrayError("weights are all 0, and so would every score be. Give one of them a weight")
