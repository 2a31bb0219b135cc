"""`update` and `delete` of querysets: one statement, whatever the query asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy
from sqlalchemy import ColumnElement

from covet_orm.exceptions import FieldError, IntegrityError, QueryError
from covet_orm.expressions.base import Expression
from covet_orm.expressions.casts import cast_to
from covet_orm.expressions.references import F
from covet_orm.fields.inference import family
from covet_orm.queries.names import Names
from covet_orm.queries.one_database import require_one_database
from covet_orm.queries.parents import delete_parts, update_parts
from covet_orm.queries.plans import Plan, make_plan, refused
from covet_orm.queries.saving import named
from covet_orm.queries.scope import Parameters, Scope
from covet_orm.relations.deletion import delete_with_signals, wants_signals

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.fields.base import Field
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Change", "counted", "delete", "deletion", "update", "updating"]


class Change(NamedTuple):
    """A statement that writes the rows of a query.

    Attributes:
        shape: what its SQL depends on.
        values: its parameters, in the order in which the parts of the shape ask for them.
        compile: makes the statement, for a database, and the scope that its parameters are in.
        purpose: names it in events.
    """

    shape: tuple[Any, ...]
    values: list[Any]
    compile: Callable[[Database], tuple[Any, Scope]]
    purpose: str


async def update(query: QuerySet[Any], values: Mapping[str, Any]) -> int:
    """Write values to every row of a query; how many rows there were."""
    _require_rows(query, "update")
    options = query.model._meta
    values = counted(query, values)
    if options.parent_link is not None and any(options.field(name).model is not options.concrete for name in values):
        return await update_parts(query, values, _update_table)
    return await _update_table(query, values)


async def _update_table(query: QuerySet[Any], values: Mapping[str, Any]) -> int:
    return await _execute(query, updating(query, values))


def counted(query: QuerySet[Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an update writes, with the version of the rows counted on, where they have one."""
    version = query.model._meta.version_field
    if version is None or version.name in values:
        return values
    # Whoever read a row before is to notice.
    return {**values, version.name: F(version.name) + 1}


def updating(query: QuerySet[Any], values: Mapping[str, Any]) -> Change:
    """What writes values to columns of the model's own table.

    Raises:
        FieldError: there is no such field.
        QueryError: a value is none that its field takes.
    """
    options = query.model._meta
    fields: list[Field[Any]] = []
    for name in values:
        field = options.field(name)
        if field.generated:
            raise FieldError(f"{field!r} is generated: the database makes its values")
        if field in fields:
            raise FieldError(f"update() was given {field!r} twice")
        fields.append(field)
    if not fields:
        raise QueryError("update() was given nothing to write")
    for field, value in zip(fields, values.values(), strict=True):
        if not isinstance(value, Expression):
            try:
                # Its type first: `validate` is called with values of the field alone.
                wrong = field.validate(value if value is None else field.to_python(value))
            except ValueError as error:
                wrong = [str(error)]
            if wrong:
                raise QueryError(f"{options.model.__name__}.{field.name}: {'; '.join(wrong)}")
    names = Names(query.options, query._annotations)
    given = [value.resolved(names) if isinstance(value, Expression) else value for value in values.values()]

    def compile_update(database: Database) -> tuple[Any, Scope]:
        scope, conditions = _conditions(query, database.kind)
        written = {
            field.column: _written(value, field, scope) if isinstance(value, Expression) else scope.parameter(field)
            for field, value in zip(fields, given, strict=True)
        }
        if len(scope.joins) > 1 and any(isinstance(value, Expression) for value in given):
            for field, value in zip(fields, given, strict=True):
                if isinstance(value, Expression) and scope.join_order and not _is_local(value, query, database.kind):
                    raise QueryError(
                        f"update({field.name}={value!r}): an expression of an update names columns of its own row; "
                        "use a "
                        "Subquery for those of others"
                    )
        table: Any = scope.root
        return sqlalchemy.update(table).values(written).where(*conditions), scope

    key: list[Any] = [("update", tuple(fields))]
    parameters: list[Any] = []
    query.shape(key.append, parameters.append)
    for value in given:
        if isinstance(value, Expression):
            value.shape(key.append, parameters.append)
        else:
            key.append(None)
            parameters.append(value)
    return Change(tuple(key), parameters, compile_update, "update")


