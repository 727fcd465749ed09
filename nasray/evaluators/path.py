"""Evaluation of a supernet's paths: batch norm statistics of their own, then average precision (accuracy), or the loss.

Reference: Chen et al., "DetNAS: Backbone Search for Object Detection", NeurIPS 2019, section 3.3. Fine-tuning before
it is that of MSNAS, see `nasray.evaluators.finetuning`.

Differs from the paper in: the images that statistics are computed from are the same for all paths, not augmented, and
drawn from the seed of the supernet's training.

A supernet's weights are only read: every process maps the checkpoint's file, so those of one machine share one copy
(on CPUs; a GPU holds one for each process). Where paths are fine-tuned, a process has a copy of one path beside it,
which is thrown away. Decoded images are kept between paths, once for all processes of a machine (`nasray.data.kept`).
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np

from nasray.devices import PRECISIONS, Device, Precision, Threads, choose_device, choose_precision, computing_threads
from nasray.evaluators.finetuning import FinetuneOptions, FineTuner
from nasray.models.supernets import SUPERNETS
from nasray.recipe import at_resolution
from nasray.searchers import Metrics
from nasray.spaces import NasrayError, Population, Space
from nasray.spaces.ranges import MAX_COUNT, Range, check_finite, check_whole
from nasray.spaces.references import From
from nasray.spaces.resolutions import network_genes, size_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nasray.data.kept import KeptBatches, Loader
    from nasray.recipe import Recipe


MEASURES = ("mAP", "loss")


def has_supernet(space: Space) -> str | None:
    """Return why there are no paths in a space; None if there are."""
    return None if space.family in SUPERNETS else f"needs a supernet; there are those of {', '.join(SUPERNETS)}"


@dataclass
class PathEvaluator:
    """mAP (or accuracy), or loss of a supernet's path with batch norm statistics of its own (DetNAS, DetOFA).

    The supernet is loaded with the first path, once in every process.

    Attributes:
        space: Space of the genes.
        supernet: Stage or checkpoint of the supernet's training, whose recipe says which data, task and detector.
        measure: What is measured: mAP, of classifiers top-1 accuracy; or the training's loss, whose negative is the
            score. It is a mean over batches; what losses sample, such as regions, follows from seed and architecture.
        finetune: How a copy of the path is trained first, before statistics are computed; not at all if left out.
        images: Images of the training set from which statistics are computed anew; all of them if there are fewer. 0
            leaves statistics as training left them, which is for paths that are fine-tuned.
        batch_size: Images of one pass; as many as each worker trained with if left out.
        device: Device of the network; auto is a GPU where the trial has one.
        precision: Precision of detections, losses and what statistics are of. If left out float32 on CPUs, and that of
            the supernet's training on a GPU. Statistics themselves are in float32.
        disk_gib: Disk for decoded images that all trials of a machine share between paths and runs, in GiB; 0 for none.
        cache_gib: Memory for decoded images that each trial keeps where there is no disk for them, in GiB; more are
            read anew.
        threads: Threads that compute; on CPUs the last digits of a metric depend on it.
        seed: Seed of the images and samples of fine-tuning, and of what losses sample.
    """

    space: Space
    supernet: Annotated[str, From("checkpoint")]
    measure: Literal["mAP", "loss"] = "mAP"
    finetune: FinetuneOptions | None = None
    images: Annotated[int, Range(0, MAX_COUNT)] = 500
    batch_size: Annotated[int, Range(1, 65_536)] | None = None
    device: Device = "auto"
    precision: Precision | None = None
    disk_gib: Annotated[float, Range(0)] = 32.0
    cache_gib: Annotated[float, Range(0)] = 2.0
    threads: Threads = 1
    seed: int = 0
    _loaded: LoadedSupernet | None = field(default=None, init=False, repr=False, compare=False)
    fits = staticmethod(has_supernet)

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise NasrayError(f"measure is {' or '.join(MEASURES)}, got {self.measure!r}")
        if self.precision not in (None, *PRECISIONS):
            raise NasrayError(f"precision is one of {', '.join(PRECISIONS)}; got {self.precision!r}")
        check_whole("images", self.images, 0)
        check_finite("cache_gib", self.cache_gib, 0.0)
        check_finite("disk_gib", self.disk_gib, 0.0)
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size, 1)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without what is loaded."""
        return {**self.__dict__, "_loaded": None}

    @property
    def meaning(self) -> str:
        """What the score is, for a reader of reports."""
        what = "mAP (of classifiers the top-1 accuracy)" if self.measure == "mAP" else "negative loss"
        tuned = f" after {self.finetune.iterations} steps of fine-tuning by itself" if self.finetune else ""
        computed = self.precision or "float32 on CPUs, on a GPU in the precision of the supernet's training"
        return (
            f"The score is the {what} of the architecture as a path of the supernet, with shared weights{tuned}, on "
            "the images that were held out. It is lower than after training by itself, and as the largest of many "
            f"it flatters. Paths are computed in {computed}."
        )

    def __call__(self, genes: Population) -> Metrics:
        """`score`, which is mAP (top-1 of classifiers), and `AP50`, `AP75` (`top5`), all in [0, 1]; or -`loss`, `loss`.

        Raises:
            NasrayError: if the checkpoint is of no supernet of this space.
        """
        with computing_threads(self.threads):
            found = [self.loaded.evaluate(row) for row in genes]
        return {name: np.array([metrics[name] for metrics in found]) for name in found[0]}

    def check(self) -> None:
        """Load everything once.

        Raises:
            NasrayError: if the checkpoint is of no supernet of this space.
        """
        _ = self.loaded

    @property
    def loaded(self) -> LoadedSupernet:
        """The supernet with its images, loaded when it is first asked for."""
        if self._loaded is None:
            self._loaded = LoadedSupernet(self)
        return self._loaded


