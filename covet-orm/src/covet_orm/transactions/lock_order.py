"""Finding deadlocks while one develops: tables that different code locks in different orders.

    with lock_order.watch(database):
        ...

Of each transaction it is noted in which order it first wrote to tables, or locked rows of them, and from which lines.
Where one took A before B and another one B before A, both at once can end in a deadlock, whether or not they ever ran
at once here: that gives a `LockOrderWarning` with all the lines, and an event `LockOrderFound`. Longer circles are
found as well. `-W error::covet_orm.transactions.lock_order.LockOrderWarning` makes tests fail.

The statements are told apart by how they begin, as the ORM compiles them and people write them; this is no parser of
SQL. What a statement locks beside its own tables (rows that foreign keys refer to, what triggers write) is not seen,
nor the order of rows within one table. Where a third lock is always taken before, there is no deadlock, and a warning
all the same. On SQLite, whose transactions that write never overlap, it tells of what other databases would do.

Nothing is noted, and nothing costs anything, while no database is watched. In debug mode the plugin watches the
databases of an application.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from covet.events import Event, listener
from covet_orm import observing
from covet_orm.events import QueryDone
from covet_orm.transactions.blocks import Transaction
from covet_orm.transactions.context import around

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["LockOrderFound", "LockOrderWarning", "locked_tables", "watch"]

logger = logging.getLogger(__name__)

NAME = r'(?:"(?:[^"]|"")*"|`(?:[^`]|``)*`|[^\W\d][\w$]*)'
TABLE = rf"{NAME}(?:\s*\.\s*{NAME})?"
WRITE = (
    r"(?:INSERT(?:\s+(?:IGNORE|LOW_PRIORITY|HIGH_PRIORITY|DELAYED|OR\s+\w+))*\s+INTO"
    r"|REPLACE\s+INTO|MERGE\s+INTO"
    r"|(?<!\bDO\s)(?<!\bKEY\s)UPDATE(?:\s+(?:ONLY|IGNORE|LOW_PRIORITY|OR\s+\w+))*"
    rf"|DELETE(?:\s+(?:IGNORE|LOW_PRIORITY|QUICK|{NAME}))*?\s+FROM(?:\s+ONLY)?"
    r"|TRUNCATE(?:\s+TABLE)?(?:\s+ONLY)?|LOCK\s+TABLES?(?:\s+ONLY)?|COPY)"
)
COMMENT = r"(?:\s|/\*.*?\*/|--[^\n]*\n)*"
HEAD = re.compile(rf"{COMMENT}{WRITE}\s+({TABLE})", re.IGNORECASE | re.DOTALL)
WITHIN = re.compile(rf"\b{WRITE}\s+({TABLE})", re.IGNORECASE)
QUERY = re.compile(rf"{COMMENT}(?:\(\s*)*(?:SELECT|WITH)\b", re.IGNORECASE | re.DOTALL)
LOCKING = re.compile(
    r"\bFOR\s+(?:NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b"
    rf"(?:\s+OF\s+({TABLE}(?:\s*,\s*{TABLE})*))?|\bLOCK\s+IN\s+SHARE\s+MODE\b",
    re.IGNORECASE,
)
SOURCE = re.compile(rf"(?:\b(?:FROM|JOIN)\s+(?:ONLY\s+)?|,\s*)({TABLE})(?:\s+(?:AS\s+)?({NAME}))?", re.IGNORECASE)
FROM = re.compile(r"\bFROM\b", re.IGNORECASE)
ENDS = re.compile(r"\b(?:WHERE|GROUP|ORDER|LIMIT|HAVING|WINDOW|FOR|LOCK)\b", re.IGNORECASE)
CTE = re.compile(rf"({NAME})\s+AS\s+(?:(?:NOT\s+)?MATERIALIZED\s+)?\(", re.IGNORECASE)
TEXTS = re.compile(r"'(?:[^'\\]|''|\\.)*'", re.DOTALL)
GROUP = re.compile(r"\(([^()]*)\)")
TRIED = (None, "DeadlockDetected", "LockTimeout")
"""How a statement ended that took locks, or waited for them."""


class LockOrderWarning(UserWarning):
    """Different code locks the same tables in different orders."""


class Step(NamedTuple):
    """That a transaction locked one table after another.

    Attributes:
        first, second: the tables.
        first_line, second_line: where, as `file:line`.
    """

    first: str
    second: str
    first_line: str
    second_line: str

    def __str__(self) -> str:
        return f"{self.first} ({self.first_line}) and then {self.second} ({self.second_line})"


class LockOrderFound(Event, frozen=True, gc=False):
    """Different code locks the same tables in different orders.

    Attributes:
        database: the alias of the database.
        tables: the tables.
        lines: what was locked after what, and where, of each transaction.
    """

    database: str
    tables: tuple[str, ...]
    lines: tuple[str, ...]


class LockOrders:
    """The orders in which the transactions of one database locked its tables.

    Args:
        database: which one.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.after: dict[str, dict[str, Step]] = {}
        self.told: set[frozenset[str]] = set()
        self._lines: WeakKeyDictionary[Transaction, dict[str, str]] = WeakKeyDictionary()

    def note(self, event: QueryDone) -> None:
        """Note what a statement of a transaction locked."""
        if event.obtained != "transaction" or event.error not in TRIED:
            return
        tables = locked_tables(event.sql)
        block = around(self.database)
        if not tables or block is None:
            return
        lines = self._lines.setdefault(block.root, {})
        if all(table in lines for table in tables):
            return
        frame = observing.caller()
        line = "nobody's line:0" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
        for table in tables:
            if table not in lines:
                for earlier, earlier_line in lines.items():
                    self._add(Step(earlier, table, earlier_line, line))
                lines[table] = line

    def _add(self, step: Step) -> None:
        later = self.after.setdefault(step.first, {})
        if step.second in later:
            return
        later[step.second] = step
        way = self._way(step.second, step.first)
        circle = frozenset({step.first, *(one.first for one in way)})
        if way and circle not in self.told:
            self.told.add(circle)
            self._tell(step, way)

    def _way(self, start: str, end: str) -> list[Step]:
        """The shortest way from one table to another one, by what was locked after what; empty where there is none."""
        ways: dict[str, list[Step]] = {start: []}
        reached = [start]
        for table in reached:
            for step in self.after.get(table, {}).values():
                if step.second not in ways:
                    ways[step.second] = [*ways[table], step]
                    reached.append(step.second)
        return ways.get(end, [])

    def _tell(self, step: Step, way: list[Step]) -> None:
        steps = (step, *way)
        tables = tuple(sorted({one.first for one in steps}))
        message = (
            f"{' and '.join(tables)} are locked in different orders: {'; but elsewhere '.join(map(str, steps))}. Two "
            "such transactions at once can end in a deadlock; lock them in one order everywhere, such as that of "
            "their names"
        )
        filename, _, number = step.second_line.rpartition(":")
        logger.warning("%s: %s", step.second_line, message)
        app = listener()
        if app is not None:
            app.emit(LockOrderFound(self.database.alias, tables, tuple(map(str, steps))))
        frame = observing.caller()
        globals_ = frame.f_globals if frame is not None else {}
        warnings.warn_explicit(
            message,
            LockOrderWarning,
            filename,
            int(number),
            module=globals_.get("__name__"),
            registry=globals_.setdefault("__warningregistry__", {}),
        )


