"""Published weights of libraries' models by name: `torchvision:resnet50`, `timm:convnext_tiny.in12k_ft_in1k`.

The files are kept where PyTorch keeps them (`torch.hub.get_dir()`), so that what is there already is not fetched again.
"""

from __future__ import annotations

import re
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nasray.architectures.libraries import check_model, import_library
from nasray.cluster import write_atomic
from nasray.cluster.progress import say
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean

LIBRARIES = ("torchvision", "timm")
TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""


@dataclass(frozen=True)
class PublishedWeights:
    """Weights of a library's model.

    Attributes:
        name: Name as it is given, with the tag of the weights.
        url: Address of the file.
        file: Name of the file.
        license: License that the library states.
        origin: Where the weights come from.
    """

    name: str
    url: str
    file: str
    license: str
    origin: str

    @property
    def path(self) -> Path:
        """Where the file is kept."""
        import torch

        return Path(torch.hub.get_dir()) / "checkpoints" / self.file


def is_published(name: str) -> bool:
    """Return whether weights are named `LIBRARY:MODEL` rather than by a file."""
    return name.partition(":")[0] in LIBRARIES and ":" in name


def find_published(name: str) -> PublishedWeights:
    """Return what is known of published weights.

    Args:
        name: `torchvision:MODEL` or `timm:MODEL`, followed by `.TAG` for other weights than the library's usual ones.

    Raises:
        NasrayError: if the library is not installed, or has no such model or no such weights.
    """
    library, _, model = name.partition(":")
    return _of_torchvision(model) if library == "torchvision" else _of_timm(model)


def fetch(weights: PublishedWeights) -> Path:
    """Return the file of published weights, downloaded unless it is there already.

    Raises:
        NasrayError: if it cannot be downloaded; the message says which file to put where.
    """
    path = weights.path
    if path.is_file():
        return path
    say(f"fetching {weights.url}")
    try:
        with urllib.request.urlopen(weights.url, timeout=TIMEOUT) as response:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, partial(shutil.copyfileobj, response))
    except (OSError, urllib.error.URLError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NasrayError(
            f"weights {weights.name} cannot be fetched ({reason}). Fetch {weights.url} on a machine that is online, "
            f"and put it at {path}"
        ) from error
    return path


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a .safetensors file.

    Raises:
        ValueError: if it is damaged, or what reads it is not installed.
    """
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError("the package safetensors, which reads it, is not installed") from error
    try:
        return dict(load_file(path))
    except Exception as error:  # its own kind, which is no child of anything
        raise ValueError(str(error).splitlines()[0]) from error


def _of_torchvision(model: str) -> PublishedWeights:
    plain, _, tag = model.partition(".")
    check_model("torchvision", plain)
    known = {one.name.lower(): one for one in import_library("torchvision").get_model_weights(plain)}
    if tag and tag.lower() not in known:
        raise NasrayError(
            f"torchvision has no weights {tag!r} of {plain}{did_you_mean(tag.lower(), known)} There are: "
            f"{', '.join(known) or 'none'}"
        )
    if not known:
        raise NasrayError(f"torchvision has published no weights of {plain}. Choose another model, or a file")
    chosen: Any = known[tag.lower()] if tag else import_library("torchvision").get_model_weights(plain).DEFAULT
    return PublishedWeights(
        name=f"torchvision:{plain}.{chosen.name.lower()}",
        url=chosen.url,
        file=chosen.url.rpartition("/")[2],
        license=chosen.meta.get("license", "that of torchvision, BSD-3-Clause; none of their own is stated"),
        origin=chosen.meta.get("recipe", "torchvision"),
    )


def _of_timm(model: str) -> PublishedWeights:
    check_model("timm", model)
    config: Any = import_library("timm").get_pretrained_cfg(model)
    if config is None or not (config.hf_hub_id or config.url):
        raise NasrayError(f"timm has published no weights of {model}. Choose another model or tag, or a file")
    name = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    if config.hf_hub_id:
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(config.hf_hub_id, config.hf_hub_filename or "model.safetensors")
        file = f"timm-{re.sub(r'[^A-Za-z0-9._-]', '-', name)}{Path(url).suffix}"
    else:
        url, file = config.url, config.url.rpartition("/")[2]
    return PublishedWeights(
        name=f"timm:{name}",
        url=url,
        file=file,
        license=config.license or "not stated",
        origin=config.origin_url or config.hf_hub_id or "timm",
    )
