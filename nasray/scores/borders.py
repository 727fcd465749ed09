"""What zero padding takes from the variance of a network's maps, of a whole population at once.

A part of `nasray.scores.entropy`: the variance map stays the product of a column and a row vector, so that two 1-D
profiles per network carry it; networks of the same kernels and depths share theirs.

Shapes: N architectures, L layer rows, B block positions, U distinct profiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nasray.spaces import exact
from nasray.spaces.layers import Floats, LayerTable

Ints = NDArray[np.int64]
NUM_LEVELS = 5


def blocks(table: LayerTable) -> Iterator[Ints]:
    """Yield row indices of each block position in order."""
    edges = np.flatnonzero(np.diff(table.block)) + 1
    yield from np.split(np.arange(len(table.block)), edges)


def border_losses(table: LayerTable, image_hw: tuple[int, int]) -> Floats:
    """Return (5, N) log of the mean of the variance map of each level over what it would be without borders."""
    losses = _profile_losses(table, image_hw[0])
    return losses * 2 if image_hw[0] == image_hw[1] else losses + _profile_losses(table, image_hw[1])


class _Profiles:
    """Variance profiles along one image axis, each computed once per process.

    A profile is known by what it came from: the profile before, the kernel, how often, with which convolutions. A
    search meets the same few thousand again and again.

    Args:
        length: Pixels of the image along the axis.
    """

    capacity = 50_000
    room = 16_384  # numbers to begin with
    kernels, repeats = 4, 16  # columns of a table: kernel // 2 and repeats are below these

    def __init__(self, length: int) -> None:
        self.count = 1  # number 0 is the image
        self.values: dict[int, Floats] = {length: np.ones((1, length))}  # the profiles of each length
        self.used: dict[int, int] = {length: 1}  # how many rows of them are filled
        self.lengths = np.full(self.room, length)  # by number: length, row among those of its length, log of the mean
        self.rows = np.zeros(self.room, dtype=np.int64)
        self.log_means = np.zeros(self.room)
        # (spatial convolutions, stride) -> (numbers, kernels * repeats) number of the profile behind, 0 if unknown
        self.behind: dict[tuple[int, int], NDArray[np.int32]] = {}

    def follow(self, before: Ints, kernel: Ints, repeats: Ints, place: tuple[int, int]) -> Ints:
        """Return (N,) numbers of the profiles behind a block position; where repeats is 0 they stay as they are."""
        if place not in self.behind:
            self.behind[place] = np.zeros((len(self.log_means), self.kernels * self.repeats), dtype=np.int32)
        column = (kernel // 2) * self.repeats + repeats
        after = self.behind[place][before, column]
        unknown = (after == 0) & (repeats > 0)
        if unknown.any():
            codes = np.unique(before[unknown] * self.behind[place].shape[1] + column[unknown])
            self._add(codes, place)
            after = self.behind[place][before, column]
        return np.where(repeats > 0, after, before).astype(np.int64)

    def _add(self, codes: Ints, place: tuple[int, int]) -> None:
        """Compute the profiles of U distinct codes (number before, column)."""
        width = self.kernels * self.repeats
        number, kernel, repeats = codes // width, codes % width // self.repeats * 2 + 1, codes % self.repeats
        shapes = self.lengths[number] * 64 + kernel
        for shape in np.unique(shapes).tolist():
            group = np.flatnonzero(shapes == shape)
            batch = self.values[shape // 64][self.rows[number[group]]].T.copy()
            batch = _box_chain(batch, shape % 64, repeats[group], place)
            length = len(batch)
            # cumsum adds in order whatever the memory layout; sum would not, and a profile's last bit would depend on
            # the profiles that are computed with it.
            means = (batch.cumsum(axis=0)[-1] / length).tolist()
            new = np.arange(self.count, self.count + len(group))
            self._grow(self.count + len(group))
            used = self.used.get(length, 0)
            if used + len(group) > len(self.values.get(length, ())):  # twice the room, so that copies stay rare
                room = np.empty((2 * (used + len(group)), length))
                room[:used] = self.values[length][:used] if used else room[:0]
                self.values[length] = room
            self.values[length][used : used + len(group)] = batch.T
            self.used[length] = used + len(group)
            self.lengths[new], self.rows[new] = length, used + np.arange(len(group))
            self.log_means[new] = list(map(exact.log, means))
            self.behind[place][number[group], codes[group] % width] = new
            self.count += len(group)

    def _grow(self, size: int) -> None:
        while size > len(self.log_means):
            for name in ("lengths", "rows", "log_means"):
                values = getattr(self, name)
                setattr(self, name, np.concatenate([values, np.zeros_like(values)]))
            self.behind = {place: np.concatenate([t, np.zeros_like(t)]) for place, t in self.behind.items()}


def _box_chain(profiles: Floats, kernel: int, repeats: Ints, place: tuple[int, int]) -> Floats:
    """Return (positions, U) profiles behind `repeats` (U,) repetitions of a block."""
    spatial, stride = place
    if stride == 2:  # such positions occur once
        profiles = _box(profiles, kernel)[::2]
        for _ in range(spatial - 1):
            profiles = _box(profiles, kernel)
        return profiles
    order = np.argsort(-repeats, kind="stable")  # those that go on stand in front
    profiles, turns = profiles[:, order], repeats[order]
    for turn in range(int(turns[0])):
        part = profiles[:, : np.searchsorted(-turns, -turn)]
        for _ in range(spatial):
            part = _box(part, kernel)
        profiles[:, : part.shape[1]] = part
    out = np.empty_like(profiles)
    out[:, order] = profiles
    return out


_profiles_of = lru_cache(maxsize=8)(_Profiles)


def _profile_losses(table: LayerTable, length: int) -> Floats:
    """Return (5, N) log of the mean of the 1-D variance profile, for an image of `length` pixels on that axis."""
    num = table.repeats.shape[1]
    kernels, repeats = int(table.kernel.max(initial=1)), int(table.repeats.max(initial=0))
    store = _profiles_of(length)
    if kernels // 2 >= store.kernels or repeats >= store.repeats:  # beyond the tables: a store of its own
        store = _Profiles(length)
        store.kernels, store.repeats = kernels // 2 + 1, repeats + 1
    elif store.count > store.capacity:
        _profiles_of.cache_clear()
        store = _profiles_of(length)
    which = np.zeros(num, dtype=np.int64)  # (N,) the profile of each architecture
    losses = np.zeros((NUM_LEVELS, num))
    is_spatial = (table.role == "main") & (table.kernel > 1).any(axis=1)
    for rows in blocks(table):
        spatial = rows[is_spatial[rows]]
        if len(spatial):
            kernel = table.kernel[spatial[0]].astype(np.int64)
            place = (len(spatial), int(table.stride[spatial[0]]))
            which = store.follow(which, kernel, table.repeats[rows[-1]].astype(np.int64), place)
        losses[table.level[rows[-1]] - 1 :] = store.log_means[which]
    return losses


def _box(profiles: Floats, kernel: int) -> Floats:
    """Convolve (positions, U) profiles with a box of odd width `kernel` over its width, zeros outside."""
    out = profiles.copy()
    for reach in range(1, kernel // 2 + 1):
        out[reach:] += profiles[:-reach]
        out[:-reach] += profiles[reach:]
    return out / kernel
