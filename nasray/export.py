"""Backbones as plain PyTorch files that need no nasray, with their trained weights beside them."""

from __future__ import annotations

import inspect
import io
import keyword
import pprint
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasray.architectures import checked_spec, has_layers, is_supernet, slots
from nasray.cluster import write_atomic
from nasray.cluster.files import check_output
from nasray.cluster.reading import shown
from nasray.finding import find_architecture, find_within
from nasray.spaces import Architecture, Budget, NasrayError

if TYPE_CHECKING:
    from torch import Tensor, nn

_HEAD = '''"""Backbone {id}, a plain PyTorch file; `python {module}.py` runs it on an image.

    from {module} import {made}, normalize

    features = {made}().eval()(normalize(images))

Written by nasray {version}. images is (B, 3, H, W), RGB values in 0 to 255; the features are an ordered dict of maps,
see `feature_info`.{weights}
"""

'''

_TAIL = '''

ARCHITECTURE = {spec}


def build() -> {kind}:
    """Build the backbone with fresh weights."""
    return {kind}(**ARCHITECTURE)

{load}
def normalize(images: torch.Tensor) -> torch.Tensor:
    """Map (B, 3, H, W) RGB values in 0 to 255 to what the backbone takes, as in training."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in ({mean}, {std}))
    return (images - mean) / std


if __name__ == "__main__":
    example = 255 * torch.rand(1, 3, 320, 320)
    with torch.no_grad():
        for name, features in {made}().eval()(normalize(example)).items():
            print(name, tuple(features.shape), f"mean {{features.mean():.4g}}")
'''

_LOAD = '''
def load(path: str | None = None) -> {kind}:
    """Build the backbone with its trained weights, in inference mode.

    Args:
        path: File of the weights; the one that was written with this file by default.
    """
    import pathlib

    backbone = build()
    weights = path or pathlib.Path(__file__).with_name("{weights}")
    backbone.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return backbone.eval()

'''


def export_backbone(what: str, path: Path, budget: Budget | None = None) -> dict[str, Any]:
    """Write a backbone as one file, its trained weights beside it where there are any, and check both.

    Args:
        what: Name or file of an architecture, which has no trained weights; or a run, a training, or a checkpoint.
        path: File to write, `backbone.py`; the weights go to `backbone.weights.pt`.
        budget: Of a run, take the best within this budget instead of the winner.

    Returns:
        `file`; `weights`, the file of the weights, and `checkpoint` that they come from, both None where nothing was
        trained; `params_m`; and `max_difference` between the outputs of the file's network and of nasray's.

    Raises:
        NasrayError: if the path is not that of a Python file in an existing folder, or nothing can be exported.
    """
    from nasray._version import __version__
    from nasray.models import build
    from nasray.models.pixels import PIXEL_MEAN, PIXEL_STD

    check_output(path, (".py",))
    if not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        raise NasrayError(
            f"export writes a Python module, such as backbone.py; {shown(path)} cannot be imported. Choose another name"
        )
    architecture, state, checkpoint = _trained(what, budget)
    parts = slots(architecture)
    if "backbone" not in parts:
        raise NasrayError(f"export to .py writes a backbone; {shown(what)} is a {' and a '.join(parts)}")
    architecture = parts["backbone"]
    if not has_layers(architecture):
        raise NasrayError(
            f"the source of {architecture.family} networks is not nasray's to write. Export a detector to .onnx or .pt2"
        )
    network = build(architecture).eval()
    if state is not None:
        network.load_state_dict(state)
    weights = path.with_suffix(".weights.pt")
    kind = type(network).__name__
    source = inspect.getsource(inspect.getmodule(type(network)))  # type: ignore[arg-type]
    body = source[source.index("from __future__") :]
    if "\nimport torch\n" not in body:
        body = body.replace("\nfrom torch import", "\nimport torch\nfrom torch import", 1)
    made = "build" if state is None else "load"
    text = (
        _HEAD.format(
            id=architecture.id,
            module=path.stem,
            version=__version__,
            made=made,
            weights="" if state is None else f" Its trained weights are in {weights.name}.",
        )
        + body
        + _TAIL.format(
            spec=pprint.pformat(checked_spec(architecture), sort_dicts=False, width=110),
            kind=kind,
            made=made,
            load="" if state is None else _LOAD.format(kind=kind, weights=weights.name),
            mean=PIXEL_MEAN,
            std=PIXEL_STD,
        )
    )
    difference = _difference(network, text, path)
    if state is not None:
        _write_weights(weights, network)
    write_atomic(path, text.encode())
    return {
        "file": str(path),
        "weights": None if state is None else str(weights),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "params_m": sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        "max_difference": difference,
    }


def _trained(what: str, budget: Budget | None) -> tuple[Architecture, dict[str, Tensor] | None, Path | None]:
    """Return the architecture that is meant, the trained state of its backbone, and the checkpoint that holds it.

    The winner of a run may have been trained inside its folder; weights of another architecture than the winner's are
    not its weights.
    """
    from nasray.checkpoint import Checkpoint
    from nasray.subnets import has_supernet, is_trained, trained_checkpoint

    path = Path(what)
    is_run = (path / "experiment.yaml").is_file()
    meant = find_within(what, budget).architecture if budget is not None and budget.names else None
    has_weights = is_trained(path) or has_supernet(path) if is_run else path.is_dir() or path.suffix == ".pt"
    if not has_weights:
        return meant or find_architecture(what), None, None
    file = trained_checkpoint(path, budget if has_supernet(path) else None)
    checkpoint = Checkpoint.load(file)
    if is_supernet(checkpoint.architecture):
        raise NasrayError(
            f"{file} is of a supernet, which is no backbone until a path is chosen. Export the run, whose winner is one"
        )
    if is_run and (meant or find_architecture(what)) != checkpoint.architecture:
        return meant or find_architecture(what), None, None
    start = "backbone."
    state = {name.removeprefix(start): value for name, value in checkpoint.model.items() if name.startswith(start)}
    return checkpoint.architecture, state, file


def _difference(network: nn.Module, text: str, path: Path) -> float:
    """Return the largest difference between a network's outputs and those of the file's network with its weights."""
    import torch

    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    exec(compile(text, str(path), "exec"), names)
    twin = names["build"]().eval()
    twin.load_state_dict(network.state_dict())
    images = torch.rand(1, 3, 97, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs = zip(network(images).values(), twin(images).values(), strict=True)
        return max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


def _write_weights(path: Path, network: nn.Module) -> None:
    import torch

    sink = io.BytesIO()
    torch.save(network.state_dict(), sink)
    write_atomic(path, sink.getvalue())
