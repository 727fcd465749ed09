"""Subnets: paths of a supernet taken out of it, as networks by themselves and as ordinary checkpoints.

A subnet's batch norm statistics are computed anew as the search computes them, so it has the score that the search
found. To evaluate, predict and export it, nothing needs to know that there was a supernet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nasray.architectures import compose, is_supernet, slots
from nasray.checkpoint import Checkpoint, checkpoint_path, make_network
from nasray.cluster import RunFolder
from nasray.cluster.leaders import Entry
from nasray.cluster.progress import say
from nasray.devices import computing_threads
from nasray.evaluators import PathEvaluator
from nasray.finding import find_within
from nasray.loading import plan_of_run
from nasray.models.supernets.base import Supernet, supernet_of
from nasray.models.supernets.recalibration import recalibrate, up_to_the_last_norm
from nasray.recipe import Recipe, of_one_path
from nasray.spaces import Architecture, Budget, NasrayError
from nasray.stages import SEARCH, site_of

FOLDER = "subnets"
"""Folder of a run's subnets."""
RECORD = "subnet"
"""Key of a subnet's checkpoint, in `training`, under which stands what it was taken from."""


class Described(Protocol):
    """What a network around a supernet was built from; a checkpoint, or the description of a training."""

    @property
    def recipe(self) -> Recipe:
        """Recipe of its training."""
        ...

    @property
    def architecture(self) -> Architecture:
        """Architecture, which holds the supernet in one of its slots."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        ...


# ---- networks ----------------------------------------------------------------------------------------------------


def extract_network(network: nn.Module, row: NDArray[np.int64], described: Described) -> nn.Module:
    """Return the standalone detector or classifier of a path, with a copy of its weights and statistics.

    Every tensor is that of the same name in the network around the supernet, cut to its leading entries where the
    standalone one is smaller, as that of a neck behind channels that the path does not have.

    Args:
        network: Detector or classifier around a supernet. It is only read, whatever path is set.
        row: (G,) genes of the path.
        described: What the network was built from.

    Returns:
        A network on the same device and in the same mode.

    Raises:
        ValueError: If the genes are no architecture of the space, or a tensor is not part of the network's.
    """
    supernet = _supernet_in(network)
    architecture = architecture_of_path(described.architecture, supernet, row)
    with torch.random.fork_rng(devices=[]):  # its first weights are replaced at once
        subnet = make_network(described.recipe, architecture, len(described.classes), on_meta=True)
    prefix = next(name for name, module in network.named_modules() if module is supernet) + "."
    within = {prefix + name: value for name, value in supernet.path_state(supernet.space.checked_row(row)).items()}
    around = {name: value for name, value in network.state_dict().items() if not name.startswith(prefix)}
    source = {**around, **within}
    state = {name: _leading(source[name], value, name) for name, value in subnet.state_dict().items()}
    subnet.load_state_dict(state, assign=True)
    return subnet.to(next(iter(state.values())).device).train(network.training)


def architecture_of_path(whole: Architecture, supernet: Supernet, row: NDArray[np.int64]) -> Architecture:
    """Return an architecture with the one of a path in the slot where it has the supernet."""
    path = supernet.space.to_architecture(supernet.space.checked_row(row))
    return compose({slot: path if is_supernet(part) else part for slot, part in slots(whole).items()})


def _supernet_in(network: nn.Module) -> Supernet:
    supernet = supernet_of(network)
    if supernet is None:
        raise ValueError("there is no supernet in this network: it has one path, itself")
    return supernet


def _leading(whole: Tensor, part: Tensor, name: str) -> Tensor:
    """Return a copy of the leading entries of a tensor, as many as `part` has."""
    shape = part.shape
    if whole.dim() != len(shape) or any(size > most for size, most in zip(shape, whole.shape, strict=True)):
        raise ValueError(f"{name} is {tuple(whole.shape)} around the supernet and {tuple(shape)} in the path's network")
    return whole.detach()[tuple(slice(size) for size in shape)].clone()


# ---- checkpoints -------------------------------------------------------------------------------------------------


def subnet(run: RunFolder, entry: Entry, to: Path) -> Checkpoint:
    """Take an architecture of a run's search out of its supernet and save it as an ordinary checkpoint.

    Batch norm statistics are computed as the search's evaluator does, from the same images; nothing is trained. A file
    that is there already is taken if it is of the same supernet.

    Args:
        run: Run with a trained supernet.
        entry: Evaluated architecture of it.
        to: File to write.

    Raises:
        NasrayError: If the run has no trained supernet, or its data cannot be read.
    """
    evaluator = _evaluator(run)
    record = {
        "supernet": fingerprint(Path(evaluator.supernet)),
        "images": evaluator.images,
        "batch_size": evaluator.batch_size,
        "threads": evaluator.threads,
    }
    if to.is_file():
        found = Checkpoint.load(to)
        if found.architecture == entry.architecture and found.training.get(RECORD) == record:
            return found
    say(f"taking path {entry.id} out of the supernet, with statistics of {evaluator.images} images")
    loaded = evaluator.loaded
    described = Checkpoint.load(evaluator.supernet, shared=True)
    row = evaluator.space.from_architecture(entry.architecture)
    network = extract_network(loaded.network, row, described)
    with computing_threads(evaluator.threads):
        recalibrate(network, loaded.pixels(), loaded.num_calibration, forward=up_to_the_last_norm(network))
    architecture = architecture_of_path(described.architecture, _supernet_in(loaded.network), row)
    checkpoint = dataclasses.replace(
        described,
        recipe=dataclasses.replace(of_one_path(described.recipe), backbone=entry.id),
        architecture=architecture,
        model={name: value.cpu() for name, value in network.state_dict().items()},
        metrics={},
        training={RECORD: record},
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(to)
    return checkpoint


def path_networks(run: RunFolder) -> tuple[Checkpoint, Callable[[Entry], nn.Module]]:
    """Return the checkpoint of a run's supernet, and what takes the network of an entry's path out of it.

    No data are opened: statistics of batch norms are those that the supernet's training left, which are no path's. For
    what does not depend on values, such as latency; see `subnet` for a network that detects.

    Raises:
        NasrayError: If the run has no trained supernet.
    """
    evaluator = _evaluator(run)
    described = Checkpoint.load(evaluator.supernet, shared=True)
    network = described.network()
    return described, lambda entry: extract_network(
        network, evaluator.space.from_architecture(entry.architecture), described
    )


def trained_checkpoint(what: str | Path, budget: Budget | None = None) -> Path:
    """Return the file of the trained network that a user names, taken out of a supernet first where it must be.

    Args:
        what: Checkpoint, folder of a training, or of a run. Of a run whose winner was not trained by itself, but found
            in a supernet, the winner as it is in there.
        budget: Of a run, take the best within this budget instead of the winner.

    Raises:
        NasrayError: If there is none, or it was not trained.
    """
    path = Path(what)
    chosen = find_within(str(what), budget) if budget is not None and budget.names else None
    if is_trained(path):
        file = checkpoint_path(path)
        if chosen is None or chosen.architecture in slots(Checkpoint.load(file, shared=True).architecture).values():
            return file
    if not has_supernet(path):
        if chosen is None:
            return checkpoint_path(path)
        raise NasrayError(
            f"{chosen.id}, the best within {budget}, was not trained, and {path} has no supernet to take it from. "
            "Train it: `nasray front` prints its architecture, and `nasray train FILE` takes that"
        )
    run = RunFolder.open(path)
    if not run.is_finished():
        raise NasrayError(f"the search in {path} is not finished. `nasray resume {path}` continues it")
    chosen = chosen or run.read_entries()[0]
    to = path / FOLDER / f"{chosen.id}.pt"
    subnet(run, chosen, to)
    return to


def is_trained(path: Path) -> bool:
    """Return whether there is a checkpoint at a path: a file, that of a training, or of a run's trained winner."""
    try:
        checkpoint_path(path)
    except NasrayError:
        return False
    return True