@contextmanager
def watch(*databases: Database) -> Iterator[None]:
    """Find tables that are locked in different orders within the block, in every task.

    Args:
        databases: which ones.
    """
    with ExitStack() as watched:
        for database in databases:
            # Of a method, every look-up makes another object; who is told is known by identity.
            watcher = partial(LockOrders.note, LockOrders(database))
            observing.watch(database, watcher)
            watched.callback(observing.unwatch, database, watcher)
        yield


@lru_cache(maxsize=1024)
def locked_tables(sql: str) -> tuple[str, ...]:
    """The tables that a statement writes to, or whose rows it locks, each once, as far as its text shows it."""
    head = HEAD.match(sql)
    if head is not None:
        return (_name(head[1]),)
    if QUERY.match(sql) is None:
        return ()
    text = TEXTS.sub("''", sql)
    others = {_name(name) for name in CTE.findall(text)}
    found: list[str] = []
    # What stands in parentheses comes first: subqueries and common table expressions.
    while (replaced := GROUP.sub(lambda group: _taken(group[1], found), text)) != text:
        text = replaced
    _taken(text, found)
    return tuple(dict.fromkeys(table for table in found if table not in others))


def _taken(text: str, found: list[str]) -> str:
    """Add what one level of a statement locks; what stands in its place afterwards."""
    found += [_name(written) for written in WITHIN.findall(LOCKING.sub(" ", text))]
    lock = LOCKING.search(text)
    begin = FROM.search(text)
    if lock is not None and begin is not None:
        end = ENDS.search(text, begin.end())
        sources = _sources(text[begin.start() : end.start() if end is not None else len(text)])
        chosen = [_name(name) for name in re.findall(TABLE, lock[1])] if lock[1] else list(sources)
        found += [sources.get(name, name) for name in chosen]
    return " "


def _sources(text: str) -> Mapping[str, str]:
    """The tables of a FROM clause, by the names that the statement has for them."""
    return {
        _name(alias if alias and alias.upper() not in RESERVED else table): _name(table)
        for table, alias in SOURCE.findall(text)
    }


RESERVED = (
    "JOIN",
    "INNER",
    "LEFT",
    "RIGHT",
    "FULL",
    "CROSS",
    "NATURAL",
    "ON",
    "USING",
    "STRAIGHT_JOIN",
    "FORCE",
    "USE",
)
"""What follows the name of a table and is no other name of it."""


def _name(text: str) -> str:
    """A name, without quotes; one without quotes means its small letters."""
    return ".".join(
        part[1:-1].replace(part[0] * 2, part[0]) if part[0] in '"`' else part.lower() for part in re.findall(NAME, text)
    )
