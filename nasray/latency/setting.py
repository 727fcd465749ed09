"""What a latency depends on beside the network, and tensors and modules as a setting has them.

PyTorch is imported when one is made, not before.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.devices import choose_device
from nasray.runtimes import EAGER, RUNTIMES
from nasray.spaces import NasrayError
from nasray.spaces.ranges import MAX_SIDE, check_whole

if TYPE_CHECKING:
    import torch
    from torch import nn

    from nasray.runtimes.base import Runtime

MAX_BATCH, MAX_PIXELS, MAX_THREADS = 65_536, 2**26, 1024
"""Images, and pixels of all of them, in one pass: 64 images of 1024x1024; threads."""
DTYPES = ("float32", "float16", "bfloat16", "int8")


@dataclass(frozen=True)
class Setting:
    """What a latency depends on beside the network; the key of a table's file.

    Attributes:
        device: "cpu" or "cuda".
        device_name: The processor's or the GPU's model.
        dtype: Data type of weights and activations; of "int8" that of convolutions.
        batch_size: Images in one pass.
        threads: Number of threads that compute on a CPU; 0 on a GPU, where they do not matter.
        torch_version: PyTorch's version, `torch.__version__`.
        image_hw: Height and width in pixels of the input.
        channels_last: Whether activations lie in memory as NHWC (what tensor cores prefer) instead of NCHW.
        runtime: What runs the network, a name of `RUNTIMES`.
        runtime_version: Its version; empty where that is PyTorch's.
    """

    device: str
    device_name: str
    dtype: str
    batch_size: int
    threads: int
    torch_version: str
    image_hw: tuple[int, int]
    channels_last: bool = False
    runtime: str = EAGER
    runtime_version: str = ""

    @classmethod
    def here(
        cls,
        image_hw: tuple[int, int],
        *,
        batch_size: int = 1,
        device: str = "auto",
        dtype: str = "float32",
        channels_last: bool = False,
        runtime: str = EAGER,
        threads: int | None = None,
    ) -> Setting:
        """Return the setting on this machine, with as many threads as PyTorch uses at present unless `threads` says.

        Device "auto" is a GPU where there is one that the runtime runs on.

        Raises:
            NasrayError: for a runtime, device or dtype that is not to be had here, or sizes below 1.
        """
        import torch

        runs = RUNTIMES.part(runtime)()
        version = runs.version()
        device = _device_of(runs, runtime, device)
        if dtype not in DTYPES:
            raise NasrayError(f"dtype is one of {', '.join(DTYPES)}; got {dtype!r}")
        if dtype not in (dtypes := runs.dtypes()):
            raise NasrayError(f"runtime {runtime} has {', '.join(dtypes)} here; got dtype {dtype!r}")
        if channels_last and runs.takes_float32:
            raise NasrayError(f"runtime {runtime} lays images out by itself: leave channels_last out")
        if threads is not None:
            check_whole("threads", threads, 1, MAX_THREADS)
            if device == "cuda":
                raise NasrayError(
                    f"threads compute on a CPU, and device is cuda; got threads {threads}. Leave them out"
                )
        check_whole("batch size", batch_size, 1, MAX_BATCH)
        pixels = batch_size * math.prod(check_whole("height and width", side, 1, MAX_SIDE) for side in image_hw)
        if pixels > MAX_PIXELS:
            raise NasrayError(
                f"one pass takes at most {MAX_PIXELS:,} pixels; {batch_size} images of {image_hw[0]}x{image_hw[1]} "
                f"have {pixels:,}. Lower the batch size or the image size"
            )
        setting = cls(
            device=device,
            device_name=torch.cuda.get_device_name() if device == "cuda" else _processor(),
            dtype=dtype,
            batch_size=batch_size,
            threads=0 if device == "cuda" else threads or torch.get_num_threads(),
            torch_version=torch.__version__,
            image_hw=(int(image_hw[0]), int(image_hw[1])),
            channels_last=channels_last,
            runtime=runtime,
            runtime_version=version,
        )
        try:
            convolution(setting, 8, 8, kernel=3)(random_images(setting, (1, 8, 4, 4)))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise NasrayError(f"{setting.device_name} cannot run dtype {dtype!r}: {reason}. Take float32") from error
        return setting

    @property
    def slug(self) -> str:
        """A file name, one for every setting."""
        height, width = self.image_hw
        layout = "-nhwc" if self.channels_last else ""
        runtime = "" if self.runtime == EAGER else f"-{self.runtime}{self.runtime_version}"
        text = (
            f"{self.device}-{self.device_name}-{self.dtype}-batch{self.batch_size}-threads{self.threads}"
            f"-torch{self.torch_version}-{height}x{width}{layout}{runtime}"
        )
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)

    def description(self) -> dict[str, Any]:
        """Return the attributes, JSON-serializable."""
        return {**asdict(self), "image_hw": list(self.image_hw)}

    def is_described_by(self, description: Mapping[str, Any]) -> bool:
        """Return whether a description is this setting's; one without a runtime, of an earlier version, is eager."""
        return {"runtime": EAGER, "runtime_version": "", **description} == self.description()

    @property
    def tensor_dtype(self) -> torch.dtype:
        """Data type of weights and images as they are handed to the runtime."""
        import torch

        takes_float32 = RUNTIMES[self.runtime].takes_float32
        return torch.float32 if takes_float32 else getattr(torch, self.dtype)

    @property
    def text(self) -> str:
        """Where and how, for a reader: "eager, float32, batch 1, on a processor with 2 threads"."""
        version = f" {self.runtime_version}" if self.runtime_version else ""
        threads = f" with {self.threads} thread{'s' * (self.threads != 1)}" if self.threads else ""
        return f"{self.runtime}{version}, {self.dtype}, batch {self.batch_size}, on {self.device_name}{threads}"


