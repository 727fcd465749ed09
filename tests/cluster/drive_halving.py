"""Four trainings with halving, in a process of their own: `python drive_halving.py FOLDER PLACES`."""

import dataclasses
import json
import sys
import time
from pathlib import Path

from nasray.cluster import Resources, search_session
from nasray.cluster.files import write_atomic
from nasray.cluster.halving import Halving, run_halving
from nasray.cluster.training import Group
from nasray.cluster.trainings import run_jobs

END = 9
SCORES = {"seeds/0": (0.1, 0.9), "seeds/1": (0.3, 0.2), "seeds/2": (0.3, 0.4), "seeds/3": (0.2, 0.8)}
RUNGS = (3.0, 6.0)


@dataclasses.dataclass(frozen=True)
class Counting:
    """Takes nine steps, some seeds slower than others; what it reaches at a rung is known beforehand."""

    label: str
    rung: float | None

    def result(self, folder):
        path = folder / "state.json"
        step = json.loads(path.read_text())[0] if path.is_file() else 0
        if self.rung is None:
            return {} if (folder / "summary.json").is_file() else None
        return {"mAP": SCORES[self.label][RUNGS.index(self.rung)]} if step >= self.rung else None

    def train(self, folder, worker):
        folder.mkdir(parents=True, exist_ok=True)
        path, seed = folder / "state.json", int(self.label[-1])
        step, total = json.loads(path.read_text()) if path.is_file() else (0, 0)
        while step < (self.rung or END):
            time.sleep(0.1 * (1 + (7 * seed) % 3))
            step, total = step + 1, total + seed * step
            write_atomic(path, json.dumps([step, total]).encode())
            worker.progress(step, END, "")
            yield {"total": total}
        if self.rung is None:
            write_atomic(folder / "summary.json", json.dumps({"total": total}).encode())


if __name__ == "__main__":
    root, places = Path(sys.argv[1]), int(sys.argv[2])

    def run_to(labels, rung):
        found = run_jobs([Counting(label, rung) for label in labels], root, group=Group(cpus=4 / places))
        return {label: metrics.get("mAP", 0.0) for label, metrics in found.items()}

    with search_session(Resources(local_cpus=4)):
        left = run_halving(list(SCORES), Halving(RUNGS), root, run_to)
    print(json.dumps(left), flush=True)
