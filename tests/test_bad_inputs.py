"""Bad input to every command: one line on stderr, exit status 2, no traceback, soon, and nothing left behind."""

import contextlib
import io
import subprocess
import sys
import time
from collections import Counter, defaultdict

import pytest

from nasray.cli import main
from tests.bad_inputs import Case, cases, write_files

LIMIT_S, PROCESS_LIMIT_S = 10.0, 60.0
"""Of a command, and of a process: on a busy machine Python and PyTorch take half a minute to start."""
FOREIGN = ("pydantic", "weights_only", "torch.load", "set_int_max", "Errno", "usage:", "──")
"""What other libraries say to programmers, not to users."""
CASES = cases()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a run, a training, an image, and bad files of all kinds."""
    import torch
    from PIL import Image

    from nasray.architectures import ARCHITECTURES
    from nasray.checkpoint import Checkpoint, make_network
    from nasray.cluster import OrderedSearch, RunFolder
    from nasray.cluster.recorder import Recorder
    from nasray.experiment import describe_experiment
    from nasray.loading import load_plan
    from nasray.recipe import load_recipe, override_recipe
    from nasray.training.folder import Description, create_folder

    path = tmp_path_factory.mktemp("bad")
    write_files(path)
    Image.new("RGB", (64, 64)).save(path / "image.png")
    plan = load_plan("maedet-tiny")
    search = OrderedSearch(plan.parts.searcher, evaluations=2048, batch_size=64, in_flight=1)
    recorder = Recorder(RunFolder.create(path / "run", describe_experiment(plan.experiment)), search)
    search.fill()
    for batch in search.receive(0, plan.parts.evaluator(search.pending[0].genes)):
        recorder.write(batch, {})
        search.tell(batch)
    recipe = override_recipe(load_recipe("shapes-detect-tiny"), ["--detector.channels", "16"])
    architecture, classes = ARCHITECTURES["basic-tiny"], ("a", "b")
    create_folder(path / "trained", Description(recipe, architecture, classes, (1, 2)))
    with torch.random.fork_rng(devices=[]):
        network = make_network(recipe, architecture, len(classes))
    checkpoint = Checkpoint(recipe, architecture, classes, (1, 2), network.state_dict())
    checkpoint.save(path / "trained" / "checkpoints" / "last.pt")
    return path


@pytest.fixture(autouse=True)
def in_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("NASRAY_RUNS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def listing(folder):
    return {str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*")}


def faults(case, status, err, seconds, before, after, limit_s=LIMIT_S):
    """What is wrong with how a case was refused."""
    found = []
    if status != 2:
        found.append(f"exit status {status}")
    if "Traceback" in err:
        found.append("a traceback")
    if err.count("\n") != 1 or not err.startswith("nasray: "):
        found.append("not one line that begins with nasray:")
    if foreign := [word for word in FOREIGN if word in err]:
        found.append(f"words of other programs: {foreign}")
    if len(err) > 1500:
        found.append(f"a line of {len(err)} characters")
    if seconds > limit_s:
        found.append(f"{seconds:.1f} s")
    if before != after:
        found.append(f"left behind: {sorted(set(after.items()) ^ set(before.items()))[:3]}")
    return [f"{show(case)}: {', '.join(found)}: {err[-300:]!r}"] if found else []


def show(case):
    return " ".join(part if len(part) < 60 else f"{part[:20]}...({len(part)})" for part in case.arguments)


def refuse(case, folder):
    """Run one case in this process."""
    before, begin = listing(folder), time.monotonic()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(case.arguments))
        except SystemExit as stop:
            status = stop.code
        except BaseException as error:  # what a user would see as a traceback
            status, text = 1, f"Traceback: {type(error).__name__}: {error}"
            err.write(text)
    return faults(case, status, err.getvalue(), time.monotonic() - begin, before, listing(folder))


def test_there_are_enough():
    groups = Counter(case.group for case in CASES)
    assert sum(groups.values()) >= 300
    commands = {case.arguments[0] for case in CASES if case.arguments}
    assert commands >= {"search", "resume", "report", "rank", "agreement", "train", "evaluate", "predict", "export",
                        "cost", "latency", "data", "submit", "job", "list"}  # fmt: skip


def test_a_sample_is_refused(folder):
    found = [fault for case in CASES[::29] for fault in refuse(case, folder)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "value", "arguments"),
    [
        ("RAY_ADDRESS", "nowhere", ("search", "maedet-tiny")),
        ("RAY_ADDRESS", "127.0.0.1:1", ("search", "maedet-tiny")),
        ("NASRAY_RUNS", "file", ("search", "maedet-tiny")),
        ("NASRAY_RUNS", "a" * 300, ("search", "maedet-tiny")),
        ("NASRAY_RUNS", "file/x", ("train", "shapes-detect-tiny")),
        ("NASRAY_CACHE", "file", ("latency", "basic-tiny", "--image-size", "32", "--table")),
        ("NASRAY_CACHE", "a" * 300, ("latency", "basic-tiny", "--image-size", "32", "--table")),
    ],
)
def test_environment(folder, monkeypatch, name, value, arguments):
    monkeypatch.setenv(name, value)
    found = refuse(Case("environment", arguments), folder)
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_are_refused(folder, capsys):
    counts, seconds, found = Counter(), defaultdict(float), []
    for case in CASES:
        begin = time.monotonic()
        wrong = refuse(case, folder)
        counts[case.group, not wrong] += 1
        seconds[case.group] = max(seconds[case.group], time.monotonic() - begin)
        found += wrong
    with capsys.disabled():
        print(f"\n{'group':24}{'cases':>7}{'refused':>9}{'longest':>10}")
        for group in seconds:
            right, wrong = counts[group, True], counts[group, False]
            print(f"{group:24}{right + wrong:7}{right:9}{seconds[group]:8.2f} s")
        print(f"{'all':24}{len(CASES):7}{len(CASES) - len(found):9}")
    assert not found, f"{len(found)} of {len(CASES)}:\n" + "\n".join(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_in_processes_of_their_own(folder):
    found = []
    sound = [case for case in CASES if not any("\0" in part for part in case.arguments)]  # no process takes these
    for case in sound[:: len(sound) // 30 + 1]:
        before, begin = listing(folder), time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "nasray", *(part.encode("utf-8", "surrogateescape") for part in case.arguments)],
            cwd=folder, capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        err = done.stderr.decode("utf-8", "backslashreplace")
        seconds = time.monotonic() - begin
        found += faults(case, done.returncode, err, seconds, before, listing(folder), PROCESS_LIMIT_S)
    assert not found, "\n".join(found)