def _device_of(runs: Runtime, runtime: str, device: str) -> str:
    """Return the device that is meant.

    Raises:
        NasrayError: if there is none, or the runtime does not run on it.
    """
    chosen = choose_device(device).type
    if chosen in runs.devices:
        return chosen
    if device == "auto":
        return runs.devices[0]
    raise NasrayError(f"runtime {runtime} is measured on {' or '.join(runs.devices)}; got --device {device}")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine() or "unknown"


def placed(module: nn.Module, setting: Setting) -> nn.Module:
    """Return the module itself, in inference mode, moved and converted to what a setting says."""
    import torch

    module = module.to(device=setting.device, dtype=setting.tensor_dtype).eval()
    return module.to(memory_format=torch.channels_last) if setting.channels_last else module


def random_images(setting: Setting, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the same uniform values in [0, 1) at every call; the global random state is left alone."""
    import torch

    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    images = images.to(device=setting.device, dtype=setting.tensor_dtype)
    return images.contiguous(memory_format=torch.channels_last) if setting.channels_last else images


def convolution(
    setting: Setting,
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    depthwise: bool = False,
    norm: bool = True,
) -> nn.Sequential:
    """Return a convolution and its norm. Made without drawing weights: the global random state is the user's."""
    import torch
    from torch import nn

    with torch.device("meta"):
        conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=out_channels if depthwise else 1,
            bias=not norm,
        )
        module = nn.Sequential(conv, nn.BatchNorm2d(out_channels)) if norm else nn.Sequential(conv)
    module = module.to_empty(device="cpu").requires_grad_(False)
    for tensor in [*module.parameters(), *module.buffers()]:
        tensor.fill_(1 / 64 if tensor.ndim == 4 else 1)
    return placed(module, setting)  # type: ignore[return-value]


def reference_of(setting: Setting) -> tuple[nn.Module, tuple[torch.Tensor, ...], Setting]:
    """Return a small network that is always the same, its input, and the setting that it runs in: PyTorch, float32.

    Some milliseconds of a setting's device and threads, by which one moment is held against another.
    """
    from torch import nn

    own = replace(
        setting,
        dtype="float32",
        batch_size=1,
        channels_last=False,
        runtime=EAGER,
        runtime_version="",
        image_hw=(56, 56),
    )
    channels = 64 if own.device == "cpu" else 512
    layers = [convolution(own, channels, channels, kernel=3) for _ in range(2)]
    return nn.Sequential(*layers), (random_images(own, (1, channels, *own.image_hw)),), own
