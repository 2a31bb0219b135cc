"""Models made of a schema make that schema again, and a database that is otherwise becomes what its migrations say.

The first half: random sets of models (keys of every type, names that need quotes, defaults, checks, partial, covering
and expression indexes, generated columns, foreign keys in circles, many-to-many tables, comments) are created in a
database. `inspectdb` writes models of what is there; that source is run, and its models are created in another, empty
database. Both schemas are read and compared, by covet-migrate's own description of them and by what the catalogue says
to a reader that shares no code with it. The models that were read are those of the source: `makemigrations` finds
nothing between them. The first migration that it writes of them makes a state between which and the models it finds
nothing either. And what is written of the other database is the same source, to the letter.

The second half: one random set is created, and a second one is taken for what the migrations say; in half of the pairs
it has all tables of the first, in the others some are tables that no migration knows. `find_drift` tells what differs;
its actions are run; then nothing differs but what it said no statement mends, as a table that no migration knows is in
the way, or the database makes no such type of the one that is there. Where nothing was said so, each table is that of
the second set created from nothing, as the catalogue tells it.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from benchmarks import evidence
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from tests.migrations.migrating import VERSIONS, run_steps
from tests.migrations.model_states import APP, MODELS, states
from tests.migrations.schema_snapshots import Snapshot, snapshot
from tests.services.databases import NAMES, Databases, ask
from tests.services.databases import Database as Server

import covet_orm as orm
from covet_migrate.changes import Unattended, arrange, detect
from covet_migrate.ddl import steps_of
from covet_migrate.exceptions import MigrationError
from covet_migrate.files.writer import source_of
from covet_migrate.inspection.comparing import compare_schemas
from covet_migrate.inspection.drift import Drift, find_drift
from covet_migrate.inspection.models import Inspected, inspected_models
from covet_migrate.inspection.schema import read_schema
from covet_migrate.inspection.shadow import tables_of
from covet_migrate.inspection.source import models_source
from covet_migrate.state.from_models import state_of
from covet_migrate.state.models import State
from covet_migrate.state.rendering import historical_models
from covet_orm import Database, Registry
from covet_orm.schema import check_supported, create_tables, statements

MODELS_OF_PAIRS = MODELS[:4]
"""Few, so that most tables of one set are in the other one as well."""


@dataclass
class Outcome:
    """What a run showed.

    Attributes:
        name: of the database.
        what: `inspectdb` or `drift`.
        wanted: how many sets, or pairs of them, there were to be.
        done: how many there were.
        tables: how many tables they had.
        parts: how many columns, indexes and constraints; of pairs, how many differences.
        by_hand: how many differences no statement mends.
        failures: each failure, shortened, with how often it was.
        first: the whole of the first of each.
        seconds: how long it took.
    """

    name: str
    what: str
    wanted: int
    done: int = 0
    tables: int = 0
    parts: int = 0
    by_hand: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether a schema became another one, or there were too few of them."""
        return bool(self.failures) or self.done < self.wanted

    def row(self) -> list[object]:
        """The outcome as a row of a table."""
        found = [self.name, f"{self.done:,}", f"{self.tables:,}", f"{self.parts:,}"]
        found += [f"{self.by_hand:,}"] if self.what == "drift" else []
        return [*found, sum(self.failures.values()), f"{self.seconds:.0f}"]


def registry_of(source: str) -> Registry:
    """The models that a source declares, in a registry of their own."""
    registry = Registry()
    meta = type("Meta", (), {"abstract": True, "registry": registry, "app_label": APP})
    base: Any = type(orm.Model)("Base", (orm.Model,), {"__module__": __name__, "Meta": meta})
    exec(compile(source, "models.py", "exec"), {"Base": base, "__name__": f"{APP}.models"})
    return registry


