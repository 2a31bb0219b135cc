"""How a statement of SQLAlchemy Core becomes the text and the parameters that a driver takes.

SQLAlchemy knows the databases; nothing of it runs a statement here. It compiles with the placeholders of the driver
(`$1` for asyncpg, `%s` for aiomysql, `?` for aiosqlite), once for each form of a statement; what it gives is text and
the names of the parameters in the driver's order, so that the text can be run again with other values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from covet.settings_schema import nearest
from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import NotSupported, QueryError

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import Dialect
    from sqlalchemy.sql import ClauseElement

__all__ = ["KINDS", "Compiled", "Kind", "Processor", "compile_statement", "dialect_of"]

Kind = Literal["postgresql", "mysql", "mariadb", "sqlite"]
"""The databases, by the name that `Database.kind` gives."""

KINDS: tuple[Kind, ...] = get_args(Kind)
"""All of them."""

Processor = Callable[[Any], Any]
"""Makes what a driver takes of a value, as the SQLAlchemy type of a parameter wants it."""


class Compiled(NamedTuple):
    """A compiled statement.

    Attributes:
        sql: the text, in the placeholders of the driver. On MySQL and MariaDB each `%` that is no placeholder is
            doubled, also when there are no parameters: the driver always formats.
        names: the name of the parameter that goes to each position. A name may be there more than once.
        defaults: the values that the statement itself holds, by name; a `bindparam` that requires a value has none.
        processors: by name, what SQLAlchemy's type makes of a value before the driver gets it (JSON text, the value of
            an enum, ...). Not there for a name whose values go as they are.
    """

    sql: str
    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    processors: Mapping[str, Processor]

    def parameters(self, values: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
        """The parameters in the driver's order: `values` by name, the statement's own for those that are not in it.

        Raises:
            QueryError: a parameter has no value.
        """
        known = {**self.defaults, **values} if values else self.defaults
        try:
            if not self.processors:
                return tuple([known[name] for name in self.names])
            return tuple(
                [self.processors[name](known[name]) if name in self.processors else known[name] for name in self.names]
            )
        except KeyError as error:
            raise QueryError(
                f"the statement has no value for its parameter {error.args[0]!r}{nearest(str(error.args[0]), known)}"
            ) from None


def dialect_of(kind: str) -> Dialect:
    """The SQLAlchemy dialect of a database: for DDL, types and reflection.

    Raises:
        QueryError: there is no such database.
    """
    return _dialects(kind)[0]


def compile_statement(statement: ClauseElement, kind: str) -> Compiled:
    """Compile a statement of SQLAlchemy Core for a driver.

    A parameter whose type is known is cast on PostgreSQL (`$1::INTEGER`), so that a value is understood where the
    server could not infer its type; one of an unknown type (`NullType`) is not, and the server infers it from what it
    meets: a column of type uuid takes it for a uuid. The values of an `in_()` become a parameter each; their number is
    part of the text.

    Args:
        statement: a select, insert, update, delete, a set operation, or text.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.

    Raises:
        NotSupported: the database has no such construct.
        QueryError: there is no such database, the statement cannot be compiled or is nested too deeply, or it needs
            what only SQLAlchemy's own execution does (a `default=` or `onupdate=` in Python, a list without values).
    """
    dialect = _dialects(kind)[1]
    try:
        compiled = statement.compile(dialect=dialect)
        if not isinstance(compiled, sqlalchemy.sql.compiler.SQLCompiler):
            raise QueryError(f"a {type(statement).__name__} is no statement with parameters")
        for column in (*(compiled.insert_prefetch or ()), *(compiled.update_prefetch or ())):
            raise QueryError(
                f"the column {column} has a default in Python, which nothing would run here; give its value in the "
                "statement, or let the server have the default (server_default)"
            )
        required = {name: None for name, bind in compiled.binds.items() if bind.required}
        for name in required:
            if compiled.binds[name].expanding:
                raise QueryError(
                    f"the list {name!r} is part of the text, by its length; give its values in the statement"
                )
        expanded = compiled.construct_expanded_state(required, escape_names=False)
    except sqlalchemy.exc.UnsupportedCompilationError as error:
        raise NotSupported(f"{kind} cannot express this: {error}") from error
    except RecursionError as error:
        raise QueryError("the statement is nested too deeply") from error
    except (sqlalchemy.exc.CompileError, sqlalchemy.exc.InvalidRequestError) as error:
        raise QueryError(f"the statement cannot be compiled for {kind}: {error}") from error
    names = tuple(expanded.positiontup or ())
    processors: dict[str, Processor] = {}
    for name in names:
        bind = compiled.binds.get(name)
        processor = (
            expanded.processors.get(name) if bind is None else bind.type.dialect_impl(dialect).bind_processor(dialect)
        )
        if processor is not None:
            processors[name] = processor
    defaults = {name: expanded.parameters[name] for name in names if name not in required}
    return Compiled(expanded.statement, names, defaults, processors)


RESERVED: Mapping[str, frozenset[str]] = {
    "postgresql": frozenset(("collation", "concurrently", "lateral", "system_user", "tablesample")),
    "mysql": frozenset(("portion",)),
    "mariadb": frozenset(("delete_domain_id", "master_demote_to_replica", "master_demote_to_slave", "portion")),
    "sqlite": frozenset(("nothing", "returning")),
}
"""Words that a name has to be quoted for, and that SQLAlchemy's lists lack; a test asks each server for all of its
words."""


@cache
def _dialects(kind: str) -> tuple[Dialect, Dialect]:
    """The dialect for definitions, and the one for statements."""
    made = _made(kind)
    for dialect in made:
        preparer = dialect.identifier_preparer
        preparer.reserved_words = preparer.reserved_words | RESERVED[kind]
    return made


def _made(kind: str) -> tuple[Dialect, Dialect]:
    # Each is imported when a database of its kind is used.
    dialect: Dialect
    if kind == "postgresql":
        from sqlalchemy.dialects.postgresql import asyncpg

        try:
            # SQLAlchemy makes ranges and bit strings of the driver's classes, where it is installed.
            driver: Any = asyncpg.dialect.import_dbapi()  # type: ignore[no-untyped-call]
        except ImportError:
            driver = None
        dialect = asyncpg.dialect(dbapi=driver)  # type: ignore[no-untyped-call]
    elif kind == "mysql":
        from sqlalchemy.dialects.mysql import aiomysql

        dialect = aiomysql.dialect()
        # SQLAlchemy learns them from the server's version; without, it would leave out `OF` and say nothing.
        dialect.supports_for_update_of = True
        dialect.use_mysql_for_share = True
    elif kind == "mariadb":
        from sqlalchemy.dialects.mysql import mariadb

        dialect = mariadb.loader("aiomysql")()
    elif kind == "sqlite":
        from sqlalchemy.dialects.sqlite import aiosqlite

        from covet_orm.dialect_sqlite import SQLiteStatements

        return aiosqlite.dialect(), SQLiteStatements()
    else:
        raise QueryError(f"{kind!r} is no database that covet-orm speaks to{nearest(kind, KINDS)}")
    return dialect, dialect
