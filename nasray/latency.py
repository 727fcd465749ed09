"""Latency measured on this device: of a whole network, and of layer blocks that predict a population's.

Reference: the block tables of Cai et al., "ProxylessNAS", ICLR 2019, Section 3.3, and Wu et al., "FBNet", CVPR 2019,
Section 3.2. Differs from both in: a table holds a coarse grid of channel counts and is interpolated between them.

A network's latency is predicted as the sum of its layer blocks, each measured alone: convolution, norm and activation
as they stand in the network, the pool of a projection, the addition of a shortcut, the means and products of a gate.
The sum knows nothing of caches that a neighbour has warmed or emptied, nor of an input whose size is odd (an entry of
stride 2 is measured from twice its output). `table_error` tells what that amounts to.

Shapes: N architectures; L layer rows; C nodes of the channel grid.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasray.spaces import Architecture, Budget, Costs, LayerTable, NasrayError, Population
from nasray.spaces.staged import StagedSpace

if TYPE_CHECKING:
    import torch
    from torch import nn

Floats = NDArray[np.float64]

DTYPES = ("float32", "float16", "bfloat16")
# 3 are the channels of an image; 1 stands for "each channel by itself" (see `_terms`).
CHANNELS = np.array([1, 3, 8, 32, 128, 512, 2048, 4096, 8192, 16384])
MAX_PASS_SECONDS = 1.0  # an entry whose pass would take longer is scaled from a smaller one instead of measured
ENTRY_SECONDS = 0.03  # spent on the passes of one entry, unless three take longer
SAVE_SECONDS = 15.0
FORMAT = 1


@dataclass(frozen=True)
class Setting:
    """What a latency depends on beside the network; the key of a table's file.

    Attributes:
        device: "cpu" or "cuda".
        device_name: the processor's or the GPU's model.
        dtype: of weights and activations.
        batch_size: images in one pass.
        threads: of PyTorch on a CPU; 0 on a GPU, where they do not matter.
        torch_version: as `torch.__version__`.
        image_hw: height and width in pixels of the input.
        channels_last: whether activations lie in memory as NHWC (what tensor cores prefer) instead of NCHW.
    """

    device: str
    device_name: str
    dtype: str
    batch_size: int
    threads: int
    torch_version: str
    image_hw: tuple[int, int]
    channels_last: bool = False

    @classmethod
    def here(
        cls,
        image_hw: tuple[int, int],
        *,
        batch_size: int = 1,
        device: str = "auto",
        dtype: str = "float32",
        channels_last: bool = False,
    ) -> Setting:
        """The setting on this machine, with what PyTorch uses at present. "auto" is a GPU where there is one.

        Raises:
            NasrayError: for a device or dtype that is not to be had here, or sizes below 1.
        """
        import torch

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device not in ("cpu", "cuda"):
            raise NasrayError(f"device is one of auto, cpu, cuda; got {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise NasrayError("device 'cuda' is not available: PyTorch finds no GPU here. Take --device cpu, or auto")
        if dtype not in DTYPES:
            raise NasrayError(f"dtype is one of {', '.join(DTYPES)}; got {dtype!r}")
        if batch_size < 1 or min(image_hw) < 1:
            raise NasrayError(f"batch size and image size are at least 1; got {batch_size} and {tuple(image_hw)}")
        setting = cls(
            device=device,
            device_name=torch.cuda.get_device_name() if device == "cuda" else _processor(),
            dtype=dtype,
            batch_size=batch_size,
            threads=0 if device == "cuda" else torch.get_num_threads(),
            torch_version=torch.__version__,
            image_hw=(int(image_hw[0]), int(image_hw[1])),
            channels_last=channels_last,
        )
        try:
            _convolution(setting, 8, 8, kernel=3)(_images(setting, (1, 8, 4, 4)))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise NasrayError(f"{setting.device_name} cannot run dtype {dtype!r}: {reason}. Take float32") from error
        return setting

    @property
    def slug(self) -> str:
        """A file name, one for every setting."""
        height, width = self.image_hw
        layout = "-nhwc" if self.channels_last else ""
        text = (
            f"{self.device}-{self.device_name}-{self.dtype}-batch{self.batch_size}-threads{self.threads}"
            f"-torch{self.torch_version}-{height}x{width}{layout}"
        )
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine() or "unknown"


# ---- whole networks ----------------------------------------------------------------------------------------------


def measure(
    network: nn.Module,
    image_hw: tuple[int, int],
    *,
    batch_size: int = 1,
    device: str = "auto",
    dtype: str = "float32",
    warmup: int = 3,
    repeats: int = 20,
    channels_last: bool = False,
) -> dict[str, Any]:
    """Latency of one pass of a network in inference mode, each pass waited for before the next begins.

    Timed by CUDA events on a GPU, by `time.perf_counter` on a CPU. The network itself is left as it is.

    Args:
        network: maps (B, 3, H, W) images to anything.
        image_hw: height and width in pixels.
        batch_size: images in one pass.
        device: "cpu", "cuda" or "auto".
        dtype: "float32", "float16" or "bfloat16"; weights are converted too.
        warmup: passes that do not count, at least 1.
        repeats: passes that count, at least 1.
        channels_last: lay images and weights out as NHWC, which is faster where convolutions run on tensor cores.

    Returns:
        `median_ms`, `spread_ms` (the interquartile range) and `min_ms` of a pass of the whole batch; `fps` (images in
        a second, from the median); `repeats`; and the `Setting`.

    Raises:
        NasrayError: for what the device cannot do.
    """
    if warmup < 1 or repeats < 1:
        raise NasrayError(f"warmup and repeats are at least 1; got {warmup} and {repeats}")
    setting = Setting.here(
        image_hw, batch_size=batch_size, device=device, dtype=dtype, channels_last=channels_last
    )  # fmt: skip
    network = _placed(copy.deepcopy(network), setting)
    images = _images(setting, (batch_size, 3, *setting.image_hw))
    passes_ms = _timed(network, (images,), setting, warmup=warmup, repeats=repeats)
    low, median, high = np.quantile(passes_ms, [0.25, 0.5, 0.75]).tolist()
    return {
        "median_ms": median,
        "spread_ms": high - low,
        "min_ms": min(passes_ms),
        "fps": 1000.0 * batch_size / median,
        "repeats": repeats,
        **asdict(setting),
        "image_hw": list(setting.image_hw),
    }


def _placed(module: nn.Module, setting: Setting) -> nn.Module:
    import torch

    module = module.to(device=setting.device, dtype=getattr(torch, setting.dtype)).eval()
    return module.to(memory_format=torch.channels_last) if setting.channels_last else module


def _images(setting: Setting, shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    images = images.to(device=setting.device, dtype=getattr(torch, setting.dtype))
    return images.contiguous(memory_format=torch.channels_last) if setting.channels_last else images


def _timed(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], setting: Setting, *, warmup: int, repeats: int,
    back_to_back: bool = False,
) -> list[float]:  # fmt: skip
    """Milliseconds of every pass; `back_to_back` lets a GPU begin one before the last is waited for."""
    import torch

    with torch.inference_mode():
        for _ in range(warmup):
            module(*inputs)
        if setting.device == "cpu":
            passes_ms = []
            for _ in range(repeats):
                begin = time.perf_counter()
                module(*inputs)
                passes_ms.append(1e3 * (time.perf_counter() - begin))
            return passes_ms
        torch.cuda.synchronize()
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
        for begin_event, end_event in events:
            begin_event.record()
            module(*inputs)
            end_event.record()
            if not back_to_back:
                end_event.synchronize()
        torch.cuda.synchronize()
        return [begin_event.elapsed_time(end_event) for begin_event, end_event in events]


# ---- layer blocks ------------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """One kind of layer block, but for its channels.

    Attributes:
        kind: "conv" (with norm), "conv-relu", "conv-relu-pool" (a ResNet's stem), "depthwise-relu", "pool-conv" (a
            projection behind an average pool), "squeeze" and "excite" (the halves of a gate), "add" (of a shortcut).
        kernel: height = width.
        stride: 1 or 2.
        height: of the output map (of the map that a gate scales) in pixels.
        width: as height.
    """

    kind: str
    kernel: int
    stride: int
    height: int
    width: int

    def macs(self, in_channels: int, out_channels: int) -> int:
        """Multiply-adds for one image."""
        pixels = 1 if self.kind in ("squeeze", "excite") else self.height * self.width
        return pixels * self.kernel**2 * in_channels * out_channels

    def key(self, in_channels: int, out_channels: int) -> str:
        """The entry's name in a table's file."""
        return (
            f"{self.kind} {self.kernel}x{self.kernel} stride {self.stride} {self.height}x{self.width} "
            f"{in_channels}-{out_channels}"
        )


class _Term(NamedTuple):
    """One summand of the latencies of a population; (N,) arrays."""

    kind: str
    stride: int
    out_hw: tuple[int, int]
    kernel: NDArray[np.int64]
    in_channels: NDArray[np.int64]
    out_channels: NDArray[np.int64]
    times: Floats

    def blocks(self) -> Iterator[tuple[Block, NDArray[np.int64]]]:
        """The kinds of block that occur, and the indices (M,) of the architectures that have them."""
        present = np.flatnonzero(self.times > 0)
        kernels = self.kernel[present]
        for kernel in np.flatnonzero(np.bincount(kernels)).tolist():
            yield Block(self.kind, kernel, self.stride, *self.out_hw), present[kernels == kernel]


def _terms(layers: LayerTable) -> Iterator[_Term]:
    """The summands in the order in which data walks. What treats every channel alone has 1 input channel."""
    ones = np.ones(layers.kernel.shape[1], dtype=np.int64)
    map_hw, previous = (1, 1), ""
    for row, role in enumerate(layers.role.tolist()):
        kernel, in_channels, out_channels = (
            array[row].astype(np.int64) for array in (layers.kernel, layers.in_channels, layers.out_channels)
        )
        stride, pooled = int(layers.stride[row]), bool(layers.pooled_elements[row].any())
        if role != "gate":
            map_hw = (int(layers.out_hw[row, 0]), int(layers.out_hw[row, 1]))
        if role == "gate":
            kind = "excite" if previous == "squeeze" else "squeeze"
        elif layers.depthwise[row]:
            kind, in_channels = "depthwise-relu", ones
        elif role == "shortcut":
            kind = "pool-conv" if pooled else "conv"
        elif pooled:
            kind = "conv-relu-pool"
        else:
            kind = "conv-relu" if layers.relu_out[row] else "conv"
        previous = kind
        repeats = layers.repeats[row]
        yield _Term(kind, stride, map_hw, kernel, in_channels, out_channels, repeats)
        # A block adds its shortcut where that is the identity, or where it has a projection.
        additions = repeats if role == "shortcut" else repeats * layers.skip[row]
        yield _Term("add", 1, map_hw, ones, ones, out_channels, additions)


def block_latency(
    setting: Setting, block: Block, in_channels: int, out_channels: int, estimate_ms: float = 0.0
) -> float:
    """Least latency of one layer block in ms over about `ENTRY_SECONDS` of passes, at least two.

    The least, since a table is measured once: what other processes did at that moment must not stay in it.

    Args:
        setting: where and how.
        block: which kind.
        in_channels: 1 for what treats every channel alone.
        out_channels: as it says.
        estimate_ms: a guess, from which fewer warming passes follow if it is large.
    """
    inputs = _block_inputs(setting, block, in_channels, out_channels)
    module = _block_module(setting, block, in_channels, out_channels)
    warmup = 1 if estimate_ms > 50 else 3
    first_ms = _timed(module, inputs, setting, warmup=warmup, repeats=1)[0]
    repeats = int(np.clip(1e3 * ENTRY_SECONDS / max(first_ms, 1e-3), 2, 100))
    return min(first_ms, *_timed(module, inputs, setting, warmup=0, repeats=repeats, back_to_back=True))


def _block_inputs(setting: Setting, block: Block, in_channels: int, out_channels: int) -> tuple[torch.Tensor, ...]:
    hw = (block.height * block.stride, block.width * block.stride)
    batch = setting.batch_size
    if block.kind == "add":
        return _images(setting, (batch, out_channels, *hw)), _images(setting, (batch, out_channels, *hw))
    if block.kind == "excite":
        return _images(setting, (batch, in_channels, 1, 1)), _images(setting, (batch, out_channels, *hw))
    channels = out_channels if block.kind == "depthwise-relu" else in_channels
    return (_images(setting, (batch, channels, *hw)),)


def _block_module(setting: Setting, block: Block, in_channels: int, out_channels: int) -> Any:
    """The block as it stands in `nasray.models.backbone`, in eval mode."""
    from torch import nn

    kind, stride = block.kind, block.stride
    if kind == "add":
        return lambda x, y: x + y
    if kind in ("squeeze", "excite"):
        linear = _convolution(setting, in_channels, out_channels, norm=False)
        if kind == "squeeze":
            activation = nn.ReLU(inplace=True)
            return lambda x: activation(linear(x.mean(dim=(2, 3), keepdim=True)))
        return lambda means, x: x * linear(means).sigmoid()
    if kind == "depthwise-relu":
        conv = _convolution(setting, out_channels, out_channels, kernel=block.kernel, stride=stride, depthwise=True)
        return conv.append(nn.ReLU6(inplace=True))
    if kind == "pool-conv":
        pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        return nn.Sequential(pool, *_convolution(setting, in_channels, out_channels))
    conv = _convolution(setting, in_channels, out_channels, kernel=block.kernel, stride=stride)
    if kind == "conv":
        return conv
    conv.append(nn.ReLU(inplace=True))
    return conv.append(nn.MaxPool2d(3, 2, padding=1)) if kind == "conv-relu-pool" else conv


def _convolution(
    setting: Setting, in_channels: int, out_channels: int, *, kernel: int = 1, stride: int = 1,
    depthwise: bool = False, norm: bool = True,
) -> nn.Sequential:  # fmt: skip
    """A convolution and its norm. Made without drawing weights: the global random state is the user's."""
    import torch
    from torch import nn

    with torch.device("meta"):
        conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2,
            groups=out_channels if depthwise else 1, bias=not norm,
        )  # fmt: skip
        module = nn.Sequential(conv, nn.BatchNorm2d(out_channels)) if norm else nn.Sequential(conv)
    module = module.to_empty(device="cpu").requires_grad_(False)
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.fill_(1 / 64 if tensor.ndim == 4 else 1)
    return _placed(module, setting)  # type: ignore[return-value]


