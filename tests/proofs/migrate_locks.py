"""What `migrations lint` says that a statement locks, and what the servers do.

For every kind of change, for every rule, and for the steps of `operations.Online`: each statement is run and held. On
PostgreSQL in a transaction that is not committed, or, where it cannot be in one, while it waits for an old snapshot;
then `pg_locks` is read from a second session, which also tries to read and to write each table with a lock timeout, and
it is looked at whether the table has another file (`pg_relation_filenode`). On MariaDB a statement has to be accepted
with the `ALGORITHM` and the `LOCK` that are said, and refused with the next cheaper ones; what reads or copies a table
of 60,000 rows is looked at while it runs, by a session that waits for no lock. On SQLite another connection reads and
writes while the step is not committed.

A row in which the server does otherwise than the linter says fails the proof. Behind these stand all rules of squawk,
strong_migrations and Atlas, with ours.
"""

from __future__ import annotations

import argparse
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import aiomysql  # type: ignore[import-untyped]
import anyio
import pymysql
from benchmarks import evidence
from tests.migrations.lint_examples import EXAMPLES, Example
from tests.migrations.lock_observations import (
    Observed,
    differences,
    how,
    observed,
    observed_concurrently,
    refused,
    there,
)
from tests.migrations.migrating import APP, create, migrate, states_of
from tests.migrations.schema_changes import CHANGES, ROWS, SchemaChange, shop
from tests.services.databases import SQLite, a_server, ask

from covet_migrate.ddl import LATEST, steps_of
from covet_migrate.ddl.sqlite import rebuild
from covet_migrate.execution.stages import Target, described, stages_of
from covet_migrate.migrations import Migration
from covet_migrate.operations import Change, Online
from covet_migrate.safety.effects import Blocks, Effect, effects_of
from covet_migrate.safety.linting import findings_of, lint
from covet_migrate.safety.peers import PEERS
from covet_migrate.safety.raw_sql import read_sql
from covet_migrate.safety.rewriting import safe_migrations
from covet_migrate.safety.rules import all_rules
from covet_migrate.state import State
from covet_migrate.state.rendering import Renderer
from covet_migrate.steps import Call, RebuildTable, Statement, Step
from covet_orm import Database
from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import DatabaseError

MANY = 60_000
"""Rows of the table that is looked at while it is copied (MariaDB)."""
ONLINE = ("not_null", "not_null_filled", "unique", "add_foreign_key", "add_volatile", "add_checked", "add_unique")
"""The changes that are also made online."""
ALGORITHMS = ("INSTANT", "NOCOPY", "INPLACE", "COPY")
LOCKS = ("NONE", "SHARED", "EXCLUSIVE")
LOCK_WAIT_TIMEOUT = 1205
OTHER_COLUMNS = frozenset((1054, 1364))
"""A change has given a column another name; it has added one that wants a value."""
REFUSED = frozenset(("concurrent-in-transaction", "required-column-unfilled"))
"""The rules about what a server refuses, where there are rows, or in a transaction."""
COPYING = ("copy to tmp table", "altering table", "preparing for alter table", "Enabling keys")


@dataclass
class Row:
    """A statement, what was said of it, and what was seen.

    Attributes:
        change: what it is a part of.
        statement: the statement.
        said: the lock that was said.
        seen: the lock that was seen.
        rewritten: whether tables were written anew.
        readers: what became of those who read meanwhile.
        writers: what became of those who wrote.
        wrong: what is otherwise than said.
    """

    change: str
    statement: str
    said: str
    seen: str
    rewritten: str = "no"
    readers: str = ""
    writers: str = ""
    wrong: str = ""

    def cells(self, server: str) -> list[str]:
        """The row of the table."""
        short = self.statement if len(self.statement) <= 90 else self.statement[:87] + "..."
        parts = [self.change, f"`{short.replace('|', chr(92) + '|')}`", self.said, self.seen]
        return [*parts, self.rewritten, self.readers, self.writers, server, self.wrong or "as said"]


HEAD = ["change", "statement", "said", "seen", "rewritten", "readers", "writers", "on", "verdict"]


def locks_told(locks: Any) -> str:
    """Locks in a cell of a table."""
    return ", ".join(f"{lock} on {table}" for table, lock in sorted(locks.items())) or "none"


def tried_told(could: dict[str, bool]) -> str:
    """What became of others."""
    return "-" if not could else "go on" if all(could.values()) else "wait"


