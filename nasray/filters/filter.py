"""Path filters: which of the architectures that cost about the same are the better ones.

Shapes: N architectures, G genes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nasray.checkpoint import check_sums, read_tensors
from nasray.cluster import write_atomic
from nasray.cluster.files import to_json
from nasray.cluster.reading import parse_json, shown
from nasray.devices import computing_threads
from nasray.filters.network import FilterNetwork
from nasray.filters.options import FilterOptions
from nasray.filters.pruned import described_space
from nasray.spaces import CostFunction, NasrayError, Population, Space
from nasray.spaces.buckets import Buckets
from nasray.spaces.budget import cost_scope
from nasray.spaces.resolutions import common_size

FORMAT = 1
BATCH_SIZE = 256
"""Architectures that are scored at a time; larger batches leave a processor's cache."""
NUM_COUNTED = 4
"""Architectures by whose costs one sees whether a filter's buckets are of the same cost."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class PathFilter:
    """Ranks architectures of like cost; the higher its score, the better the architecture.

    Scores of different buckets do not compare.

    Args:
        space: Space of the architectures, or the one that it restricts.
        buckets: Buckets of their costs.
        options: What the network is.
        seed: Seed of its first weights.
        cost: Function that returns the cost of the buckets; the space's own if left out.
        threads: Threads that compute; on CPUs the last digits of a score depend on it.

    Attributes:
        network: The network, on the CPU.
        measured: What is known of its quality: plain values, kept with it.
    """

    def __init__(
        self,
        space: Space,
        buckets: Buckets,
        options: FilterOptions | None = None,
        *,
        seed: int = 0,
        cost: CostFunction | None = None,
        threads: int = 1,
    ) -> None:
        self.space, self.buckets, self.options = space, buckets, options or FilterOptions()
        self.cost, self.threads = cost or space.cost, threads
        self.measured: dict[str, Any] = {}
        tokens = space.tokens(np.empty((0, space.num_genes), dtype=np.int64))
        self.vocabulary, self.length = tokens.vocabulary, len(tokens.layer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = FilterNetwork(
                tokens.vocabulary,
                len(buckets),
                torch.from_numpy(tokens.layer),
                torch.from_numpy(tokens.block),
                **vars(self.options),
            ).eval()

    def bucket_of(self, population: Population) -> Ints:
        """Return (N,) the bucket of each of (N, G) rows."""
        costs = self.cost(population)
        if self.buckets.cost not in costs:
            raise NasrayError(
                f"the path filter's buckets are of {self.buckets.cost}; there are: {', '.join(costs) or 'no costs'}"
            )
        return self.buckets.of(costs[self.buckets.cost])

    def inputs(self, population: Population) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (N, L) tokens and (N,) buckets of (N, G) rows."""
        return torch.from_numpy(self.space.tokens(population).ids), torch.from_numpy(self.bucket_of(population))

    def __call__(self, population: Population) -> Floats:
        """Return (N,) scores of (N, G) rows: what comes before the network's sigmoid."""
        tokens, bucket = self.inputs(population)
        scores = np.empty(len(population))
        with torch.inference_mode(), computing_threads(self.threads):
            for begin in range(0, len(population), BATCH_SIZE):
                chunk = slice(begin, begin + BATCH_SIZE)
                scores[chunk] = self.network(tokens[chunk], bucket[chunk]).double().numpy()
        return scores

    def _counted(self) -> dict[str, Any]:
        """Return what its costs are of: in words, and by those of a few architectures."""
        size = common_size(self.space)
        at = f" at {size[0]}x{size[1]}" if size else ""
        rows = self.space.sample(NUM_COUNTED, np.random.default_rng(0))
        costs = self.cost(rows).get(self.buckets.cost, np.empty(0))
        return {"what": cost_scope(self.cost, self.space) + at, "genes": rows.tolist(), "costs": costs.tolist()}

    def _counts_as(self, counted: dict[str, Any]) -> bool:
        """Return whether its costs are those that `_counted` returned."""
        costs = self.cost(np.array(counted["genes"], dtype=np.int64)).get(self.buckets.cost, np.empty(0))
        return len(costs) == len(counted["costs"]) and bool(np.allclose(costs, counted["costs"], rtol=1e-9, atol=0))

    # ---- on disk --------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            NasrayError: If the disk is full or the folder cannot be written.
        """
        about = {
            "space": described_space(self.space),
            "cost": self.buckets.cost,
            "counted": self._counted(),
            "edges": list(self.buckets.edges),
            "options": vars(self.options),
            "measured": self.measured,
        }
        content = {
            "format": FORMAT,
            "kind": "path filter",
            "about": to_json(about),  # a text: how equal values are pickled depends on which of them are one object
            "network": self.network.state_dict(),
        }
        write_atomic(path, lambda file: torch.save(content, file))

    @classmethod
    def load(
        cls,
        path: Path,
        space: Space,
        *,
        cost: CostFunction | None = None,
        threads: int = 1,
        otherwise: Callable[[Buckets], Buckets] | None = None,
    ) -> PathFilter:
        """Read a path filter of a space.

        Args:
            path: File of the filter.
            space: Space whose architectures it ranks; it may restrict the one that the filter was fitted on.
            cost: As of `PathFilter`.
            threads: As of `PathFilter`.
            otherwise: Function that returns as many buckets in place of its own, where they are of something else than
                `cost`; for a filter that is to be fitted further.

        Raises:
            NasrayError: If it is missing, damaged, no path filter, of a newer version or another space, or its buckets
                are of something else than `cost`.
        """
        try:
            check_sums(path)
            content = read_tensors(path)
        except ValueError as error:
            raise NasrayError(f"{path} is no path filter, or damaged: {error}. Fit it anew") from error
        except OSError as error:
            raise NasrayError(f"{path} cannot be read: {error.strerror}. Check that it is there") from error
        if not isinstance(content, dict) or content.get("kind") != "path filter":
            raise NasrayError(f"{path} is no path filter. Name the file that a stage of kind fit-filter wrote")
        if content["format"] > FORMAT:
            raise NasrayError(f"{path} is of a newer version of nasray, which must read it")
        about, own = parse_json(content["about"], shown(path)), parse_json(to_json(described_space(space)), "space")
        if about["space"] != own:
            raise NasrayError(f"{path} was fitted on another space: {about['space']}; this one is {own}")
        buckets = Buckets(about["cost"], tuple(about["edges"]))
        found = cls(space, buckets, FilterOptions(**about["options"]), cost=cost, threads=threads)
        if not found._counts_as(about["counted"]):
            if otherwise is None:
                raise NasrayError(
                    f"{path} has buckets of the {buckets.cost} of {about['counted']['what']}; counted here: "
                    f"{found._counted()['what']}. Count the same, or fit a filter here"
                )
            found.buckets = otherwise(buckets)
        found.network.load_state_dict(content["network"])
        found.measured = about["measured"]
        return found
