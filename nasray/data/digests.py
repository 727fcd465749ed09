"""Digests of what images are read from: what is kept under one is found again as long as nothing changes it."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

VERSION = "1"
"""Of pixels; to be raised with every change of how images are decoded, resized and put into batches."""


def file_state(path: Path) -> bytes:
    """Return a file's absolute path, its length and time of change, which stand for its content."""
    try:
        status = os.stat(path)
        state = (status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        state = (-1, -1)
    return f"{os.path.abspath(path)}\0{state[0]}\0{state[1]}\n".encode("utf-8", "surrogateescape")


def digest_of(parts: Iterable[bytes | str | NDArray[np.generic]]) -> str:
    """Return the digest of texts and arrays in their order; an array counts with its type and shape."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        if isinstance(content, np.ndarray):
            digest.update(f"{content.dtype.str}{content.shape}".encode())
            content = content.tobytes()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:32]


def pixel_software() -> Iterator[str]:
    """Yield what decodes and resizes: versions, and the processor's instructions that PyTorch uses."""
    import PIL
    import torch
    import torchvision

    yield from (VERSION, np.__version__, PIL.__version__, torch.__version__, torchvision.__version__)
    yield from (platform.machine(), torch.backends.cpu.get_cpu_capability())
