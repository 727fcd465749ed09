"""Pre-trained weights from a file: a checkpoint of nasray's, or a state dictionary of another program.

A checkpoint of a supernet fits its paths: a network by itself begins with the shared weights of the path that it is.

State dictionaries are matched by name, or, where names differ, in order: every tensor of the backbone takes the next
of the file, whose shape must be the same. So torchvision's ResNets and MobileNetV2 fit ours, and once-for-all's
released ResNet-50 fits the supernet of its space. What is left over at the file's end, such as a classifier, is not
used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nasray.architectures import Slot, is_supernet, slots
from nasray.checkpoint import Checkpoint, read_tensors
from nasray.extraction import extract_network, in_place_of_supernet
from nasray.models.supernets import space_of_supernet, supernet_part
from nasray.recipe import Recipe
from nasray.spaces import Architecture, NasrayError
from nasray.spaces.resolutions import NAME as RESOLUTION
from nasray.training.published import fetch, find_published, is_published, read_safetensors

WRAPPERS = ("state_dict", "model", "net_dict", "model_state_dict")
"""Keys under which training programs keep a state dictionary."""
COUNTER = "num_batches_tracked"


def load_weights(network: nn.Module, path: str, architecture: Architecture, classes: tuple[str, ...]) -> str:
    """Load a file's weights in place, and return a line that says what was loaded.

    Of a checkpoint of nasray's the whole network is loaded if it is of the same kind and for the same classes, else
    the slots that the same architectures fill; of a supernet's it is the network of the path. Of other files the
    backbone is.

    Args:
        network: Detector or classifier to load into.
        path: Path of the file, or `LIBRARY:MODEL` of published weights, see `nasray.training.published`.
        architecture: Architecture of the network.
        classes: Classes of the data set, in the order of labels.

    Raises:
        NasrayError: if the file cannot be read or does not fit; the message names the first tensor that does not.
    """
    if is_published(path):
        weights = find_published(path)
        line = _load_state(network, _read(str(fetch(weights))), weights.name)
        return f"{line}. Their license: {weights.license}. Origin: {weights.origin}"
    content = _read(path)
    if _is_checkpoint(content):
        checkpoint = Checkpoint.load(path)
        supernet = supernet_part(checkpoint.architecture)
        if supernet is None or supernet_part(architecture) is not None:
            return _load_checkpoint(network, checkpoint, path, architecture, classes)
        checkpoint = _path_of(checkpoint, supernet, path, architecture)
        return f"a path of the supernet: {_load_checkpoint(network, checkpoint, path, architecture, classes)}"
    return _load_state(network, content, path)


def _path_of(checkpoint: Checkpoint, supernet: Architecture, path: str, architecture: Architecture) -> Checkpoint:
    """Return the checkpoint of the path of a supernet that an architecture has in its slot.

    Raises:
        NasrayError: if it has none of the supernet's paths, or one that cannot be taken out.
    """
    space = space_of_supernet(supernet)
    slot = next(name for name, part in slots(checkpoint.architecture).items() if part == supernet)
    part = slots(architecture).get(slot)
    if part is None:
        raise NasrayError(_another_architecture(checkpoint, path, architecture))
    network = Architecture.create(part.family, {key: value for key, value in part.spec.items() if key != RESOLUTION})
    try:
        row = space.from_architecture(network)
    except ValueError as error:
        raise NasrayError(
            f"{path} is of a supernet, and {slot} {part.id} of the training is no path of it: {error}. Name a "
            "checkpoint of the supernet that it was found in, or leave out weights"
        ) from error
    whole = in_place_of_supernet(checkpoint.architecture, part)
    state = extract_network(checkpoint.network(), row, checkpoint).state_dict()
    return dataclasses.replace(checkpoint, architecture=whole, model=state)


def is_checkpoint(path: str) -> bool:
    """Return whether a file of weights is a checkpoint of nasray's.

    Raises:
        NasrayError: if it cannot be read.
    """
    return not is_published(path) and _is_checkpoint(_read(path))


def _is_checkpoint(content: Any) -> bool:
    return isinstance(content, dict) and "format" in content and "recipe" in content


def _load_state(network: nn.Module, content: Any, path: str) -> str:
    """Load a state dictionary of another program into the backbone, and return a line about it."""
    tensors = _state_dict(content, path)
    how, num_unused = _load_backbone(network, tensors, path)
    unused = f"; {num_unused} tensors {'at its end ' if how == 'order' else ''}are not used" if num_unused else ""
    return f"backbone from {path}, matched by {how}{unused}"


def check_fits(checkpoint: Checkpoint, path: Path, architecture: Architecture, classes: tuple[str, ...]) -> None:
    """Raise `NasrayError` if a checkpoint is of another architecture or for other classes than a training's."""
    if checkpoint.architecture != architecture:
        raise NasrayError(_another_architecture(checkpoint, path, architecture))
    if checkpoint.classes != classes:
        raise NasrayError(
            f"{path} {_classes(checkpoint.classes)}; the data set {_classes(classes)}. Continue with the data that it "
            "was begun with, or begin a new training from it with --weights (its backbone will be used)"
        )


def _another_architecture(checkpoint: Checkpoint, path: Path | str, architecture: Architecture) -> str:
    theirs = checkpoint.architecture
    name = "a supernet" if is_supernet(theirs) else checkpoint.recipe.backbone
    return (
        f"{path} is a checkpoint of another architecture: its {_parts(theirs)} ({name}), the training's "
        f"{_parts(architecture)}. Name a checkpoint of this one, or train {name}"
    )


def _parts(architecture: Architecture) -> str:
    """Return what fills each slot."""
    return " and ".join(f"{slot} is {part.family} {part.id}" for slot, part in slots(architecture).items())