# ---- the table ---------------------------------------------------------------------------------------------------


@cache
def _positions() -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """For every number of channels the node at or below it, the node at or above it, and its place between them."""
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
        setting: what the entries were measured with.
        entries: `Block.key` to milliseconds.
        path: the table's file; None keeps it in memory.
    """

    def __init__(self, setting: Setting, entries: dict[str, float] | None = None, path: Path | None = None) -> None:
        self.setting, self.entries, self.path = setting, dict(entries or {}), path
        self._matrices: dict[Block, Floats] = {}

    @classmethod
    def open(cls, setting: Setting, folder: Path | None = None) -> LatencyTable:
        """The table of a setting from its file; empty where there is none yet.

        A file that cannot be read is set aside with a message on stderr, and the table begins anew.

        Args:
            setting: the key.
            folder: where tables are kept; `$NASRAY_CACHE/latency`, or else `~/.cache/nasray/latency`, by default.

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
        batch = self.setting.batch_size
        # An entry takes about as long as its passes, of which there are many for small ones.
        weights = np.array([5e9 + 3 * batch * block.macs(*channels) for block, *channels in missing])
        shares = weights.cumsum() / weights.sum()
        progress = _Progress(len(missing), self.setting)
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
            progress.tell(index + 1, float(shares[index]))
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()
        progress.end(num_scaled, self.path)

    def predict(self, layers: LayerTable) -> Floats:
        """(N,) latency in ms of one pass of a batch; NaN where the table lacks an entry.

        The result for an architecture does not depend, to the last bit, on the others in its population.
        """
        total = np.zeros(layers.kernel.shape[1])
        below, above, place = _positions()
        for term in _terms(layers):
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
        """(C, C) logarithms of the entries of one kind of block, NaN where there is none."""
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
        from nasray.cluster import write_atomic

        self.entries.update(_read_entries(self.path, self.setting))
        content = {"format": FORMAT, "setting": _plain(self.setting), "entries_ms": dict(sorted(self.entries.items()))}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NasrayError(f"no folder {self.path.parent} for latency tables: {error}. Set NASRAY_CACHE") from error
        write_atomic(self.path, (json.dumps(content, indent=0) + "\n").encode())