def row_of(change: str, seen: Observed, effect: Effect) -> Row:
    """What was said beside what was seen (PostgreSQL)."""
    wrong = differences(seen, effect if seen.held else Effect(locks=effect.locks, blocks=effect.blocks))
    return Row(
        change, seen.statement, locks_told(effect.locks), locks_told(seen.locks),
        "yes" if seen.rewritten else "no", tried_told(seen.readers), tried_told(seen.writers), "; ".join(wrong),
    )  # fmt: skip


async def prepared(url: str, kind: str, before: Sequence[Any], rows: Sequence[str] = ROWS) -> State:
    """A database with the state before a change, and rows; that state."""
    first = shop()
    await create(url, first)
    if rows:
        await ask(url, *rows)
    await migrate(url, kind, first, before)
    return states_of(first, before)[-1]


def steps_between(before: State, change: SchemaChange, kind: str, version: tuple[int, ...]) -> list[Step]:
    """The steps of a change."""
    after = change.operation.apply(before, APP)
    return steps_of(change.operation.actions(Change(APP, before, after, kind, Renderer())), kind, version)


def changes_of(kind: str) -> Iterator[tuple[str, SchemaChange]]:
    """The changes that a kind of database can do, and those that are also made online."""
    for name, made in CHANGES.items():
        if kind in made().kinds:
            yield name, made()
    for name in ONLINE if kind == "postgresql" else ():
        change = CHANGES[name]()
        yield f"{name}, online", SchemaChange(Online(change.operation), change.before)


async def postgresql(server: Any) -> list[Row]:
    """Every statement of every change on a server."""
    rows = []
    for name, change in changes_of("postgresql"):
        url = server.empty_database("locks")
        before = await prepared(url, "postgresql", change.before)
        version = (server.version,)
        steps = steps_between(before, change, "postgresql", version)
        async with Database(url) as database, database.connection() as connection:
            for step, effect in zip(steps, effects_of(steps, "postgresql", version), strict=True):
                if isinstance(step, Call):
                    value = "note = 'x'" if name.startswith("not_null") else "key = gen_random_uuid()"
                    await connection.script(f"UPDATE shop_book SET {value}")
                    continue
                assert isinstance(step, Statement)
                if step.transactional:
                    seen = await observed(url, connection, step)
                elif "IF EXISTS" in step.sql and "CREATE" not in step.sql and not await there(url, step):
                    await connection.script(step.sql)
                    continue
                else:
                    seen = await observed_concurrently(url, connection, step.sql)
                rows.append(row_of(name, seen, effect))
    return rows


async def rules_on_postgresql(server: Any) -> list[Row]:
    """The statement that each rule finds in its example."""
    rows = []
    for name, rule in all_rules().items():
        if "postgresql" not in rule.kinds:
            continue
        example = EXAMPLES[name]()
        url = server.empty_database("locks")
        before = await prepared(url, "postgresql", example.before)
        if example.setup:
            await ask(url, *example.setup)
        rows += await _of_rule(url, name, example, before, (server.version,))
    return rows


async def _of_rule(url: str, name: str, example: Example, before: State, version: tuple[int, ...]) -> list[Row]:
    """The rows of one rule: of the statements that it finds, behind those before them."""
    migration = Migration(example.bad, app=APP, name="0002_bad", atomic=example.atomic)
    # What a rule is about need not be so on the server that is there.
    told = Target("postgresql", example.version or version, "default", steps_of, Renderer())
    found = [one for one in findings_of(migration, before, told) if one.rule == name]
    assert found, f"{name} finds nothing in its example"
    statements = {one.where.statement: one for one in found if one.where.statement}
    if not statements:
        return [Row(name, found[0].where.description, "of the declaration", "-", "-", "-", "-")]
    steps = [step for stage in stages_of(migration, before, told, backward=False) for step in stage.steps]
    rows = []
    async with Database(url) as database, database.connection() as connection:
        for step, effect in zip(steps, effects_of(steps, "postgresql", version), strict=True):
            assert isinstance(step, Statement)
            absent = "CONCURRENTLY IF EXISTS" in step.sql and not await there(url, step)
            if described(step) not in statements or (absent and name not in REFUSED):
                await connection.script(step.sql)
                continue
            rows.append(await _found(url, connection, name, step, effect))
    return rows


