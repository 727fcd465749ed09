"""The errors that a user's mistake or a broken environment can cause. Every message says how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NasrayError(ValueError):
    """A mistake that its user can fix; the message says what, the value given, what is allowed, how to fix it."""


class InfeasibleError(NasrayError):
    """No architecture was found that meets the budget."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a suggestion to append to "unknown ...", ending in a question mark, or else a full stop."""
    close = difflib.get_close_matches(word[:100], list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."
