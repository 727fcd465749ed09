"""Trainings in a process of their own, for tests that end some: `python drive_training.py FOLDER SCENARIO...`."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from nasray.cluster import ray_session
from nasray.cluster.resources import Resources
from nasray.cluster.training import Group, run_training
from nasray.spaces import NasrayError

STEPS = 12


def loop(config, worker):
    """Add up over workers, with a checkpoint each second step; `config` says what happens from step 7 on."""
    import torch
    from torch import distributed

    folder, event = Path(config["folder"]), config.get("event")
    state = json.loads((folder / "state.json").read_text()) if (folder / "state.json").exists() else [0, 0]
    step, total = state
    with open(folder / f"starts-{worker.rank}", "a") as file:
        file.write(f"{step} {torch.get_num_threads()}\n")
    worker.say(f"goes on from {step}")
    while step < STEPS:
        value = torch.tensor(float(worker.rank + 1) * (step + 1))
        if distributed.is_initialized():  # Ray makes no group of a single worker
            distributed.all_reduce(value)
        step, total = step + 1, total + value.item()
        is_victim = (worker.rank == 1 and event == "kill") or event == "alone"
        if step == 7 and is_victim and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if event == "slow" or (event == "kill" and step > 7):
            time.sleep(0.8)  # so that what is to happen happens before the end
        stop = worker.should_stop()
        if worker.rank == 0 and (step % 2 == 0 or stop):
            (folder / "state.json").write_text(json.dumps([step, total]))
        if stop:
            raise NasrayError(f"stopped after {step}")
        worker.progress(step, STEPS, f"total {total:g}")


def run(folder, **config):
    folder.mkdir(exist_ok=True)
    group = Group(workers=1 if config.get("event") == "alone" else 2, retries=1)
    run_training(loop, {"folder": str(folder), **config}, folder=folder, group=group)


if __name__ == "__main__":
    root, scenarios = Path(sys.argv[1]), sys.argv[2:]
    with ray_session(Resources(local_cpus=2)):
        for scenario in scenarios:
            try:
                run(root / scenario, event=scenario)
            except (NasrayError, KeyboardInterrupt) as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
