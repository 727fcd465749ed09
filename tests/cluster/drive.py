"""A search in a process of its own, for tests that kill it.

    drive.py FOLDER EVALUATIONS IN_FLIGHT SECONDS RETRIES CPUS

`NASRAY_TEST_KILL=FUNCTION:N` ends it by SIGKILL at the Nth call of one of the functions by which Tune writes; see
`KILLS`. What a trial meets lies beside the folder: `suicide`, `suicide-between-batches`, `hang`, `broken`.
`NASRAY_TEST_TIMEOUT=SECONDS` limits the time of a trial.
"""

import contextlib
import importlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import ray

import nasray
from nasray.cluster import Resources
from nasray.cluster.trial import BatchTrial
from nasray.searchers import Evolution


class Grid(nasray.Space):
    family = "grid"
    genes = tuple(nasray.Gene(f"g{i}", tuple(range(12))) for i in range(6))

    def cost(self, population):
        return {"size": population.sum(axis=1).astype(float)}


def kinds(base):
    """A class and all that inherit from it: Tune and Ray copy a trial's methods into classes of their own."""
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


class Slow:
    """Sleeps, appends what it evaluated to a log, dies once where it is told to: in a batch or before the next."""

    def __init__(self, seconds: float, log: str) -> None:
        self.seconds, self.log = seconds, log

    def __call__(self, genes):
        time.sleep(self.seconds * len(genes) * (1 + genes[0, 0] % 3))  # uneven, so that batches overtake each other
        suicide = Path(self.log).with_name("suicide")
        if suicide.exists():
            suicide.unlink()
            os._exit(1)
        suicide = Path(self.log).with_name("suicide-between-batches")
        if suicide.exists():
            suicide.unlink()
            for kind in kinds(BatchTrial):
                kind.reset_config = lambda trial, config: os._exit(1)
        hang = Path(self.log).with_name("hang")
        if hang.exists():
            hang.unlink()
            time.sleep(600)
        if Path(self.log).with_name("broken").exists():
            raise RuntimeError("no luck with this batch")
        cpus = ray.get_runtime_context().get_assigned_resources().get("CPU", 0) if ray.is_initialized() else 0
        with contextlib.suppress(OSError), open(self.log, "a") as file:  # the log is the test's: the disk may be full
            file.write(f"{os.getpid()} {len(genes)} {cpus:g}\n")
        return {"score": -((genes - np.arange(6)) ** 2).sum(axis=1) / 7.0}


def drive(folder: str, evaluations: int, in_flight: int, seconds: float, retries: int = 5, cpus: float = 1.0) -> dict:
    timeout = os.environ.get("NASRAY_TEST_TIMEOUT")
    space = Grid()
    searcher = Evolution(
        space, population_size=16, mutation=0.5, crossover=0.4, seed=5, budget=nasray.Budget({"size": 50.0})
    )
    return nasray.search(
        space,
        Slow(seconds, f"{folder}.log"),
        folder=folder,
        searcher=searcher,
        evaluations=evaluations,
        batch_size=8,
        in_flight=in_flight,
        resources=Resources(
            local_cpus=2, retries=retries, cpus=cpus, timeout_s=None if timeout is None else float(timeout)
        ),
        resume=Path(folder).exists(),
    )


KILLS = {
    "save-trials": "ray.tune.execution.tune_controller:TuneController.save_to_dir",
    "save-generator": "ray.tune.search.search_generator:SearchGenerator.save_to_dir",
    "save-searcher": "nasray.cluster.adapter:TuneSearchAlgorithm.save",
    "sign": "nasray.cluster.adapter:sign",
    "copy": "ray.train._internal.storage:_upload_to_fs_path",
    "tuner": "ray.tune.impl.tuner_internal:TunerInternal.__getstate__",
    "restore": "nasray.cluster.adapter:BatchGenerator.restore_from_dir",
    "history": "nasray.cluster.run_folder:RunFolder.write_batch",
    "record": "nasray.cluster.run_folder:RunFolder.write_trial",
    "show": "nasray.cluster.recorder:Recorder.show",
}


def die_at(name: str, calls: int) -> None:
    """Let the Nth call of a function end this process: before its work where N is even, after it where N is odd."""
    module_name, _, path = KILLS[name].partition(":")
    owner = importlib.import_module(module_name)
    *parents, last = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    function, made = getattr(owner, last), 0

    def replaced(*args, **options):
        nonlocal made
        made += 1
        if made == calls and calls % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **options)
        if made == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, last, replaced)


def die_in_copy(calls: int) -> None:
    """Let the copying of Tune's states end this process in the middle of the Nth file of the last set."""
    from ray.train._internal import storage

    def torn(local_path, fs, fs_path, exclude=None):
        files = sorted(path for path in Path(local_path).iterdir() if path.is_file())
        if len(list(Path(fs_path).glob("signature-*"))) == 0 or calls > len(files):
            return copy(local_path, fs, fs_path, exclude)
        for number, path in enumerate(files, start=1):
            content = path.read_bytes()
            (Path(fs_path) / path.name).write_bytes(content[: len(content) // 2] if number == calls else content)
            if number == calls:
                os.kill(os.getpid(), signal.SIGKILL)

    copy, storage._upload_to_fs_path = storage._upload_to_fs_path, torn


if __name__ == "__main__":
    if order := os.environ.get("NASRAY_TEST_KILL"):
        function, _, count = order.partition(":")
        if function == "torn-copy":
            die_in_copy(int(count))
        else:
            die_at(function, int(count))
    folder, evaluations, in_flight, seconds, retries, cpus = sys.argv[1:]
    try:
        drive(folder, int(evaluations), int(in_flight), float(seconds), int(retries), float(cpus))
    except nasray.NasrayError as error:  # as the command line does
        sys.exit(f"nasray: {error}")
