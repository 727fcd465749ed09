"""Folders of images by class, for pre-training a backbone: train/cat/1.jpg, val/dog/2.jpg and so on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.cluster.reading import shown
from nasray.data.digests import digest_of, pixel_software
from nasray.data.image_files.decoding import IMAGE_SUFFIXES, is_image_name
from nasray.data.image_files.images import (
    ImageFiles,
    ImagesInMemory,
    ImageSource,
    SelectedImages,
    encode_png,
    load_image,
)
from nasray.data.image_files.pixels import DEFAULT_RULES, PixelRules
from nasray.data.mapped import Texts
from nasray.data.order import SAMPLE, epoch_batches, seed_sequence
from nasray.data.shapes import CLASSES, draw_shape, image_generator
from nasray.recipe_options import LoaderOptions
from nasray.spaces import NasrayError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class ClassificationSet:
    """I images with a class each.

    Attributes:
        name: Name of the split.
        classes: Names in the order of labels.
        files: The images.
        labels: (I,)
    """

    name: str
    classes: tuple[str, ...]
    files: ImageSource
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Labels themselves: what `DetectionSet` has."""
        return tuple(range(len(self.classes)))

    @property
    def pixel_rules(self) -> PixelRules:
        """The default ones: what `DetectionSet` has."""
        return DEFAULT_RULES

    def describe(self, index: int) -> str:
        """Return the file of an image, for messages."""
        return shown(self.files.name(index))

    def states(self) -> Iterator[bytes | str | NDArray[np.generic]]:
        """Yield what tells all images and labels from any others."""
        yield from self.files.states(np.arange(len(self)))
        yield from (repr(self.pixel_rules), self.labels)

    def select(self, indices: NDArray[np.int64]) -> ClassificationSet:
        """Return some of the images, (J,) positions."""
        return dataclasses.replace(self, files=SelectedImages(self.files, indices), labels=self.labels[indices])

    def read_image(self, index: int) -> Tensor:
        """Return the (3, H, W) uint8 RGB pixels of an image, upright.

        Raises:
            ImageError: if it cannot be read; the message names the file.
        """
        return load_image(self.files, index, self.describe(index), None, self.pixel_rules)


@dataclass(eq=False)
class ClassificationSource:
    """The splits of an image folder or of the embedded set, each read when it is first asked for.

    Attributes:
        source: Source as the user named it.
        splits: Names of those there are.
    """

    source: str
    splits: tuple[str, ...]
    _read: dict[str, ClassificationSet] = field(default_factory=dict, repr=False)

    def split(self, name: str) -> ClassificationSet:
        """Return a split to use.

        Raises:
            NasrayError: if there is none of this name, or as `read_image_folder`.
        """
        if name not in self.splits:
            raise NasrayError(f"image folder {self.source} has no split {name!r}; it has: {', '.join(self.splits)}")
        if name not in self._read:
            read = shapes_by_class(name) if self.source == "shapes" else read_image_folder(Path(self.source), name)
            self._read[name] = read
        return self._read[name]


def open_images(source: str) -> ClassificationSource:
    """Return images by class: a folder with train/CLASS/*.jpg (and val/CLASS/*.jpg), or "shapes" for the embedded set.

    Raises:
        NasrayError: if there is no such folder.
    """
    if source == "shapes":
        return ClassificationSource(source, tuple(SINGLE_SHAPES))
    _folders(Path(source) / "train")
    splits = tuple(name for name in ("train", "val", "test") if os.path.isdir(Path(source) / name))
    return ClassificationSource(source, splits)


SINGLE_SHAPES = {"train": range(480), "val": range(480, 600)}
"""The splits of the embedded set: positions in the sequence of images of seed 1."""


def shapes_by_class(split: str) -> ClassificationSet:
    """Return the embedded set: images of 48 x 48 pixels with one shape each, as many of every class."""
    labels = np.array(SINGLE_SHAPES[split], dtype=np.int64) % len(CLASSES)
    drawn = [
        encode_png(draw_shape(image_generator(1, index), (48, 48), CLASSES[label]))
        for index, label in zip(SINGLE_SHAPES[split], labels.tolist(), strict=True)
    ]
    return ClassificationSet(split, CLASSES, ImagesInMemory.of(f"shapes by class {split}", drawn), labels)


def read_image_folder(root: Path, split: str) -> ClassificationSet:
    """Return the images of a split; classes are the sorted names of the folders in train.

    Raises:
        NasrayError: if there is no such folder, a class has no image in train, or the split has one that train lacks.
    """
    classes = _folders(root / "train")
    if foreign := sorted(set(_folders(root / split)) - set(classes)):
        raise NasrayError(f"{root / split} has classes that {root / 'train'} lacks: {', '.join(foreign)}")
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        folder = root / split / name
        paths = folder.iterdir() if folder.exists() else ()
        found = sorted(path.name for path in paths if is_image_name(path))
        if not found and split == "train":
            raise NasrayError(
                f"class folder {folder} has no images ({', '.join(IMAGE_SUFFIXES)}); fill it, or remove it"
            )
        names += [f"{name}/{file}" for file in found]
        labels += [label] * len(found)
    if not names:
        raise NasrayError(f"{root / split} has no images")
    files = ImageFiles(root / split, Texts.of(names))
    return ClassificationSet(split, tuple(classes), files, np.array(labels, dtype=np.int64))


