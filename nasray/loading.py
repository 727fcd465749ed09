"""The one door for experiments: what a file, a command line, Python or a run's folder says is read and planned.

Whoever takes an experiment from outside takes it from here, and so gets it checked as a whole, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from nasray.cluster import RunFolder
from nasray.cluster.reading import shown
from nasray.configuration import load_content, print_notes
from nasray.experiment import PACKAGE, Experiment, parse_description, parse_experiment
from nasray.overrides import override
from nasray.spaces import NasrayError
from nasray.stages import Plan, make_plan


def load_plan(name_or_path: str, arguments: Sequence[str] = (), *, declared: Iterable[str] = ()) -> Plan:
    """Return the plan of an experiment that comes with nasray, or of a YAML file, with what the command line changes.

    Args:
        name_or_path: Name or file of the experiment.
        arguments: Options of the command line, such as `["--budget.gmacs", "60"]`; see `nasray.overrides.override`.
        declared: Further options of the command, for suggestions alone.

    Raises:
        NasrayError: if there is none, or it is not valid; the message names the key and what is allowed.
    """
    content = load_content(name_or_path, PACKAGE, "experiment")
    content, notes = override(content, arguments, Experiment, declared=declared)
    plan = parse_plan(content, shown(name_or_path))
    print_notes(notes)
    return plan


def parse_plan(content: dict[str, Any], source: str) -> Plan:
    """Return the plan of an experiment from nested dicts; `source` names them in errors.

    Raises:
        NasrayError: if it is not valid.
    """
    return _planned(parse_experiment(content, source), source)


def plan_of_run(run: RunFolder) -> Plan:
    """Return the plan of the experiment that a run's experiment.yaml holds.

    Raises:
        NasrayError: if it holds none, or this version cannot read it.
    """
    return _planned(parse_description(run.description(), str(run.path)), str(run.path))


def known_plan(run: RunFolder) -> Plan | None:
    """Return the plan of a run; None where it is begun from Python, or this version cannot read it."""
    try:
        return plan_of_run(run)
    except NasrayError:
        return None


def _planned(experiment: Experiment, source: str) -> Plan:
    try:
        return make_plan(experiment)
    except NasrayError as error:
        raise NasrayError(f"{source}: {error}") from error
