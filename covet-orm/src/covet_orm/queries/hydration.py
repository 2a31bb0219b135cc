"""Making objects of rows: a function is generated for each list of columns, so that a row costs little more than the
assignment of its values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from covet_orm.queries.sources import Result, Source

if TYPE_CHECKING:
    from covet_orm.fields.base import Field

__all__ = ["RelatedColumns", "dict_loader", "object_loader", "tuple_loader"]

Load = Callable[[list[Any], Any], list[Any]]


class RelatedColumns(NamedTuple):
    """The columns of a related object within a row.

    Attributes:
        parent: which object it belongs to: 0 for the row's own, n for the n-th related one.
        name: what the relation is called there.
        model: the model.
        fields: its fields, in the order of the columns.
        start: the first column.
        key: which of its columns is NULL when there is no object.
        back: the name of the attribute by which it knows the parent; None where it does not.
    """

    parent: int
    name: str
    model: type[Any]
    fields: Sequence[Field[Any]]
    start: int
    key: int
    back: str | None


def object_loader(
    model: type[Any],
    fields: Sequence[Field[Any]],
    kind: str,
    related: Sequence[RelatedColumns] = (),
    annotations: Sequence[tuple[str, Field[Any], int]] = (),
) -> Load:
    """What makes objects of rows: the columns of `fields` first, then those of related objects, then annotations.

    Args:
        model: the model of the objects.
        fields: its fields that were read.
        kind: the database's.
        related: the related objects in a row.
        annotations: the name, field and column of each annotation.
    """
    scope: dict[str, Any] = {"Result": Result, "Source": Source, "ref": ref, "model": model, "new": object.__new__}
    loaders = [field.loader(kind) for field in fields]
    scope["fields"] = tuple(fields)
    scope["loaders"] = tuple(loaders)
    lines = [
        "def load(rows, database):",
        " out = Result()",
        " append = out.append",
        " source = Source(fields, loaders, database, ref(out))",
        *(f" source_{n} = Source(fields_{n}, loaders_{n}, database, ref(out))" for n in range(1, len(related) + 1)),
        " for row in rows:",
        "  o = new(model)",
        *_assignments("o", "row", fields, loaders, 0, len(fields), scope, whole=not related and not annotations),
        f"  o._row = {'row' if not related and not annotations else f'row[:{len(fields)}]'}",
        "  o._source = source",
    ]
    if related or annotations:
        lines.append(f"  o._related = {{{_annotated(annotations, kind, scope)}}}")
    parents = {columns.parent for columns in related}
    for number, columns in enumerate(related, 1):
        lines += _related(number, columns, kind, scope, has_children=number in parents)
    lines += ["  append(o)", " return out"]
    exec("\n".join(lines), scope)
    made: Load = scope["load"]
    return made


def tuple_loader(fields: Sequence[Field[Any]], kind: str, *, flat: bool) -> Load | None:
    """What makes tuples of rows, or values where `flat`; None where the rows are tuples already."""
    scope: dict[str, Any] = {}
    values = _values(fields, kind, scope)
    if flat:
        return _loader(f" return [{values[0]} for row in rows]", scope)
    if not scope:
        return _loader(" return list(map(tuple, rows))", scope) if kind == "postgresql" else None
    return _loader(f" return [({', '.join(values)},) for row in rows]", scope)


def dict_loader(names: Sequence[str], fields: Sequence[Field[Any]], kind: str) -> Load:
    """What makes dicts of rows."""
    scope: dict[str, Any] = {}
    values = _values(fields, kind, scope)
    variables = [f"v{column}" for column in range(len(values))]
    pairs = ", ".join(
        f"{name!r}: {value.replace(f'row[{column}]', variables[column])}"
        for column, (name, value) in enumerate(zip(names, values, strict=True))
    )
    return _loader(f" return [{{{pairs}}} for {', '.join(variables)}, in rows]", scope)


def _loader(line: str, scope: dict[str, Any]) -> Load:
    exec(f"def load(rows, database):\n{line}", scope)
    made: Load = scope["load"]
    return made


def _values(fields: Sequence[Field[Any]], kind: str, scope: dict[str, Any]) -> list[str]:
    values: list[str] = []
    for column, field in enumerate(fields):
        load = field.loader(kind)
        if load is None:
            values.append(f"row[{column}]")
            continue
        scope[f"load_{column}"] = load
        values.append(f"None if row[{column}] is None else load_{column}(row[{column}])")
    return values


def _assignments(
    target: str,
    row: str,
    fields: Sequence[Field[Any]],
    loaders: Sequence[Any],
    start: int,
    stop: int,
    scope: dict[str, Any],
    *,
    whole: bool,
) -> list[str]:
    """The assignments of one object: all values at once, then those that need a conversion once more."""
    if not fields:
        return []
    targets: list[str] = []
    converted: list[str] = []
    for offset, (field, load) in enumerate(zip(fields, loaders, strict=True)):
        attribute = f"{target}.{field.attribute}"
        if load is None:
            targets.append(attribute)
            continue
        name = f"{target}_load_{offset}"
        scope[name] = load
        variable = f"{target}_{offset}"
        targets.append(variable)
        # Every NOT NULL column has a value, but outer joins and old rows may not keep to the declaration.
        converted.append(f"  {attribute} = None if {variable} is None else {name}({variable})")
    values = row if whole else f"{row}[{start}:{stop}]"
    return [f"  {', '.join(targets)}, = {values}", *converted]


def _annotated(annotations: Sequence[tuple[str, Field[Any], int]], kind: str, scope: dict[str, Any]) -> str:
    """The inside of a dict of annotations."""
    pairs: list[str] = []
    for name, field, column in annotations:
        load = field.loader(kind)
        value = f"row[{column}]"
        if load is not None:
            scope[f"annotation_{column}"] = load
            value = f"None if row[{column}] is None else annotation_{column}(row[{column}])"
        pairs.append(f"{name!r}: {value}")
    return ", ".join(pairs)


def _related(
    number: int, columns: RelatedColumns, kind: str, scope: dict[str, Any], *, has_children: bool
) -> list[str]:
    """One related object of a row, attached to what it belongs to."""
    loaders = [field.loader(kind) for field in columns.fields]
    scope[f"model_{number}"] = columns.model
    scope[f"fields_{number}"] = tuple(columns.fields)
    scope[f"loaders_{number}"] = tuple(loaders)
    start, stop = columns.start, columns.start + len(columns.fields)
    parent = "o" if columns.parent == 0 else f"o{columns.parent}"
    target = f"o{number}"
    there = f"row[{columns.key}] is not None" + (f" and {parent} is not None" if columns.parent else "")
    lines = [
        f"  if {there}:",
        f"   {target} = new(model_{number})",
        *(f" {line}" for line in _assignments(target, "row", columns.fields, loaders, start, stop, scope, whole=False)),
        f"   {target}._row = row[{start}:{stop}]",
        f"   {target}._source = source_{number}",
    ]
    if columns.back is not None:
        lines.append(f"   {target}._related = {{{columns.back!r}: {parent}}}")
    elif has_children:
        lines.append(f"   {target}._related = {{}}")
    lines += ["  else:", f"   {target} = None"]
    if columns.parent:
        return [*lines, f"  if {parent} is not None: {parent}._related[{columns.name!r}] = {target}"]
    return [*lines, f"  {parent}._related[{columns.name!r}] = {target}"]
