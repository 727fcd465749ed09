"""Backbones and heads as plain PyTorch files that need no nasray, with their trained weights beside them."""

from __future__ import annotations

import io
import keyword
import pprint
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nasray.architectures import Slot, checked_spec, has_layers, is_supernet, slots
from nasray.cluster import write_atomic
from nasray.cluster.files import check_output
from nasray.cluster.reading import shown
from nasray.finding import find_architecture, find_within
from nasray.spaces import Architecture, Budget, NasrayError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nasray.checkpoint import Checkpoint

CHANNELS, NUM_LEVELS = 256, 5
"""Of the levels that a head is built for where nothing was trained; another number can be given to the file's build."""

_BEGIN = '''"""{What} {id}, a plain PyTorch file; `python {module}.py` runs it.

    from {module} import {names}

    {example}

Written by nasray {version}. {about}{weights}
"""

'''

_BUILD = '''

ARCHITECTURE = {spec}


def build({parameters}) -> {kind}:
    """Build the {what} with fresh weights."""
    return {kind}(**ARCHITECTURE{arguments})
'''

_LOAD = '''

def load(path: str | None = None) -> {kind}:
    """Build the {what} with its trained weights, in inference mode.

    Args:
        path: File of the weights; the one that was written with this file by default.
    """
    import pathlib

    {what} = build()
    weights = path or pathlib.Path(__file__).with_name("{file}")
    {what}.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return {what}.eval()
'''

_NORMALIZE = '''

def normalize(images: torch.Tensor) -> torch.Tensor:
    """Map (B, 3, H, W) RGB values in 0 to 255 to what the backbone takes, as in training."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in ({mean}, {std}))
    return (images - mean) / std
'''

_RUN = """

if __name__ == "__main__":
    example = {random}
    with torch.no_grad():
        for name, features in {pairs}:
            print(name, tuple(features.shape), f"mean {{features.mean():.4g}}")
"""


class _Form(NamedTuple):
    """How a network that fills a slot is called.

    Attributes:
        example: Expression that runs what `{made}` returns.
        about: What it takes and returns.
        random: Expression of a random example.
        pairs: Expression of names and features of that example.
    """

    example: str
    about: str
    random: str
    pairs: str


_FORMS = {
    "backbone": _Form(
        "features = {made}().eval()(normalize(images))",
        "images is (B, 3, H, W), RGB values in 0 to 255; the features are an ordered dict of maps,\n"
        "see `feature_info`.",
        "255 * torch.rand(1, 3, 320, 320)",
        "{made}().eval()(normalize(example)).items()",
    ),
    "boxes": _Form(
        "classes, boxes = {made}().eval().towers(level, 0)",
        "level is a map of a pyramid, (B, {channels}, H, W), and so are the features of classes and of boxes;\n"
        "their last convolutions are the detector's.",
        "torch.rand(1, {channels}, 40, 40)",
        'zip(("classes", "boxes"), {made}().eval().towers(example, 0))',
    ),
    "masks": _Form(
        "features = {made}().eval()(regions)",
        "regions is (R, {channels}, 14, 14), pooled from a pyramid, and so are the features, which go to the\n"
        "detector's transposed convolution.",
        "torch.rand(2, {channels}, 14, 14)",
        '[("masks", {made}().eval()(example))]',
    ),
}
"""By slot; of heads by their purpose."""


def export_module(what: str, path: Path, budget: Budget | None = None) -> dict[str, Any]:
    """Write a backbone or a head as one file, its trained weights beside it where there are any, and check both.

    Args:
        what: Name or file of an architecture, which has no trained weights; or a run, a training, or a checkpoint. Of a
            run its winner is written, a backbone or a head; of a whole detector the backbone.
        path: File to write, `backbone.py`; the weights go to `backbone.weights.pt`.
        budget: Of a run, take the best within this budget instead of the winner.

    Returns:
        `slot` that it fills; `file`; `weights`, the file of the weights, and `checkpoint` that they come from, both
        None where nothing was trained; `params_m`; and `max_difference` between the outputs of the file's network and
        of nasray's.

    Raises:
        NasrayError: if the path is not that of a Python file in an existing folder, or nothing can be exported.
    """
    check_output(path, (".py",))
    if not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        raise NasrayError(
            f"export writes a Python module, such as backbone.py; {shown(path)} cannot be imported. Choose another name"
        )
    slot, architecture, checkpoint, file = _trained(what, budget)
    if slot == "backbone" and not has_layers(architecture):
        raise NasrayError(
            f"the source of {architecture.family} networks is not nasray's to write. Export a detector to .onnx or .pt2"
        )
    network = _network(slot, architecture, checkpoint)
    weights = None if checkpoint is None else path.with_suffix(".weights.pt")
    text = _text(slot, architecture, network, path, weights)
    difference = _difference(network, text, path)
    if weights is not None:
        _write_weights(weights, network)
    write_atomic(path, text.encode())
    return {
        "slot": slot,
        "file": str(path),
        "weights": None if weights is None else str(weights),
        "checkpoint": None if file is None else str(file),
        "params_m": sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        "max_difference": difference,
    }


