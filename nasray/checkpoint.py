"""Trained networks on disk: what a checkpoint holds, how a detector is built from it, and what does not fit together.

A checkpoint is one file of tensors and plain values, read without running code from it (`weights_only`).
"""

from __future__ import annotations

import re
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, cast

from typing_extensions import TypedDict

from nasray.architectures import is_supernet, slots
from nasray.cluster import write_atomic
from nasray.cluster.records import OPEN, PixelRulesEntry, check_record
from nasray.data.image_files.pixels import DEFAULT_RULES, PixelRules
from nasray.recipe import RECIPE, Recipe
from nasray.spaces import Architecture, NasrayError
from nasray.validation import FORMER_KEYS, validate

if TYPE_CHECKING:
    from torch import nn

    from nasray.models.classifier import Classifier
    from nasray.models.detectors.base import Detector

FORMAT = 1


@dataclass
class Checkpoint:
    """One moment of a training.

    Attributes:
        recipe: The resolved recipe.
        architecture: Architecture of the backbone, or of all slots that one fills.
        classes: Names of the classes, in the order of labels.
        category_ids: Ids of the classes in the data set, in the order of labels.
        model: The detector's state as it is evaluated (the moving average where there is one).
        metrics: Metrics of the last validation, such as `mAP` and `AP50`; empty before the first.
        iteration: Steps done.
        training: Everything else that continuing needs; empty in a checkpoint for inference alone.
        pixel_rules: How the images were read that it was trained on.
    """

    recipe: Recipe
    architecture: Architecture
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    model: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    iteration: int = 0
    training: dict[str, Any] = field(default_factory=dict)
    pixel_rules: PixelRules = DEFAULT_RULES

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            NasrayError: if the disk is full or the folder cannot be written.
        """
        import torch

        content = {
            "format": FORMAT,
            "recipe": RECIPE.dump_python(self.recipe, mode="json"),
            "architecture": self.architecture.text,
            "classes": list(self.classes),
            "category_ids": list(self.category_ids),
            "model": self.model,
            "metrics": self.metrics,
            "iteration": self.iteration,
            "training": self.training,
            "pixel_rules": self.pixel_rules.to_json(),
        }
        write_atomic(path, lambda file: torch.save(content, file))

    @classmethod
    def load(cls, path: Path | str, *, shared: bool = False) -> Checkpoint:
        """Read a checkpoint, or the best one of a training's folder.

        Args:
            path: Path of the file or the folder.
            shared: Whether to map the file's tensors into memory instead of reading them: they are read when needed,
                and all processes of a machine that map the file share one copy, as long as they do not change it.

        Raises:
            NasrayError: if it is missing, torn, no checkpoint of nasray's, or of a newer version.
        """
        path = checkpoint_path(Path(path))
        try:
            check_sums(path)
            content = read_tensors(path, shared=shared)
        except ValueError as error:
            raise NasrayError(f"{path} is no checkpoint, or damaged: {error}. Take another of its folder") from error
        except OSError as error:
            raise NasrayError(f"{path} cannot be read: {error.strerror}. Check its permissions") from error
        if not isinstance(content, dict) or "format" not in content or "recipe" not in content:
            raise NasrayError(
                f"{path} is no checkpoint of nasray's: it holds {_kind(content)}. Weights of other programs are for "
                "--weights of `nasray train`"
            )
        if isinstance(content["format"], int) and content["format"] > FORMAT:
            raise NasrayError(
                f"{path} was written by a newer version of nasray (checkpoint format {content['format']}, this version "
                f"reads up to {FORMAT}). Upgrade nasray"
            )
        content = check_record(content, Content, path, "Take another of its folder")
        try:
            architecture = Architecture.from_json(content["architecture"])
        except ValueError as error:
            raise NasrayError(f"{path}: {error}. Take another of its folder") from error
        recipe = validate(RECIPE, Recipe, content["recipe"], f"{path}, recipe", is_record=True)
        training = {FORMER_KEYS.get(key, key): value for key, value in content["training"].items()}
        if training.get("weights") is not None:
            training["weights"] = _current_names(recipe, training["weights"])
        return cls(
            recipe=recipe,
            architecture=architecture,
            classes=tuple(content["classes"]),
            category_ids=tuple(content["category_ids"]),
            model=_current_names(recipe, content["model"]),
            metrics=content["metrics"],
            iteration=content["iteration"],
            training=training,
            pixel_rules=PixelRules.from_json(content.get("pixel_rules")),
        )

    def detector(self) -> Detector:
        """Return the trained detector, on the CPU, in inference mode.

        Raises:
            NasrayError: if it is of a classifier, or of a supernet.
        """
        if self.recipe.task != "detection":
            raise NasrayError(
                f"this checkpoint (recipe {self.recipe.name}) is of a classifier: it detects nothing. It can start a "
                "detector of the same backbone: `nasray train ... --weights FILE`"
            )
        if is_supernet(self.architecture):
            raise NasrayError(
                f"this checkpoint (recipe {self.recipe.name}) is of a supernet, which is no detector until a path is "
                "chosen: name the run that searched it, whose winner is one, or a checkpoint of an architecture that "
                "was trained, such as RUN/train"
            )
        detector = cast("Detector", make_network(self.recipe, self.architecture, len(self.classes)))
        _load_state(detector, self.model)
        return detector.eval()

    def network(self) -> nn.Module:
        """Return what was trained, on the CPU, in inference mode: a detector or a classifier, or a supernet in one.

        It takes the checkpoint's own tensors, without copying them: with `load(..., shared=True)`, the file's.
        """
        network = make_network(self.recipe, self.architecture, len(self.classes), on_meta=True)
        _load_state(network, self.model, assign=True)
        return network.eval()


class Content(TypedDict):
    """What is in the file."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    format: int
    recipe: dict[str, Any]
    architecture: str
    classes: list[str]
    category_ids: list[int]
    model: dict[str, Any]
    metrics: dict[str, float]
    iteration: int
    training: dict[str, Any]
    pixel_rules: NotRequired[PixelRulesEntry]


