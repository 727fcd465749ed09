"""Subnets: paths of a supernet taken out of it, as networks by themselves and as ordinary checkpoints.

A subnet is prepared as the search prepares it (fine-tuned where the search does, with batch norm statistics of its
own), so it has the score that the search found. To evaluate, predict and export it, nothing needs to know that there
was a supernet.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from nasray.architectures import resolution_of, slots
from nasray.checkpoint import Checkpoint, checkpoint_path
from nasray.cluster import RunFolder
from nasray.cluster.leaders import Entry
from nasray.cluster.progress import say
from nasray.devices import computing_threads
from nasray.evaluators import PathEvaluator
from nasray.extraction import in_place_of_supernet, network_of_path
from nasray.finding import find_within, recipe_names
from nasray.loading import plan_of_run
from nasray.recipe import at_resolution, of_one_path
from nasray.spaces import Budget, NasrayError
from nasray.spaces.resolutions import network_genes
from nasray.stages import SEARCH, site_of

FOLDER = "subnets"
"""Folder of a run's subnets."""
RECORD = "subnet"
"""Key of a subnet's checkpoint, in `training`, under which stands what it was taken from."""


def subnet(run: RunFolder, entry: Entry, to: Path) -> Checkpoint:
    """Take an architecture of a run's search out of its supernet and save it as an ordinary checkpoint.

    It is prepared as the search's evaluator does: fine-tuned where that is asked for, with batch norm statistics from
    the same images. A file that is there already is taken if it is of the same supernet.

    Args:
        run: Run with a trained supernet.
        entry: Evaluated architecture of it.
        to: File to write.

    Raises:
        NasrayError: If the run has no trained supernet, or its data cannot be read.
    """
    evaluator = path_evaluator(run)
    record = {
        "supernet": fingerprint(Path(evaluator.supernet)),
        "images": evaluator.images,
        "batch_size": evaluator.batch_size,
        "threads": evaluator.threads,
    }
    if evaluator.precision is not None:
        record["precision"] = evaluator.precision
    if evaluator.finetune is not None:
        record |= {"finetune": dataclasses.asdict(evaluator.finetune), "seed": evaluator.seed}
    if to.is_file():
        found = Checkpoint.load(to)
        if entry.architecture in slots(found.architecture).values() and found.training.get(RECORD) == record:
            return found
    tuned = f", fine-tuned for {evaluator.finetune.iterations} steps" if evaluator.finetune else ""
    counted = f", with statistics of {evaluator.images} images" if evaluator.images else ""
    say(f"taking path {entry.id} out of the supernet{tuned}{counted}")
    described = Checkpoint.load(evaluator.supernet, shared=True)
    row = evaluator.space.from_architecture(entry.architecture)
    with computing_threads(evaluator.threads):
        network = evaluator.loaded.standalone(row)
    named: dict[str, Any] = {**recipe_names(entry.architecture)}
    recipe = at_resolution(of_one_path(described.recipe), resolution_of(entry.architecture))
    checkpoint = dataclasses.replace(
        described,
        recipe=dataclasses.replace(recipe, **named),
        architecture=in_place_of_supernet(described.architecture, entry.architecture),
        model={name: value.cpu() for name, value in network.state_dict().items()},
        metrics={},
        training={RECORD: record},
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(to)
    return checkpoint


def path_networks(run: RunFolder) -> tuple[Checkpoint, Callable[[Entry], nn.Module]]:
    """Return the checkpoint of a run's supernet, and what takes the network of an entry's path out of it.

    No data are opened: statistics of batch norms are those that the supernet's training left, which are no path's. A
    path that cannot be taken out, as some of a relaxed head, is a network with fresh weights. For what does not depend
    on values, such as latency; see `subnet` for a network that detects.

    Raises:
        NasrayError: If the run has no trained supernet.
    """
    evaluator = path_evaluator(run)
    described = Checkpoint.load(evaluator.supernet, shared=True)
    network = described.network()
    space = evaluator.space

    def network_of(entry: Entry) -> nn.Module:
        row = space.from_architecture(entry.architecture)
        return network_of_path(network, network_genes(space, row), described)

    return described, network_of


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


def path_evaluator(run: RunFolder) -> PathEvaluator:
    """Return the evaluator of a run's search, which measures paths of its supernet.

    Raises:
        NasrayError: If the run has no supernet.
    """
    plan = plan_of_run(run)
    if isinstance(plan.parts.evaluator, PathEvaluator):
        evaluator = plan.search.parts_at(site_of(run, plan)).evaluator
        assert isinstance(evaluator, PathEvaluator)
        return evaluator
    raise NasrayError(f"{run.path} has no supernet: its architectures are not trained. Train one: `nasray train`")


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
