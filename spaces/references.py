"""References: options of parts that name an earlier stage of a run, or a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Output = Literal["checkpoint", "architectures", "history", "filter", "restriction"]
"""What a stage gives to later ones."""


@dataclass(frozen=True)
class From:
    """Mark, in an option's type, that its value names a stage that gives this, or a file.

    The run hands the part the path that the value stands for. Example:

        def __init__(self, *, supernet: Annotated[str, From("checkpoint")]) -> None: ...

    Attributes:
        what: What the stage must give.
    """

    what: Output
