"""What a run does, in order: its stages, each of one kind."""

from nasray.stages.base import SEARCH, Site, Stage, Work
from nasray.stages.outlook import time_left_text
from nasray.stages.plan import (
    Plan,
    baseline_stages,
    make_plan,
    planned_stages,
    resolve_recipes,
    winner_stages,
    without,
)
from nasray.stages.records import Records, read_records, stage_rows
from nasray.stages.run import check_stages, read_recipes, run_stages, site_of, stages_ahead, write_recipes

__all__ = [
    "SEARCH",
    "Plan",
    "Records",
    "Site",
    "Stage",
    "Work",
    "baseline_stages",
    "check_stages",
    "make_plan",
    "planned_stages",
    "read_recipes",
    "read_records",
    "resolve_recipes",
    "run_stages",
    "site_of",
    "stage_rows",
    "stages_ahead",
    "time_left_text",
    "winner_stages",
    "without",
    "write_recipes",
]
