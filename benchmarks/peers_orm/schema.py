"""The tables and rows that every peer has, and what a peer is asked for."""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import asyncpg

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)
FIELDS = ("name", "slug", "small", "big", "ratio", "price", "active", "created", "note")
COLUMNS = ("id", *FIELDS)
AUTHORS, BOOKS, ITEMS = 100, 1_000, 10_000
POOL_SIZE = 10
"""How many connections each peer may have, where it has a pool."""

TABLES = ("bench_book", "bench_author", "bench_item", "bench_scratch")
OF_ITEMS = (
    "name varchar(100) not null, slug varchar(100) not null, small integer not null, big bigint not null, "
    "ratio double precision not null, price numeric(12,2) not null, active boolean not null, created {moment} not "
    "null, "
    "note text not null"
)
DDL = (
    *(f"drop table if exists {table}" for table in TABLES),
    "create table bench_author (id integer primary key, name varchar(100) not null)",
    "create table bench_book (id integer primary key, title varchar(100) not null, author_id integer not null, "
    "foreign key (author_id) references bench_author(id))",
    "create index bench_book_author on bench_book (author_id)",
    f"create table bench_item (id integer primary key, {OF_ITEMS})",
    f"create table bench_scratch (id {{serial}}, {OF_ITEMS})",
)
DIFFERENCES = {
    "postgresql": {"serial": "serial primary key", "moment": "timestamp"},
    "sqlite": {"serial": "integer primary key autoincrement", "moment": "timestamp"},
    "mariadb": {"serial": "integer primary key auto_increment", "moment": "datetime(6)"},
}


class Peer(Protocol):
    """What is measured. Every method but the first three is one operation; `number` tells which row."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def clear(self) -> None:
        """Empty the table that is written to."""

    async def get(self, number: int) -> Any: ...

    async def list100(self, number: int) -> Any: ...

    async def list10k(self, number: int) -> Any: ...

    async def values10k(self, number: int) -> Any: ...

    async def insert(self, number: int) -> Any: ...

    async def bulk10k(self, number: int) -> Any: ...

    async def update(self, number: int) -> Any: ...

    async def join1k(self, number: int) -> Any: ...

    async def prefetch(self, number: int) -> Any: ...

    async def count(self, number: int) -> Any: ...

    def books(self, found: Any) -> dict[str, list[str]]:
        """Titles by author, of what `prefetch` found."""
        ...


class Converters:
    """What a peer has `sqlite3` make of declared types.

    That is one table for the whole process, where Piccolo and Django would get each other's: while the context lasts,
    what is registered is noted, and `install` brings that back alone.
    """

    def __enter__(self) -> Converters:
        self.before = dict(sqlite3.converters)
        return self

    def __exit__(self, *failed: object) -> None:
        self.own = {
            name: converter for name, converter in sqlite3.converters.items() if self.before.get(name) is not converter
        }

    def install(self) -> None:
        """Make them the only ones."""
        sqlite3.converters.clear()
        sqlite3.converters.update(self.own)


def begin_turn(peer: Peer) -> None:
    """What has to be done before a peer's turn, and counts for nobody."""
    converters: Converters | None = getattr(peer, "converters", None)
    if converters is not None:
        converters.install()


def kind_of(url: str) -> str:
    """The kind of database that a URL names: `postgresql`, `mariadb` or `sqlite`."""
    return urlsplit(url).scheme


def path_of(url: str) -> str:
    """The file of a database of SQLite."""
    return url.removeprefix("sqlite:///")


def parts_of(url: str) -> dict[str, Any]:
    """Host, port, user, password and database of a URL."""
    parts = urlsplit(url)
    return {
        "host": parts.hostname,
        "port": parts.port,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.strip("/")),
    }


def item(number: int) -> tuple[Any, ...]:
    """The values of an item, without its key."""
    return (
        f"name {number}", f"slug-{number}", number % 97, number * 10, number / 7, Decimal(number).scaleb(-2),
        number % 2 == 0, NOW, "lorem ipsum " * 3,
    )  # fmt: skip


def named(number: int) -> dict[str, Any]:
    """The values of an item by name, without its key."""
    return {
        "name": f"name {number}", "slug": f"slug-{number}", "small": number % 97, "big": number * 10,
        "ratio": number / 7, "price": Decimal(number).scaleb(-2), "active": number % 2 == 0, "created": NOW,
        "note": "lorem ipsum " * 3,
    }  # fmt: skip


def storable(values: Sequence[Any]) -> tuple[Any, ...]:
    """The values as a user of `sqlite3` has to give them."""
    return tuple(
        float(value) if isinstance(value, Decimal)
        else value.isoformat(" ", "microseconds") if isinstance(value, datetime.datetime)
        else value
        for value in values
    )  # fmt: skip


def authors() -> list[tuple[Any, ...]]:
    """The rows of `bench_author`."""
    return [(number, f"author {number}") for number in range(1, AUTHORS + 1)]


def books() -> list[tuple[Any, ...]]:
    """The rows of `bench_book`, ten for each author."""
    return [(number, f"title {number}", (number - 1) // 10 + 1) for number in range(1, BOOKS + 1)]


def items(count: int = ITEMS) -> list[tuple[Any, ...]]:
    """The rows of `bench_item`."""
    return [(number, *item(number)) for number in range(1, count + 1)]


async def build(url: str) -> None:
    """Make the tables and fill them."""
    kind = kind_of(url)
    statements = [statement.format(**DIFFERENCES[kind]) for statement in DDL]
    tables = {"bench_author": authors(), "bench_book": books(), "bench_item": items()}
    if kind == "sqlite":
        _build_sqlite(path_of(url), statements, tables)
    elif kind == "mariadb":
        _build_mariadb(url, statements, tables)
    else:
        connection = await asyncpg.connect(url)
        for statement in statements:
            await connection.execute(statement)
        for table, rows in tables.items():
            await connection.copy_records_to_table(table, records=rows)
        await connection.execute("analyze")
        await connection.close()


def _build_sqlite(path: str, statements: Sequence[str], tables: dict[str, list[tuple[Any, ...]]]) -> None:
    connection = sqlite3.connect(path)
    connection.execute("pragma journal_mode = wal")
    for statement in statements:
        connection.execute(statement)
    for table, rows in tables.items():
        places = ", ".join("?" * len(rows[0]))
        connection.executemany(f"insert into {table} values ({places})", map(storable, rows))
    connection.commit()
    connection.execute("analyze")
    connection.close()


def _build_mariadb(url: str, statements: Sequence[str], tables: dict[str, list[tuple[Any, ...]]]) -> None:
    import pymysql

    with pymysql.connect(**parts_of(url), autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("set session sql_notes = 0")
        for statement in statements:
            cursor.execute(statement)
        for table, rows in tables.items():
            cursor.executemany(f"insert into {table} values ({', '.join(['%s'] * len(rows[0]))})", rows)
        connection.commit()
