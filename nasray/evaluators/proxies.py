"""Zero-shot proxies of image classification (Table 9 of MAE-DET) on the built backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np

from nasray.architectures import FAMILIES
from nasray.devices import Device, Threads, choose_device, computing_threads
from nasray.evaluators.seeding import generator_of
from nasray.searchers import Metrics
from nasray.spaces import Population, Space
from nasray.spaces.ranges import MAX_BATCH, Range, check_image_hw, check_whole

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Proxy(ABC):
    """A score of a network with fresh weights.

    Attributes:
        space: Space of the genes.
        seed: Seed of the random numbers, together with the architecture's id.
        device: Device of the network; auto is a GPU where the trial has one.
        image_hw: Height and width of an image in pixels.
        threads: Threads that compute; on CPUs the last digits of a score depend on it.
    """

    space: Space
    seed: int = 0
    device: Device = "auto"
    image_hw: tuple[int, int] = (224, 224)
    threads: Threads = 1
    meaning = (
        "The score is a proxy for image classification without training: larger stands for a better classifier. It is "
        "no accuracy, and its scale means nothing by itself."
    )

    def __post_init__(self) -> None:
        check_image_hw(self.image_hw)

    @classmethod
    def fits(cls, space: Space) -> str | None:
        """Return why the score does not go with a space; None if it does."""
        if space.resolutions:
            return "scores networks on images of one size, and the space has resolutions"
        family = FAMILIES.get(space.family)
        return None if family is None or family.slot == "backbone" else "scores backbones"

    def __call__(self, genes: Population) -> Metrics:
        """`score`."""
        import torch

        from nasray.models import build

        device = choose_device(self.device)
        scores = []
        for row in genes:
            architecture = self.space.to_architecture(row)
            generator = generator_of(self.seed, architecture)
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(generator.initial_seed())  # GPUs' own are left alone
                network = build(architecture).to(device)
            with computing_threads(self.threads):
                scores.append(self._score(network, generator))
        return {"score": np.array(scores)}

    @abstractmethod
    def _score(self, network: nn.Module, generator: torch.Generator) -> float:
        """Score a network."""


@dataclass(frozen=True)
class BatchProxy(Proxy):
    """A score of a network's outputs for random images.

    Attributes:
        batch_size: Images of one pass.
    """

    batch_size: Annotated[int, Range(1, 65_536)] = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("batch_size", self.batch_size, 1, MAX_BATCH)


@dataclass(frozen=True)
class ZenScore(BatchProxy):
    """Zen-score (Lin et al., ICCV 2021)."""

    def _score(self, network: nn.Module, generator: torch.Generator) -> float:
        from nasray.scores.zen import zen_score

        return zen_score(network, generator=generator, image_hw=self.image_hw, batch_size=self.batch_size)


@dataclass(frozen=True)
class NASWOT(BatchProxy):
    """NASWOT (Mellor et al., ICML 2021)."""

    def _score(self, network: nn.Module, generator: torch.Generator) -> float:
        from nasray.scores.naswot import naswot_score

        return naswot_score(network, generator=generator, image_hw=self.image_hw, batch_size=self.batch_size)


@dataclass(frozen=True)
class SynFlow(Proxy):
    """SynFlow (Tanaka et al., NeurIPS 2020), on one image of ones."""

    def _score(self, network: nn.Module, generator: torch.Generator) -> float:
        from nasray.scores.synflow import synflow_score

        return synflow_score(network, generator=generator, image_hw=self.image_hw)
