"""A search that is killed and resumed ends as one that was not, and Ray Tune goes on in its own folder."""

import contextlib
import json
import os
import pickle
import random
import shutil
import subprocess
import time

import pytest

from nasray.cluster import Resources
from nasray.cluster.run import idle_places

from . import common


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return common.uninterrupted(tmp_path_factory.mktemp("whole") / "expected")


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    """A run that was killed after some batches, and a copy of it."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    process = common.start(folder)
    common.wait_until(lambda: common.num_parts(folder) >= 3 and any(folder.glob("tune/*/signature-*")), process)
    common.kill(process)
    shutil.copytree(folder, folder.with_name("copy"))
    return folder


@pytest.fixture
def killed(killed_once):
    """The same run, as it was, in the same place."""
    shutil.rmtree(killed_once)
    shutil.copytree(killed_once.with_name("copy"), killed_once)
    return killed_once


@pytest.mark.parametrize(
    ("in_flight", "more_often"),
    [(2, False), (1, True), (2, True)],
)
@pytest.mark.slow
def test_history_is_byte_identical_after_kills(tmp_path, in_flight, more_often):
    expected = common.uninterrupted(tmp_path / "expected", in_flight=in_flight)
    assert len(expected) == 20
    folder = tmp_path / "run"

    # The driver, as soon as the run exists, and again as soon as it has started once more: twice in a row.
    for _ in range(1 + more_often):
        process = common.start(folder, in_flight=in_flight)
        common.wait_until(lambda: (folder / "experiment.yaml").exists(), process)
        common.wait_until(lambda: any((folder / "tune").glob("search-*/*")), process)
        common.kill(process)
    # A trial actor in its batch, one between two batches, then the driver in the middle of the search.
    (tmp_path / "suicide").touch()
    (tmp_path / "suicide-between-batches").touch()
    process = common.start(folder, in_flight=in_flight)
    common.wait_until(lambda: common.num_parts(folder) >= 7, process)
    assert not list(tmp_path.glob("suicide*"))
    common.kill(process)
    # The driver, late in the search: Tune's trials are all there, and it adds to them.
    before = common.num_tune_trials(folder)
    if more_often:
        process = common.start(folder, in_flight=in_flight)
        common.wait_until(lambda: common.num_parts(folder) >= 15, process)
        common.kill(process)
        assert f"Tune continues {folder / 'tune' / max(before)}" in process.communicate()[0]
    # To the end.
    output = common.finish(common.start(folder, in_flight=in_flight))
    assert "evaluations are in the history" in output
    assert f"Tune continues {folder / 'tune' / max(before)}" in output
    after = common.num_tune_trials(folder)
    assert after.keys() == before.keys()
    assert after[max(after)] >= before[max(before)] + 5
    assert common.history_bytes(folder) == expected
    best = json.loads((folder / "best.json").read_text())
    assert best == json.loads((tmp_path / "expected" / "best.json").read_text())
    # Once more, when nothing is left to do: at once, and nothing changes.
    common.finish(common.start(folder, in_flight=in_flight))
    assert common.history_bytes(folder) == expected


def test_tune_goes_on_in_its_folder_with_what_a_trial_needs_now(killed, expected):
    before = common.num_tune_trials(killed)
    log = killed.with_name("run.log")
    log.unlink()
    output = common.finish(common.start(killed, cpus=2))
    assert f"Tune continues {killed / 'tune' / 'search-000'}" in output
    assert common.history_bytes(killed) == expected
    after = common.num_tune_trials(killed)
    assert after.keys() == before.keys() == {"search-000"}
    assert after["search-000"] >= before["search-000"] + 10
    assert {line.split()[2] for line in log.read_text().splitlines()} == {"2"}  # cores that Ray gave to the trials


class Malicious:
    def __init__(self, evidence):
        self.evidence = evidence

    def __reduce__(self):
        return os.mkdir, (f"{self.evidence}",)


def poison(search, evidence):
    """Put a pickle that leaves evidence where it is read into every file that Tune could read."""
    for number, path in enumerate([path for path in search.rglob("*") if path.is_file()]):
        payload = pickle.dumps(Malicious(f"{evidence}-{number}-{path.name}"))
        if path.name.startswith("experiment_state"):
            content = json.loads(path.read_text())
            content["runner_data"]["x"] = {"_type": "CLOUDPICKLE_FALLBACK", "value": payload.hex()}
            content["trial_data"] = [
                [
                    json.dumps({**json.loads(trial), "x": {"_type": "CLOUDPICKLE_FALLBACK", "value": payload.hex()}}),
                    state,
                ]
                for trial, state in content["trial_data"]
            ]
            path.write_text(json.dumps(content))
        elif not path.name.startswith("signature"):
            path.write_bytes(payload)
    for name in ("callback-states-9.pkl", "searcher-state-9.pkl", "search_gen_state-9.json", "x/error.pkl"):
        (search / name).parent.mkdir(exist_ok=True)
        (search / name).write_bytes(pickle.dumps(Malicious(f"{evidence}-{name.replace('/', '-')}")))


def test_pickles_of_a_stranger_are_not_read(killed, expected):
    evidence = killed.with_name("evidence")
    poison(killed / "tune" / "search-000", evidence)
    output = common.finish(common.start(killed))
    assert not list(evidence.parent.glob("evidence*"))
    assert "search-000 is not used" in output
    assert (killed / "tune" / "search-001").is_dir()
    assert common.history_bytes(killed) == expected


@pytest.mark.slow
def test_an_evaluator_that_keeps_failing_stops_the_run_and_can_be_resumed(tmp_path, expected):
    folder = tmp_path / "run"
    (tmp_path / "broken").touch()
    process = common.start(folder, retries=1)
    output, _ = process.communicate(timeout=180)
    assert process.returncode != 0
    assert "no luck with this batch" in output
    assert output.count("and is evaluated again (retry 1 of 1)") in (1, 2)  # of the two in flight
    assert "nasray resume" in output
    (tmp_path / "broken").unlink()
    # The same folder again, although Tune had ended its search: its trials were lost, the search was not.
    assert f"Tune continues {folder / 'tune' / 'search-000'}" in common.finish(common.start(folder))
    assert common.history_bytes(folder) == expected


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended_and_its_batch_evaluated_again(tmp_path, expected):
    (tmp_path / "hang").touch()
    begun = time.monotonic()
    output = common.finish(common.start(tmp_path / "run", retries=1, NASRAY_TEST_TIMEOUT="5"))
    assert time.monotonic() - begun < 120
    assert "and is evaluated again (retry 1 of 1)" in output
    assert common.history_bytes(tmp_path / "run") == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["save-trials", "save-generator", "save-searcher", "sign", "copy", "tuner", "restore",
                                  "torn-copy", "history", "record", "show"])  # fmt: skip
def test_kills_at_the_moments_of_writing(tmp_path, expected, name):
    folder = tmp_path / "run"
    continued = 0
    for moment in (1, 2, 3):
        process = common.start(folder, NASRAY_TEST_KILL=f"{name}:{moment}", TUNE_GLOBAL_CHECKPOINT_S="0.2")
        output, _ = process.communicate(timeout=180)
        continued += "Tune continues" in output
        print(f"{name}:{moment}: exit {process.returncode}, {common.num_parts(folder)} batches")
    output = common.finish(common.start(folder))
    continued += "Tune continues" in output
    assert common.history_bytes(folder) == expected
    print(f"{name}: Tune's folder was continued {continued} times of 3; folders {sorted(os.listdir(folder / 'tune'))}")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
def test_kills_at_random_moments(tmp_path, expected, seed):
    folder = tmp_path / "run"
    moments = random.Random(seed)
    continued = anew = kills = 0
    for _ in range(6):
        process = common.start(folder, seconds=0.02, TUNE_GLOBAL_CHECKPOINT_S="0.5")
        goal = common.num_parts(folder) + moments.choice([0, 1, 1, 2, 3])
        common.wait_until(lambda goal=goal, process=process: common.num_parts(folder) >= goal or process.poll() == 0)
        time.sleep(moments.random() * 0.5)
        common.kill(process)
        output = process.communicate()[0]
        kills += 1
        continued, anew = continued + ("Tune continues" in output), anew + ("is not used" in output)
    output = common.finish(common.start(folder))
    continued, anew = continued + ("Tune continues" in output), anew + ("is not used" in output)
    assert common.history_bytes(folder) == expected
    assert [step for step, _ in common.points(folder)] == list(range(8, 161, 8))
    print(f"{kills} kills, Tune's folder continued {continued} times, begun anew {anew} times")


# ---- disks that are full, read-only, or gone ---------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A file system of three MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", path], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def fill(path):
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def assert_one_line(output, returncode, what):
    assert returncode == 1
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith("nasray: ")]
    assert any(text in line for text in what), line


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
def test_a_full_disk_at_five_moments(disk, expected, seed):
    folder = disk / "run"
    moments = random.Random(seed)
    for _ in range(5):
        process = common.start(folder, seconds=0.02)
        goal = common.num_parts(folder) + moments.choice([0, 1, 2])
        common.wait_until(lambda goal=goal: (folder / "experiment.yaml").exists() and common.num_parts(folder) >= goal)
        time.sleep(moments.random() * 0.5)
        fill(disk / "filler")
        output = process.communicate(timeout=300)[0]
        (disk / "filler").unlink()
        assert_one_line(output, process.returncode, ["disk full while writing"])
        found = common.history_bytes(folder)
        assert found == {name: expected[name] for name in found}
        print(f"full at {len(found)} batches: {output.splitlines()[-1]}")
    common.finish(common.start(folder))
    assert common.history_bytes(folder) == expected
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_folder_that_becomes_read_only_or_is_removed(disk, expected):
    folder = disk / "run"
    process = common.start(folder)
    common.wait_until(lambda: common.num_parts(folder) >= 2, process)
    common.kill(process)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    process = common.start(folder)
    assert_one_line(process.communicate(timeout=120)[0], process.returncode, ["cannot write", "Read-only file system"])
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    process = common.start(folder, seconds=0.02)
    goal = common.num_parts(folder) + 2
    common.wait_until(lambda: common.num_parts(folder) >= goal, process)
    folder.rename(disk / "elsewhere")
    output = process.communicate(timeout=120)[0]
    assert_one_line(output, process.returncode, ["was removed or moved"])
    shutil.rmtree(folder, ignore_errors=True)
    (disk / "elsewhere").rename(folder)
    common.finish(common.start(folder))
    assert common.history_bytes(folder) == expected


def test_a_search_that_leaves_places_idle_is_told():
    nodes, resources = 5 * [{"CPU": 64.0, "GPU": 8.0}], Resources(cpus=2, gpus=0.25)
    assert idle_places(nodes, resources, 160) is None
    assert idle_places(nodes, resources, 8).startswith(
        "160 trials would fit at once, and in_flight lets 8 run: the rest of the cluster idles"
    )
    assert idle_places([{"CPU": 2.0}], Resources(), 2) is None
