"""Arguments of the command line: one style of error, and the types of values with their ranges.

Whatever is wrong with an argument is one `NasrayError`, as with a key of a file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from nasray.spaces import Budget, NasrayError
from nasray.spaces.errors import did_you_mean
from nasray.spaces.ranges import MAX_COUNT, MAX_SEED, check_finite, check_number, check_whole, shortened
from nasray.values import check_text, read_image_hw


class Parser(argparse.ArgumentParser):
    """A parser whose errors are `NasrayError` in one line; options are not abbreviated.

    Attributes:
        known_options: Options of the command itself, as `--folder`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.known_options: list[str] = []
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """Declare an argument."""
        action = super().add_argument(*args, **kwargs)
        self.known_options += [option for option in action.option_strings if option.startswith("--")]
        return action

    def error(self, message: str) -> NoReturn:
        """Raise the error that argparse would print with its usage."""
        text = message.removeprefix("argument ").replace(": it is ", " is ", 1)
        if "ignored explicit argument" in text:
            text = f"{text.partition(':')[0]} takes no value"
        if missing := message.partition("the following arguments are required: ")[2]:
            text = f"missing: {missing}"
        raise NasrayError(f"{text}. `{self.prog} --help` prints the usage")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), names)
            what = "/".join(action.option_strings) or str(action.metavar or action.dest).lower()
            raise NasrayError(f"unknown {what} {shortened(value)}{hint} There are: {', '.join(names)}")


def parse_arguments(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says; options that are keys of a configuration as `overrides`.

    Raises:
        NasrayError: for whatever is wrong with it.
    """
    _check_arguments(arguments)
    known, rest = parser.parse_known_args(_with_joined_bounds(arguments))
    declared = known.parser.known_options
    known.declared = declared
    if known.takes_overrides:
        known.overrides = rest
    elif rest:
        raise unexpected(rest[0], declared, known.parser.prog)
    return known


def _with_joined_bounds(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with bounds such as `--budget.gmacs 20` as one each, which no positional argument takes."""
    found: list[str] = []
    is_ended = False
    for argument in arguments:
        is_bound = bool(found) and found[-1].startswith("--budget.") and "=" not in found[-1]
        if is_bound and not is_ended and not argument.startswith("--"):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
        is_ended = is_ended or argument == "--"
    return found


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what no command takes: empty texts, texts that are no names, options given twice."""
    given: set[str] = set()
    is_ended = False
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        try:
            check_text(value if equals and name.startswith("--") else argument)
        except NasrayError as error:
            where = f"after {shortened(arguments[index - 1])}" if index else "first"
            raise NasrayError(f"argument {where} {error}".replace(" it is ", " is ", 1)) from None
        is_ended = is_ended or argument == "--"
        if argument.startswith("--") and not is_ended:
            option = name.replace("_", "-")
            if option in given:
                raise NasrayError(f"option {shortened(name)} is given twice. Leave one of the two out")
            given.add(option)


def unexpected(argument: str, declared: Iterable[str], program: str) -> NasrayError:
    """Return the error about an argument that a command does not take."""
    if not argument.startswith("-"):
        return NasrayError(f"unexpected argument {shortened(argument)}. `{program} --help` prints the usage")
    name = argument.partition("=")[0]
    hint = did_you_mean(name, declared)
    return NasrayError(f"unrecognized option {shortened(name)}{hint} `{program} --help` prints all")


# ---- types of values ---------------------------------------------------------------------------------------------


def _argument_type(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function for `type` of an argument: argparse shows the message of this error alone."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except NasrayError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def whole(minimum: int, maximum: int = MAX_COUNT) -> Callable[[str], Any]:
    """Return the type of an argument that is a whole number, bounds included."""

    def read(text: str) -> int:
        digits = text[1:] if text[:1] in "+-" else text
        is_number = digits.isascii() and digits.isdigit() and len(digits) < 30
        return check_whole("it", int(text) if is_number else text, minimum, maximum)

    return _argument_type(read)


def number(minimum: float, maximum: float) -> Callable[[str], Any]:
    """Return the type of an argument that is a number, bounds included."""

    def read(text: str) -> float:
        try:
            value: Any = float(text)
        except ValueError:
            value = text
        return check_number("it", value, minimum, maximum)

    return _argument_type(read)


seed = whole(0, MAX_SEED)
image_hw = _argument_type(read_image_hw)


@_argument_type
def url(text: str) -> str:
    """Return the address of a dashboard.

    Raises:
        NasrayError: if it is not a URL with a host.
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        is_url = False
    if not is_url or any(c.isspace() for c in text):
        raise NasrayError(f"it is the URL of a dashboard, such as http://head:8265; got {shortened(text)}")
    return text


def split_bounds(overrides: list[str]) -> tuple[list[str], list[str]]:
    """Return the bounds of a budget among options, and the others."""
    bounds = [option for option in overrides if option.startswith("--budget.")]
    return bounds, [option for option in overrides if option not in bounds]


def read_budget(overrides: list[str], declared: Iterable[str] = ()) -> Budget:
    """Return the budget that options such as `--budget.gmacs 20` state.

    Args:
        overrides: Options that the command itself does not have, with their values.
        declared: Options that it has, for a suggestion.

    Raises:
        NasrayError: for any other option, or a bound that is no number.
    """
    words = [word for argument in overrides for word in argument.split("=", 1)]
    bounds = {}
    for option, value in zip(words[::2], [*words[1::2], None], strict=False):
        name = option.removeprefix("--budget.").replace("-", "_")
        if not option.startswith("--budget.") or not name:
            raise NasrayError(
                f"unrecognized option {shortened(option)}{did_you_mean(option, declared)} Bounds of a run's best are "
                "--budget.gmacs 20, --budget.min-gmacs 10"
            )
        if value is None:
            raise NasrayError(f"{option} needs a value, such as {option} 20")
        try:
            bounds[name] = float(value)
        except ValueError:
            raise NasrayError(f"{option} is a number; got {shortened(value)}") from None
        check_finite(option, bounds[name])
    upper = {name: bound for name, bound in bounds.items() if not name.startswith("min_")}
    return Budget(upper, {name.removeprefix("min_"): bound for name, bound in bounds.items() if name not in upper})
