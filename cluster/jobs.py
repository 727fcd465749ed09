"""Searches as Ray jobs: submission, status, log and end.

The code of this checkout travels with the job. The four folders are laid out as the package that they make when they
are installed, so that the cluster needs nasray's dependencies but not nasray.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nasray.cluster import job
from nasray.cluster.files import to_json
from nasray.cluster.joining import find_token, wants_token
from nasray.cluster.progress import say
from nasray.cluster.reading import read_bytes, read_json, read_yaml, shown
from nasray.spaces import NasrayError

RUNS_ON_CLUSTER = "~/nasray-runs"
STOP_SECONDS = 60
"""Seconds that a job has to end by itself when it is stopped."""
NO_AGENT = "No available agent"
"""What Ray says before a head's agent is up, which takes some seconds after `ray start`."""
AGENT_SECONDS, AGENT_PAUSE = 60.0, 2.0
"""Seconds for which a job is submitted again then, and between two times."""
# Ray tells a job nothing of its Python. But the shell is a child of a worker, which is a child of the raylet, whose
# arguments say how it starts workers.
_WORKER_COMMAND = r"""sed -n 's/^--python_worker_command="\{0,1\}\([^ "]*\).*/\1/p'"""
ENTRY_POINT = (
    "read -r _ _ _ raylet _ < /proc/$PPID/stat; "
    rf"""python=$(tr '\0' '\n' < /proc/$raylet/cmdline | {_WORKER_COMMAND}); """
    'exec "${python:-python3}" nasray_job.py'
)
_SUBPACKAGES = ("cluster", "searchers", "spaces")


def submit_job(address: str, command: Sequence[str]) -> str:
    """Submit a nasray command, such as `["search", "maedet-m"]`, and return the job's name.

    YAML and JSON files that the command names travel too. Runs go to `~/nasray-runs` of the head node unless the
    command has a `--folder` (or NASRAY_RUNS is set here): name a folder that all nodes share if you have one.

    Raises:
        NasrayError: if there is no command, it names what the cluster cannot see, or the cluster cannot be reached or
            refuses.
    """
    if not command:
        raise NasrayError("submit needs a command after --, such as: nasray submit --address URL -- search maedet-m")
    runs = os.environ.get("NASRAY_RUNS", RUNS_ON_CLUSTER)
    if not runs.startswith(("/", "~")):
        raise NasrayError(
            f"NASRAY_RUNS={shown(runs)} is relative, and a job runs in another folder. Set an absolute path of the "
            f"cluster, or one that begins with ~/; without it, jobs write to {RUNS_ON_CLUSTER}"
        )
    with tempfile.TemporaryDirectory(prefix="nasray-job-") as folder:
        parts = [_part(argument, Path(folder)) for argument in command]
        (Path(folder) / job.ARGUMENTS).write_text(to_json(parts))
        shutil.copy(job.__file__, Path(folder) / "nasray_job.py")
        lay_out_package(Path(folder) / "nasray")
        environment = {
            "NASRAY_RUNS": runs,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),  # a training saves its state first
        }
        with _client(address) as client:
            job_id = _submit(client, address, {"working_dir": folder, "env_vars": environment})
    return job_id


def _submit(client: Any, address: str, runtime_env: dict[str, Any]) -> str:
    """Submit a job, again and again for a while if the cluster has no agent yet that takes it.

    Raises:
        NasrayError: if it has none until then.
    """
    deadline, told = time.monotonic() + AGENT_SECONDS, False
    while True:
        try:
            return str(client.submit_job(entrypoint=ENTRY_POINT, runtime_env=runtime_env))
        except RuntimeError as error:
            if NO_AGENT not in str(error):
                raise
            if time.monotonic() >= deadline:
                raise NasrayError(
                    f"the cluster at {address} has had no agent to take a job for {AGENT_SECONDS:g} s. Look at `ray "
                    "status` on its head, and submit again"
                ) from error
        if not told:
            say(f"the cluster has no agent yet to take the job; trying again for {AGENT_SECONDS:g} s")
            told = True
        time.sleep(AGENT_PAUSE)


