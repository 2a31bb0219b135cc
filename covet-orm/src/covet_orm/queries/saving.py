"""Writing one object: INSERT of a new one, UPDATE of what changed, DELETE, and reading it again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy

from covet_orm import ambient
from covet_orm.ambient import database_for
from covet_orm.databases import Database
from covet_orm.exceptions import IntegrityError, QueryError, StaleObject
from covet_orm.expressions.base import Expression
from covet_orm.fields.numbers import AutoField
from covet_orm.models.changes import changed, rewritten_row
from covet_orm.models.inheritance import lineage
from covet_orm.models.managers import base_queryset
from covet_orm.models.validation import checked
from covet_orm.queries.differences import DIFFERENCES
from covet_orm.queries.parents import insert_parts
from covet_orm.queries.plans import Plan
from covet_orm.queries.sources import Source
from covet_orm.relations.deletion import delete_with_signals, wants_signals
from covet_orm.signals import post_save, pre_save
from covet_orm.transactions.objects import remember

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.routers import Beside

__all__ = ["delete", "delete_row", "insert", "named", "refresh", "remembered_source", "save"]


async def save(
    instance: Any, *, update_fields: Iterable[str] | None, force_insert: bool, using: str | Database | None
) -> None:
    """Insert an object, or update what changed of it."""
    database = _database(instance, using)
    created = force_insert or not instance.saved
    if created and update_fields is not None:
        raise QueryError(f"{instance!r} was not saved yet: update_fields has nothing to update")
    if not pre_save.receivers and not post_save.receivers:
        await _write(instance, update_fields, created, database)
        return
    names = tuple(update_fields) if update_fields is not None else None
    told = {"instance": instance, "created": created, "update_fields": names, "using": database}
    await pre_save.send(type(instance), **told)
    await _write(instance, names, created, database)
    await post_save.send(type(instance), **told)


async def _write(instance: Any, update_fields: Iterable[str] | None, created: bool, database: Database) -> None:
    if created:
        await insert(instance, database)
        return
    remember(database, instance)
    options = instance._meta
    if update_fields is None:
        fields = [field for field in changed(instance) if not field.generated]
    else:
        fields = [options.field(name) for name in update_fields]
    moving = [field for field in options.fields if getattr(field, "auto_now", False) and field not in fields]
    if update_fields is None and fields:
        for field in moving:
            setattr(instance, field.attribute, field.now())
        fields += moving
    if fields:
        await _update(instance, fields, database)


async def delete(instance: Any, *, using: str | Database | None) -> int:
    """Delete the row of an object."""
    if not instance.saved:
        raise QueryError(f"{instance!r} was not saved yet: there is nothing to delete")
    database = _database(instance, using)
    if wants_signals(type(instance)):
        return await delete_with_signals([instance], database, origin=instance)
    return await delete_row(instance, database)


async def delete_row(instance: Any, database: Database, *, apart: bool = False) -> int:
    """Delete the row of an object, and those of its parents unless it is to be deleted apart; without signals."""
    remember(database, instance)
    options = instance._meta
    if options.parent_link is None or apart:
        count = await _delete_from(instance, options.concrete, database)
    else:
        count = 0
        async with database.transaction():
            for part in reversed(lineage(type(instance))):
                count = await _delete_from(instance, part, database)
    del instance._row
    return count


async def _delete_from(instance: Any, model: Any, database: Database) -> int:
    """Delete the row in the table of one model."""
    conditions = _where(instance, model)
    shape = ("delete", model)
    plan = database.plans.get(shape)
    if plan is None:
        table = model.__table__
        statement = sqlalchemy.delete(table).where(*_key_conditions(table, conditions))
        plan = database.plans.put(shape, _plan(statement, database.kind, f"{model.__name__}.delete"))
    values = {f"k_{key.column}": key.binder(database.kind)(old) for key, old in _old_key(instance, conditions)}
    async with database.connection(name=plan.name) as connection:
        count = await connection.execute(plan.sql, plan.bind(values))  # type: ignore[arg-type]
    if count == 0 and model._meta.version_field in conditions:
        await _refuse_stale(instance, model, database, "deleted", or_gone=False)
    return count


async def refresh(instance: Any, names: Sequence[str], *, using: str | Database | None) -> None:
    """Read the row of an object again."""
    options = instance._meta
    query: Any = base_queryset(type(instance)).order_by()
    query._database = _place(instance, using)
    for key in options.primary_key:
        query = query.filter(**{key.attribute: getattr(instance, key.attribute)})
    if names:
        query = query.only(*names)
    fresh = await query.get()
    fields = [options.field(name) for name in names] if names else options.fields
    before = instance._row if instance.saved else None
    for field in fields:
        setattr(instance, field.attribute, getattr(fresh, field.attribute))
    if not names or before is None:
        instance._row, instance._source = fresh._row, fresh._source
    else:
        merged = dict(zip(instance._source.fields, before, strict=True)) | dict(
            zip(fresh._source.fields, fresh._row, strict=True)
        )
        _remember(instance, list(merged), list(merged.values()), fresh._source.database)
    if hasattr(instance, "_related"):
        del instance._related


async def insert(instance: Any, database: Database) -> None:
    """Insert an object, without signals."""
    remember(database, instance)
    options = instance._meta
    if options.parent_link is None:
        fields, raw = await _insert_into(instance, options.concrete, options.fields, database)
    else:
        fields, raw = await insert_parts(instance, database, _insert_into)
    _remember(instance, fields, raw, database)


async def _insert_into(
    instance: Any, model: Any, own: Sequence[Field[Any]], database: Database
) -> tuple[list[Field[Any]], list[Any]]:
    """Insert a row into the table of one model; its fields, and their values as the driver has them."""
    options = model._meta
    kind = database.kind
    candidates = [field for field in own if not field.generated]
    fields, parameters = checked(instance, candidates, kind)
    expressions = [value for value in parameters if isinstance(value, Expression)]
    if expressions:
        raise QueryError(f"{instance!r} is new: {expressions[0]!r} refers to columns of a row that is not there yet")
    there = set(fields)
    missing = [field for field in own if field not in there]
    different = DIFFERENCES[kind]
    counted = different.tells_key and len(missing) == 1 and isinstance(missing[0], AutoField)
    by_returning = missing and not counted and "insert" in different.returning
    shape = ("insert", model, tuple(fields))
    plan = database.plans.get(shape)
    if plan is None:
        statement = sqlalchemy.insert(model.__table__).values(
            {field.column: sqlalchemy.bindparam(f"v_{field.column}", type_=field.column_type()) for field in fields}
        )
        if by_returning:
            statement = statement.returning(*(model.__table__.c[field.column] for field in missing))
        names = [f"v_{field.column}" for field in fields]
        plan = database.plans.put(shape, _plan(statement, kind, f"{model.__name__}.insert", names))
    values = plan.bind(parameters)
    returned: Sequence[Any] = ()
    try:
        if by_returning:
            returned = (await database.write_rows(plan, values))[0]
        elif missing and not counted:
            returned = await _insert_without_returning(instance, model, plan, values, missing, database)
        else:
            inserted = await database.write(plan, values)
            returned = (inserted.last_id,) if counted else ()
    except IntegrityError as error:
        raise named(error, options) from error.__cause__
    for field, raw in zip(missing, returned, strict=True):
        load = field.loader(kind)
        setattr(instance, field.attribute, raw if raw is None or load is None else load(raw))
    return [*fields, *missing], [*parameters, *returned]


async def _insert_without_returning(
    instance: Any, model: Any, plan: Plan, values: Sequence[Any], missing: list[Field[Any]], database: Database
) -> list[Any]:
    """MySQL: the key is what the server counted, the rest is read with it."""
    inserted = await database.write(plan, values)
    key = model._meta.primary_key[0]
    if key in missing:
        setattr(instance, key.attribute, inserted.last_id)
    others = [field for field in missing if field is not key]
    found: dict[Any, Any] = {key: inserted.last_id}
    if others:
        query: Any = base_queryset(model).using(database)
        fresh = await query.only(*(field.name for field in others)).get(pk=getattr(instance, key.attribute))
        found |= dict(zip(fresh._source.fields, fresh._row, strict=True))
    return [found[field] for field in missing]


async def _update(instance: Any, fields: Sequence[Field[Any]], database: Database) -> None:
    options = instance._meta
    version = options.version_field
    if version is None:
        written, parameters = await _update_parts(instance, fields, database)
    else:
        given = getattr(instance, version.attribute)
        setattr(instance, version.attribute, _old_key(instance, (version,))[0][1] + 1)
        try:
            written, parameters = await _update_parts(
                instance, [*(field for field in fields if field is not version), version], database
            )
        except BaseException:
            setattr(instance, version.attribute, given)
            raise
    merged = rewritten_row(instance, database.kind, dict(zip(written, parameters, strict=True)))
    _remember(instance, list(merged), list(merged.values()), database)


async def _update_parts(
    instance: Any, fields: Sequence[Field[Any]], database: Database
) -> tuple[list[Field[Any]], list[Any]]:
    """Update the row of an object; the fields that were written, and their values as the driver has them."""
    written, parameters = checked(instance, fields, database.kind)
    computed = {field: value for field, value in zip(written, parameters, strict=True) if isinstance(value, Expression)}
    if not computed:
        await _update_row(instance, written, parameters, database)
        return written, parameters
    plain = [
        (field, value) for field, value in zip(written, parameters, strict=True) if not isinstance(value, Expression)
    ]
    async with database.transaction():
        await _update_row(instance, [field for field, _ in plain], [value for _, value in plain], database)
        raw = await _compute(instance, computed, database)
    return [*(field for field, _ in plain), *raw], [*(value for _, value in plain), *raw.values()]


async def _compute(
    instance: Any, computed: dict[Field[Any], Expression[Any]], database: Database
) -> dict[Field[Any], Any]:
    """Have the database compute the values of fields, as in `page.views = F("views") + 1`, and read what came of it."""
    query: Any = base_queryset(type(instance)).using(database).order_by()
    for key, old in _old_key(instance, instance._meta.primary_key):
        query = query.filter(**{key.attribute: old})
    if not await query.update(**{field.name: value for field, value in computed.items()}):
        raise instance.DoesNotExist(f"{instance!r} is not there any more: nothing was updated")
    fresh = await query.only(*(field.name for field in computed)).get()
    found = dict(zip(fresh._source.fields, fresh._row, strict=True))
    for field in computed:
        setattr(instance, field.attribute, getattr(fresh, field.attribute))
    return {field: found[field] for field in computed}


async def _update_row(
    instance: Any, written: Sequence[Field[Any]], parameters: Sequence[Any], database: Database
) -> None:
    """Update the row, in each of the tables that have one of the fields."""
    options = instance._meta
    if options.parent_link is None:
        if written:
            await _update_table(instance, options.concrete, written, parameters, database)
        return
    async with database.transaction():
        for part in lineage(type(instance)):
            pairs = [pair for pair in zip(written, parameters, strict=True) if pair[0].model is part]
            if pairs:
                await _update_table(instance, part, [a for a, _ in pairs], [b for _, b in pairs], database)


async def _update_table(
    instance: Any, model: Any, written: Sequence[Field[Any]], parameters: Sequence[Any], database: Database
) -> None:
    """Update the row in the table of one model."""
    conditions = _where(instance, model)
    kind = database.kind
    shape = ("update", model, tuple(written))
    plan = database.plans.get(shape)
    if plan is None:
        table = model.__table__
        statement = (
            sqlalchemy.update(table)
            .values(
                {
                    field.column: sqlalchemy.bindparam(f"v_{field.column}", type_=field.column_type())
                    for field in written
                }
            )
            .where(*_key_conditions(table, conditions))
        )
        plan = database.plans.put(shape, _plan(statement, kind, f"{model.__name__}.update"))
    values: dict[str, Any] = dict(zip([f"v_{field.column}" for field in written], parameters, strict=True))
    values |= {f"k_{key.column}": key.binder(kind)(old) for key, old in _old_key(instance, conditions)}
    try:
        async with database.connection(name=plan.name) as connection:
            count = await connection.execute(plan.sql, plan.bind(values))  # type: ignore[arg-type]
    except IntegrityError as error:
        raise named(error, model._meta) from error.__cause__
    if count == 0:
        if model._meta.version_field in conditions:
            await _refuse_stale(instance, model, database, "updated", or_gone=True)
        raise instance.DoesNotExist(f"{instance!r} is not there any more: nothing was updated")


async def _refuse_stale(instance: Any, model: Any, database: Database, what: str, *, or_gone: bool) -> None:
    """Say why no row of a model's table was touched that has the version of an object.

    Raises:
        StaleObject: the row has another version.
        DoesNotExist: there is no such row, and `or_gone` says that this is an error.
    """
    version = model._meta.version_field
    query: Any = base_queryset(model).using(database)
    keys = _old_key(instance, model._meta.primary_key)
    if await query.filter(**{key.attribute: old for key, old in keys}).exists():
        read = _old_key(instance, (version,))[0][1]
        raise StaleObject(
            f"{instance!r} was changed by somebody else since it was read with {version.name} {read}: nothing was "
            f"{what}; "
            "read it again with refresh_from_db() and decide anew"
        )
    if or_gone:
        raise instance.DoesNotExist(f"{instance!r} is not there any more: nothing was {what}")


def _where(instance: Any, model: Any) -> tuple[Field[Any], ...]:
    """The fields whose old values a row in the table of a model is found by: its key, and its version."""
    options = model._meta
    version = options.version_field
    if version is None or version.model is not model:
        key: tuple[Field[Any], ...] = options.primary_key
        return key
    return (*options.primary_key, version)


def named(error: IntegrityError, options: Any) -> IntegrityError:
    """The error of a constraint with the fields of the model that its columns belong to."""
    columns = set(error.columns)
    if not columns and error.constraint:
        columns = _columns_of(options, error.constraint)
    error.columns = tuple(sorted(columns)) if not error.columns else error.columns
    error.fields = tuple(field.name for field in options.fields if field.column in columns)
    if error.fields:
        names = ", ".join(f"{options.model.__name__}.{name}" for name in error.fields)
        error.args = (f"{names}: {error.args[0]}", *error.args[1:])
    return error


def _columns_of(options: Any, constraint: str) -> set[str]:
    """The columns of a constraint by name; the server's names for those that nobody named follow a rule."""
    table = options.model.__table__
    for one in [*table.constraints, *table.indexes]:
        if one.name is not None and str(one.name) == constraint:
            return {column.name for column in one.columns}
    if constraint in ("PRIMARY", f"{options.db_table}_pkey"):
        return {field.column for field in options.primary_key}
    return {
        field.column
        for field in options.fields
        if constraint in (field.column, f"{options.db_table}_{field.column}_key")
    }


