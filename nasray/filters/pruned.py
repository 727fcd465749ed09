"""What a pruning left of a space, as the file pruned.json beside the filter that it was made with.

It is read without PyTorch: a search restricts its space by it, a training also passes over paths that the filter, which
it finds beside the file, scores below the thresholds.

Shapes: G genes, K buckets, P operations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nasray.cluster import write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.reading import read_bytes
from nasray.cluster.records import PrunedRecord, read_record
from nasray.spaces import CostFunction, Forbidden, NasrayError, RestrictedSpace, Space

FILTER = "filter.pt"
"""File of a path filter in the folder of the stage that fitted it, or that pruned with it."""
PRUNED = "pruned.json"
"""File of a pruning in the folder of its stage."""
FORMAT = 1
REMEDY = "Restore it, or prune anew"

Strategy = Literal["flops", "score-bucket", "score-all"]
State = Literal["pruned", "kept", "spared"]
Operation = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class PrunedOperation:
    """An operation as a pruning saw it.

    Attributes:
        operation: Combination of gene values.
        score: Mean score of paths with it.
        cost: Mean cost of them.
        bucket: Bucket of that cost.
        state: "pruned", "kept", or "spared": it was to be pruned, and something would have lost its last choice.
    """

    operation: Operation
    score: float
    cost: float
    bucket: int
    state: State

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON-serializable dict."""
        return {
            "operation": dict(self.operation),
            "score": self.score,
            "cost": self.cost,
            "bucket": self.bucket,
            "state": self.state,
        }


def forbidden_of(operations: Sequence[PrunedOperation]) -> Forbidden:
    """Return the combinations that are pruned, for a `RestrictedSpace`."""
    return tuple(one.operation for one in operations if one.state == "pruned")


def restricted(space: Space, forbidden: Forbidden) -> Space:
    """Return the space without forbidden combinations; itself where there are none."""
    return RestrictedSpace(space, forbidden) if forbidden else space


@dataclass(frozen=True)
class Pruned:
    """A pruning.

    Attributes:
        cost: Cost that the buckets are of.
        edges: (K + 1,) edges of the buckets.
        operations: (P,) all operations of the space, pruned or not.
        thresholds: (K,) score of each bucket below which paths are passed over; None of a bucket without paths.
        path_filter: File of the path filter whose scores these are.
        measured: What else is known: plain values.
    """

    cost: str
    edges: tuple[float, ...]
    operations: tuple[PrunedOperation, ...]
    thresholds: tuple[float | None, ...]
    path_filter: Path
    measured: Mapping[str, Any]

    @property
    def forbidden(self) -> Forbidden:
        """The combinations of gene values that no architecture may have."""
        return forbidden_of(self.operations)

    def restricted(self, space: Space) -> Space:
        """Return the space without the operations that are pruned; itself where there are none."""
        return restricted(space, self.forbidden)


def write_pruned(path: Path, space: Space, pruned: Pruned) -> None:
    """Write a pruning of a space beside its filter, whole or not at all.

    Args:
        path: File to write, in the folder of the filter, whose name is `FILTER`.
        space: Space that was pruned.
        pruned: The pruning.

    Raises:
        NasrayError: if the filter cannot be read, the disk is full, or the folder cannot be written.
    """
    content = {
        "format": FORMAT,
        "space": described_space(space),
        "filter": _digest(pruned.path_filter),
        "cost": pruned.cost,
        "edges": list(pruned.edges),
        "thresholds": list(pruned.thresholds),
        "measured": dict(pruned.measured),
        "operations": [operation.to_json() for operation in pruned.operations],
    }
    write_atomic(path, to_json(content, indent=1).encode())


def read_pruned(path: str | Path, space: Space, *, cost: CostFunction | None = None) -> Pruned:
    """Read a pruning of a space.

    Args:
        path: Its file; the filter is beside it.
        space: Space that it is of, or one that has the same genes and networks.
        cost: Function that returns the cost of the buckets; the space's own if left out.

    Raises:
        NasrayError: if it is missing, damaged, of a newer version or another space, its cost is not counted here, or
            the filter beside it is not the one that it was made with.
    """
    path = Path(path)
    content = read_record(path, PrunedRecord, REMEDY)
    if content["format"] > FORMAT:
        raise NasrayError(f"{path} is of a newer version of nasray, which must read it")
    if content["space"] != described_space(space):
        raise NasrayError(
            f"{path} pruned another space: {content['space']}; this one is {described_space(space)}. Prune this one"
        )
    names = list((cost or space.cost)(np.empty((0, space.num_genes), dtype=np.int64)))
    if content["cost"] not in names:
        raise NasrayError(f"{path} has buckets of {content['cost']}; here there are: {', '.join(names) or 'no costs'}")
    path_filter = path.with_name(FILTER)
    if _digest(path_filter) != content["filter"]:
        raise NasrayError(f"{path_filter} is not the filter that {path} was made with. Restore it, or prune anew")
    operations = tuple(
        PrunedOperation(**{**one, "operation": tuple(one["operation"].items())}) for one in content["operations"]
    )
    found = Pruned(
        content["cost"],
        tuple(content["edges"]),
        operations,
        tuple(content["thresholds"]),
        path_filter,
        content["measured"],
    )
    if len(found.thresholds) != len(found.edges) - 1:
        raise NasrayError(f"{path} has {len(found.thresholds)} thresholds for {len(found.edges) - 1} buckets. {REMEDY}")
    found.restricted(space)  # its genes and values are those of the space
    return found


def described_space(space: Space) -> dict[str, Any]:
    """Return what spaces have in common whose architectures one filter ranks: family, networks, and resolutions."""
    sizes = {"resolutions": [list(size) for size in space.resolutions]} if space.resolutions else {}
    return {"family": space.family, **space.network_options(), **sizes}


def _digest(path: Path) -> str:
    return hashlib.sha256(read_bytes(path)).hexdigest()
