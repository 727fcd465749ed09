"""What a run does, in order: its stages, each of one kind."""

from nasray.stages.base import SEARCH, Site, Stage, Work
from nasray.stages.records import Records, read_records, stage_rows
from nasray.stages.run import (
    baseline_stages,
    check_order,
    check_stages,
    make_stages,
    plan,
    read_recipes,
    resolve_recipes,
    run_stages,
    site_of,
    winner_stages,
    with_absolute_references,
    without,
    write_recipes,
)

__all__ = [
    "SEARCH",
    "Records",
    "Site",
    "Stage",
    "Work",
    "baseline_stages",
    "check_order",
    "check_stages",
    "make_stages",
    "plan",
    "read_recipes",
    "read_records",
    "resolve_recipes",
    "run_stages",
    "site_of",
    "stage_rows",
    "winner_stages",
    "with_absolute_references",
    "without",
    "write_recipes",
]