def _load_state(network: nn.Module, state: dict[str, Any], *, assign: bool = False) -> None:
    try:
        network.load_state_dict(state, assign=assign)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise NasrayError(
            f"the checkpoint's weights are not those of its network: {lines[min(1, len(lines) - 1)][:200]}. "
            "Take another of its folder"
        ) from error


def check_sums(path: Path) -> None:
    """Compare all bytes of a checkpoint with the checksums that it carries.

    A checkpoint is a zip archive with a CRC-32 of every tensor, which PyTorch writes and does not look at. It costs a
    second for one or two gigabytes, and what is mapped afterwards is in memory already.

    Raises:
        ValueError: if a byte has changed, or it is no such archive; the message is a line that says why.
        OSError: if it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds at bytes that make no sense
        raise ValueError("it is no file of tensors, or ends too early") from error
    if damaged is not None:
        raise ValueError(f"{damaged.partition('/')[2]} does not have its checksum")


def read_tensors(path: Path, *, shared: bool = False) -> Any:
    """Return what a file of tensors and plain values holds, on the CPU; no code of it is run.

    Args:
        path: Path of the file.
        shared: Whether to map the file into memory; see `Checkpoint.load`.

    Raises:
        ValueError: if it is torn, or of another kind; the message is a line that says why.
        OSError: if it cannot be read.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are none of PyTorch's
            return torch.load(path, map_location="cpu", weights_only=True, mmap=shared)
    except OSError:
        raise
    except Exception as error:  # whatever a torn pickle raises
        raise ValueError(_reason_of(error)) from error


def _reason_of(error: Exception) -> str:
    """Return why a file could not be read, without PyTorch's advice to read it unprotected."""
    text = str(error)
    if named := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it holds {named[1]} beside tensors and plain values, which would run code"
    if "zip archive" in text or isinstance(error, EOFError):
        return "it ends too early"
    return "it is no file of tensors"


def checkpoint_path(path: Path) -> Path:
    """Return the checkpoint that a path means: a file itself, or the best of a training or run folder, else the last.

    Raises:
        NasrayError: if there is none.
    """
    if path.is_file():
        return path
    for folder in (path / "checkpoints", path / "train" / "checkpoints"):
        for name in ("best.pt", "last.pt"):
            if (folder / name).is_file():
                return folder / name
    raise NasrayError(
        f"no checkpoint at {path}: name a file, or the folder of a training, such as runs/maedet-m/train, in which "
        "checkpoints/best.pt or checkpoints/last.pt is"
    )


def make_network(
    recipe: Recipe, architecture: Architecture, num_classes: int, *, on_meta: bool = False
) -> Detector | Classifier:
    """Return a recipe's network for its task, with fresh weights from the global random state.

    Args:
        recipe: Recipe of the training.
        architecture: Backbone, pyramid, or a composite with a head; it may stand for a supernet.
        num_classes: Number of classes of the data set.
        on_meta: Whether to leave the backbone without memory, for a state that is assigned.

    Raises:
        NasrayError: if recipe, architecture and detector do not go together.
    """
    if recipe.task == "classification":
        return _classifier(recipe, architecture, num_classes, on_meta)
    from nasray.models.detectors import assemble_detector

    options = {name: value for name, value in vars(recipe.detector).items() if name != "name"}
    return assemble_detector(recipe.detector.name, architecture, num_classes, on_meta=on_meta, **options)


def _classifier(recipe: Recipe, architecture: Architecture, num_classes: int, on_meta: bool) -> Classifier:
    import torch

    from nasray.models import build
    from nasray.models.classifier import Classifier

    if foreign := [slot for slot in slots(architecture) if slot != "backbone"]:
        raise NasrayError(
            f"classification trains a backbone alone; this architecture has a {foreign[-1]}. Leave it out"
        )
    with torch.device("meta" if on_meta else "cpu"):
        backbone = build(architecture)
    return Classifier(backbone, num_classes, **vars(recipe.classifier))


def _current_names(recipe: Recipe, state: dict[str, Any]) -> dict[str, Any]:
    """Return a network's state with the parameter names of this version."""
    if recipe.task != "detection":
        return state
    from nasray.models.detectors import DETECTORS

    former = DETECTORS[recipe.detector.name].former_names
    return {
        next((now + name.removeprefix(begin) for begin, now in former.items() if name.startswith(begin)), name): value
        for name, value in state.items()
    }


def _kind(content: Any) -> str:
    return f"a dictionary of {len(content)} entries" if isinstance(content, dict) else f"a {type(content).__name__}"