async def _found(url: str, connection: Connection, name: str, step: Statement, effect: Effect) -> Row:
    raw = read_sql(step.sql, "postgresql")[0] if not effect.known else None
    if raw is not None and (not raw.lock or raw.rules >= {"transaction-control"}):
        # Of no table: there is nothing that others could wait for.
        return Row(name, described(step), "no table", "no table", "-", "-", "-")
    if name in REFUSED:
        return await _refused_row(connection, name, step, effect)
    outside = not step.transactional or (raw is not None and raw.concurrent) or step.sql.startswith("VACUUM")
    if outside:
        seen = await observed_concurrently(url, connection, step.sql)
    else:
        seen = await observed(url, connection, step)
    if raw is None:
        return row_of(name, seen, effect)
    named = {table: lock for table, lock in seen.locks.items() if table in raw.tables}
    wrong = "" if set(named.values()) == {raw.lock} else f"locks {named}, and not {raw.lock}"
    for table, could in [(table, could) for table, could in seen.readers.items() if table in raw.tables]:
        if could is (raw.blocks is Blocks.EVERYBODY):
            wrong += f"; {table} can be read: {could}"
    for table, could in [(table, could) for table, could in seen.writers.items() if table in raw.tables]:
        # Rows that it changes are locked as well.
        if could is (raw.blocks > Blocks.NOBODY or (raw.changes_rows and not could)):
            wrong += f"; {table} can be written: {could}"
    return Row(
        name, seen.statement, raw.lock, locks_told(seen.locks), "yes" if seen.rewritten else "no",
        tried_told(seen.readers), tried_told(seen.writers), wrong,
    )  # fmt: skip


async def _refused_row(connection: Connection, name: str, step: Statement, effect: Effect) -> Row:
    """A statement that the server is to refuse in a transaction."""
    await connection.script("BEGIN")
    try:
        await connection.script(step.sql)
    except DatabaseError as error:
        said = f"{locks_told(effect.locks)}; refused"
        return Row(name, described(step), said, f"refused: {type(error).__name__}", "-", "-", "-")
    finally:
        await connection.script("ROLLBACK")
    return Row(name, described(step), "refused", "done", wrong="it is not refused")


async def mariadb(server: Any) -> list[Row]:
    """Every statement of every change, and those of the rules that are about MariaDB alone."""
    rows = []
    for name, change in changes_of("mariadb"):
        url = server.empty_database("locks")
        before = await prepared(url, "mariadb", change.before)
        steps = steps_between(before, change, "mariadb", (10, 11))
        for step, effect in zip(steps, effects_of(steps, "mariadb", (10, 11)), strict=True):
            assert isinstance(step, Statement)
            if effect.algorithm and effect.long:
                await _many(url, unique="UNIQUE" in step.sql)
            rows.append(await _on_mariadb(url, name, step, effect))
    return rows


async def _many(url: str, *, unique: bool) -> None:
    """Enough books that copying them can be looked at, where they are called so.

    Args:
        url: of the database.
        unique: whether no two of them have as many pages.
    """
    if not await ask(url, "SHOW TABLES LIKE 'shop_book'"):
        return
    if (await ask(url, "SELECT count(*) FROM shop_book"))[0][0] < MANY:
        columns = "title, pages, author_id, code, note, price"
        pages = "-seq" if unique else "seq % 4000 + 1"
        rows = f"SELECT concat('t', seq), {pages}, 1, seq + 100, 'x', seq % 1000 FROM seq_1_to_{MANY}"
        try:
            await ask(url, f"INSERT INTO shop_book ({columns}) {rows}")
        except pymysql.err.Error as error:
            if error.args[0] not in OTHER_COLUMNS:
                raise


async def _on_mariadb(url: str, name: str, step: Statement, effect: Effect) -> Row:
    statement = described(step)
    if not effect.algorithm:
        with warnings.catch_warnings():
            # The name of a primary key is nothing to MariaDB.
            warnings.simplefilter("ignore")
            await ask(url, step.sql)
        return Row(name, statement, locks_told(effect.locks), "no online DDL", "-", "-", "-")
    (lock,) = effect.locks.values()
    said = f"ALGORITHM={effect.algorithm}, LOCK={lock}"
    wrong = []
    cheaper = ALGORITHMS.index(effect.algorithm) - 1
    if cheaper >= 0 and not await refused(url, how(step.sql, ALGORITHMS[cheaper], None)):
        return Row(name, statement, said, ALGORITHMS[cheaper], wrong="it is cheaper")
    if lock != "NONE" and not await refused(url, how(step.sql, effect.algorithm, LOCKS[LOCKS.index(lock) - 1])):
        return Row(name, statement, said, LOCKS[LOCKS.index(lock) - 1], wrong="it locks less")
    readers, writers, error = await _while_it_runs(url, next(iter(effect.locks)), how(step.sql, effect.algorithm, lock))
    if error:
        wrong.append(error)
    if not effect.long:
        # It has the table for the moment in which its definition changes.
        readers = writers = ""
    if writers and writers != ("wait" if lock != "NONE" else "go on"):
        wrong.append(f"writers {writers}")
    if readers and readers != ("wait" if lock == "EXCLUSIVE" else "go on"):
        wrong.append(f"readers {readers}")
    seen = said if not error else "refused"
    anew = "yes" if effect.rewrites else "no"
    return Row(
        name, statement, said, seen, anew, readers or "in an instant", writers or "in an instant", "; ".join(wrong)
    )