def cache_folder() -> Path:
    """Where latency tables are kept."""
    base = os.environ.get("NASRAY_CACHE")
    return (Path(base) if base else Path.home() / ".cache" / "nasray") / "latency"


def _plain(setting: Setting) -> dict[str, Any]:
    return {**asdict(setting), "image_hw": list(setting.image_hw)}


def _read_entries(path: Path, setting: Setting) -> dict[str, float]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise NasrayError(f"latency table {path} cannot be read: {error}. Mend it, or set NASRAY_CACHE") from error
    try:
        content = json.loads(text)
        if content["format"] != FORMAT or content["setting"] != _plain(setting):
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
    """The entries for these layers: blocks in the order of first use, then smaller products of channels first."""
    below, above, _ = _positions()
    ranges: dict[Block, NDArray[np.int64]] = {}
    for term in _terms(layers):
        for block, where in term.blocks():
            i, j = term.in_channels[where], term.out_channels[where]
            _check_channels(i, j)
            least, most = below[[i.min(), j.min()]], above[[i.max(), j.max()]]
            old_least, old_most = ranges.get(block, np.array([least, most]))
            ranges[block] = np.array([np.minimum(least, old_least), np.maximum(most, old_most)])
    needed = []
    for block, ((low_in, low_out), (high_in, high_out)) in ranges.items():
        pairs = [
            (i, j)
            for i in CHANNELS[low_in : high_in + 1].tolist()
            for j in CHANNELS[low_out : high_out + 1].tolist()
        ]  # fmt: skip
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
    """None for a block that does not fit the GPU, if smaller ones did."""
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


