"""Watching what a trial locks on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from covet_migrate.ddl import LATEST
from covet_migrate.safety.effects import effects_of
from covet_migrate.testing.files import TRIED
from covet_migrate.testing.locks import files_of_tables, locks_held, rank, tables_there
from covet_migrate.testing.trials import Trial
from covet_orm.testing import faultpoints

__all__ = ["locks_no_more"]


async def locks_no_more(one: Trial) -> None:
    """See whether the steps of a trial lock and write anew no more than is said of them (PostgreSQL).

    Each step is a transaction of its own, which is looked at from another session before it is committed.

    Args:
        one: the trial, whose migration is not atomic.
    """
    steps = [step for stage in await one.stage() for step in stage.steps]
    effects = effects_of(steps, "postgresql", LATEST["postgresql"])
    files: dict[str, int] = {}
    told: list[str] = []
    watching = await one.database.connect()
    app = one.app

    async def begins() -> None:
        files.clear()
        files.update(await files_of_tables(watching))

    def looks_at(number: int) -> Callable[[], Any]:
        async def look() -> None:
            tables = await tables_there(watching)
            for session in await locks_held(watching, tables):
                for table, lock in session.locks.items():
                    said = effects[number].locks.get(table)
                    if rank(lock) > (rank(said) if said is not None else rank("ACCESS SHARE")):
                        told.append(f"{steps[number]!r} takes {lock} on {table}, and says {said or 'no lock'}")

        return look

    def ends(number: int) -> Callable[[], Any]:
        async def look() -> None:
            now = await files_of_tables(watching)
            anew = sorted(table for table, file in files.items() if now.get(table, file) != file)
            if anew and not effects[number].rewrites:
                told.append(f"{steps[number]!r} writes {', '.join(anew)} anew, and does not say so")

        return look

    chosen = dict(faultpoints.actions)
    try:
        for number, effect in enumerate(effects):
            if effect.known:
                place = f"{app}.{TRIED}.{number}"
                faultpoints.actions[f"migrate.before.{place}"] = begins
                faultpoints.actions[f"migrate.after.{place}"] = looks_at(number)
                faultpoints.actions[f"migrate.done.{place}"] = ends(number)
        await one.forward()
    finally:
        faultpoints.actions.clear()
        faultpoints.actions.update(chosen)
        await watching.close()
    assert not told, "\n".join(told)