async def _while_it_runs(url: str, table: str, sql: str) -> tuple[str, str, str]:
    """Run a statement on a table; whether others can read and write that meanwhile, as often as it was seen running;
    and its error."""
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    other = await aiomysql.connect(
        host=parts.hostname or "", port=parts.port or 0, user=unquote(parts.username or ""),
        password=unquote(parts.password or ""), db=unquote(parts.path[1:]), autocommit=True,
    )  # fmt: skip
    error = ""
    ended = False
    could: dict[str, set[bool]] = {"read": set(), "write": set()}

    async def run() -> None:
        nonlocal error, ended
        error = await refused(url, sql)
        ended = True

    try:
        async with other.cursor() as cursor, anyio.create_task_group() as group:
            await cursor.execute("SET lock_wait_timeout = 0, innodb_lock_wait_timeout = 1")
            group.start_soon(run)
            while not ended:
                for what, tries in (
                    ("read", f"SELECT 1 FROM {table} LIMIT 1"),
                    ("write", f"DELETE FROM {table} WHERE id = 0"),
                ):
                    running = await _is_running(cursor, sql)
                    outcome = await _succeeds(cursor, tries)
                    # It counts where the statement copied before and after.
                    if running and outcome is not None and await _is_running(cursor, sql):
                        could[what].add(outcome)
                await anyio.sleep(0.001)
    finally:
        other.close()
    # At its beginning and its end, a statement has the table for itself, whatever it locks in between.
    told = {what: "" if not seen else "go on" if True in seen else "wait" for what, seen in could.items()}
    return told["read"], told["write"], error


async def _is_running(cursor: Any, sql: str) -> bool:
    await cursor.execute("SELECT state, info FROM information_schema.processlist")
    return any(info == sql and state in COPYING for state, info in await cursor.fetchall())


async def _succeeds(cursor: Any, sql: str) -> bool | None:
    """Whether it is done at once; None where the table is not there (any longer)."""
    try:
        await cursor.execute(sql)
    except pymysql.err.Error as error:
        return False if error.args[0] == LOCK_WAIT_TIMEOUT else None
    return True


async def sqlite(server: SQLite) -> list[Row]:
    """Every step of every change: another connection reads, and writes, while it is not committed."""
    rows = []
    for name, change in changes_of("sqlite"):
        url = server.empty_database("locks")
        before = await prepared(url, "sqlite", change.before)
        steps = steps_between(before, change, "sqlite", LATEST["sqlite"])
        async with Database(url) as database, database.connection() as connection:
            await connection.script("PRAGMA foreign_keys = OFF")
            for step, effect in zip(steps, effects_of(steps, "sqlite", LATEST["sqlite"]), strict=True):
                await connection.script("BEGIN IMMEDIATE")
                if isinstance(step, RebuildTable):
                    await rebuild(connection, step)
                else:
                    assert isinstance(step, Statement)
                    await connection.script(step.sql)
                reads, writes = _on_sqlite(server)
                await connection.script("COMMIT")
                wrong = "" if (reads, writes) == (True, False) else f"reads {reads}, writes {writes}"
                anew = "yes" if effect.rewrites else "no"
                read, written = (tried_told({"": one}) for one in (reads, writes))
                rows.append(
                    Row(name, described(step), locks_told(effect.locks), "RESERVED", anew, read, written, wrong)
                )
    return rows


def _on_sqlite(server: SQLite) -> tuple[bool, bool]:
    """Whether another connection can read, and write."""
    with closing(sqlite3.connect(server.path("locks"), timeout=0, isolation_level=None)) as other:
        other.execute("SELECT count(*) FROM shop_author").fetchall()
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True, False
        other.execute("ROLLBACK")
        return True, True