class _Progress:
    """A line on stderr: rewritten on a terminal, a new one every ten seconds elsewhere."""

    def __init__(self, num: int, setting: Setting) -> None:
        self.num, self.begin, self.told = num, time.monotonic(), time.monotonic()
        self.name = f"nasray: latency table of {setting.device_name}"
        self.on_terminal = sys.stderr.isatty()

    def tell(self, done: int, share: float) -> None:
        now = time.monotonic()
        if now - self.told < (0.2 if self.on_terminal else 10.0):
            return
        self.told = now
        left = (now - self.begin) * (1 - share) / share
        self._print(f"{self.name}: {done}/{self.num} entries, about {left:.0f} s left")

    def end(self, num_scaled: int, path: Path | None) -> None:
        seconds = time.monotonic() - self.begin
        scaled = f", {num_scaled} of them too heavy and scaled" if num_scaled else ""
        self._print(f"{self.name}: {self.num} entries in {seconds:.1f} s{scaled}; {path or 'in memory'}")
        if self.on_terminal:
            print(file=sys.stderr)

    def _print(self, text: str) -> None:
        print(f"\r{text}\x1b[K" if self.on_terminal else text, end="" if self.on_terminal else "\n", file=sys.stderr)


# ---- spaces ------------------------------------------------------------------------------------------------------