def _part(argument: str, folder: Path) -> tuple[str, str, str]:
    """Return an argument for `nasray.cluster.job`: beginning, kind, text. Files are put into the job's folder.

    Raises:
        NasrayError: if it names what the cluster cannot see.
    """
    prefix, text = "", argument
    if argument.startswith("--") and "=" in argument:
        name, _, text = argument.partition("=")
        prefix = f"{name}="
    if text.startswith("~/"):  # the cluster's home
        return prefix, "home", text
    path = Path(text)
    if text.endswith((".yaml", ".yml", ".json")) and path.is_file():
        _refuse_references(path)
        digest = hashlib.sha256(read_bytes(path)).hexdigest()[:16]
        (folder / digest).mkdir(exist_ok=True)
        shutil.copy(path, folder / digest / path.name)
        return prefix, "file", f"{digest}/{path.name}"
    if "/" in text and not path.is_absolute() and "://" not in text and not text.startswith("-"):
        raise NasrayError(
            f"a job runs in another folder, and {shown(text)} is relative to this one. Name it as the cluster sees it: "
            "by an absolute path, or one that begins with ~/; of files, only YAML and JSON travel with a job"
        )
    return prefix, "word", text


def _refuse_references(path: Path) -> None:
    """Raise `NasrayError` if a YAML or JSON file names another file by a path that only holds on this machine."""
    texts = _texts(read_json(path) if path.suffix == ".json" else read_yaml(path))
    for text in texts:
        if not text.startswith(("/", "~")) and any(_is_path(base, text) for base in (Path(), path.parent)):
            raise NasrayError(
                f"{shown(path)} names {shown(text)}, a path of this machine, which does not travel with the job. Put "
                "it where the cluster sees it, and name it by an absolute path"
            )


def _is_path(base: Path, text: str) -> bool:
    """Return whether a text is a path of a file or folder rather than a name that something here happens to have."""
    try:
        return bool({"/", "."} & set(text)) and (base / text).resolve() != base.resolve() and (base / text).exists()
    except (OSError, ValueError):
        return False


def _texts(value: Any) -> Iterator[str]:
    """Yield all words in nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def lay_out_package(target: Path) -> None:
    """Copy the installed or checked-out package to `target` as one ordinary package tree."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(_folder_of(sys.modules["nasray"]), target, ignore=ignore)
    for name in _SUBPACKAGES:
        part = importlib.import_module(f"nasray.{name}")
        shutil.copytree(_folder_of(part), target / name, ignore=ignore, dirs_exist_ok=True)


def _folder_of(package: Any) -> Path:
    return Path(package.__file__).parent


def job_status(address: str, job: str) -> dict[str, Any]:
    """Return `job`, `status` (PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED) and Ray's `message`."""
    with _client(address) as client:
        info = client.get_job_info(job)
        return {"job": job, "status": str(info.status.value), "message": info.message or ""}


def job_logs(address: str, job: str) -> str:
    """Return what the job has printed so far."""
    with _client(address) as client:
        logs: str = client.get_job_logs(job)
    return logs


def stop_job(address: str, job: str, *, timeout: float = STOP_SECONDS + 10.0) -> dict[str, Any]:
    """Stop a job and wait for its end; return its status."""
    with _client(address) as client:
        client.stop_job(job)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not client.get_job_status(job).is_terminal():
            time.sleep(0.2)
    return job_status(address, job)


def follow_job(address: str, job: str, *, poll: float = 1.0) -> str:
    """Print the job's log as it grows, until it ends; return its status.

    Raises:
        NasrayError: if the job failed.
    """
    printed = 0
    with _client(address) as client:
        while True:
            ended = client.get_job_status(job).is_terminal()
            log = client.get_job_logs(job)
            print(log[printed:], end="", flush=True)
            printed = len(log)
            if ended:
                break
            time.sleep(poll)
    status = job_status(address, job)
    if status["status"] == "FAILED":
        raise NasrayError(f"job {job} failed: {status['message'].strip()}")
    return str(status["status"])


@contextlib.contextmanager
def _client(address: str) -> Iterator[Any]:
    """Connect to the cluster at `address` for a while; raise what goes wrong with it as a NasrayError."""
    from ray.dashboard.modules.job.sdk import JobSubmissionClient
    from ray.exceptions import RayError

    token, _ = find_token()
    try:
        yield JobSubmissionClient(address, headers={"Authorization": f"Bearer {token}"} if token else None)
    except NasrayError:
        raise
    except (ConnectionError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise NasrayError(
            f"no Ray dashboard at {address}: {reason}. Start the head with `ray start --head` (it prints the address), "
            "and check that this machine reaches its port, 8265 by default"
        ) from error
    except (RuntimeError, RayError) as error:
        text = str(error)
        if "401" in text or "nauthorized" in text or "uthentication" in text:
            raise wants_token(address, text.splitlines()[0].rstrip(".")) from error
        if "does not exist" in text or "404" in text:
            raise NasrayError(f"the cluster at {address} knows no such job: {text.splitlines()[0]}") from error
        raise NasrayError(f"the cluster at {address} refused: {text.splitlines()[0]}") from error