async def delete(query: QuerySet[Any]) -> int:
    """Delete every row of a query; how many rows there were, those that the database deletes with them not counted."""
    _require_rows(query, "delete")
    if wants_signals(query.model):
        async with query.database.transaction():
            objects = await query
            return await delete_with_signals(objects, query.database, origin=query) if objects else 0
    if query.model._meta.parent_link is not None:
        return await delete_parts(query, _delete_rows)
    return await _delete_rows(query)


async def _delete_rows(query: QuerySet[Any]) -> int:
    return await _execute(query, deletion(query))


def deletion(query: QuerySet[Any]) -> Change:
    """What deletes rows of the model's own table."""

    def compile_delete(database: Database) -> tuple[Any, Scope]:
        scope, conditions = _conditions(query, database.kind)
        return sqlalchemy.delete(scope.root).where(*conditions), scope  # type: ignore[arg-type]

    key: list[Any] = ["delete"]
    parameters: list[Any] = []
    query.shape(key.append, parameters.append)
    return Change(tuple(key), parameters, compile_delete, "delete")


async def _execute(query: QuerySet[Any], change: Change) -> int:
    shape, values, compiler, purpose = change
    database = query.database
    await database.open()
    plan: Plan | None = database.plans.get(shape)
    if plan is None:
        require_one_database(shape, database)
        statement, scope = compiler(database)
        plan = make_plan(statement, database.kind, scope.parameters, None, f"{query.model.__name__}.{purpose}")
        database.plans.put(shape, plan)
    try:
        parameters = plan.bind(values)
    except ValueError as error:
        found: Parameters = compiler(database)[1].parameters
        raise refused(error, found, values) from error
    try:
        return (await database.write(plan, parameters)).changed
    except IntegrityError as error:
        raise named(error, query.model._meta) from error.__cause__


def _conditions(query: QuerySet[Any], kind: str) -> tuple[Scope, list[ColumnElement[Any]]]:
    """The rows of a query as conditions on the table itself, built in the order in which their shape is told."""
    from covet_orm.queries.selects import build_select

    options = query.model._meta
    plain = (
        query._limit is None
        and not query._offset
        and query._distinct is None
        and not query._annotations
        and query._clauses is None
        and not query._effective_order()
    )
    if plain:
        scope = Scope(options, kind)
        conditions = [condition.build(scope) for condition in query._where]
        if not scope.join_order:
            return scope, conditions
    # Across relations, or with a limit: the keys are chosen by a subquery.
    outer = Scope(options, kind)
    chosen = query.values_list(*(key.attribute for key in options.primary_key))
    inner = build_select(chosen, kind, outer=outer)[0]
    keys = [outer.root.c[key.column] for key in options.primary_key]
    # MySQL cannot read the table that it writes to, unless what is read stands in a table of its own.
    derived = inner.correlate(None).subquery()
    column = sqlalchemy.select(*derived.c)
    if len(keys) == 1:
        return outer, [keys[0].in_(column)]
    return outer, [sqlalchemy.tuple_(*keys).in_(column)]


def _written(value: Expression[Any], field: Field[Any], scope: Scope) -> ColumnElement[Any]:
    """An expression as a value of a field: a fraction is rounded where the column has whole numbers, a half away from
    zero. SQLite would keep it as it is, and the others round floats to the even number."""
    built = value.build(scope)
    if family(field) != "integer":
        return built
    of = value.output(scope)
    return cast_to(scope, built, of, field) if family(of) in ("float", "decimal") else built


def _is_local(value: Expression[Any], query: QuerySet[Any], kind: str) -> bool:
    scope = Scope(query.model._meta, kind)
    value.build(scope)
    return not scope.join_order


def _require_rows(query: QuerySet[Any], what: str) -> None:
    if query._chosen is not None:
        raise QueryError(f"{what}() is of a query for objects, not of one for values()")