def _folders(root: Path) -> list[str]:
    if not os.path.isdir(root):  # false for names that no folder has, too
        raise NasrayError(
            f"no folder {shown(root)}; image folders are laid out as train/CLASS/*.jpg and val/CLASS/*.jpg. Name one "
            "with --data (of a search with a supernet: --images)"
        )
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def check_images(dataset: ClassificationSet) -> list[str]:
    """Decode all images; a message for each that cannot be read."""
    messages = []
    for index in range(len(dataset)):
        try:
            dataset.read_image(index)
        except NasrayError as error:
            messages.append(str(error))
    return messages


class ClassificationBatch(NamedTuple):
    """B square images.

    Attributes:
        images: (B, 3, S, S) uint8 RGB.
        labels: (B,) int64.
        indices: (B,) int64, positions in the data set.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    @property
    def targets(self) -> Tensor:
        """Labels, the training targets."""
        return self.labels


class ClassificationLoader:
    """Batches for one of `world` workers, as deterministic as those of `TrainLoader`.

    For training, a random part of 8 % to all of the image is resized to the square and mirrored half of the time
    (Szegedy et al., CVPR 2015). For evaluation the middle seven eighths of the short side are taken, and every image
    comes once over all workers.

    Args:
        dataset: Dataset to load.
        image_size: S, edge of the images.
        batch_size: Images of this worker.
        seed: Seed of the training; None for evaluation.
        rank: Rank of this worker.
        world: Number of workers.
        options: Loading options.
    """

    def __init__(
        self,
        dataset: ClassificationSet,
        *,
        image_size: int,
        batch_size: int,
        seed: int | None,
        rank: int = 0,
        world: int = 1,
        options: LoaderOptions | None = None,
    ) -> None:
        from nasray.data.work import WorkQueue, num_processes

        self.num_images, self.batch_size, self.seed, self.rank, self.world = len(dataset), batch_size, seed, rank, world
        self.dataset, self.image_size = dataset, image_size
        options = options or LoaderOptions()
        self.queue = WorkQueue(_Work(dataset, image_size, seed is not None, options.cache), num_processes(options))

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        if self.seed is None:
            return -(-len(range(self.rank, self.num_images, self.world)) // self.batch_size)
        return -(-self.num_images // (self.batch_size * self.world))

    def epoch(self, epoch: int = 0, first_batch: int = 0) -> Iterator[ClassificationBatch]:
        """Yield the batches of an epoch from `first_batch` on.

        Raises:
            NasrayError: if an image cannot be read.
        """
        return self.some(self.seed, epoch, slice(first_batch, None))

    def some(self, seed: int | None, epoch: int, batches: slice) -> Iterator[ClassificationBatch]:
        """Yield these batches of an epoch as a loader of another seed does; images that are kept are kept for all.

        Raises:
            NasrayError: if an image cannot be read.
        """
        return map(self.unpack, self._packed(seed, epoch, batches))

    def packed(self) -> Iterator[dict[str, Tensor]]:
        """Yield the tensors of each batch of the first epoch, of which `unpack` makes it."""
        return self._packed(self.seed, 0, slice(None))

    def unpack(self, packed: dict[str, Tensor]) -> ClassificationBatch:
        """Return the batch of what `packed` yields."""
        return ClassificationBatch(**packed)

    @property
    def num_bytes(self) -> int:
        """Bytes of the pixels of this worker's images."""
        return len(range(self.rank, self.num_images, self.world)) * 3 * self.image_size**2

    def digest(self) -> str:
        """Return what tells the batches of an evaluation, to the bit, from any others."""
        assert self.seed is None
        how = f"classification {self.image_size} {self.batch_size} {self.rank} {self.world}"
        return digest_of([*pixel_software(), how, *self.dataset.states()])

    def _packed(self, seed: int | None, epoch: int, batches: slice) -> Iterator[dict[str, Tensor]]:
        size = self.batch_size
        if seed is None:
            order = np.arange(self.rank, self.num_images, self.world)
            mine: Any = [order[first : first + size] for first in range(0, len(order), size)]
        else:
            mine = epoch_batches(seed, epoch, self.num_images, size * self.world)
            mine = mine[:, self.rank * size : (self.rank + 1) * size]
        return self.queue([(seed, epoch, indices) for indices in mine[batches]])


class _Work:
    """Makes batches from (seed, epoch, indices)."""

    def __init__(self, dataset: ClassificationSet, image_size: int, is_training: bool, cache: bool) -> None:
        from torchvision.transforms import v2

        from nasray.data.loader import CachedImages

        self.dataset = dataset
        self.images = CachedImages(dataset, cache)
        if not is_training:
            steps = [v2.Resize(round(image_size * 8 / 7), antialias=True), v2.CenterCrop(image_size)]
        else:
            steps = [v2.RandomResizedCrop(image_size, antialias=True), v2.RandomHorizontalFlip()]
        self.transform = v2.Compose(steps)

    def __call__(self, keys: tuple[int | None, int, NDArray[np.int64]]) -> dict[str, Tensor]:
        import torch

        from nasray.data.loader import named_failures

        seed, epoch, indices = keys
        images = []
        for index in indices.tolist():
            with torch.random.fork_rng(devices=[]), named_failures(self.dataset, index):
                if seed is not None:
                    state = seed_sequence(seed, SAMPLE, epoch, index).generate_state(1, np.uint64)
                    torch.default_generator.manual_seed(int(state[0] >> 1))
                images.append(self.transform(self.images[index]))
        return {
            "images": torch.stack(images),
            "labels": torch.from_numpy(self.dataset.labels[indices]),
            "indices": torch.from_numpy(np.array(indices, dtype=np.int64)),
        }
