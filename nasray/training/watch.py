"""Stops a training at the first loss that is not finite, and says which images it came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from nasray.cluster import write_atomic
from nasray.cluster.files import to_json
from nasray.spaces import NasrayError

SHOWN = 20
"""Images that a message names at most."""


class LossWatch:
    """Looks at the losses of every iteration, on a GPU one iteration late, so that the device need not be waited for.

    All workers call it with the same iterations, and raise at the same one.

    Args:
        folder: Folder of the training.
        describe: File and id of an image, from its position in the data set.
        rank: Rank of this worker.
    """

    def __init__(self, folder: Path, describe: Callable[[int], str], rank: int) -> None:
        self.folder, self.describe, self.rank = folder, describe, rank
        self.waiting: tuple[Tensor, Any, dict[str, Any]] | None = None

    def add(
        self, iteration: int, names: Sequence[str], own: Tensor, mean: Tensor, norm: Tensor, indices: Tensor
    ) -> None:
        """Look at an iteration.

        Args:
            iteration: Iteration from 1.
            names: Names of L losses.
            own: (L,) of this worker.
            mean: (L,) over all workers.
            norm: The scalar norm of the gradient; 0 where it may be infinite.
            indices: (B,) images of this worker, by position in the data set.

        Raises:
            NasrayError: if a loss or the norm of this iteration, or on a GPU of the one before, is not finite.
        """
        self.check()
        is_finite = torch.cat([mean, norm[None]]).isfinite().all()
        done = None
        if is_finite.is_cuda:
            is_finite = is_finite.to("cpu", non_blocking=True)
            done = torch.cuda.Event()
            done.record()
        facts = {"iteration": iteration, "names": names, "own": own, "mean": mean, "indices": indices}
        self.waiting = is_finite, done, facts
        if done is None:
            self.check()

    def is_sound(self) -> bool:
        """Return whether what has been added and was not looked at yet is finite; nothing is told to other workers."""
        if self.waiting is None:
            return True
        is_finite, done, _ = self.waiting
        if done is not None:
            done.synchronize()
        return bool(is_finite)

    def check(self) -> None:
        """Look at what has been added and was not looked at yet.

        Raises:
            NasrayError: if it is not finite.
        """
        if self.waiting is None:
            return
        is_sound, (_, _, facts) = self.is_sound(), self.waiting
        self.waiting = None
        if not is_sound:
            self._stop(facts)

    def _stop(self, facts: dict[str, Any]) -> None:
        own = {
            "worker": self.rank,
            "is_finite": bool(facts["own"].isfinite().all()),
            "losses": dict(zip(facts["names"], map(str, facts["own"].tolist()), strict=True)),
            "indices": facts["indices"].tolist(),
        }
        workers: list[Any] = [own]
        if distributed.is_available() and distributed.is_initialized():
            workers = [None] * distributed.get_world_size()
            distributed.all_gather_object(workers, own)
        culprits = [worker for worker in workers if not worker["is_finite"]]
        what = "the loss is not finite" if culprits else "the gradient is not finite, although the loss is"
        culprits = culprits or workers
        losses = ", ".join(f"{name} {value}" for name, value in culprits[0]["losses"].items())
        indices = [index for worker in culprits for index in worker["indices"]]
        images = ", ".join(map(self.describe, indices[:SHOWN])) + (", ..." if len(indices) > SHOWN else "")
        path = self.folder / "non-finite.json"
        if self.rank == 0:
            content = {"iteration": facts["iteration"], "workers": workers}
            write_atomic(path, to_json(content, indent=1).encode())
        raise NasrayError(
            f"iteration {facts['iteration']}: {what} ({losses}). Images of the batch: {images}; see {path}. What was "
            "saved is from before it. Look at the annotations of these images; else begin again with a lower "
            "optimizer.learning_rate, a longer schedule.warmup_iterations, or a limit on the gradient (optimizer.clip)"
        )
