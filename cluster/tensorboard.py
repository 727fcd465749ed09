"""Event files of a run for TensorBoard, written without importing torch."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from nasray.cluster.files import explained_disk_errors

_numbers = itertools.count()


class EventWriter:
    """Writes scalars and pictures by step (of a search, evaluations); every call is on disk when it returns.

    All calls raise `NasrayError` if the disk is full or the folder cannot be written.

    Args:
        folder: The event files' folder.
        first_step: The step from which on what other files of the folder hold is superseded, after a resume.
    """

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, now = Event, time.time()
        self.path = folder / (
            f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        )
        with explained_disk_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = RecordWriter(open(self.path, "wb"))  # noqa: SIM115  open as long as this is
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        if first_step:
            start = SessionLog(status=SessionLog.SessionStatus.START)
            self._write(Event(wall_time=now, step=first_step, session_log=start))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write one value of each tag."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def image(self, step: int, tag: str, png: bytes) -> None:
        """Write a picture, given as the content of a PNG file."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = struct.unpack(">II", png[16:24])  # the header is the file's first chunk
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        summary = Summary(value=[Summary.Value(tag=tag, image=picture)])
        self._write(self._event(wall_time=time.time(), step=step, summary=summary))

    def hyperparameters(self, values: dict[str, Any]) -> None:
        """Write nested hyper-parameters, flattened to dotted names, for the HParams tab."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        summary = hparams_pb(_flat(values), trial_id="search")
        self._write(self._event(wall_time=time.time(), summary=summary))

    def _write(self, event: Any) -> None:
        with explained_disk_errors(self.path):
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        with explained_disk_errors(self.path):
            self._writer.close()


def last_step(folder: Path) -> int | None:
    """Return the last step at which scalars or pictures were written; None if there are none.

    What a killed process was writing when it died is passed over.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    # The newest file alone counts, of those that hold any: later sessions supersede earlier ones.
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        steps = [event.step for event in EventFileLoader(str(path)).Load() if event.HasField("summary")]
        if steps and steps[-1]:  # hyper-parameters are written at step 0
            return int(steps[-1])
    return None


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat
