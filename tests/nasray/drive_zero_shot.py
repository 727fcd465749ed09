"""Digests of the searches of shipped zero-shot experiments, in short and without Ray: a program for tests.

Usage: drive_zero_shot.py EVALUATIONS NAME[:SEED]...
"""

import hashlib
import json
import sys

import numpy as np

from nasray.loading import load_plan


def history_digest(name: str, evaluations: int) -> str:
    """Everything that a history holds, in the order told."""
    name, _, seed = name.partition(":")
    parts = load_plan(name, ["--evaluations", str(evaluations), "--seed", seed or "0"]).parts
    searcher, evaluator = parts.searcher, parts.evaluator
    digest = hashlib.sha256()
    for _ in range(8):
        proposal = searcher.ask(evaluations // 8)
        metrics = evaluator(proposal.genes)
        searcher.tell(proposal.genes, metrics)
        costs = searcher.cost(proposal.genes)
        for values in (proposal.genes, proposal.parents, *metrics.values(), *costs.values()):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    digests = {name: history_digest(name, int(sys.argv[1])) for name in sys.argv[2:]}
    assert "torch" not in sys.modules  # whose kernels differ between processors
    print(json.dumps(digests))
