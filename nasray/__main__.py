"""`python -m nasray`."""

from nasray.cli import command_line

command_line()