def safe_instead(name: str) -> str:
    """Whether `makemigrations --safe` writes the example of a rule so that the rule finds nothing (PostgreSQL)."""
    example = EXAMPLES[name]()
    kind = "postgresql" if "postgresql" in all_rules()[name].kinds else example.kind
    number = iter(range(2, 99))
    bad = Migration(example.bad, [(APP, "0001")], app=APP, name="0002_bad", atomic=example.atomic)
    made = safe_migrations(
        [bad], example.state, kind, lambda app, operations: f"{next(number):04}_safe", example.version
    )
    state, pairs = example.state, []
    for one in made:
        pairs.append((one, state))
        state = one.apply(state)
    left = {one.rule for one in lint(pairs, kind, example.version)}
    return "no" if name in left else "yes"


def peers_table() -> str:
    """Every rule of the other tools."""
    applied = {name: safe_instead(name) for name in all_rules()}
    rows = []
    for peer in PEERS:
        ours = ", ".join(f"`{name}`" for name in peer.rules)
        instead = " / ".join(dict.fromkeys(all_rules()[name].instead for name in peer.rules))
        safe = ", ".join(dict.fromkeys(applied[name] for name in peer.rules)) or "-"
        rows.append([peer.tool, peer.name, ours or peer.because, instead.replace("|", "\\|") or "-", safe])
    return evidence.table(["tool", "its rule", "here", "instead", "`--safe`"], rows)


def rules_table() -> str:
    """Our rules, and whether `--safe` applies what they say instead."""
    rows = [
        [f"`{one.name}`", str(one.severity), ", ".join(one.kinds), one.instead, safe_instead(one.name)]
        for one in all_rules().values()
    ]
    return evidence.table(["rule", "severity", "where", "instead", "`--safe`"], rows)


def together(by_server: dict[str, list[Row]]) -> list[list[str]]:
    """The rows of several servers: one where they agree."""
    found: dict[tuple[str, ...], list[str]] = {}
    for server, rows in by_server.items():
        for row in rows:
            cells = row.cells("")
            found.setdefault((*cells[:7], cells[8]), []).append(server)
    return [[*cells[:7], ", ".join(dict.fromkeys(servers)), cells[7]] for cells, servers in found.items()]


async def prove(names: Sequence[str]) -> tuple[dict[str, str], int, int]:
    """All servers in turn: the sections, how many statements there were, and how many did otherwise."""
    changes: dict[str, list[Row]] = {}
    rules: dict[str, list[Row]] = {}
    online: list[Row] = []
    files: list[Row] = []
    for name in names:
        if name == "sqlite":
            import tempfile
            from pathlib import Path

            with tempfile.TemporaryDirectory() as folder:
                files = await sqlite(SQLite(Path(folder)))
            continue
        with a_server(name) as server:
            server.start()
            if name == "mariadb":
                online = await mariadb(server)
            else:
                changes[name] = await postgresql(server)
                rules[name] = await rules_on_postgresql(server)
    every = [row for rows in (*changes.values(), *rules.values(), online, files) for row in rows]
    sections = {
        "PostgreSQL, by rule": evidence.table(["rule", *HEAD[1:]], together(rules)),
        "PostgreSQL, by change": evidence.table(HEAD, together(changes)),
        "MariaDB": evidence.table(HEAD, together({"mariadb": online})),
        "SQLite": evidence.table(HEAD, together({"sqlite": files})),
        "Rules": rules_table(),
        "Other tools": peers_table(),
    }
    wrong = [row for row in every if row.wrong]
    for row in wrong:
        print(row, flush=True)
    return sections, len(every), len(wrong)


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", nargs="+", default=["postgresql-15", "postgresql-18", "mariadb", "sqlite"])
    parser.add_argument("--print", action="store_true", help="write no page")
    given = parser.parse_args()
    sections, count, wrong = anyio.run(prove, given.databases)
    print(f"{count} statements, {wrong} of them otherwise than said")
    if not given.print:
        about = f"{(__doc__ or '').strip()}\n\n{count:,} statements were held; {wrong} did otherwise than was said."
        evidence.write(
            "migrate_locks",
            "What migrations lock",
            about,
            ["covet-migrate", "sqlalchemy", "asyncpg", "aiomysql", "sqlglot"],
            sections,
            session="proof",
        )
    if wrong:
        raise SystemExit("a statement locks something else than the linter says: see the table")


if __name__ == "__main__":
    main()
