"""From data sets to batches: the same ones whatever the number of loader processes, workers and interruptions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nasray.data.dataset import DetectionSet
from nasray.data.digests import digest_of, pixel_software
from nasray.data.order import MOSAIC, SAMPLE, epoch_batches, evaluation_batches, seed_sequence
from nasray.data.transforms import FILL, EvaluationTransform, Sample, TrainTransform, make_sample, mosaic
from nasray.data.work import Packed, WorkQueue, num_processes
from nasray.recipe_options import AugmentationOptions, LoaderOptions
from nasray.spaces import NasrayError


class Batch(NamedTuple):
    """B images, padded on the right and at the bottom to one size.

    Attributes:
        images: (B, 3, H, W) uint8 RGB; H and W are multiples of the stride.
        targets: Per image `boxes` (n, 4) float32 xyxy, `labels` (n,) int64, and `masks` (n, H, W) uint8 if they
            are learned; empty for evaluation.
        image_hw: (B, 2) int64, heights and widths without padding.
        original_hw: (B, 2) int64, as in the data set.
        indices: (B,) int64, positions in the data set.
    """

    images: Tensor
    targets: list[dict[str, Tensor]]
    image_hw: Tensor
    original_hw: Tensor
    indices: Tensor


def pad_images(images: Sequence[Tensor], stride: int) -> Tensor:
    """Return (B, 3, H, W) of images (3, h, w): the largest height and width, rounded up to multiples of `stride`."""
    height, width = (-(-max(edges) // stride) * stride for edges in zip(*(i.shape[-2:] for i in images), strict=True))
    batch = torch.empty((len(images), 3, height, width), dtype=torch.uint8, device=images[0].device)
    batch[:] = torch.tensor(FILL, dtype=torch.uint8, device=batch.device).view(3, 1, 1)
    for padded, image in zip(batch, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    return batch


# ---- training ----------------------------------------------------------------------------------------------------


class TrainLoader:
    """Augmented batches for one of `world` workers.

    The images of batch k, and what is done to each, follow from (seed, epoch, k, batch_size * world) alone: two
    workers with B images see what one with 2 B sees, and an epoch continued at batch k what the whole one did.

    Args:
        dataset: Data set to train on.
        augmentation: Augmentation of the recipe.
        batch_size: Images of this worker.
        stride: Images are padded to multiples of it.
        seed: Seed of the training.
        rank: Rank of this worker.
        world: Number of workers.
        options: Loading options.
        with_masks: Whether to load the objects' masks too.

    Raises:
        NasrayError: if masks are asked for and cannot be learned from the data set.
    """

    def __init__(
        self,
        dataset: DetectionSet,
        augmentation: AugmentationOptions,
        *,
        batch_size: int,
        stride: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        options: LoaderOptions | None = None,
        with_masks: bool = False,
    ) -> None:
        if with_masks:
            dataset.require_outlines()
        options = options or LoaderOptions()
        self.num_images, self.batch_size, self.seed = len(dataset), batch_size, seed
        self.rank, self.world = rank, world
        self.wide = dataset.image_hw[:, 1] > dataset.image_hw[:, 0] if options.group_aspect else None
        self.work = _TrainWork(dataset, augmentation, stride, options.cache, with_masks)
        self.queue = WorkQueue(self.work, num_processes(options))

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return -(-self.num_images // (self.batch_size * self.world))

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `first_batch` on; earlier ones are not loaded.

        Raises:
            NasrayError: if an image cannot be read.
        """
        return self.some(self.seed, epoch, slice(first_batch, None))

    def some(self, seed: int, epoch: int, batches: slice) -> Iterator[Batch]:
        """Yield these batches of an epoch as a loader of another seed does; images that are kept are kept for all.

        Raises:
            NasrayError: if an image cannot be read.
        """
        order = epoch_batches(seed, epoch, self.num_images, self.batch_size * self.world, self.wide)
        mine = order[batches, self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
        return map(unpack, self.queue([(seed, epoch, indices) for indices in mine]))


class _TrainWork:
    """Makes batches for training from (seed, epoch, indices)."""

    def __init__(
        self, dataset: DetectionSet, augmentation: AugmentationOptions, stride: int, cache: bool, with_masks: bool
    ) -> None:
        self.dataset, self.stride, self.with_masks = dataset, stride, with_masks
        self.mosaic = augmentation.mosaic
        self.transform = TrainTransform(augmentation)
        self.images = CachedImages(dataset, cache)

    def __call__(self, keys: tuple[int, int, NDArray[np.int64]]) -> Packed:
        seed, epoch, indices = keys
        samples = [self._sample(seed, epoch, int(index)) for index in indices]
        return _packed(self.dataset, indices, samples, self.stride)

    def _sample(self, seed: int, epoch: int, index: int) -> Sample:
        with named_failures(self.dataset, index):
            return self._transformed(seed, epoch, index)

    def _transformed(self, seed: int, epoch: int, index: int) -> Sample:
        sample = self._plain(index)
        if self.mosaic:
            generator = np.random.default_rng(seed_sequence(seed, MOSAIC, epoch, index))
            if generator.random() < self.mosaic:
                others = generator.integers(len(self.dataset), size=3).tolist()
                sample = mosaic([sample, *map(self._plain, others)], generator)
        drawn = int(seed_sequence(seed, SAMPLE, epoch, index).generate_state(1, np.uint64)[0] >> 1)
        return self.transform(sample, drawn)

    def _plain(self, index: int) -> Sample:
        return make_sample(self.images[index], self.dataset.target(index, with_masks=self.with_masks))


def _packed(dataset: DetectionSet, indices: NDArray[np.int64], samples: Sequence[Sample], stride: int) -> Packed:
    original_hw, places = torch.from_numpy(dataset.image_hw[indices]), torch.from_numpy(np.array(indices, np.int64))
    return pack(samples, stride, original_hw, places)


def pack(samples: Sequence[Sample], stride: int, original_hw: Tensor, indices: Tensor) -> Packed:
    """Return samples as the few tensors of which `unpack` makes a batch.

    Args:
        samples: B transformed samples.
        stride: Images are padded to multiples of it.
        original_hw: (B, 2) heights and widths in the data set.
        indices: (B,) positions in the data set.
    """
    images = pad_images([sample["image"] for sample in samples], stride)
    packed = {
        "images": images,
        "image_hw": torch.tensor([sample["image"].shape[-2:] for sample in samples]),
        "original_hw": original_hw,
        "indices": indices,
        "counts": torch.tensor([len(sample["labels"]) for sample in samples]),
        "boxes": torch.cat([sample["boxes"].as_subclass(Tensor) for sample in samples]),
        "labels": torch.cat([sample["labels"] for sample in samples]),
    }
    if "masks" in samples[0]:
        packed["masks"] = torch.zeros((len(packed["labels"]), *images.shape[-2:]), dtype=torch.uint8)
        for part, sample in zip(packed["masks"].split(packed["counts"].tolist()), samples, strict=True):
            height, width = sample["masks"].shape[-2:]
            part[:, :height, :width] = sample["masks"]
    return packed


def unpack(packed: Packed) -> Batch:
    """Return the batch of what came from a loader process."""
    if "counts" in packed:
        counts = packed["counts"].tolist()
        columns = {key: packed[key].split(counts) for key in packed if key in ("boxes", "labels", "masks")}
        targets = [{key: parts[index] for key, parts in columns.items()} for index in range(len(counts))]
    else:
        targets = []
    return Batch(packed["images"], targets, packed["image_hw"], packed["original_hw"], packed["indices"])


# ---- evaluation --------------------------------------------------------------------------------------------------


class EvaluationLoader:
    """Resized images, each once over all workers; the number of batches may differ by one.

    Args:
        dataset: Dataset to evaluate on.
        augmentation: Augmentation of the recipe.
        batch_size: Images of this worker.
        stride: Images are padded to multiples of it.
        rank: Rank of this worker.
        world: Number of workers.
        options: Loading options.
        with_targets: Whether to load what a loss needs, the objects' boxes and labels.
        with_masks: Whether to load their masks with them.

    Raises:
        NasrayError: if masks are asked for and cannot be learned from the data set.
    """

    def __init__(
        self,
        dataset: DetectionSet,
        augmentation: AugmentationOptions,
        *,
        batch_size: int,
        stride: int,
        rank: int = 0,
        world: int = 1,
        options: LoaderOptions | None = None,
        with_targets: bool = False,
        with_masks: bool = False,
    ) -> None:
        if with_masks:
            dataset.require_outlines()
        options = options or LoaderOptions()
        self.batches = evaluation_batches(dataset.image_hw, batch_size, rank, world, options.group_aspect)
        self.with_targets, self.with_masks = with_targets, with_masks
        made = _LossWork if with_targets else _EvaluationWork
        self.work = made(dataset, augmentation, stride, options.cache, with_masks)
        self.queue = WorkQueue(self.work, num_processes(options))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return map(unpack, self.packed())

    def packed(self) -> Iterator[Packed]:
        """Yield the tensors of each batch, of which `unpack` makes it."""
        return self.queue(self.batches)

    def unpack(self, packed: Packed) -> Batch:
        """Return the batch of what `packed` yields."""
        return unpack(packed)

    @property
    def num_bytes(self) -> int:
        """Bytes of the pixels and masks of all batches, padding included."""
        total, sizes = 0, self._sizes
        learned = np.diff(np.r_[0, (~self.work.dataset.ignored).cumsum()][self.work.dataset.offsets])
        for batch in self.batches:
            height, width = (-(-sizes[batch].max(axis=0) // self.work.stride) * self.work.stride).tolist()
            planes = 3 * len(batch) + (int(learned[batch].sum()) if self.with_masks else 0)
            total += planes * height * width
        return total

    def digest(self) -> str:
        """Return what tells all batches, to the bit, from any others: data, sizes, order, and what computes pixels."""
        states = self.work.dataset.states(with_targets=self.with_targets, with_masks=self.with_masks)
        order = (np.array([len(batch) for batch in self.batches]), np.concatenate([[0], *self.batches]))
        how = f"detection {self.work.stride} {self.with_targets} {self.with_masks}"
        return digest_of([*pixel_software(), how, self._sizes, *order, *states])

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        """Return (I, 2) heights and widths of the resized images."""
        found = map(self.work.transform.resized_hw, map(tuple, self.work.dataset.image_hw.tolist()))
        return np.array(list(found), dtype=np.int64).reshape(-1, 2)


class _EvaluationWork:
    """Makes batches for evaluation from indices."""

    def __init__(
        self, dataset: DetectionSet, augmentation: AugmentationOptions, stride: int, cache: bool, with_masks: bool
    ) -> None:
        self.dataset, self.stride, self.with_masks = dataset, stride, with_masks
        self.transform = EvaluationTransform(augmentation)
        self.images = CachedImages(dataset, cache)

    def __call__(self, keys: NDArray[np.int64]) -> Packed:
        images = []
        for index in keys.tolist():
            with named_failures(self.dataset, index):
                images.append(self.transform(self.images[index]))
        return {
            "images": pad_images(images, self.stride),
            "image_hw": torch.tensor([image.shape[-2:] for image in images]),
            "original_hw": torch.from_numpy(self.dataset.image_hw[keys]),
            "indices": torch.from_numpy(np.array(keys, dtype=np.int64)),
        }


class _LossWork(_EvaluationWork):
    """Makes the same batches, with targets."""

    def __call__(self, keys: NDArray[np.int64]) -> Packed:
        samples = []
        for index in keys.tolist():
            with named_failures(self.dataset, index):
                target = self.dataset.target(index, with_masks=self.with_masks)
                samples.append(self.transform.with_target(make_sample(self.images[index], target)))
        return _packed(self.dataset, keys, samples, self.stride)


@contextlib.contextmanager
def named_failures(dataset: Described, index: int) -> Iterator[None]:
    """Name the image with whatever fails on it: it would fail again, so that starting again is of no use.

    Raises:
        NasrayError: for every failure but a lack of memory.
    """
    try:
        yield
    except (NasrayError, MemoryError):
        raise
    except Exception as error:
        if "allocate memory" in str(error):  # PyTorch's lack of memory is a RuntimeError
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise NasrayError(
            f"image {dataset.describe(index)} cannot be loaded: {type(error).__name__}: {lines[0] if lines else ''}. "
            "Correct it or its annotations, or take it out; if `nasray data check --decode` finds nothing wrong with "
            "it, report this"
        ) from error


# ---- images ------------------------------------------------------------------------------------------------------


class Described(Protocol):
    """A data set whose images have names."""

    def describe(self, index: int) -> str:
        """Return the file and id of an image, for messages."""
        ...


class Images(Protocol):
    """A data set of images."""

    def read_image(self, index: int) -> Tensor:
        """Return the (3, H, W) uint8 RGB pixels of an image."""
        ...


class CachedImages:
    """Decoded images of a data set.

    Args:
        dataset: Dataset of the images.
        keep: Whether to keep each after it was read.
    """

    def __init__(self, dataset: Images, keep: bool) -> None:
        self.dataset, self.keep = dataset, keep
        self.kept: dict[int, Tensor] = {}

    def __getitem__(self, index: int) -> Tensor:
        if index in self.kept:
            return self.kept[index]
        image = self.dataset.read_image(index)
        if self.keep:
            self.kept[index] = image
        return image
