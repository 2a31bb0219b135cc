"""Writing many objects at once: `bulk_create` and `bulk_update`.

Keys that the database counts are known before the rows are sent, so that no order of returned rows has to be relied on:
PostgreSQL gives out as many numbers of the sequence as are needed, and takes the rows by COPY; SQLite has one writer,
who counts on from the largest key. MariaDB and MySQL count on within one statement.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy

from covet_orm.databases import Database
from covet_orm.dialects import compile_statement
from covet_orm.drivers.protocol import Connection
from covet_orm.exceptions import FieldError, IntegrityError, ModelError, QueryError, ValidationError
from covet_orm.expressions.base import Expression
from covet_orm.fields.base import DB_DEFAULT
from covet_orm.models.changes import note_written, rewritten_row
from covet_orm.models.inheritance import lineage
from covet_orm.models.validation import checked
from covet_orm.queries.saving import insert, named, remembered_source
from covet_orm.transactions.objects import remember_many

if TYPE_CHECKING:
    from covet_orm.fields.base import Field

__all__ = ["bulk_create", "bulk_update"]

MOST_PARAMETERS = {"postgresql": 32767, "sqlite": 32766, "mysql": 65535, "mariadb": 65535}
"""How many parameters one statement takes."""

Rows = list[tuple[Any, ...]]


async def bulk_create(
    database: Database,
    model: Any,
    objects: Sequence[Any],
    *,
    batch_size: int | None = None,
    ignore_conflicts: bool = False,
    update_conflicts: bool = False,
    update_fields: Sequence[str] = (),
    unique_fields: Sequence[str] = (),
) -> None:
    """Insert objects. What `QuerySet.bulk_create` does."""
    if batch_size is not None and batch_size < 1:
        raise QueryError(f"batch_size={batch_size}: at least 1")
    if ignore_conflicts and update_conflicts:
        raise QueryError("ignore_conflicts and update_conflicts exclude each other")
    for instance in objects:
        if type(instance) is not model:
            raise ModelError(f"bulk_create of {model.__name__} was given {instance!r}")
    if not objects:
        return
    if model._meta.parent_link is not None:
        if ignore_conflicts or update_conflicts:
            raise QueryError(
                f"bulk_create of {model.__name__} cannot pass over conflicts: its objects stand in several tables, and "
                "one row of each is there or none"
            )
        async with database.transaction():
            for instance in objects:
                await insert(instance, database)
        return
    conflicts = _conflicts(database.kind, model, ignore_conflicts, update_conflicts, update_fields, unique_fields)
    async with database.transaction(), database.connection() as connection:
        for given, group in _by_fields(model, objects):
            for part in _parts(group, batch_size):
                try:
                    await _insert(database, connection, model, given, part, conflicts)
                except IntegrityError as error:
                    raise named(error, model._meta) from error.__cause__


async def bulk_update(
    database: Database, model: Any, objects: Sequence[Any], names: Sequence[str], *, batch_size: int | None = None
) -> int:
    """Update some fields of objects that were saved; how many rows there were."""
    options = model._meta
    fields = [options.field(name) for name in names]
    if not fields:
        raise QueryError("bulk_update needs the names of the fields to write")
    for field in fields:
        if field.primary_key:
            raise FieldError(f"bulk_update cannot change {field!r}, by which it finds the rows")
        if field is options.version_field:
            raise FieldError(f"bulk_update counts {field!r} by itself")
    for instance in objects:
        if not instance.saved:
            raise QueryError(f"{instance!r} was not saved yet: bulk_create inserts it")
    if not objects:
        return 0
    rows = _checked_rows(objects, fields, database.kind)
    version = options.version_field
    changed = [field.attribute for field in options.fields if field.generated or field is version]
    remember_many(database, objects, changed)
    async with database.transaction(), database.connection() as connection:
        for table_model in lineage(model):
            own = [number for number, field in enumerate(fields) if field.model is table_model]
            counted = version if version is not None and version.model is table_model else None
            if not own and counted is None:
                continue
            sql, arrange = _update_statement(database.kind, table_model, [fields[number] for number in own], counted)
            keys = _checked_rows(objects, table_model._meta.primary_key, database.kind)
            arranged = [arrange([row[number] for number in own], key) for row, key in zip(rows, keys, strict=True)]
            for part in _parts(arranged, batch_size):
                try:
                    await connection.execute_many(sql, part)
                except IntegrityError as error:
                    raise named(error, options) from error.__cause__
    if version is not None:
        # What else was changed of a row since it was read, a later save notices.
        for instance in objects:
            counted_on = getattr(instance, version.attribute) + 1
            setattr(instance, version.attribute, counted_on)
            note_written(instance, version, counted_on)
    for instance, row in zip(objects, rows, strict=True):
        known = rewritten_row(instance, database.kind, dict(zip(fields, row, strict=True)))
        instance._row = tuple(known.values())
        instance._source = remembered_source(database, list(known))
    return len(objects)


def _update_statement(
    kind: str, model: Any, fields: Sequence[Field[Any]], counted: Field[Any] | None
) -> tuple[str, Callable[[Sequence[Any], Sequence[Any]], list[Any]]]:
    """The UPDATE of one row of a table, and what brings its values and its key into the driver's order.

    Args:
        kind: the database's.
        model: the model whose table it is.
        fields: what is written.
        counted: the version field of that table, which counts on.
    """
    keys = model._meta.primary_key
    table = model.__table__
    values: dict[str, Any] = {
        field.column: sqlalchemy.bindparam(f"v_{field.column}", type_=field.column_type()) for field in fields
    }
    if counted is not None:
        values[counted.column] = table.c[counted.column] + sqlalchemy.literal_column("1")
    statement = (
        sqlalchemy.update(table)
        .values(values)
        .where(
            *(table.c[key.column] == sqlalchemy.bindparam(f"k_{key.column}", type_=key.column_type()) for key in keys)
        )
    )
    compiled = compile_statement(statement, kind)
    order = {f"v_{field.column}": number for number, field in enumerate(fields)}
    order |= {f"k_{key.column}": len(fields) + number for number, key in enumerate(keys)}
    places = [order[name] for name in compiled.names]

    def arrange(row: Sequence[Any], key: Sequence[Any]) -> list[Any]:
        both = [*row, *key]
        return [both[place] for place in places]

    return compiled.sql, arrange


async def _insert(
    database: Database,
    connection: Connection,
    model: Any,
    given: list[Field[Any]],
    objects: Sequence[Any],
    conflicts: Callable[[Any], Any] | None,
) -> None:
    """Insert objects that all give values to the same fields."""
    options = model._meta
    # What an expression of the database fills in is no number that could be given out before.
    counted = [
        key for key in options.primary_key if key.filled_by_database and key.db_default_is_unset and key not in given
    ]
    others = [field for field in options.fields if field not in given and field not in counted]
    remember_many(database, objects, [field.attribute for field in (*counted, *others)])
    rows = _checked_rows(objects, given, database.kind)
    if conflicts is not None or others or len(counted) > 1:
        await _insert_returning(database, connection, model, given, rows, objects, counted, others, conflicts)
        return
    fields = given
    if counted:
        keys = await _next_keys(database, connection, model, counted[0], len(objects))
        if keys is None:
            await _insert_counting(database, connection, model, given, rows, objects, counted[0])
            return
        fields = [counted[0], *given]
        rows = [(key, *row) for key, row in zip(keys, rows, strict=True)]
        attribute = counted[0].attribute
        for instance, row in zip(objects, rows, strict=True):
            setattr(instance, attribute, row[0])
    columns = [field.column for field in fields]
    if database.kind == "postgresql":
        table = model.__table__
        await connection.copy(table.name, columns, rows, schema=table.schema)  # type: ignore[attr-defined]
    else:
        await connection.execute_many(_insert_statement(database, model, fields), rows)
    _remember(database, objects, fields, rows)


async def _next_keys(
    database: Database, connection: Connection, model: Any, key: Field[Any], count: int
) -> Sequence[int] | None:
    """Keys for rows, given out before they are inserted; None where the server counts within the statement."""
    table = model.__table__
    if database.kind == "postgresql":
        # OFFSET 0 keeps the server from looking up the sequence for each number.
        sql = (
            "SELECT array_agg(nextval(s.name)) FROM (SELECT pg_get_serial_sequence($1, $2)::regclass AS name OFFSET 0) "
            "AS s, generate_series(1, $3::int)"
        )
        rows = await connection.fetch(sql, (_quoted(table), key.column, count))
        keys: list[int] = rows[0][0]
        return keys
    if database.kind == "sqlite":
        compiled = compile_statement(sqlalchemy.select(sqlalchemy.func.max(table.c[key.column])), "sqlite")
        largest = (await connection.fetch(compiled.sql))[0][0] or 0
        # The transaction holds the lock of the one writer: nobody else counts meanwhile.
        return range(largest + 1, largest + 1 + count)
    return None


async def _insert_counting(
    database: Database,
    connection: Connection,
    model: Any,
    given: list[Field[Any]],
    rows: Rows,
    objects: Sequence[Any],
    key: Field[Any],
) -> None:
    """MySQL and MariaDB: a statement with several rows gets consecutive keys, and tells the first of them."""
    size = max(1, min(1000, MOST_PARAMETERS[database.kind] // max(1, len(given))))
    one = _insert_statement(database, model, given)
    clause = one[one.rindex("VALUES ") + len("VALUES ") :]
    position = 0
    while position < len(rows):
        part = rows[position : position + size]
        # Its last clause again for each further row: compiling thousands of parameters takes longer than sending them.
        sql = one + f", {clause}" * (len(part) - 1)
        inserted = await connection.insert(sql, [value for row in part for value in row])
        first = inserted.last_id
        if first is None:
            raise QueryError(f"the server told no key of the rows of {model.__name__} that it inserted")
        step = await _increment(database, connection)
        for number, instance in enumerate(objects[position : position + size]):
            setattr(instance, key.attribute, first + number * step)
        position += size
    numbered = [(getattr(instance, key.attribute), *row) for instance, row in zip(objects, rows, strict=True)]
    _remember(database, objects, [key, *given], numbered)


async def _increment(database: Database, connection: Connection) -> int:
    """By how much the server counts: more than 1 where several primaries share the numbers."""
    found = database.texts.get("increment")
    if found is None:
        rows = await connection.fetch("SELECT @@auto_increment_increment")
        found = database.texts["increment"] = int(rows[0][0])
    return int(found)


async def _insert_returning(
    database: Database,
    connection: Connection,
    model: Any,
    given: list[Field[Any]],
    rows: Rows,
    objects: Sequence[Any],
    counted: list[Field[Any]],
    others: list[Field[Any]],
    conflicts: Callable[[Any], Any] | None,
) -> None:
    """One statement a row, which gives back what the database filled in: where conflicts or defaults ask for it."""
    missing = [*counted, *others]
    statement: Any = sqlalchemy.insert(model.__table__) if conflicts is None else conflicts(model.__table__)
    statement = statement.values(
        {field.column: sqlalchemy.bindparam(f"v_{field.column}", type_=field.column_type()) for field in given}
    )
    returns = bool(missing) and database.kind != "mysql"
    if returns:
        statement = statement.returning(*(model.__table__.c[field.column] for field in missing))
    compiled = compile_statement(statement, database.kind)
    numbers = {f"v_{field.column}": number for number, field in enumerate(given)}
    places = [numbers.get(name, -1) for name in compiled.names]
    loaders = [field.loader(database.kind) for field in missing]
    for instance, row in zip(objects, rows, strict=True):
        parameters = [row[place] for place in places]
        if not returns:
            inserted = await connection.insert(compiled.sql, parameters)
            if counted and inserted.changed and inserted.last_id:
                setattr(instance, counted[0].attribute, inserted.last_id)
                _remember(database, [instance], [counted[0], *given], [(inserted.last_id, *row)])
            elif not counted:
                _remember(database, [instance], given, [row])
            continue
        found = await connection.fetch(compiled.sql, parameters)
        if not found:
            # Ignored: what is there already is another object's row.
            continue
        for field, load, raw in zip(missing, loaders, found[0], strict=True):
            setattr(instance, field.attribute, raw if raw is None or load is None else load(raw))
        _remember(database, [instance], [*missing, *given], [(*found[0], *row)])


def _conflicts(
    kind: str, model: Any, ignore: bool, update: bool, update_fields: Sequence[str], unique_fields: Sequence[str]
) -> Callable[[Any], Any] | None:
    """What makes an INSERT that does something else where a row is there already; None for a plain one."""
    if not ignore and not update:
        return None
    options = model._meta
    changed = [options.field(name) for name in update_fields]
    unique = [options.field(name) for name in unique_fields]
    if update and not changed:
        raise QueryError("update_conflicts=True needs update_fields: which fields of the row that is there to write")
    if update and not unique and kind in ("postgresql", "sqlite"):
        raise QueryError(
            f"update_conflicts=True needs unique_fields on {kind}: which fields tell that it is the same row"
        )
    if kind in ("mysql", "mariadb"):
        return _on_duplicate_key(changed, ignore)
    return _on_conflict(kind, changed, unique, ignore)


def _on_conflict(kind: str, changed: list[Field[Any]], unique: list[Field[Any]], ignore: bool) -> Callable[[Any], Any]:
    from sqlalchemy.dialects import postgresql, sqlite

    insert: Any = postgresql.insert if kind == "postgresql" else sqlite.insert

    def make(table: Any) -> Any:
        statement = insert(table)
        columns = [table.c[field.column] for field in unique]
        if ignore:
            return statement.on_conflict_do_nothing(index_elements=columns or None)
        return statement.on_conflict_do_update(
            index_elements=columns, set_={field.column: statement.excluded[field.column] for field in changed}
        )

    return make


def _on_duplicate_key(changed: list[Field[Any]], ignore: bool) -> Callable[[Any], Any]:
    from sqlalchemy.dialects import mysql

    def make(table: Any) -> Any:
        if ignore:
            return sqlalchemy.insert(table).prefix_with("IGNORE")
        statement = mysql.insert(table)
        return statement.on_duplicate_key_update({field.column: statement.inserted[field.column] for field in changed})

    return make


def _insert_statement(database: Database, model: Any, fields: Sequence[Field[Any]]) -> str:
    """The INSERT of one row, its parameters in the order of the fields."""
    shape = ("insert one", model, tuple(fields))
    sql = database.texts.get(shape)
    if sql is None:
        statement = sqlalchemy.insert(model.__table__).values(
            {field.column: sqlalchemy.bindparam(f"v_{field.column}", type_=field.column_type()) for field in fields}
        )
        compiled = compile_statement(statement, database.kind)
        if list(compiled.names) != [f"v_{field.column}" for field in fields]:
            raise QueryError(f"the columns of {model.__name__} came out in another order: {compiled.names}")
        sql = database.texts[shape] = compiled.sql
    text: str = sql
    return text


def _by_fields(model: Any, objects: Sequence[Any]) -> Iterator[tuple[list[Field[Any]], list[Any]]]:
    """Runs of objects that give values to the same fields; most often that is one run."""
    fields = [field for field in model._meta.fields if not field.generated]
    optional = [field for field in fields if field.filled_by_database]
    given = list(zip(*(_gives(objects, field) for field in optional), strict=True)) or [()] * len(objects)
    for present, group in itertools.groupby(zip(given, objects, strict=True), key=operator.itemgetter(0)):
        left_out = {field for field, there in zip(optional, present, strict=True) if not there}
        yield [field for field in fields if field not in left_out], [instance for _, instance in group]


def _gives(objects: Sequence[Any], field: Field[Any]) -> list[bool]:
    """Of each object, whether it gives a value to a field that the database can fill in."""
    values = [getattr(instance, field.attribute, DB_DEFAULT) for instance in objects]
    if field.primary_key:
        return [value is not DB_DEFAULT and value is not None for value in values]
    return [value is not DB_DEFAULT for value in values]


def _checked_rows(objects: Sequence[Any], fields: Sequence[Field[Any]], kind: str) -> Rows:
    """The values of objects as parameters.

    Raises:
        ValidationError: an object has values that its model does not take; which one of them is told.
    """
    read = _reader(fields, kind)
    try:
        return read(objects)
    except (ValueError, AttributeError, TypeError):
        for number, instance in enumerate(objects):
            try:
                _, parameters = checked(instance, fields, kind)
            except ValidationError as error:
                error.args = (f"object {number}: {error.args[0]}",)
                raise
            if any(isinstance(value, Expression) for value in parameters):
                raise QueryError(
                    f"object {number}, {instance!r}, has an expression for a value, of a row not yet there"
                ) from None
        raise


def _reader(fields: Sequence[Field[Any]], kind: str) -> Callable[[Sequence[Any]], Rows]:
    """Generate what reads the values of objects, checks and converts them. Only names of fields become text."""
    scope: dict[str, Any] = {}
    parts: list[str] = []
    for number, field in enumerate(fields):
        scope[f"b{number}"] = field.writer(kind)
        value = f"o.{field.attribute}"
        may_lack = field.null or field.filled_by_database
        parts.append(f"None if {value} is None else b{number}({value})" if may_lack else f"b{number}({value})")
    row = f"({', '.join(parts)},)" if parts else "()"
    exec(f"def read(objects):\n return [{row} for o in objects]", scope)
    read: Callable[[Sequence[Any]], Rows] = scope["read"]
    return read


def _remember(database: Database, objects: Sequence[Any], fields: Sequence[Field[Any]], rows: Rows) -> None:
    """The rows of objects are from now on what was written."""
    source = remembered_source(database, fields)
    for instance, row in zip(objects, rows, strict=True):
        instance._row = row
        instance._source = source


def _parts(objects: Sequence[Any], size: int | None) -> Iterable[Sequence[Any]]:
    if size is None or size >= len(objects):
        return [objects]
    return [objects[start : start + size] for start in range(0, len(objects), size)]


def _quoted(table: sqlalchemy.Table) -> str:
    """A table's name as `regclass` reads it."""
    from covet_orm.dialects import dialect_of

    return dialect_of("postgresql").identifier_preparer.format_table(table)