async def inspected(server: Server, state: State) -> Inspected:
    """Create, inspect, write, run, create again.

    Raises:
        AssertionError: the schema is not the same, or the models are not.
    """
    one, other = await emptied(server, "inspected"), await emptied(server, "again")
    async with Database(one) as database:
        await create_tables(database, tables_of(state)[0])
        there = await read_schema(database)
    found = inspected_models(there, app=APP)
    source = models_source(found, base="Base")
    registry = registry_of(source)
    async with Database(other) as database:
        await database.create_all(registry)
        again = await read_schema(database)
    differences = compare_schemas(there, again)
    assert not differences, "\n".join([*map(str, differences), source])
    assert await catalogue(one) == await catalogue(other), source
    assert not found.notes, source
    assert models_source(inspected_models(again, app=APP), base="Base") == source
    check_makemigrations(found.state, state_of(registry))
    return found


async def emptied(server: Server, name: str) -> str:
    """An empty database; its URL. To drop one and create it takes PostgreSQL a second."""
    if server.kind != "postgresql":
        return server.empty_database(name)
    url = server.url(name)
    try:
        await ask(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    except asyncpg.InvalidCatalogNameError:
        return server.create_database(name)
    return url


async def catalogue(url: str) -> Snapshot:
    """What the catalogue of a database says.

    SQLite keeps what somebody wrote: that is without parentheses and spaces here, about which the other comparison
    knows.
    """
    found = await snapshot(url)
    if not url.startswith("sqlite"):
        return found

    def bare(text: str) -> str:
        return re.sub(r"[()\s]", "", text)

    return {table: {bare(name): bare(text) for name, text in told.items()} for table, told in found.items()}


def check_makemigrations(read: State, declared: State) -> None:
    """Nothing is detected between the models that were read and those that were declared, nor after their migration.

    Raises:
        AssertionError: something is.
    """
    found = detect(read, declared, Unattended()).detected
    assert not found, f"makemigrations finds {[one.operation for one in found]}"
    first = arrange(detect(State(), declared, Unattended()), State(), {}, lambda app, operations: "0001_initial")
    made = State()
    for migration in first:
        names: dict[str, Any] = {}
        exec(compile(source_of(migration), "0001_initial.py", "exec"), names)
        written = names["migration"]
        written.app, written.name = migration.app, migration.name
        made = written.apply(made)
    found = detect(made, declared, Unattended()).detected
    assert not found, f"after the first migration, makemigrations finds {[one.operation for one in found]}"


async def mended(server: Server, there: State, wanted: State) -> Drift:
    """Create one state, and run what makes another one of it.

    Raises:
        AssertionError: something is otherwise afterwards, and was not said to be left.
    """
    url, other = await emptied(server, "drifted"), await emptied(server, "wanted")
    async with Database(url) as database:
        await create_tables(database, tables_of(there)[0])
        drift = await find_drift(database, wanted)
        async with database.connection() as connection:
            await run_steps(connection, server.kind, steps_of(drift.actions, server.kind, VERSIONS[server.kind]))
        left = await find_drift(database, wanted)
    said = {(one.table, one.part, one.name) for one in drift.by_hand}
    rest = [str(one) for one in left.differences if (one.table, one.part, one.name) not in said]
    assert not rest, "\n".join([*rest, "--", *drift.told()])
    if not drift.by_hand:
        tables = tables_of(wanted)[0]
        async with Database(other) as database:
            await create_tables(database, tables)
        found, expected = await catalogue(url), await catalogue(other)
        assert {table.name: found[table.name] for table in tables} == expected, "\n".join(drift.told())
    return drift


@st.composite
def pairs(draw: st.DrawFn, kind: str) -> tuple[State, State]:
    """Two sets of models; of half of the pairs, the second one has all tables that the first one has."""
    one, other = (draw(states(kind, most=3, among=MODELS_OF_PAIRS)) for _ in range(2))
    if draw(st.booleans()):
        return one, other
    for model in one:
        if model.label in other:
            one = one.put(model.with_options(db_table=other[model.label].options.get("db_table")))
        else:
            other = other.put(model)
    try:
        names = {table.name for table in tables_of(other)[0]}
        for table in tables_of(one)[0]:
            if table.name not in names:
                # The table between two models.
                label = next(one.label for one in one if "many" in one.fields and table.name.endswith("_many"))
                model = one[label]
                one = one.put(replace(model, fields={k: v for k, v in model.fields.items() if k != "many"}))
        for state in (one, other):
            check_supported(kind, list(historical_models(state)))
            statements(kind, tables_of(state)[0], create=True)
    except (orm.ModelError, orm.NotSupported, MigrationError):
        assume(False)
    return one, other


def run(server: Server, what: str, wanted: int, number: int, check: Callable[..., Any] | None = None) -> Outcome:
    """One half on one database.

    Args:
        server: the database.
        what: `inspectdb` or `drift`.
        wanted: how many sets, or pairs of them.
        number: says which ones.
        check: what is done with each, instead of what is to be.
    """
    outcome = Outcome(server.name, what, wanted)
    began = time.monotonic()
    if what == "inspectdb":
        chosen: st.SearchStrategy[tuple[State, ...]] = st.tuples(states(server.kind))
    else:
        chosen = pairs(server.kind)
    done: Callable[..., Coroutine[Any, Any, Any]] = check or (inspected if what == "inspectdb" else mended)

    @seed(number)
    @settings(
        max_examples=wanted, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(chosen)
    def each(sets: tuple[State, ...]) -> None:
        outcome.done += 1
        try:
            found = asyncio.run(done(server, *sets))
        except Exception as error:
            lines = [*str(error).splitlines(), ""]
            short = f"{type(error).__name__}: {lines[0][:100]}"
            outcome.failures[short] += 1
            outcome.first.setdefault(short, "".join(traceback.format_exception(error, limit=-3)))
            return
        outcome.tables += len(tables_of(sets[-1])[0])
        if isinstance(found, Drift):
            outcome.parts += len(found.differences)
            outcome.by_hand += len(found.by_hand)
        else:
            for table in tables_of(sets[-1])[0]:
                outcome.parts += len(table.columns) + len(table.indexes) + len(table.constraints)

    each()
    outcome.seconds = time.monotonic() - began
    return outcome


def both(name: str, *, sets: int, pairs: int, number: int) -> list[Outcome]:
    """Both halves on one database."""
    more = {"inspectdb": 4 * sets, "drift": 2 * pairs} if name == "sqlite" else {"inspectdb": sets, "drift": pairs}
    with Databases() as databases:
        server = databases.get(name)
        return [run(server, what, wanted, number) for what, wanted in more.items() if wanted]


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--sets", type=int, default=160, help="sets on each server; SQLite has four times as many")
    parser.add_argument("--pairs", type=int, default=100, help="pairs on each server; SQLite has twice as many")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--print", action="store_true", help="write no page")
    given = parser.parse_args()
    outcomes: dict[str, list[Outcome]] = {"inspectdb": [], "drift": []}
    with ProcessPoolExecutor(len(given.databases), get_context("spawn")) as processes:
        work = partial(both, sets=given.sets, pairs=given.pairs, number=given.seed)
        for found in processes.map(work, given.databases):
            for outcome in found:
                outcomes[outcome.what].append(outcome)
    sections = {
        "Models of what is there": evidence.table(
            ["database", "sets", "tables", "columns, indexes, constraints", "failures", "seconds"],
            [outcome.row() for outcome in outcomes["inspectdb"]],
        ),
        "Databases that drifted": evidence.table(
            ["database", "pairs", "tables", "differences", "left to people", "failures", "seconds"],
            [outcome.row() for outcome in outcomes["drift"]],
        ),
    }
    if given.print:
        print(*sections.values(), sep="\n\n")
    else:
        evidence.write(
            "migrate_inspect",
            "Inspection of schemas",
            __doc__,
            ["covet-migrate", "covet-orm", "sqlalchemy", "hypothesis"],
            sections,
            session="proof",
        )
    failed = [outcome for found in outcomes.values() for outcome in found if outcome.failed]
    for outcome in failed:
        print(
            outcome.name,
            outcome.what,
            *(f"{count} times {text}" for text, count in outcome.failures.items()),
            sep="\n  ",
        )
        print(*outcome.first.values(), sep="\n")
    if failed:
        raise SystemExit("a schema became another one: see the table")


if __name__ == "__main__":
    main()