def _trained(what: str, budget: Budget | None) -> tuple[Slot, Architecture, Checkpoint | None, Path | None]:
    """Return the slot and the architecture that are meant, and the checkpoint with its weights and that one's file.

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
        return (*_part(what, meant or find_architecture(what)), None, None)
    file = trained_checkpoint(path, budget if has_supernet(path) else None)
    checkpoint = Checkpoint.load(file)
    if is_supernet(checkpoint.architecture):
        raise NasrayError(
            f"{file} is of a supernet, which is no backbone until a path is chosen. Export the run, whose winner is one"
        )
    if not is_run:
        return (*_part(what, checkpoint.architecture), checkpoint, file)
    slot, architecture = _part(what, meant or find_architecture(what))
    is_own = slots(checkpoint.architecture).get(slot) == architecture
    return slot, architecture, checkpoint if is_own else None, file if is_own else None


def _part(what: str, architecture: Architecture) -> tuple[Slot, Architecture]:
    """Return the part of an architecture that is written, and its slot: a backbone where there is one, or a head."""
    parts = slots(architecture)
    for slot in ("backbone", "head"):
        if slot in parts and "pyramid" not in parts:
            return slot, parts[slot]
    raise NasrayError(f"export to .py writes a backbone or a head; {shown(what)} is a {' and a '.join(parts)}")


def _network(slot: Slot, architecture: Architecture, checkpoint: Checkpoint | None) -> nn.Module:
    """Return the network of a slot in inference mode, with its trained weights where there are any."""
    import torch

    from nasray.models import build

    if checkpoint is None:
        sizes = {"in_channels": CHANNELS, "num_levels": NUM_LEVELS} if slot == "head" else {}
        return build(architecture, **sizes).eval()
    whole: Any = checkpoint.network()
    network: nn.Module = whole.get_submodule(getattr(whole, "slots", {slot: slot})[slot])
    # A training may have laid weights out with channels last: other kernels, whose last digits differ, would run.
    return network.to(memory_format=torch.contiguous_format).eval()


def _text(slot: Slot, architecture: Architecture, network: nn.Module, path: Path, weights: Path | None) -> str:
    """Return the source of a file that builds a network."""
    from nasray._version import __version__
    from nasray.models.pixels import PIXEL_MEAN, PIXEL_STD
    from nasray.sources import standalone_source

    kind, is_head = type(network).__name__, slot == "head"
    form = _FORMS[getattr(network, "purpose", "boxes") if is_head else slot]
    known = {"made": "build" if weights is None else "load", "channels": getattr(network, "out_channels", None)}
    body = standalone_source(type(network).__module__)
    if "\nimport torch\n" not in body:
        body = body.replace("\nfrom torch import", "\nimport torch\nfrom torch import", 1)
    begin = _BEGIN.format(
        What=slot.capitalize(),
        id=architecture.id,
        module=path.stem,
        names=known["made"] if is_head else f"{known['made']}, normalize",
        example=form.example.format(**known),
        version=__version__,
        about=form.about.format(**known),
        weights="" if weights is None else f" Its trained weights are in {weights.name}.",
    )
    build = _BUILD.format(
        spec=pprint.pformat(checked_spec(architecture), sort_dicts=False, width=110),
        kind=kind,
        what=slot,
        parameters=f"in_channels: int = {known['channels']}, num_levels: int = {NUM_LEVELS}" if is_head else "",
        arguments=", in_channels=in_channels, num_levels=num_levels" if is_head else "",
    )
    load = "" if weights is None else _LOAD.format(kind=kind, what=slot, file=weights.name)
    normalize = "" if is_head else _NORMALIZE.format(mean=PIXEL_MEAN, std=PIXEL_STD)
    run = _RUN.format(random=form.random.format(**known), pairs=form.pairs.format(**known))
    return begin + body + build + load + normalize + run


def _difference(network: nn.Module, text: str, path: Path) -> float:
    """Return the largest difference between a network's outputs and those of the file's network with its weights."""
    import torch

    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    exec(compile(text, str(path), "exec"), names)
    twin = names["build"]().eval()
    twin.load_state_dict(network.state_dict())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        if hasattr(network, "feature_info"):
            images = torch.rand(1, 3, 97, 128, generator=generator)
            found = [list(one(images).values()) for one in (network, twin)]
        else:
            level = torch.rand(2, int(network.out_channels), 14, 14, generator=generator)  # type: ignore[arg-type]
            found = [_features(one, level) for one in (network, twin)]
        return max(float((ours - theirs).abs().max()) for ours, theirs in zip(*found, strict=True))


def _features(head: Any, level: Tensor) -> list[Tensor]:
    return [head(level)] if getattr(head, "purpose", "boxes") == "masks" else list(head.towers(level, 0))


def _write_weights(path: Path, network: nn.Module) -> None:
    import torch

    sink = io.BytesIO()
    torch.save(network.state_dict(), sink)
    write_atomic(path, sink.getvalue())
