"""Commands as jobs of a Ray cluster."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from nasray.cli.common import command, print_json
from nasray.cli.parsing import url
from nasray.spaces import NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import shortened


def add_commands(commands: Any) -> None:
    """Declare `submit` and `job`."""
    address = "of the cluster's dashboard, such as http://head:8265"
    text = "run a nasray command as a job on a Ray cluster"
    sub = command(commands, "submit", _submit, text, when_interrupted=_job_hint)
    sub.add_argument("--address", required=True, type=url, help=address)
    sub.add_argument("--follow", action="store_true", help="print the job's log until it ends")
    sub.add_argument("command", nargs=argparse.REMAINDER, help="-- and then the command, such as: -- search maedet-m")

    sub.set_defaults(commands=commands.choices)  # those that are declared after this one too

    sub = command(commands, "job", _job, "status, log or end of a submitted job", when_interrupted=_job_hint)
    sub.add_argument("action", choices=["status", "logs", "stop"])
    sub.add_argument("job", help="what `nasray submit` printed")
    sub.add_argument("--address", required=True, type=url, help=address)
    sub.add_argument("--follow", action="store_true", help="logs: print until the job ends")


def _job_hint(known: Any) -> str | None:
    job = getattr(known, "job", None)
    if job is None or getattr(known, "action", "logs") != "logs":
        return None
    return f"The job goes on: `nasray job logs {job} --address {known.address} --follow` prints its log"


def _submit(known: Any) -> None:
    from nasray.cluster.jobs import follow_job, submit_job

    command = known.command[1:] if known.command[:1] == ["--"] else known.command
    others = [name for name in known.commands if name not in ("submit", "job")]
    if command and command[0] not in others:
        near = did_you_mean(command[0], others)
        raise NasrayError(f"unknown command {shortened(command[0])} to submit{near} There are: {', '.join(others)}")
    if known.json and known.follow:
        raise NasrayError("submit takes --json or --follow, not both: a job's log is no JSON")
    known.job = job = submit_job(known.address, command)
    if known.json:
        print_json({"job": job, "address": known.address}, indent=None)
    else:
        print(job)
        print(f"nasray job logs {job} --address {known.address} --follow", file=sys.stderr)
    if known.follow:
        follow_job(known.address, job)


def _job(known: Any) -> None:
    from nasray.cluster.jobs import follow_job, job_logs, job_status, stop_job

    if known.action == "logs":
        if known.follow and not known.json:
            follow_job(known.address, known.job)
        elif known.json:
            print_json({"job": known.job, "log": job_logs(known.address, known.job)}, indent=None)
        else:
            print(job_logs(known.address, known.job), end="")
        return
    status = (stop_job if known.action == "stop" else job_status)(known.address, known.job)
    if known.json:
        print_json(status, indent=None)
    else:
        print(status["status"])