def space_table(space: StagedSpace, setting: Setting) -> LatencyTable:
    """The table of a setting with all entries that a space can need, measured where they are missing."""
    table = LatencyTable.open(setting)
    table.ensure(space.layers(_corners(space), setting.image_hw))
    return table


def _corners(space: StagedSpace) -> Population:
    """Rows that have every kind of block with the fewest and the most channels: the widths are the `log` genes."""
    sample = space.sample(512, np.random.default_rng(0))
    narrow, wide = sample.copy(), sample.copy()
    for column, gene in enumerate(space.genes):
        if gene.log:
            present = sample[:, column] > 0
            narrow[present, column], wide[present, column] = gene.values[0], gene.values[-1]
    return space.repair(np.concatenate([sample, narrow, wide]))


class LatencyCost:
    """The costs of a space, and `latency_ms` from the device's block table: a searcher's `cost`.

    The table is opened, and its missing entries measured, when a population is first asked about, not before. A copy
    by pickle takes the table along and predicts the same wherever it is.

    Args:
        space: what the genes mean; latency is that of the backbone at the space's image size.
        batch_size: images in one pass; `latency_ms` is that of the pass.
        device: "cpu", "cuda" or "auto".
        dtype: "float32", "float16" or "bfloat16".

    Raises:
        NasrayError: for a space that does not describe its layers.
    """

    def __init__(
        self, space: StagedSpace, *, batch_size: int = 1, device: str = "auto", dtype: str = "float32"
    ) -> None:
        if not hasattr(space, "layers"):
            raise NasrayError(
                f"latency_ms needs a space with a method `layers`; {type(space).__name__} has none. "
                "Write one (see nasray.spaces.layers), or leave latency_ms out"
            )
        self.space, self.batch_size, self.device, self.dtype = space, batch_size, device, dtype
        self.table: LatencyTable | None = None

    def __call__(self, population: Population) -> Costs:
        """The space's costs and `latency_ms`, each (N,)."""
        costs = self.space.cost(population)
        if not len(population):
            return {**costs, "latency_ms": np.empty(0)}
        if self.table is None:
            setting = Setting.here(
                self.space.image_hw, batch_size=self.batch_size, device=self.device, dtype=self.dtype
            )  # fmt: skip
            self.table = space_table(self.space, setting)
        layers = self.space.layers(population)
        latency_ms = self.table.predict(layers)
        if np.isnan(latency_ms).any():  # a space of its own kind, whose corners were not all found
            self.table.ensure(layers)
            latency_ms = self.table.predict(layers)
        return {**costs, "latency_ms": latency_ms}