def _database(instance: Any, using: str | Database | None) -> Database:
    """Where an object is written: to the database that it belongs to, unless another one is named."""
    if using is None and instance.saved and instance._source.database is not None:
        database: Database = instance._source.database
        return database
    return database_for(type(instance), using, writes=True)


def _place(instance: Any, using: str | Database | None) -> str | Database | Beside:
    """Where an object is read again."""
    if using is not None or not ambient.routed:
        return _database(instance, using)
    from covet_orm.routers import beside

    return beside(instance)


def _old_key(instance: Any, keys: Sequence[Field[Any]]) -> list[tuple[Field[Any], Any]]:
    """The key of the row as it was read: a changed key is a new value, not another row."""
    before = dict(
        zip(instance._source.fields, zip(instance._row, instance._source.loaders, strict=False), strict=False)
    )
    found: list[tuple[Field[Any], Any]] = []
    for key in keys:
        raw, load = before[key]
        found.append((key, raw if load is None or raw is None else load(raw)))
    return found


def _key_conditions(table: sqlalchemy.Table, keys: Sequence[Field[Any]]) -> list[Any]:
    return [table.c[key.column] == sqlalchemy.bindparam(f"k_{key.column}", type_=key.column_type()) for key in keys]


def remembered_source(database: Database, fields: Sequence[Field[Any]]) -> Source:
    """What objects share whose rows hold what was written of these fields."""
    shape = tuple(fields)
    source = database.sources.get(shape)
    if source is None:
        source = database.sources[shape] = Source(shape, [field.loader(database.kind) for field in shape], database)
    return source


def _remember(instance: Any, fields: Sequence[Field[Any]], raw: Sequence[Any], database: Database) -> None:
    """The row of an object is from now on what was written."""
    instance._row = tuple(raw)
    instance._source = remembered_source(database, fields)


def _plan(statement: Any, kind: str, name: str, order: Sequence[str] | None = None) -> Plan:
    """A plan whose values come by the names of its parameters, or in this order of them."""
    from operator import itemgetter

    from covet_orm.dialects import compile_statement

    compiled = compile_statement(statement, kind)
    if order is not None and list(compiled.names) == list(order):
        return Plan(compiled.sql, tuple, None, name)
    names: Sequence[Any] = compiled.names if order is None else [order.index(one) for one in compiled.names]
    if not names:
        return Plan(compiled.sql, lambda values: (), None, name)
    if len(names) == 1:
        only = names[0]
        return Plan(compiled.sql, lambda values: (values[only],), None, name)
    return Plan(compiled.sql, itemgetter(*names), None, name)
