"""Architectures: what users see, save and build from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nasray.spaces.ranges import shortened


@dataclass(frozen=True)
class Architecture:
    """One point of a space as a frozen, JSON-serializable value.

    Two architectures are equal, and have the same `id`, exactly if their canonical JSON is the same.

    Attributes:
        text: The canonical JSON (sorted keys, no spaces) of `{"family": ..., "spec": ...}`. Use `create` or
            `from_json` to make one; they canonicalize.
    """

    text: str

    @classmethod
    def create(cls, family: str, spec: Mapping[str, Any]) -> Architecture:
        """Make an architecture of `family` (which network builder) from a JSON-serializable `spec`."""
        return cls(json.dumps({"family": family, "spec": spec}, sort_keys=True, separators=(",", ":")))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Read what `text` holds, in any JSON formatting.

        Raises:
            ValueError: if it is not JSON, or not an architecture; see `from_dict`.
        """
        try:
            value = json.loads(text)
        except RecursionError:
            raise ValueError("an architecture is not nested as deeply as this JSON") from None
        return cls.from_dict(value)

    @classmethod
    def from_dict(cls, value: Any) -> Architecture:
        """Return the architecture that a JSON value describes.

        Raises:
            ValueError: if it is not a mapping of exactly the keys `family`, a string, and `spec`, a mapping.
        """
        if not isinstance(value, dict) or set(value) != {"family", "spec"}:
            raise ValueError(
                f'an architecture is a JSON object with the keys "family" and "spec", got {shortened(value)}'
            )
        family, spec = value["family"], value["spec"]
        if not isinstance(family, str) or not isinstance(spec, dict):
            raise ValueError(
                f"an architecture's family is a string and its spec an object, got {shortened(family)} and "
                f"{shortened(spec)}"
            )
        return cls.create(family, spec)

    @property
    def family(self) -> str:
        """The network family, which names the builder in `nasray.models`."""
        family: str = json.loads(self.text)["family"]
        return family

    @property
    def spec(self) -> dict[str, Any]:
        """The family's own description of the network (a fresh copy)."""
        spec: dict[str, Any] = json.loads(self.text)["spec"]
        return spec

    @property
    def id(self) -> str:
        """16 hexadecimal digits, the same in every process and on every machine (SHA-256 of the canonical JSON)."""
        return text_id(self.text)


def text_id(text: str) -> str:
    """Return the `Architecture.id` of a canonical JSON text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