class LoadedSupernet:
    """A supernet and the images that its paths are measured with, in one process.

    Args:
        options: Options of what to load.

    Attributes:
        network: Detector or classifier around the supernet.
        supernet: The supernet in it.
        precision: Precision that paths are computed in.
        seconds: Seconds that each part of the last evaluation took: `fine_tuning` (with the copy that is made for it),
            `recalibration`, `inference`, `metrics`.
        num_calibration: Images that statistics are computed from.
    """

    def __init__(self, options: PathEvaluator) -> None:
        import torch

        from nasray.checkpoint import Checkpoint
        from nasray.data.kept import CacheBudget
        from nasray.data.order import calibration
        from nasray.models.supernets import space_of_supernet, supernet_architecture, supernet_part
        from nasray.models.supernets.base import supernet_of
        from nasray.training.setup import open_sets

        checkpoint = Checkpoint.load(Path(options.supernet), shared=True)
        trained = supernet_part(checkpoint.architecture)
        wanted = supernet_architecture(options.space)
        if trained is None or supernet_architecture(space_of_supernet(trained)) != wanted:
            raise NasrayError(
                f"{options.supernet} is no supernet of this space: it holds {checkpoint.architecture.text}, the "
                f"space's is {wanted.text}. Choose the space that it was trained for"
            )
        self.device = choose_device(options.device)
        self.described, self.recipe = dataclasses.replace(checkpoint, model={}, training={}), checkpoint.recipe
        self.precision = choose_precision(options.precision, self.device, self.recipe.precision)
        self.network: Any = checkpoint.network().requires_grad_(False).to(self.device)
        self.supernet: Any = supernet_of(self.network)
        self.layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        self.seconds: dict[str, float] = {}
        sets = open_sets(self.recipe)
        self.dataset: Any = cast(Any, sets.held if sets.held is not None else sets.validation())
        if self.dataset is None:
            raise NasrayError(
                f"data set {self.recipe.data} has no split val to compare paths on: give it one, or keep images apart "
                "with supernet.holdout"
            )
        self.num_calibration = min(options.images, len(sets.train))
        chosen = calibration(self.recipe.seed, len(sets.train), self.num_calibration)
        size = options.batch_size or self.recipe.batch_size // self.recipe.resources.workers
        budget = CacheBudget(int(options.cache_gib * 2**30), int(options.disk_gib * 2**30))
        self.measure, self.seed, self.space = options.measure, options.seed, options.space
        self._train, self._calibrating, self._tuning = sets.train, sets.train.select(chosen), options.finetune
        self._batch_size, self._budget = size, budget
        self._at = functools.cache(self._images_at)
        self.calibration, self.measured, self.tuner = self._at(max(options.space.resolutions, default=None))
        has_ap = self.recipe.task == "detection" and self.measure == "mAP"
        self.annotations: dict[str, Any] = self.dataset.to_coco() if has_ap else {}

    def evaluate(self, row: Any) -> dict[str, float]:
        """Return the metrics of one path; the network is afterwards what it was."""
        self.seconds = {}
        with self._prepared(row) as network:
            if self.measure == "loss":
                return self._lose(network, row)
            return self._detect(network) if self.recipe.task == "detection" else self._classify(network)

    def standalone(self, row: Any) -> nn.Module:
        """Return the network of a path by itself, as it is measured: fine-tuned, with statistics of its own."""
        from nasray.extraction import extract_network

        begin = time.perf_counter()
        genes = network_genes(self.space, row)
        network = extract_network(self.network, genes, self.described)
        self._take_images(row)
        if self.tuner is not None:
            self.tuner.train(network, self._seed_of(row))
            self.seconds["fine_tuning"] = time.perf_counter() - begin
        self._recalibrate(network)
        return network

    @contextmanager
    def _prepared(self, row: Any) -> Iterator[nn.Module]:
        """Yield the network of a path as it is measured: the supernet's own where nothing but statistics changes."""
        from nasray.models.supernets.recalibration import kept_statistics

        if self.tuner is not None:
            yield self.standalone(row)
            return
        self.supernet.set_path(network_genes(self.space, row))
        self._take_images(row)
        with kept_statistics(self.network):
            self._recalibrate(self.network)
            yield self.network

    def _take_images(self, row: Any) -> None:
        """Take the images of a row's resolution; those that the recipe says in a space without resolutions."""
        self.calibration, self.measured, self.tuner = self._at(size_of(self.space, row))

    def _images_at(self, image_hw: tuple[int, int] | None) -> tuple[KeptBatches, KeptBatches, FineTuner | None]:
        from nasray.data.kept import KeptBatches

        recipe, size, tuning = at_resolution(self.recipe, image_hw), self._batch_size, self._tuning
        calibration = KeptBatches(self._loader(recipe, self._calibrating, size), self._budget)
        learned = self.measure == "loss"
        measured = KeptBatches(self._loader(recipe, self.dataset, size, learned=learned), self._budget)
        return calibration, measured, FineTuner(tuning, recipe, self._train, self.network) if tuning else None

    def _recalibrate(self, network: nn.Module) -> None:
        from nasray.models.supernets.recalibration import recalibrate, up_to_the_last_norm

        begin = time.perf_counter()
        if self.num_calibration:
            recalibrate(
                network,
                self.pixels(),
                self.num_calibration,
                forward=up_to_the_last_norm(network),
                precision=self.precision,
            )
        self.seconds["recalibration"] = time.perf_counter() - begin

    def _detect(self, network: nn.Module) -> dict[str, float]:
        from nasray.evaluation.coco import coco_metrics_of
        from nasray.evaluation.predictions import predict

        begin = time.perf_counter()
        found = predict(network, self.measured, **self.computed)
        inferred = time.perf_counter()
        summary = coco_metrics_of(self.annotations, found.to_coco(self.dataset)).summary
        self.seconds |= {"inference": inferred - begin, "metrics": time.perf_counter() - inferred}
        return {"score": summary["mAP"], "AP50": summary["AP50"], "AP75": summary["AP75"]}

    def _classify(self, network: nn.Module) -> dict[str, float]:
        from nasray.evaluation.accuracy import accuracy

        begin = time.perf_counter()
        found = accuracy(network, self.measured, **self.computed)
        self.seconds |= {"inference": time.perf_counter() - begin, "metrics": 0.0}
        return {"score": found["top1"], "top5": found["top5"]}

    def _lose(self, network: nn.Module, row: Any) -> dict[str, float]:
        from nasray.evaluation.losses import mean_loss

        begin = time.perf_counter()
        loss = mean_loss(network, self.measured, seed=self._seed_of(row), **self.computed)
        self.seconds |= {"inference": time.perf_counter() - begin, "metrics": 0.0}
        return {"score": -loss, "loss": loss}

    @property
    def computed(self) -> dict[str, Any]:
        """How networks are computed, as keywords."""
        return {"device": self.device, "precision": self.precision, "channels_last": self.recipe.channels_last}

    def _seed_of(self, row: Any) -> int:
        from nasray.evaluators.seeding import seed_of

        return seed_of(self.seed, self.space.to_architecture(row))

    def pixels(self) -> Iterator[Tensor]:
        """Yield the images that statistics are computed from, in batches, on the device."""
        for batch in self.calibration:
            yield batch.images.to(self.device, memory_format=self.layout, non_blocking=True)

    def _loader(self, recipe: Recipe, dataset: Any, batch_size: int, *, learned: bool = False) -> Loader:
        """Return what loads all images of a data set, resized only, with targets if they are asked for."""
        if recipe.task == "detection":
            from nasray.data import EvaluationLoader

            return EvaluationLoader(
                dataset,
                recipe.augmentation,
                batch_size=batch_size,
                stride=self.network.stride,
                options=recipe.loader,
                with_targets=learned,
                with_masks=learned and self.network.learns_masks,
            )
        from nasray.data.classification import ClassificationLoader

        return ClassificationLoader(
            dataset, image_size=recipe.augmentation.square or 0, batch_size=batch_size, seed=None, options=recipe.loader
        )
