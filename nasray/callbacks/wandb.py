"""Weights & Biases: one run there for a run of nasray's, with the curves of all its searches and trainings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nasray.callbacks.kept import keep_id, kept_folder, read_id, settings
from nasray.cluster.callbacks import Event, StageEvent
from nasray.spaces import NasrayError


class WandB:
    """Log batches and lines of trainings to Weights & Biases.

    Where and how is said by W&B's own environment: `WANDB_PROJECT` (nasray if unset), `WANDB_ENTITY`,
    `WANDB_MODE=offline`, which sends nothing, and its others. Its files are in `callbacks/` of the run.

    Raises:
        NasrayError: if the package wandb is not installed.
    """

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise NasrayError(
                f"callback 'wandb' needs the package wandb: {error}. Install nasray with the extra wandb, or leave the "
                "callback out"
            ) from error
        self.wandb: Any = wandb
        self.session: Any = None
        self.known: set[str] = set()
        self.is_stopped = False

    def __call__(self, event: Event) -> None:
        """Log an event."""
        if self.session is None:
            self.session = self._begin(event.run)
        source = event.source
        if isinstance(event, StageEvent):
            self.is_stopped = event.state == "stop"
            self.session.summary[f"{source}/state"] = event.state
            return
        if source not in self.known:  # every search and training has steps of its own
            self.known.add(source)
            self.session.define_metric(f"{source}/*", step_metric=f"{source}/step")
        values = {f"{source}/{name}": value for name, value in event.scalars.items()}
        self.session.log({**values, f"{source}/step": event.step})

    def _begin(self, run: str) -> Any:
        known = read_id(run, "wandb")
        session = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "nasray",
            name=Path(run).name,
            dir=str(kept_folder(run)),
            id=known,
            resume="allow" if known else None,
            config=settings(run),
            settings=self.wandb.Settings(console="off"),  # what the command prints stays its own
        )
        if known is None:
            keep_id(run, "wandb", session.id)
        return session

    def close(self) -> None:
        """End the session; a further one of the same run goes on with it."""
        if self.session is not None:
            self.session.finish(exit_code=int(self.is_stopped))
            self.session = None
