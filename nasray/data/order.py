"""Which image comes when: pure functions of seed, epoch and position, whatever the number of processes and workers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ORDER, SAMPLE, MOSAIC, SAMPLING, HOLDOUT, CALIBRATION, ALPHA = range(7)
"""What random numbers are for; streams of different purposes are independent. `SAMPLING` is for losses and networks,
`ALPHA` for the same on held-out images, from which a gradient search learns."""


def seed_sequence(seed: int, purpose: int, *key: int) -> np.random.SeedSequence:
    """Return the root of the random numbers for one purpose and one place, such as an epoch and an index."""
    return np.random.SeedSequence(seed % 2**64, spawn_key=(purpose, *key))


def divide(seed: int, num_images: int, num_held: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the (I - H,) images to train on and the (H,) that are kept apart, both ascending; H < I."""
    order = np.random.default_rng(seed_sequence(seed, HOLDOUT)).permutation(num_images)
    return np.sort(order[num_held:]), np.sort(order[:num_held])


def calibration(seed: int, num_images: int, num: int) -> NDArray[np.int64]:
    """Return the images of a training set by which statistics or ranges are set, ascending: `num`, or all if fewer."""
    order = np.random.default_rng(seed_sequence(seed, CALIBRATION)).permutation(num_images)
    return np.sort(order[:num])


def epoch_batches(
    seed: int, epoch: int, num_images: int, global_batch: int, wide: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return the batches of an epoch, over all workers.

    Every image comes once. The last batch is filled up from the epoch's beginning, so that all are of one size and
    there is at least one.

    Args:
        seed: Seed of the training.
        epoch: Epoch from 0.
        num_images: I, at least 1.
        global_batch: G, images of a batch over all workers.
        wide: (I,) whether an image is wider than high; batches then are of one kind, but for those at the very end
            that are made of what is left over.

    Returns:
        (ceil(I / G), G) positions in the data set.
    """
    generator = np.random.default_rng(seed_sequence(seed, ORDER, epoch))
    order = generator.permutation(num_images)
    if wide is not None:
        order = _grouped(order, wide[order], global_batch)
    num_batches = -(-num_images // global_batch)
    return np.resize(order, (num_batches, global_batch))


def _grouped(order: NDArray[np.int64], wide: NDArray[np.bool_], global_batch: int) -> NDArray[np.int64]:
    """Return the order with whole batches of one kind first, each where its last image came, then what is left over."""
    whole, ends, left = [], [], []
    for kind in (True, False):
        places = np.flatnonzero(wide == kind)
        count = len(places) // global_batch * global_batch
        batches = places[:count].reshape(-1, global_batch)
        whole.append(batches)
        ends.append(batches[:, -1])
        left.append(places[count:])
    batches = np.concatenate(whole)[np.argsort(np.concatenate(ends))]
    places = np.concatenate([batches.ravel(), np.sort(np.concatenate(left))])
    return np.take(order, places)


def evaluation_batches(
    image_hw: NDArray[np.int64], batch_size: int, rank: int, world: int, group_aspect: bool
) -> list[NDArray[np.int64]]:
    """Return the batches of one worker when every image is to come once over all workers.

    Args:
        image_hw: (I, 2)
        batch_size: Batch size of one worker.
        rank: Rank of this worker.
        world: Number of workers.
        group_aspect: Whether to sort by aspect ratio, so that little of a batch is padding.
    """
    order = np.arange(len(image_hw))
    if group_aspect:
        order = np.argsort(image_hw[:, 0] / image_hw[:, 1], kind="stable")
    mine = order[rank::world]
    return [mine[first : first + batch_size] for first in range(0, len(mine), batch_size)]
