"""What a latency depends on beside the network, and tensors and modules as a setting has them.

PyTorch is imported when one is made, not before.
"""

from __future__ import annotations

import math
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.devices import choose_device
from nasray.spaces import NasrayError
from nasray.spaces.ranges import MAX_SIDE, check_whole

if TYPE_CHECKING:
    import torch
    from torch import nn

MAX_BATCH, MAX_PIXELS = 65_536, 2**26
"""Images, and pixels of all of them, in one pass: 64 images of 1024x1024."""
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Setting:
    """What a latency depends on beside the network; the key of a table's file.

    Attributes:
        device: "cpu" or "cuda".
        device_name: The processor's or the GPU's model.
        dtype: Data type of weights and activations.
        batch_size: Images in one pass.
        threads: Number of threads of PyTorch on a CPU; 0 on a GPU, where they do not matter.
        torch_version: PyTorch's version, `torch.__version__`.
        image_hw: Height and width in pixels of the input.
        channels_last: Whether activations lie in memory as NHWC (what tensor cores prefer) instead of NCHW.
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
        """Return the setting on this machine, with what PyTorch uses at present. "auto" is a GPU where there is one.

        Raises:
            NasrayError: for a device or dtype that is not to be had here, or sizes below 1.
        """
        import torch

        device = choose_device(device).type
        if dtype not in DTYPES:
            raise NasrayError(f"dtype is one of {', '.join(DTYPES)}; got {dtype!r}")
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
            threads=0 if device == "cuda" else torch.get_num_threads(),
            torch_version=torch.__version__,
            image_hw=(int(image_hw[0]), int(image_hw[1])),
            channels_last=channels_last,
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
        text = (
            f"{self.device}-{self.device_name}-{self.dtype}-batch{self.batch_size}-threads{self.threads}"
            f"-torch{self.torch_version}-{height}x{width}{layout}"
        )
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", text)

    def description(self) -> dict[str, Any]:
        """Return the attributes, JSON-serializable."""
        return {**asdict(self), "image_hw": list(self.image_hw)}


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

    module = module.to(device=setting.device, dtype=getattr(torch, setting.dtype)).eval()
    return module.to(memory_format=torch.channels_last) if setting.channels_last else module


def random_images(setting: Setting, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the same uniform values in [0, 1) at every call; the global random state is left alone."""
    import torch

    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    images = images.to(device=setting.device, dtype=getattr(torch, setting.dtype))
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
