"""The errors that a user's mistake or a broken environment can cause. Every message says how to mend it."""


class NasrayError(ValueError):
    """A mistake that its user can mend; the message says what, the value given, what is allowed, how to mend it."""


class InfeasibleError(NasrayError):
    """No architecture was found that meets the budget."""
