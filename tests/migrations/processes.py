"""Processes that migrate a database, each a real one that can be killed; made by fork from one that has the imports."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any, Literal

from tests.migrations.runs import migrator

from covet_migrate.ddl import steps_of
from covet_migrate.exceptions import MigrationError
from covet_migrate.execution import Event
from covet_migrate.execution.events import MigrationFinished, StepStarted
from covet_migrate.migrations import Migration
from covet_orm import Database
from covet_orm.exceptions import OrmError
from covet_orm.testing import faultpoints

__all__ = ["Command", "Ended", "MigratingProcess", "run"]

PATIENCE = 120.0
Command = Literal["migrate", "unwind", "rollback", "backward"]
"""What a process does: `migrate`, `migrate --unwind`, `migrate --rollback`, or `migrate app first`."""
Migrations = Callable[[str], Sequence[Migration]]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.migrations.processes", "tests.migrations.history", "covet_migrate.ddl"])


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; -9 where it was killed.
        done: the migrations that it did.
        error: the message of the error that it ended with.
        begun: how many steps it began.
        reached: whether it came to the point that it was to wait at.
    """

    code: int | None = None
    done: list[str] = field(default_factory=list)
    error: str = ""
    begun: int = 0
    reached: bool = False


class MigratingProcess:
    """A process that migrates.

    Args:
        url: of the database.
        migrations: makes the migrations, for a kind of database; a function of a module.
        command: what it does.
        kill: the point at which it kills itself.
        stop: the point at which it waits, so that somebody else may kill it or its server.
        passes: how often it passes that point first.
    """

    def __init__(
        self,
        url: str,
        migrations: Migrations,
        command: Command = "migrate",
        *,
        kill: str = "",
        stop: str = "",
        passes: int = 0,
    ) -> None:
        self._here, there = multiprocessing.Pipe()
        self.ended = Ended()
        arguments = (there, url, migrations, command, kill, stop, passes)
        self._process = _context.Process(target=_work, args=arguments)
        self._process.start()
        there.close()

    def hears(self, seconds: float) -> bool:
        """Hear what it tells for so long at most; whether it waits at its point, or has ended, before that."""
        limit = monotonic() + seconds
        while self._here.poll(max(limit - monotonic(), 0.0)):
            if not self._hear():
                return True
        return False

    def kill(self) -> None:
        """Kill it with signal 9."""
        self._process.kill()

    def go_on(self) -> None:
        """Let it go on from the point that it waits at."""
        self._here.send("on")

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """Wait for its end; one that takes longer is killed, and has no exit code."""
        there = self.hears(seconds)
        if not there:
            self.kill()
        self._process.join(PATIENCE)
        self.ended.code = self._process.exitcode if there else None
        self._here.close()
        self._process.close()
        return self.ended

    def _hear(self) -> bool:
        """Hear one thing; False where there is nothing more, or it waits."""
        try:
            what, told = self._here.recv()
        except (EOFError, ConnectionResetError):
            return False
        if what == "step":
            self.ended.begun += 1
        elif what == "done":
            self.ended.done = told
        elif what == "error":
            self.ended.error = told
        else:
            self.ended.reached = True
            return False
        return True


def run(url: str, migrations: Migrations, command: Command = "migrate", *, kill: str = "") -> Ended:
    """Let a process migrate, to its end."""
    return MigratingProcess(url, migrations, command, kill=kill).wait()


def _work(
    connection: Connection, url: str, migrations: Migrations, command: Command, kill: str, stop: str, passes: int
) -> None:
    """What the process does."""
    left = passes

    def wait() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            connection.send(("at", stop))
            connection.recv()

    if kill:
        faultpoints.actions[kill] = faultpoints.kill
    if stop:
        faultpoints.actions[stop] = wait
    done: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, StepStarted):
            connection.send(("step", event.number))
        elif isinstance(event, MigrationFinished) and event.outcome == "done":
            done.append(str(event.migration))

    code = 0
    try:
        done += asyncio.run(_migrate(url, migrations, command, tell))
    except (MigrationError, OrmError) as error:
        connection.send(("error", f"{type(error).__name__}: {error}"))
        code = 1
    connection.send(("done", done))
    sys.exit(code)


async def _migrate(url: str, migrations: Migrations, command: Command, tell: Callable[[Any], None]) -> list[str]:
    async with Database(url) as database:
        found = migrations(database.kind)
        run = migrator(database, *found, tell=tell, steps_of=steps_of)
        if command == "unwind":
            return [".".join(key) for key in await run.unwind()]
        if command == "rollback":
            await run.rollback(yes=True)
        elif command == "backward":
            await run.migrate(*found[0].key, yes=True)
        else:
            await run.migrate(yes=True)
    return []
