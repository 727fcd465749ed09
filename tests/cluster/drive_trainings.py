"""Several trainings in a process of their own: `python drive_trainings.py FOLDER EVENT`."""

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from nasray.cluster import Resources, search_session
from nasray.cluster.files import write_atomic
from nasray.cluster.training import Group
from nasray.cluster.trainings import run_jobs
from nasray.spaces import NasrayError

STEPS = 9


@dataclasses.dataclass(frozen=True)
class Counting:
    """Adds up its seed; a validation, which is a checkpoint, every third step. `event` says what happens at step 4."""

    label: str
    seed: int
    event: str = ""

    def result(self, folder):
        path = folder / "summary.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def train(self, folder, worker):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "state.json"
        step, total = json.loads(path.read_text()) if path.is_file() else (0, 0)
        with open(folder / "starts", "a") as file:
            file.write(f"{step}\n")
        worker.say(f"from {step}")
        while step < STEPS:
            step, total = step + 1, total + self.seed * step
            if self.event == "slow":
                time.sleep(0.4)
            if step == 4 and self.event == "kill" and not (folder / "killed").exists():
                (folder / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if step == 4 and self.event == "mistake":
                raise NasrayError(f"seed {self.seed} is not to be trained. Choose another")
            if step == 4 and self.event == "crash":
                raise KeyError("boxes")
            worker.progress(step, STEPS, f"total {total}")
            stop = worker.should_stop()
            if step % 3 == 0 or stop:
                write_atomic(path, json.dumps([step, total]).encode())
                yield {"total": total}
            if stop:
                raise NasrayError(f"stopped after {step}")
        write_atomic(folder / "summary.json", json.dumps({"total": total, "seed": self.seed}).encode())


def jobs(event):
    if event == "bad":
        return [Counting("top/1-a", 1, "kill"), Counting("b", 2, "mistake"), Counting("c", 3, "crash")]
    return [Counting(f"{seed}", seed, event) for seed in range(1, 4)]


if __name__ == "__main__":
    root = Path(sys.argv[1])
    with search_session(Resources(local_cpus=2)):  # one for all
        for event in sys.argv[2:]:
            try:
                group = Group(cpus=1, retries=1)
                print(json.dumps(run_jobs(jobs(event), root / event, group=group)), flush=True)
            except (NasrayError, KeyboardInterrupt) as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
