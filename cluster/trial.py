"""One trial: a batch of architectures, evaluated by an actor that is used again for the next."""

from __future__ import annotations

import base64
import contextlib
import faulthandler
import os
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ray import tune

from nasray.cluster.files import to_json
from nasray.cluster.reading import parse_json
from nasray.cluster.resources import hide_unassigned_gpus
from nasray.searchers import Metrics
from nasray.spaces import Population


class Evaluator(Protocol):
    """Turns a batch of architectures into metrics.

    It is pickled once, sent to every node, and then called in the trial actors. The same architecture must get the
    same metrics wherever and whenever it is evaluated; random numbers come from (seed, architecture id).
    """

    def __call__(self, genes: Population) -> Metrics:
        """Return metrics of (N, G) valid rows: each an (N,) float array. NaN means that there is no value."""
        ...


def pack(arrays: dict[str, NDArray[Any]]) -> str:
    """Return arrays as a short text, so that Tune's records stay small."""
    head = to_json([[name, array.dtype.str, array.shape] for name, array in arrays.items()])
    content = b"".join([head.encode(), b"\n", *(array.tobytes() for array in arrays.values())])
    return base64.b64encode(zlib.compress(content, 1)).decode()


def unpack(text: str) -> dict[str, NDArray[Any]]:
    """Return the arrays in a text of `pack`; nothing of it is run.

    Raises:
        ValueError: if it is another text.
    """
    try:
        head, _, content = zlib.decompress(base64.b64decode(text)).partition(b"\n")
        arrays, offset = {}, 0
        for name, dtype, shape in parse_json(head.decode(), "packed arrays"):
            array = np.frombuffer(content, dtype, count=int(np.prod(shape)), offset=offset).reshape(shape)
            arrays[name], offset = array.copy(), offset + array.nbytes
    except (TypeError, zlib.error) as error:
        raise ValueError(f"not packed arrays: {error}") from error
    return arrays


def pack_genes(genes: Population) -> str:
    """Return (N, G) rows as a short text."""
    small = len(genes) == 0 or genes.max() < 2**15
    return pack({"genes": genes.astype(np.int16 if small else np.int64)})


def checked_metrics(metrics: Any, num: int) -> Metrics:
    """Return what an evaluator returned, as (num,) float arrays.

    Raises:
        TypeError, ValueError: if it is something else; the message is for the evaluator's author.
    """
    if not isinstance(metrics, dict) or not metrics:
        raise TypeError(f"an evaluator returns a dict of metrics, got {type(metrics).__name__}")
    arrays = {str(name): np.asarray(values, dtype=np.float64) for name, values in metrics.items()}
    for name, values in arrays.items():
        if values.shape != (num,):
            raise ValueError(f"metric {name!r} must have shape ({num},), one value a row; got {values.shape}")
    return arrays


@contextlib.contextmanager
def ended_after(seconds: float | None) -> Iterator[None]:
    """End this process if what follows takes longer, wherever it hangs: the thread that does so needs no Python.

    The tracebacks of all threads are in the process's log, which says `Timeout`.

    Args:
        seconds: Limit of time; none if None.
    """
    if seconds is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class BatchTrial(tune.Trainable):
    """Evaluates the batch in its config, once, and is done."""

    def setup(self, config: dict[str, Any], evaluator: Evaluator | None = None, timeout_s: float | None = None) -> None:
        """Take the evaluator (once for each actor), its limit of time for a batch, and the first batch."""
        hide_unassigned_gpus()
        self.evaluator, self.timeout_s = evaluator, timeout_s
        self.batch = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next batch; the evaluator, with all that it has loaded, stays."""
        self.batch = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Evaluate."""
        assert self.evaluator is not None
        genes = unpack(self.batch["genes"])["genes"].astype(np.int64)
        started = time.time()
        with ended_after(self.timeout_s):
            metrics = checked_metrics(self.evaluator(genes), len(genes))
        return {
            "done": True,
            "batch": self.batch["batch"],
            "metrics": pack(metrics),
            "started": started,
            "seconds": time.time() - started,
            "host": socket.gethostname(),
            "process": os.getpid(),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing: a batch is evaluated whole or again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Load nothing."""
