"""The rows of the table between the models of a many-to-many relation: adding them, whoever else adds them at the same
time, and removing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy.dialects import mysql, postgresql, sqlite

from covet_orm.constraints import UniqueConstraint
from covet_orm.dialects import compile_statement
from covet_orm.exceptions import IntegrityError, QueryError
from covet_orm.expressions.base import Expression
from covet_orm.models.managers import base_queryset
from covet_orm.models.validation import checked
from covet_orm.queries.locks import fetch_locked
from covet_orm.queries.plans import Plan
from covet_orm.queries.saving import named
from covet_orm.relations.keys import batches

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.fields.base import Field
    from covet_orm.fields.related import ForeignKey
    from covet_orm.models.instances import Model
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Membership"]

Pairs = Sequence[tuple[Any, Any]]


class Membership:
    """The rows of a link that belong to one object.

    Args:
        near: the foreign key to that object.
        far: the foreign key to the others.
        owner: the object's key.
        database: where.
        mirrored: whether each row has one of the opposite direction beside it: a symmetrical relation to itself.
    """

    def __init__(
        self, near: ForeignKey[Any], far: ForeignKey[Any], owner: Any, database: Database, *, mirrored: bool
    ) -> None:
        self.near = near
        self.far = far
        self.link = near.model
        self.owner = owner
        self.database = database
        self.mirrored = mirrored

    @property
    def exclusive(self) -> bool:
        """Whether the database itself keeps a pair from being there twice, and nothing else can be in the way."""
        unique = _unique_sets(self.link)
        pair = frozenset((self.near.column, self.far.column))
        if pair not in unique:
            return False
        # MySQL cannot say which of several constraints it is that a row may violate, nor leave a unique index out.
        others = len(unique) > 1 or any(index.unique for index in self.link.__table__.indexes)
        return not others or self.database.kind not in ("mysql", "mariadb")

    async def keys(self, among: Sequence[Any] | None = None) -> list[Any]:
        """The keys of the others that are there; of those in `among` alone, where it is given. Locks what it reads, so
        that it sees what others committed in the meantime."""
        found: list[Any] = []
        for rows in self._rows(among):
            found += await fetch_locked(rows.values_list(self.far.attribute, flat=True))
        return found

    async def lock(self) -> None:
        """Have others wait who lock the same object, until the transaction ends."""
        remote = self.near.remote
        owner = base_queryset(remote.model).using(self.database).order_by().filter(**{remote.attribute: self.owner})
        await fetch_locked(owner.values_list(remote.attribute, flat=True))

    async def add(self, keys: Sequence[Any], defaults: Mapping[str, Any]) -> None:
        """Add rows; a pair that is there already stays as it is.

        Raises:
            ForeignKeyViolation: there is no object of such a key.
            ValidationError: the link needs more values than `defaults` has.
        """
        pairs = [(self.owner, key) for key in keys]
        if self.mirrored:
            pairs += [(key, self.owner) for key in keys if key != self.owner]
        if self.exclusive:
            await self._insert(pairs, defaults)
            return
        async with self.database.transaction():
            await self.lock()
            there = set(await self.keys(keys))
            await self._insert(
                [pair for pair in pairs if (pair[1] if pair[0] == self.owner else pair[0]) not in there], defaults
            )

    async def remove(self, keys: Sequence[Any] | None) -> int:
        """Remove the rows of some others, or of all with None; how many that were."""
        count = 0
        for rows in self._rows(keys):
            count += await rows.delete()
        if self.mirrored:
            await Membership(self.far, self.near, self.owner, self.database, mirrored=False).remove(keys)
        return count

    async def _insert(self, pairs: Pairs, defaults: Mapping[str, Any]) -> None:
        if not pairs:
            return
        kind = self.database.kind
        fields: list[Field[Any]] = []
        rows: list[dict[str, Any]] = []
        options = self.link._meta
        for near, far in pairs:
            row = self.link(**{name: value() if callable(value) else value for name, value in defaults.items()})
            setattr(row, self.near.attribute, near)
            setattr(row, self.far.attribute, far)
            candidates = [field for field in options.fields if not field.generated]
            fields, values = checked(row, candidates, kind)
            if any(isinstance(value, Expression) for value in values):
                raise QueryError("through_defaults: an expression refers to columns of a row that is not there yet")
            rows.append(dict(zip([f"v_{field.column}" for field in fields], values, strict=True)))
        plan = self._plan(tuple(fields))
        parameters = [plan.bind(row) for row in rows]  # type: ignore[arg-type]
        try:
            if len(parameters) == 1:
                async with self.database.connection(name=plan.name) as connection:
                    await connection.execute(plan.sql, parameters[0])
                return
            async with self.database.transaction(), self.database.connection(name=plan.name) as connection:
                await connection.execute_many(plan.sql, parameters)
        except IntegrityError as error:
            raise named(error, options) from error.__cause__

    def _plan(self, fields: tuple[Field[Any], ...]) -> Plan:
        """The INSERT of one row that leaves a pair alone which is there."""
        kind = self.database.kind
        shape = ("link", self.near, self.far, fields)
        plan = self.database.plans.get(shape)
        if plan is None:
            table = self.link.__table__
            values = {f.column: sqlalchemy.bindparam(f"v_{f.column}", type_=f.column_type()) for f in fields}
            statement: Any
            if not self.exclusive:
                statement = sqlalchemy.insert(table).values(values)
            elif kind == "postgresql":
                pair = [self.near.column, self.far.column]
                statement = postgresql.insert(table).values(values).on_conflict_do_nothing(index_elements=pair)
            elif kind == "sqlite":
                pair = [self.near.column, self.far.column]
                statement = sqlite.insert(table).values(values).on_conflict_do_nothing(index_elements=pair)
            else:
                # INSERT IGNORE would ignore a missing foreign key as well.
                same = {self.near.column: table.c[self.near.column]}
                statement = mysql.insert(table).values(values).on_duplicate_key_update(same)
            compiled = compile_statement(statement, kind)
            names = compiled.names
            plan = self.database.plans.put(
                shape,
                Plan(
                    compiled.sql,
                    lambda row: tuple([row[name] for name in names]),  # type: ignore[call-overload]
                    None,
                    f"{self.link.__name__}.insert",
                ),
            )
        return plan

    def _rows(self, keys: Sequence[Any] | None) -> list[QuerySet[Any]]:
        """The rows that lead to some keys, in batches; with None all of them."""
        rows = base_queryset(self.link).using(self.database).order_by().filter(**{self.near.name: self.owner})
        if keys is None:
            return [rows]
        return [rows.filter(**{f"{self.far.name}__in": batch}) for batch in batches(keys, self.database.kind)]


def _unique_sets(link: type[Model]) -> set[frozenset[str]]:
    """The sets of columns that the database keeps unique at each statement, a key that it counts itself left out."""
    table, options = link.__table__, link._meta
    # What only some databases have is not relied on.
    some = [one for one in options.constraints if isinstance(one, UniqueConstraint) and one.databases is not None]
    limited = {frozenset(options.field(str(name)).column for name in one.expressions) for one in some if one.plain}
    found: set[frozenset[str]] = set()
    for constraint in table.constraints:
        if isinstance(constraint, sqlalchemy.PrimaryKeyConstraint) and table.autoincrement_column is not None:
            continue
        if isinstance(constraint, (sqlalchemy.UniqueConstraint, sqlalchemy.PrimaryKeyConstraint)):
            columns = frozenset(column.name for column in constraint.columns)
            if not constraint.deferrable and columns not in limited:
                found.add(columns)
    return found
