"""Searches as Ray jobs: submission, status, log and end.

The code of this checkout travels with the job. The four folders are laid out as the package that they make when they
are installed, so that the cluster needs nasray's dependencies but not nasray.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nasray.spaces import NasrayError

RUNS_ON_CLUSTER = "~/nasray-runs"
_SUBPACKAGES = ("cluster", "searchers", "spaces")


def submit_job(address: str, command: Sequence[str]) -> str:
    """Submit a nasray command, such as `["search", "maedet-m"]`, and give the job's name.

    YAML files that the command names travel too. Runs go to `~/nasray-runs` of the head node unless the command has a
    `--folder` (or NASRAY_RUNS is set here): name a folder that all nodes share if you have one.

    Raises:
        NasrayError: if there is no command, or the cluster cannot be reached or refuses.
    """
    if not command:
        raise NasrayError("submit needs a command after --, such as: nasray submit --address URL -- search maedet-m")
    with tempfile.TemporaryDirectory(prefix="nasray-job-") as folder:
        arguments = [_ship(argument, Path(folder)) for argument in command]
        lay_out_package(Path(folder) / "nasray")
        runs = os.environ.get("NASRAY_RUNS", RUNS_ON_CLUSTER)
        environment = {"NASRAY_RUNS": runs, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
        with _client(address) as client:
            return client.submit_job(
                entrypoint=" ".join(["mkdir -p", f"{runs};", "python -m nasray", *arguments]),
                runtime_env={"working_dir": folder, "env_vars": environment},
            )


def _ship(argument: str, folder: Path) -> str:
    """An argument as the job sees it: files go along, the rest is quoted."""
    import shlex

    path = Path(argument)
    if argument.endswith((".yaml", ".yml", ".json")) and path.is_file():
        shutil.copy(path, folder / path.name)
        return shlex.quote(path.name)
    if argument.startswith("~/"):  # the cluster's home
        return "~/" + shlex.quote(argument[2:])
    return shlex.quote(argument)


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
    """`job`, `status` (PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED) and Ray's `message`."""
    with _client(address) as client:
        info = client.get_job_info(job)
        return {"job": job, "status": str(info.status.value), "message": info.message or ""}


def job_logs(address: str, job: str) -> str:
    """What the job has printed so far."""
    with _client(address) as client:
        return client.get_job_logs(job)


def stop_job(address: str, job: str, *, timeout: float = 60.0) -> dict[str, Any]:
    """Stop a job and wait for its end; gives its status."""
    with _client(address) as client:
        client.stop_job(job)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not client.get_job_status(job).is_terminal():
            time.sleep(0.2)
    return job_status(address, job)


def follow_job(address: str, job: str, *, poll: float = 1.0) -> str:
    """Print the job's log as it grows, until it ends; gives its status.

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
    return status["status"]


@contextlib.contextmanager
def _client(address: str) -> Iterator[Any]:
    """A client of the cluster at `address`; what goes wrong with it becomes a NasrayError."""
    from ray.dashboard.modules.job.sdk import JobSubmissionClient
    from ray.exceptions import RayError

    token = _token()
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
            raise NasrayError(
                f"the cluster at {address} wants a token: {text.splitlines()[0]}. Copy the head's ~/.ray/auth_token "
                "(made by `ray get-auth-token --generate`) to the same place here, or set RAY_AUTH_TOKEN"
            ) from error
        if "does not exist" in text or "404" in text:
            raise NasrayError(f"the cluster at {address} knows no such job: {text.splitlines()[0]}") from error
        raise NasrayError(f"the cluster at {address} refused: {text.splitlines()[0]}") from error


def _token() -> str | None:
    """The token that a head wants which was started by a user who has one; sent whatever this process's own mode is."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()
    return path.read_text().strip() if path.is_file() else None
