"""The latencies of a setting's layer blocks, kept in a file; they predict those of whole networks.

Shapes: N architectures; C nodes of the channel grid.
"""

from __future__ import annotations

import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nasray.cluster import files, write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.progress import ProgressLine
from nasray.cluster.reading import decode_text, parse_json, read_bytes, shown
from nasray.latency.blocks import Block, block_latency, terms
from nasray.latency.setting import Setting
from nasray.spaces import LayerTable, NasrayError

Floats = NDArray[np.float64]

# 3 are the channels of an image; 1 stands for "each channel by itself" (see `nasray.latency.blocks.terms`).
CHANNELS = np.array([1, 3, 8, 32, 128, 512, 2048, 4096, 8192, 16384])
MAX_PASS_SECONDS = 1.0  # an entry whose pass would take longer is scaled from a smaller one instead of measured
SAVE_SECONDS = 15.0
FORMAT = 1


@cache
def _positions() -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return for every number of channels the node at or below it, the node at or above it, and its place between."""
    channels = np.arange(CHANNELS[-1] + 1)
    below = np.maximum(np.searchsorted(CHANNELS, channels, side="right") - 1, 0)
    above = np.minimum(below + (CHANNELS[below] < channels), len(CHANNELS) - 1)
    place = np.log(np.maximum(channels, 1) / CHANNELS[below])
    span = np.log(CHANNELS[above] / CHANNELS[below])
    return below, above, np.divide(place, span, out=np.zeros(len(channels)), where=above > below)


class LatencyTable:
    """Latencies of layer blocks on one device; predicts whole networks from their layers.

    An entry, once measured, never changes, and a prediction depends on the entries alone: a table that has grown for
    another space still predicts the same to the last bit. Between nodes of the channel grid the logarithm of a latency
    is bilinear in the logarithms of input and output channels.

    Args:
        setting: What the entries were measured with.
        entries: `Block.key` to milliseconds; whole networks, measured with the same setting, are kept here too.
        path: The table's file; None keeps it in memory.
    """

    def __init__(self, setting: Setting, entries: dict[str, float] | None = None, path: Path | None = None) -> None:
        self.setting, self.entries, self.path = setting, dict(entries or {}), path
        self._matrices: dict[Block, Floats] = {}

    @classmethod
    def open(cls, setting: Setting, folder: Path | None = None) -> LatencyTable:
        """Return the table of a setting from its file; empty where there is none yet.

        A file that cannot be read is set aside with a message on stderr, and the table begins anew.

        Args:
            setting: The key.
            folder: Folder of the tables; `$NASRAY_CACHE/latency`, or else `~/.cache/nasray/latency`, by default.

        Raises:
            NasrayError: for a file that may not be read.
        """
        path = (folder or cache_folder()) / f"{setting.slug}.json"
        return cls(setting, _read_entries(path, setting), path)

    def ensure(self, layers: LayerTable) -> None:
        """Measure the entries that these layers need and the table lacks, with progress on stderr; write the file.

        All nodes between the smallest and the largest number of channels that a kind of block has are taken. An entry
        of which one pass would take more than `MAX_PASS_SECONDS` (or that does not fit a GPU) is scaled by its
        multiply-adds from the largest one that was measured. An interrupted build continues where it was.

        Raises:
            NasrayError: if the file cannot be written, or a layer has more channels than the grid.
        """
        missing = [entry for entry in _needed(layers) if entry[0].key(*entry[1:]) not in self.entries]
        if not missing:
            return
        self._make_folder()  # not found out after minutes of measuring
        batch = self.setting.batch_size
        # An entry takes about as long as its passes, of which there are many for small ones.
        weights = np.array([5e9 + 3 * batch * block.macs(*channels) for block, *channels in missing])
        shares = weights.cumsum() / weights.sum()
        progress = ProgressLine(f"latency table of {self.setting.device_name}", len(missing))
        largest: dict[Block, tuple[int, float]] = {}
        num_scaled, saved = 0, time.monotonic()
        for index, (block, i, j) in enumerate(missing):
            macs, ms = block.macs(i, j), None
            known_macs, known_ms = largest.get(block, (1, 0.0))
            estimate_ms = known_ms * macs / known_macs
            if estimate_ms <= 1e3 * MAX_PASS_SECONDS:
                ms = _block_latency_or_none(self.setting, block, i, j, estimate_ms)
            if ms is None:
                ms, num_scaled = estimate_ms, num_scaled + 1
            elif macs > known_macs:
                largest[block] = macs, ms
            self.entries[block.key(i, j)] = ms
            progress.update(index + 1, share=float(shares[index]))
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()
        scaled = f"{num_scaled} of them too heavy and scaled; " if num_scaled else ""
        progress.update(len(missing), f"{scaled}{self.path or 'in memory'}", final=True)

    def predict(self, layers: LayerTable) -> Floats:
        """Return (N,) latency in ms of one pass of a batch; NaN where the table lacks an entry.

        The result for an architecture does not depend, to the last bit, on the others in its population.
        """
        total = np.zeros(layers.kernel.shape[1])
        below, above, place = _positions()
        for term in terms(layers):
            for block, where in term.blocks():
                matrix = self._matrix(block)
                i, j = term.in_channels[where], term.out_channels[where]
                _check_channels(i, j)
                f, g = place[i], place[j]
                first = (1 - g) * matrix[below[i], below[j]] + g * matrix[below[i], above[j]]
                second = (1 - g) * matrix[above[i], below[j]] + g * matrix[above[i], above[j]]
                # Summed row by row: numpy's own sum groups summands by the shape of the array.
                total[where] += term.times[where] * np.exp((1 - f) * first + f * second)
        return total

    def _matrix(self, block: Block) -> Floats:
        """Return (C, C) logarithms of the entries of one kind of block, NaN where there is none."""
        if block not in self._matrices:
            nodes = CHANNELS.tolist()
            values = [[self.entries.get(block.key(i, j), np.nan) for j in nodes] for i in nodes]
            self._matrices[block] = np.log(np.array(values))
        return self._matrices[block]

    def save(self) -> None:
        """Write the file. Entries that another process has written meanwhile are taken over, and win."""
        self._matrices.clear()
        if self.path is None:
            return
        self.entries.update(_read_entries(self.path, self.setting))
        entries = dict(sorted(self.entries.items()))
        content = {"format": FORMAT, "setting": self.setting.description(), "entries_ms": entries}
        self._make_folder()
        write_atomic(self.path, (to_json(content, indent=0) + "\n").encode())

    def _make_folder(self) -> None:
        if self.path is None:
            return
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NasrayError(
                f"folder {shown(folder)} for latency tables cannot be made: {error.strerror}. Set NASRAY_CACHE to a "
                "folder that you may write"
            ) from error


def cache_folder() -> Path:
    """Return where latency tables are kept."""
    return files.cache_folder("latency")


def _read_entries(path: Path, setting: Setting) -> dict[str, float]:
    try:
        found = path.exists()
    except OSError as error:  # a name that is too long
        raise NasrayError(f"latency table {shown(path)} cannot be read: {error.strerror}. Set NASRAY_CACHE") from error
    if not found:
        return {}
    content_bytes = read_bytes(path)
    try:
        content = parse_json(decode_text(content_bytes, shown(path)), shown(path))
        if content["format"] != FORMAT or not setting.is_described_by(content["setting"]):
            raise ValueError("it is of another format or setting")
        entries = {str(key): float(ms) for key, ms in content["entries_ms"].items()}
        if not all(0 < ms < np.inf for ms in entries.values()):
            raise ValueError("it has an entry that is no positive number")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        aside = path.with_name(path.name + ".broken")
        path.replace(aside)
        print(
            f"nasray: latency table {path} is broken ({type(error).__name__}: {error}); it was moved to {aside.name}, "
            "and is measured anew",
            file=sys.stderr,
        )
        return {}
    return entries


def _needed(layers: LayerTable) -> list[tuple[Block, int, int]]:
    """Return the entries for these layers: blocks in order of first use, then smaller products of channels first."""
    below, above, _ = _positions()
    ranges: dict[Block, NDArray[np.int64]] = {}
    for term in terms(layers):
        for block, where in term.blocks():
            i, j = term.in_channels[where], term.out_channels[where]
            _check_channels(i, j)
            least, most = below[[i.min(), j.min()]], above[[i.max(), j.max()]]
            old_least, old_most = ranges.get(block, np.array([least, most]))
            ranges[block] = np.array([np.minimum(least, old_least), np.maximum(most, old_most)])
    needed = []
    for block, ((low_in, low_out), (high_in, high_out)) in ranges.items():
        pairs = [
            (i, j) for i in CHANNELS[low_in : high_in + 1].tolist() for j in CHANNELS[low_out : high_out + 1].tolist()
        ]
        needed += [(block, i, j) for i, j in sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair))]
    return needed


def _check_channels(*channels: NDArray[np.int64]) -> None:
    for array in channels:
        if array.min() < 1 or array.max() > CHANNELS[-1]:
            raise NasrayError(
                f"latency tables hold layers of 1 to {CHANNELS[-1]} channels; "
                f"got {array.min()} to {array.max()}. Narrow the space"
            )


def _block_latency_or_none(setting: Setting, block: Block, i: int, j: int, estimate_ms: float) -> float | None:
    """Return the latency of a block; None for one that does not fit the GPU, if smaller ones did."""
    import torch

    try:
        return block_latency(setting, block, i, j, estimate_ms)
    except torch.cuda.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        if estimate_ms:
            return None
        raise NasrayError(
            f"{setting.device_name} is out of memory for {block.key(i, j)}. Take smaller images"
        ) from error
