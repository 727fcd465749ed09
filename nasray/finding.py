"""What a user names an architecture by: a name, a JSON file, the folder of a run or of a training, a checkpoint."""

from __future__ import annotations

from pathlib import Path

from nasray.architectures import ARCHITECTURES, FAMILIES, named_architecture, read_architecture
from nasray.cluster.reading import shown
from nasray.configuration import did_you_mean
from nasray.options import check_text
from nasray.spaces import Architecture, NasrayError


def find_architecture(name: str) -> Architecture:
    """Return a named architecture, the one in a JSON file, a checkpoint or a training, or the winner of a run.

    Args:
        name: Name from `nasray list architectures`, path of a JSON file or a checkpoint, or folder of a training, of a
            run, or of a stage of a run.

    Raises:
        NasrayError: if `name` is none of these.
    """
    found = named_architecture(name)
    if found is not None:
        return found
    check_text(name)
    path = Path(name)
    if (path / "recipe.yaml").is_file():
        from nasray.training.folder import read_description

        return read_description(path).architecture
    if path.is_file() and path.suffix == ".pt":
        from nasray.checkpoint import Checkpoint

        return Checkpoint.load(path, shared=True).architecture
    if path.is_dir():
        from nasray.cluster import RunFolder

        best = RunFolder.open(path).read_best()["best"][0]["architecture"]
        return Architecture.create(best["family"], best["spec"])
    if path.is_file():
        return read_architecture(path)
    if "/" in name or path.suffix in (".json", ".pt"):
        raise NasrayError(f"{shown(path)} not found. Give a JSON file, the folder of a run or a training, or a name")
    others = "".join(f" {family.describe}." for family in FAMILIES.values() if family.describe)
    raise NasrayError(
        f"unknown architecture {name!r}{did_you_mean(name, ARCHITECTURES)} Named ones: {', '.join(ARCHITECTURES)}."
        f"{others} A JSON file of an architecture and a run's folder also do"
    )
