"""Objects of SQL that somebody wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import sqlalchemy
from sqlalchemy.exc import ArgumentError, CompileError

from covet_orm.ambient import home_of
from covet_orm.dialects import compile_statement
from covet_orm.exceptions import QueryError
from covet_orm.queries.hydration import object_loader

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.fields.base import Field
    from covet_orm.models.instances import Model
    from covet_orm.queries.querysets import QuerySet

__all__ = ["RawQuery"]

M = TypeVar("M", bound="Model")


class RawQuery(Generic[M]):
    """A query in SQL that gives objects; `await` it, or loop over it with `async for`.

    Args:
        query: says the model and the database.
        sql: the SQL.
        parameters: its parameters.

    Raises, when it is awaited:
        QueryError: the columns of the key are not there, or a parameter has no value.
        DatabaseError: the server refused.
    """

    def __init__(self, query: QuerySet[M], sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> None:
        if not isinstance(sql, str):
            raise QueryError(f"raw() takes SQL as a text, not {type(sql).__name__}")
        if isinstance(parameters, (str, bytes)):
            raise QueryError("the parameters of raw() are a list, or a mapping")
        self.query = query
        self.sql = sql
        self.parameters = parameters

    def using(self, database: str | Database | None) -> RawQuery[M]:
        """In that database: an alias, or a Database."""
        return RawQuery(self.query.using(database), self.sql, self.parameters)

    def __await__(self) -> Generator[Any, None, list[M]]:
        return self._fetch().__await__()

    async def __aiter__(self) -> AsyncIterator[M]:
        for found in await self._fetch():
            yield found

    async def _fetch(self) -> list[M]:
        query = self.query
        database = query.database
        await database.open()
        sql, values = self._statement(database.kind)
        rows = await database.query(sql, values)
        by_column = {field.column: field for field in query.model._meta.fields}
        fields: list[Field[Any]] = []
        order: list[int] = []
        others: list[tuple[str, int]] = []
        for position, column in enumerate(rows.columns):
            field = by_column.get(column)
            if field is not None and field not in fields:
                fields.append(field)
                order.append(position)
            else:
                others.append((column, position))
        missing = [key.column for key in query.model._meta.primary_key if key not in fields]
        if missing:
            raise QueryError(
                f"raw(): the columns of the key of {query.model.__name__} are not among what the SQL gives: "
                f"{', '.join(missing)}"
            )
        width = len(fields)
        annotations = [(column, AS_IT_IS, width + number) for number, (column, _) in enumerate(others)]
        load = object_loader(query.model, fields, database.kind, annotations=annotations)
        order += [position for _, position in others]
        arranged = [tuple([row[position] for position in order]) for row in rows.rows]
        return cast("list[M]", load(arranged, home_of(query, database)))

    def _statement(self, kind: str) -> tuple[str, Sequence[Any]]:
        if not isinstance(self.parameters, Mapping):
            return self.sql, tuple(self.parameters)
        try:
            statement = sqlalchemy.text(self.sql).bindparams(**self.parameters)
            compiled = compile_statement(statement, kind)
        except (ArgumentError, CompileError) as error:
            raise QueryError(f"raw(): {error}") from None
        return compiled.sql, compiled.parameters()

    def __repr__(self) -> str:
        return f"<RawQuery of {self.query.model.__name__}: {self.sql:.60}>"


class _AsItIs:
    """Stands for the field of a column that is none of the model's: its values are the driver's."""

    def loader(self, kind: str) -> None:
        """No conversion."""
        return


AS_IT_IS: Any = _AsItIs()
