"""What several cluster tests need."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

DRIVE = Path(__file__).with_name("drive.py")


def load_drive(name="drive"):
    spec = importlib.util.spec_from_file_location(name, DRIVE.with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def start(folder, *, evaluations=160, in_flight=2, seconds=0.01, retries=5, cpus=1, **environment):
    command = [sys.executable, str(DRIVE), *map(str, (folder, evaluations, in_flight, seconds, retries, cpus))]
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    environment = {**os.environ, **environment}
    return subprocess.Popen(command, stdout=pipe, stderr=out, text=True, start_new_session=True, env=environment)


def num_tune_trials(folder) -> dict[str, int]:
    """Trials in the newest state of each of Tune's folders; what is just being written is passed over."""
    numbers = {}
    for path in sorted((Path(folder) / "tune").glob("search-*/experiment_state-*.json")):
        with contextlib.suppress(json.JSONDecodeError):
            numbers[path.parent.name] = len(json.loads(path.read_text())["trial_data"])
    return numbers


def points(folder, tag="score/best") -> list[tuple[int, float]]:
    """Steps and values that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(Path(folder) / "tensorboard"))
    events.Reload()
    return [(point.step, point.value) for point in events.Scalars(tag)]


def num_parts(folder) -> int:
    return len(list((Path(folder) / "history").glob("*.parquet")))


def wait_until(condition, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def kill(process):
    with contextlib.suppress(ProcessLookupError):
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