def _classes(classes: tuple[str, ...]) -> str:
    return f"has {len(classes)} classes ({', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''})"


def _read(path: str) -> Any:
    if not Path(path).is_file():
        raise NasrayError(f"no file of weights at {path}: name a checkpoint of nasray's or a PyTorch state dictionary")
    try:
        return read_safetensors(Path(path)) if path.endswith(".safetensors") else read_tensors(Path(path))
    except ValueError as error:
        raise NasrayError(
            f"{path} holds no weights, is torn, or holds more than tensors, which are all that is read from a file: "
            f"{error}. Save a plain state dictionary with torch.save(model.state_dict(), ...)"
        ) from error


def _load_checkpoint(
    network: nn.Module, checkpoint: Checkpoint, path: str, architecture: Architecture, classes: tuple[str, ...]
) -> str:
    theirs, ours = slots(checkpoint.architecture), slots(architecture)
    common = [slot for slot, part in ours.items() if theirs.get(slot) == part]
    if not common:
        raise NasrayError(_another_architecture(checkpoint, path, architecture))
    state = network.state_dict()
    same_shapes = {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in checkpoint.model.items()
    }
    if checkpoint.architecture == architecture and checkpoint.classes == classes and same_shapes:
        network.load_state_dict(checkpoint.model)
        return f"whole network from {path}"
    if checkpoint.architecture != architecture:
        reason = f"its {_other_parts(theirs, common)}, the training's {_other_parts(ours, common)}"
    elif checkpoint.classes != classes:
        reason = f"the checkpoint {_classes(checkpoint.classes)}, the data set {_classes(classes)}"
    else:
        recipe = checkpoint.recipe
        kind = recipe.detector.name if recipe.task == "detection" else "classifier"
        reason = f"what stands on it in the checkpoint ({kind}) is built otherwise"
    loaded = [slot for slot in common if _load_slot(network, checkpoint, slot)]
    if not loaded:
        raise NasrayError(
            f"{path}: its {' and '.join(common)} has other shapes than the training's. Leave out --weights"
        )
    return f"only the {' and the '.join(loaded)} from {path}: {reason}"


def _other_parts(parts: Mapping[Slot, Architecture], common: Sequence[Slot]) -> str:
    """Return what fills the slots that are not common to two networks."""
    others = [f"{slot} is {part.family} {part.id}" for slot, part in parts.items() if slot not in common]
    return ", ".join(others) or "head is the detector's own"


def _load_slot(network: nn.Module, checkpoint: Checkpoint, slot: Slot) -> bool:
    """Load what stands in a slot, and return whether its shapes are those of the checkpoint's network."""
    place = f"{_places(checkpoint.recipe)[slot]}."
    begin: dict[str, Tensor] = {
        name.removeprefix(place): value for name, value in checkpoint.model.items() if name.startswith(place)
    }
    places: Any = network.slots
    module = network.get_submodule(places[slot])
    if {name: value.shape for name, value in module.state_dict().items()} != {k: v.shape for k, v in begin.items()}:
        return False
    module.load_state_dict(begin)
    return True


def _places(recipe: Recipe) -> Mapping[str, str]:
    """Return where the slots of a recipe's network are."""
    if recipe.task == "classification":
        from nasray.models.classifier import Classifier

        return Classifier.slots
    from nasray.models.detectors import DETECTORS

    slots: Mapping[str, str] = DETECTORS[recipe.detector.name].slots
    return slots


def _state_dict(content: Any, path: str) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise NasrayError(f"{path} holds a {type(content).__name__}, not a state dictionary from names to tensors")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise NasrayError(f"{path} holds no tensors; its keys are: {', '.join(map(str, list(content)[:5])) or 'none'}")
    return tensors


def _backbone(network: nn.Module) -> nn.Module:
    backbone = network.backbone
    assert isinstance(backbone, nn.Module)
    return backbone


def _load_backbone(network: nn.Module, tensors: dict[str, Tensor], path: str) -> tuple[str, int]:
    """Return how the tensors were matched with the backbone's, and how many are left over."""
    own = {name: value for name, value in _backbone(network).state_dict().items() if not name.endswith(COUNTER)}
    theirs = {name: value for name, value in tensors.items() if not name.endswith(COUNTER)}
    how, pairs = "name", _pairs_by_name(own, theirs, getattr(_backbone(network), "published_names", {}))
    if pairs is None:
        how, pairs = "order", dict(zip(own, theirs, strict=False))
    for name, value in own.items():
        if name not in pairs:
            raise NasrayError(
                f"{path} does not fit the backbone: it ends before {name} {_shape(value)}; it has {len(theirs)} "
                f"tensors, the backbone {len(own)}. Choose weights of this backbone"
            )
        given = theirs[pairs[name]]
        if given.shape != value.shape:
            raise NasrayError(
                f"{path} does not fit the backbone: {name} is {_shape(value)}, the file's {pairs[name]} is "
                f"{_shape(given)}. Choose weights of this backbone"
            )
    _backbone(network).load_state_dict({name: theirs[key] for name, key in pairs.items()}, strict=False)
    return how, len(theirs) - len(own)


def _pairs_by_name(
    own: Mapping[str, Tensor], theirs: Mapping[str, Tensor], published: Mapping[str, str]
) -> dict[str, str] | None:
    """Return our names and the file's, which may all have one prefix; None if it lacks some.

    A backbone of a library knows the names of its state in the library's `published` weights.
    """
    if published and all(published.get(name) in theirs for name in own):
        return {name: published[name] for name in own}
    first = next(iter(own))
    for name in theirs:
        if name.endswith(first):
            prefix = name.removesuffix(first)
            if all(prefix + other in theirs for other in own):
                return {other: prefix + other for other in own}
    return None


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a scalar"
