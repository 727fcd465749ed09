"""Detection data: reading, checking, transforming and loading it. PyTorch is imported when images are, not before."""

from typing import TYPE_CHECKING, Any

from nasray.data.check import check_data, describe_check
from nasray.data.dataset import Defect, DetectionSet
from nasray.data.formats.datafile import DataFile, SplitFiles
from nasray.data.formats.packing import pack_data
from nasray.data.shapes import write_shapes
from nasray.data.source import DataSource, open_data

if TYPE_CHECKING:
    from nasray.data.loader import Batch, EvaluationLoader, TrainLoader

__all__ = [
    "Batch",
    "DataFile",
    "DataSource",
    "Defect",
    "DetectionSet",
    "EvaluationLoader",
    "SplitFiles",
    "TrainLoader",
    "check_data",
    "describe_check",
    "open_data",
    "pack_data",
    "write_shapes",
]


def __getattr__(name: str) -> Any:
    if name in ("Batch", "EvaluationLoader", "TrainLoader"):
        import nasray.data.loader

        return getattr(nasray.data.loader, name)
    raise AttributeError(f"module 'nasray.data' has no attribute {name!r}")
