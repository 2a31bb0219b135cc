"""What people see while migrations run: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from covet.cli.reporting import note
from covet_migrate.execution.events import (
    BatchDone,
    Event,
    MigrationFinished,
    MigrationStarted,
    Retrying,
    StepFinished,
    StepStarted,
    StoodBack,
    WaitingForLock,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Shown"]


class Shown:
    """Shows what happens; a context manager that is called with events."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                # SQL has brackets, which are no markup.
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, MigrationStarted):
            if self._bar is not None:
                self._task = self._bar.add_task(str(event.migration), total=event.steps, completed=event.done)
        elif isinstance(event, StepStarted):
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, description=f"{event.migration}  {_cut(event.description)}")
        elif isinstance(event, StepFinished):
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=event.number)
        elif isinstance(event, BatchDone):
            if self._bar is not None and self._task is not None:
                of = f" of {event.total:,}" if event.total is not None else ""
                self._bar.update(self._task, description=f"{event.name}  {event.done:,}{of} rows")
        elif isinstance(event, MigrationFinished):
            self._finished(event)
        elif isinstance(event, Retrying):
            self._line(
                f"{event.migration}: {event.reason}; all of it was rolled back, and is tried again in "
                f"{event.pause:.1f} s (attempt {event.attempt + 1})",
                "Lock",
            )
        elif isinstance(event, StoodBack):
            self._line(f"{event.migration}: a transaction that lasts uses {' and '.join(event.tables)}", "Waiting")
        elif isinstance(event, WaitingForLock):
            self._line(f"somebody else migrates this database{f': {event.holder}' if event.holder else ''}", "Waiting")

    def _finished(self, event: MigrationFinished) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        words = {"done": "taken back" if event.backward else "applied", "faked": "written down"}
        what = words.get(event.outcome, "done elsewhere")
        self._out(f"{click.style(str(event.migration), bold=True)}  {what}  {event.seconds:.2f} s")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A block in which others may print: above the bar, which is drawn again."""
        if self._bar is not None:
            self._bar.stop()
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.start()

    def _out(self, text: str) -> None:
        with self.aside():
            click.echo(text)

    def _line(self, text: str, label: str) -> None:
        with self.aside():
            note(text, label=label)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
