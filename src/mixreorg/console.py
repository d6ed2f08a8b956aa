"""Consoles for progress, tables and messages."""

from rich.console import Console


def plain_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints names as they are: in rich's own, a class named ``:cat:`` comes out as an emoji.

    Args:
        stderr: for messages and progress; results go to the standard output.
        quiet: prints nothing.
    """
    return Console(stderr=stderr, quiet=quiet, emoji=False)