def table_error(
    space: StagedSpace, table: LatencyTable, num: int = 20, seed: int = 0, *, budget: Budget | None = None,
    repeats: int = 10,
) -> dict[str, Any]:  # fmt: skip
    """Hold a table's predictions against whole networks, measured: random architectures of a space.

    Args:
        space: what to draw from.
        table: what predicts; entries that it lacks are measured.
        num: how many architectures, at least 2.
        seed: of the architectures.
        budget: bounds on the space's costs, for architectures like those of a search.
        repeats: passes of each network.

    Returns:
        A JSON-serialisable dictionary: `mape_percent` (mean absolute error, percent of the measured latency),
        `bias_percent` (the mean error; positive where the table says too much), `kendall` and `spearman` between
        predicted and measured, `predicted_ms`, `measured_ms` (medians), `spread_ms`, `min_ms`, `gmacs`, and the
        setting. `mape_min_percent` and `bias_min_percent` are against `min_ms`, which a busy machine disturbs less.
    """
    from nasray.models import build
    from nasray.scores.agreement import rank_agreement
    from nasray.searchers import RandomSearch

    setting = table.setting
    genes = RandomSearch(space, budget=budget, seed=seed).ask(num).genes
    layers = space.layers(genes, setting.image_hw)
    table.ensure(layers)
    predicted_ms = table.predict(layers)
    results = [
        measure(
            _without_drawing(build, space.to_architecture(row)), setting.image_hw, batch_size=setting.batch_size,
            device=setting.device, dtype=setting.dtype, channels_last=setting.channels_last, repeats=repeats,
        )
        for row in genes
    ]  # fmt: skip
    measured_ms = np.array([result["median_ms"] for result in results])
    error = 100 * (predicted_ms / measured_ms - 1)
    min_ms = np.array([result["min_ms"] for result in results])
    error_min = 100 * (predicted_ms / min_ms - 1)
    ranks = rank_agreement(predicted_ms, measured_ms, num_bootstrap=0)
    return {
        "num": len(genes),
        "mape_percent": float(np.abs(error).mean()),
        "bias_percent": float(error.mean()),
        "mape_min_percent": float(np.abs(error_min).mean()),
        "bias_min_percent": float(error_min.mean()),
        "kendall": ranks["kendall"]["value"],
        "spearman": ranks["spearman"]["value"],
        "measured_ms": measured_ms.tolist(),
        "predicted_ms": predicted_ms.tolist(),
        "spread_ms": [result["spread_ms"] for result in results],
        "min_ms": min_ms.tolist(),
        "gmacs": layers.cost()["gmacs"].tolist(),
        "seed": seed,
        **_plain(setting),
    }


def measure_architecture(
    architecture: Architecture, *, image_hw: tuple[int, int], batch_size: int = 1, device: str = "auto",
    dtype: str = "float32", with_table: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """What `measure` gives for an architecture's backbone, as one flat JSON-serialisable dictionary.

    `with_table` adds `predicted_ms` from the device's block table (whose missing entries for this architecture are
    measured first) and `error_percent`, positive where the table says too much.

    Raises:
        NasrayError: for what the device cannot do, or an architecture of which no network can be built.
    """
    from nasray.architectures import layer_table
    from nasray.models import build

    setting = Setting.here(image_hw, batch_size=batch_size, device=device, dtype=dtype)
    network = _without_drawing(build, architecture)
    result = measure(network, image_hw, batch_size=batch_size, device=setting.device, dtype=dtype)
    if with_table:
        table, layers = LatencyTable.open(setting), layer_table(architecture, setting.image_hw)
        table.ensure(layers)
        result["predicted_ms"] = float(table.predict(layers)[0])
        result["error_percent"] = 100 * (result["predicted_ms"] / result["median_ms"] - 1)
    return result


def _without_drawing(build: Any, architecture: Architecture) -> nn.Module:
    """The network, with the user's random state left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return build(architecture)
