"""Evaluators that come with nasray: zero-shot scores of backbones.

Every evaluator is picklable and deterministic for each architecture, and imports torch only if it needs it and is
called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nasray.scores.entropy import (
    MULTI_SCALE,
    SizeFactor,
    entropy_score,
    log_width_score,
)
from nasray.searchers import Metrics
from nasray.spaces import Architecture, NasrayError, Population, Space
from nasray.spaces.ranges import MAX_BATCH, check_finite, check_image_hw, check_whole
from nasray.spaces.staged import StagedSpace

if TYPE_CHECKING:
    import torch


DEVICES = ("auto", "cpu", "cuda")

ENTROPY_MEANING = (
    "The score is MAE-DET's entropy: a weighted sum, over the maps C1 to C5, of the logarithm of the spread of a "
    "random network's features. A larger one means that more can be expressed. It is no accuracy; it ranks networks "
    "of like cost."
)
"""What `meaning` of an evaluator is: a sentence for a report's reader. `closed_form`: a batch takes milliseconds."""


@dataclass(frozen=True)
class ClosedFormEntropy:
    """Multi-scale entropy in closed form; see `nasray.scores.entropy`.

    Attributes:
        space: what the genes mean.
        weights: alpha of C1 to C5.
        size_factor: see `entropy_score`.
        residual: whether shortcuts take part.
        image_hw: height and width in pixels of the image.
    """

    closed_form = True
    meaning = ENTROPY_MEANING

    space: StagedSpace
    weights: tuple[float, ...] = MULTI_SCALE
    size_factor: SizeFactor = "log-channels"
    residual: bool = True
    image_hw: tuple[int, int] = (384, 384)

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
class LogWidth:
    """The released code's formula; see `log_width_score`."""

    closed_form = True
    meaning = (
        "The score is the weighted sum of the logarithms of the widths on the way to C1 to C5, as MAE-DET's released "
        "code computes it. It stands for what a network can express; it is no accuracy."
    )

    space: StagedSpace
    weights: tuple[float, ...] = MULTI_SCALE

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def __call__(self, genes: Population) -> Metrics:
        """`score`."""
        return {"score": log_width_score(self.space.layers(genes), self.weights)}


@dataclass(frozen=True)
class SampledEntropy:
    """Multi-scale entropy by forward passes with random weights (Eq. 3-5 to the letter).

    Attributes:
        space: what the genes mean.
        repeats: passes to average.
        seed: of the random numbers, together with the architecture's id.
        device: "cuda", "cpu", or "auto" for a GPU where the trial has one.
        weights: alpha of C1 to C5.
        size_factor: see `entropy_score`.
        residual: whether shortcuts take part.
        image_hw: height and width in pixels of the image.
    """

    meaning = ENTROPY_MEANING

    space: StagedSpace
    repeats: int = 1
    seed: int = 0
    device: str = "auto"
    weights: tuple[float, ...] = MULTI_SCALE
    size_factor: SizeFactor = "log-channels"
    residual: bool = True
    image_hw: tuple[int, int] = (384, 384)

    def __post_init__(self) -> None:
        check_weights(self.weights)
        check_image_hw(self.image_hw)

    def __call__(self, genes: Population) -> Metrics:
        """`score`."""
        from nasray.scores.sampled import sampled_entropy

        device = choose_device(self.device)
        scores = []
        for row in genes:
            architecture = self.space.to_architecture(row)
            scores.append(
                sampled_entropy(
                    architecture,
                    generator=_generator(self.seed, architecture),
                    repeats=self.repeats,
                    weights=self.weights,
                    size_factor=self.size_factor,
                    residual=self.residual,
                    image_hw=self.image_hw,
                    device=device,
                )
            )
        return {"score": np.array(scores)}


@dataclass(frozen=True)
class Proxy:
    """A zero-shot proxy of image classification (the paper's Table 9) on the built backbone.

    Attributes:
        space: what the genes mean.
        proxy: "zen", "naswot" or "synflow".
        seed: of the random numbers, together with the architecture's id.
        device: "cuda", "cpu", or "auto" for a GPU where the trial has one.
        batch_size: images.
        image_hw: height and width in pixels of an image.
    """

    meaning = (
        "The score is a proxy for image classification without training: larger stands for a better classifier. It is "
        "no accuracy, and its scale means nothing by itself."
    )

    space: Space
    proxy: str
    seed: int = 0
    device: str = "auto"
    batch_size: int = 16
    image_hw: tuple[int, int] = (224, 224)

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1, MAX_BATCH)
        check_image_hw(self.image_hw)

    def __call__(self, genes: Population) -> Metrics:
        """`score`."""
        import torch

        from nasray.models import build
        from nasray.scores.naswot import naswot_score
        from nasray.scores.synflow import synflow_score
        from nasray.scores.zen import zen_score

        function: Any = {
            "zen": partial(zen_score, batch_size=self.batch_size),
            "naswot": partial(naswot_score, batch_size=self.batch_size),
            "synflow": synflow_score,  # one image of ones
        }[self.proxy]
        device = choose_device(self.device)
        scores = []
        for row in genes:
            architecture = self.space.to_architecture(row)
            generator = _generator(self.seed, architecture)
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(generator.initial_seed())  # GPUs' own are left alone
                network = build(architecture).to(device)
            scores.append(float(function(network, generator=generator, image_hw=self.image_hw)))
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


def choose_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is a GPU where there is one and, in a trial, Ray assigned it.

    Raises:
        NasrayError: for a name that is none, or `cuda` where there is no GPU or Ray assigned none.
    """
    import torch

    from nasray.cluster.session import assigned_gpus

    if name not in DEVICES:
        raise NasrayError(f"device is one of {', '.join(DEVICES)}; got {name!r}")
    assigned = assigned_gpus()
    has_gpu = torch.cuda.is_available() and assigned != []
    if name == "cuda" and not has_gpu:
        why = (
            "Ray assigned no GPU to this trial, see --resources.gpus" if assigned == [] else "PyTorch finds no GPU here"
        )
        raise NasrayError(f"device 'cuda' is not available: {why}. Take --device cpu, or auto")
    return torch.device("cuda" if has_gpu else "cpu") if name == "auto" else torch.device(name)


def _generator(seed: int, architecture: Architecture) -> torch.Generator:
    """Return the generator of an architecture's random numbers, on the CPU whatever the device.

    So every device computes with the same numbers; a GPU's own would depend on its number of multiprocessors.
    """
    import torch

    return torch.Generator().manual_seed((seed << 32 ^ int(architecture.id, 16)) % 2**63)
