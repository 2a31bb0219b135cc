"""What commands print: errors on standard error, results on standard output, colour on terminals only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, redirect_stdout
from typing import IO, Any

import click

__all__ = ["Failure", "aside", "describe_error", "note", "print_json", "print_table"]


class Failure(click.ClickException):
    """A command could not do what it was asked to, through no fault of Covet: the program ends with exit code 1.

    Args:
        message: what is wrong, where, and what to do next; may have several lines.

    Raise it `from` the error behind it: `--traceback` shows that one.
    """

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message to standard error."""
        click.secho("Error: ", fg="red", bold=True, nl=False, err=True, color=colour())
        click.echo(self.message, err=True, color=colour())


def colour() -> bool | None:
    """What click is to do about colour: none with `NO_COLOR` (https://no-color.org), else as the stream allows."""
    return False if os.environ.get("NO_COLOR") else None


def aside() -> AbstractContextManager[Any]:
    """Let what is printed meanwhile go to standard error.

    An application or a plugin may print when it is imported; standard output is for what was asked for.
    """
    return redirect_stdout(sys.stderr)


def note(message: str, *, label: str = "Note") -> None:
    """Print a remark to standard error, where it does not disturb what a program reads from standard output."""
    click.secho(f"{label}: ", fg="yellow", nl=False, err=True, color=colour())
    click.echo(message, err=True, color=colour())


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under their columns' names.

    On a terminal that takes colour there is a frame; elsewhere the columns are aligned by spaces and never wrapped.
    """
    if sys.stdout.isatty() and colour() is None:
        _print_framed(columns, rows)
        return
    lines = [list(columns), *([_on_one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _on_one_line(cell: str) -> str:
    return "; ".join(" ".join(line.split()) for line in cell.strip().splitlines())


def _print_framed(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # As Text, so that a bracket in a plugin's summary is no markup.
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    Console().print(table)


STYLES = {
    "active": "green",
    "builtin": "green",
    "disabled": "dim",
    "failed": "bold red",
    "incompatible": "bold red",
    "error": "bold red",
    "warning": "yellow",
}


def describe_error(error: BaseException) -> str:
    """An error of the user's code: what it is, and the user's own lines on the way to it, without anybody else's."""
    import traceback

    told = "".join(traceback.format_exception_only(error)).rstrip()
    frames = traceback.StackSummary.from_list(
        [_nearby(frame) for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    )
    shown = "".join(_users(frames).format()).rstrip()
    return f"{told}\n{shown}" if shown else told


def _is_machinery(filename: str) -> bool:
    kernel = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return filename.startswith("<frozen ") or os.path.abspath(filename).startswith(kernel + os.sep)


def _nearby(frame: Any) -> Any:
    """The frame with a path relative to the working directory, where it lies below it."""
    path = os.path.relpath(frame.filename) if os.path.isabs(frame.filename) else frame.filename
    if not path.startswith(os.pardir):
        frame.filename = path
    return frame


def _users(frames: Any) -> Any:
    """The frames below the working directory, and the last one wherever it is; all of them when none is there."""
    own = [frame for frame in frames if not os.path.isabs(frame.filename) and "site-packages" not in frame.filename]
    if own and frames[-1] is not own[-1]:
        own.append(frames[-1])
    if own:
        frames[:] = own
    return frames
