"""The log of a training, read while it grows, for the callbacks of whoever started it."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

from nasray.cluster.callbacks import LogEvent, is_heard, place, read_told, tell, write_told
from nasray.cluster.reading import parse_json, shown
from nasray.spaces import NasrayError

LOG = "log.jsonl"
"""The log in a training's folder: a line for steps, and one for every validation."""
TRAINING = "training"
"""Source of a training that is alone."""


def log_scalars(line: dict[str, Any]) -> dict[str, float]:
    """Return what TensorBoard shows of a line of a training's log, by tag; numbers that are not finite are left out."""
    sections = {"loss": line.get("losses", {}), "alpha": line.get("alpha", {}), "val": line.get("metrics", {})}
    values = {f"{section}/{name}": value for section, inside in sections.items() for name, value in inside.items()}
    tags = {"loss": "loss", "lr": "train/lr", "grad_norm": "train/grad_norm", "acceptance": "train/acceptance"}
    values |= {tag: line[key] for key, tag in tags.items() if key in line}
    if line.get("images_per_s"):
        values["speed/images_per_s"] = line["images_per_s"]
    return {tag: value for tag, value in values.items() if value is not None and math.isfinite(value)}


class LogTail:
    """What is new in a training's log.

    A training that goes on from a checkpoint cuts its log there and writes the same lines once more: a line is new if
    it is of a later step than all that were told, in this session or an earlier one.

    Args:
        folder: Folder of the training, which need not be there yet.

    Raises:
        NasrayError: if its `told.json` is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.told = folder, read_told(folder)
        self.offset, self.last = 0, b""  # where the last whole line ends that was read, and that line

    def tell_new(self) -> None:
        """Tell the callbacks of the session the lines that are new."""
        if not is_heard():
            return
        lines = self.new_lines()
        if not lines:
            return
        write_told(self.folder, self.told)
        run, source = place(self.folder, TRAINING)
        for line in lines:
            tell(LogEvent(run, source, int(line["iteration"]), line, log_scalars(line)))

    def new_lines(self) -> list[dict[str, Any]]:
        """Return the lines that were not returned before, in their order; none where the log cannot be read."""
        found = []
        for text in self._whole_lines():
            with contextlib.suppress(NasrayError):  # a line that is torn: what reads the log for a report names it
                line = parse_json(text.decode(), shown(self.folder / LOG))
                if position(line) > self.told:
                    self.told = position(line)
                    found.append(line)
        return found

    def _whole_lines(self) -> list[bytes]:
        """Return the lines behind those that were read before; all if the log was cut and written anew."""
        try:
            with open(self.folder / LOG, "rb") as file:
                file.seek(self.offset - len(self.last))
                if file.read(len(self.last)) != self.last:
                    self.offset, self.last = 0, b""
                    file.seek(0)
                content = file.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        if lines:
            self.offset, self.last = self.offset + len(whole), lines[-1]
        return lines


def position(line: dict[str, Any]) -> int:
    """Return the place of a line in the order of a log: twice its step, and one more for a validation."""
    return 2 * int(line["iteration"]) + ("metrics" in line)
