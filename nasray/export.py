"""Backbones as plain PyTorch files that need no nasray."""

from __future__ import annotations

import inspect
import keyword
import pprint
from pathlib import Path
from typing import Any

from nasray.architectures import MID_KEYS
from nasray.cluster import write_atomic
from nasray.cluster.files import check_output
from nasray.cluster.reading import shown
from nasray.spaces import Architecture, NasrayError

_HEAD = '''"""Backbone {id}, a plain PyTorch file: `from {module} import build; features = build()(images)`.

Written by nasray {version}. images is (B, 3, H, W); the features are an ordered dict of maps, see `feature_info`.
"""

'''

_TAIL = '''

ARCHITECTURE = {spec}


def build() -> {kind}:
    """The backbone with fresh weights."""
    return {kind}({block}**ARCHITECTURE)
'''


def export_backbone(architecture: Architecture, path: Path) -> dict[str, Any]:
    """Write a backbone as one file and hold it against the original.

    Returns:
        `params_m`, and `max_difference` between the outputs of the file's network and nasray's with the same weights.

    Raises:
        NasrayError: if the path is not that of a Python file in an existing folder.
    """
    import torch

    from nasray._version import __version__
    from nasray.models import build

    check_output(path, (".py",))
    if not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        raise NasrayError(
            f"export writes a Python module, such as backbone.py; {shown(path)} cannot be imported. Choose another name"
        )
    network = build(architecture).eval()
    source = inspect.getsource(inspect.getmodule(type(network)))  # type: ignore[arg-type]
    body = source[source.index("from __future__") :]
    text = (
        _HEAD.format(id=architecture.id, module=path.stem, version=__version__)
        + body
        + _TAIL.format(
            spec=pprint.pformat(architecture.spec, sort_dicts=False, width=110), kind=type(network).__name__,
            block=f"{architecture.family!r}, " if architecture.family in MID_KEYS else "",
        )
    )  # fmt: skip
    names: dict[str, Any] = {"__name__": path.stem}
    exec(compile(text, str(path), "exec"), names)
    twin = names["build"]().eval()
    twin.load_state_dict(network.state_dict())
    images = torch.rand(1, 3, 97, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs = zip(network(images).values(), twin(images).values(), strict=True)
        difference = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    write_atomic(path, text.encode())
    return {
        "file": str(path),
        "params_m": sum(p.numel() for p in twin.parameters()) / 1e6,
        "max_difference": difference,
    }
