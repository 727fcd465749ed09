"""What several cluster tests need."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

DRIVE = Path(__file__).with_name("drive.py")


def load_drive():
    spec = importlib.util.spec_from_file_location("drive", DRIVE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["drive"] = module
    spec.loader.exec_module(module)
    return module


def start(folder, *, evaluations=160, in_flight=2, seconds=0.01, retries=5):
    command = [sys.executable, str(DRIVE), str(folder), str(evaluations), str(in_flight), str(seconds), str(retries)]
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    return subprocess.Popen(command, stdout=pipe, stderr=out, text=True, start_new_session=True)


def num_parts(folder) -> int:
    return len(list((Path(folder) / "history").glob("*.parquet")))


def wait_until(condition, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1.5)  # Ray's own processes follow their driver within a second


def finish(process):
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


def history_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted((Path(folder) / "history").glob("*"))}


def uninterrupted(folder, *, evaluations=160, in_flight=2):
    """The same search without Ray: batches one after another in this process."""
    from nasray.cluster import OrderedSearch, RunFolder
    from nasray.cluster.recorder import Recorder

    drive = load_drive()
    space = drive.Grid()
    searcher = drive.Evolution(
        space, population_size=16, mutation=0.5, crossover=0.4, seed=5, budget=drive.nasray.Budget({"size": 50.0})
    )
    search = OrderedSearch(searcher, evaluations=evaluations, batch_size=8, in_flight=in_flight)
    recorder = Recorder(RunFolder.create(folder, {}), search)
    evaluate = drive.Slow(0.0, f"{folder}.log")
    search.fill()
    while not search.is_finished:  # as search.run does, and shows each batch too
        index, proposal = next(iter(search.pending.items()))
        for batch in search.receive(index, evaluate(proposal.genes)):
            recorder.write(batch, {"batch": batch.index})
            search.tell(batch)
            recorder.show(batch)
    recorder.finish()
    return history_bytes(folder)