def has_supernet(path: Path) -> bool:
    """Return whether a path is the folder of a run whose architectures are paths of a supernet."""
    run = RunFolder(path)
    if not run.is_run():
        return False
    content = run.description().get("experiment")
    if not isinstance(content, dict):
        return False
    stages = content.get("stages")
    own = stages.get(SEARCH) if isinstance(stages, dict) else None  # what it leaves out is the experiment's
    evaluator = (own.get("evaluator") if isinstance(own, dict) else None) or content.get("evaluator")
    return isinstance(evaluator, dict) and evaluator.get("name") == "path"


def fingerprint(path: Path) -> str:
    """Return what tells a checkpoint from any other: a digest of the checksums of its tensors, which it carries.

    Raises:
        NasrayError: If it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted((info.filename.partition("/")[2], info.CRC, info.file_size) for info in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise NasrayError(f"{path} is no checkpoint, or damaged: {error}. Take another of its folder") from error
    return hashlib.sha256(repr(members).encode()).hexdigest()


def _evaluator(run: RunFolder) -> PathEvaluator:
    plan = plan_of_run(run)
    if isinstance(plan.parts.evaluator, PathEvaluator):
        evaluator = plan.search.parts_at(site_of(run, plan)).evaluator
        assert isinstance(evaluator, PathEvaluator)
        return evaluator
    raise NasrayError(f"{run.path} has no supernet: its architectures are not trained. Train one: `nasray train`")
