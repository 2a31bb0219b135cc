"""The rows that are in the tables of a pair of sets of models: what is put in, and what is to be there afterwards."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from tests.migrations.model_kinds import KINDS, family_of, value_of
from tests.migrations.model_pairs import Pair
from tests.migrations.model_specs import ModelSpec, Spec

from covet_migrate.state.models import State
from covet_migrate.state.rendering import historical_models
from covet_orm import Database

__all__ = ["Rows", "insert", "is_few", "key_value", "plain", "read", "rows_of"]

NUMBERS = (1, 2, 3)
Rows = dict[str, list[dict[str, Any]]]
"""By label, the values of each row, by field; those of the table of a many-to-many field by `label.field`."""

UNCHECKED = {
    "postgresql": ("SET LOCAL session_replication_role = replica", "SET LOCAL session_replication_role = DEFAULT"),
    "mariadb": ("SET foreign_key_checks = 0", "SET foreign_key_checks = 1"),
    "sqlite": ("PRAGMA defer_foreign_keys = ON", "PRAGMA defer_foreign_keys = OFF"),
}
"""What has rows come in any order, and what ends that."""


def rows_of(pair: Pair) -> Rows:
    """Three rows of each model of the first set, each of which refers to those of its own number; the third one has
    NULL wherever it may."""
    models, then = pair.specs
    found: Rows = {}
    for label, model in models.items():
        new = then.get(pair.models.get(label, ""))
        names = pair.fields.get(label, {})
        rows: list[dict[str, Any]] = [{} for _ in NUMBERS]
        for name, one in model.fields.items():
            if one.computed or one.kind in ("many", "through"):
                continue
            later = new.fields[names[name]] if new is not None and name in names else None
            rich = _may_be_rich(one, later)
            few = later is not None and is_few(one) != is_few(later)
            for row, number in zip(rows, NUMBERS, strict=True):
                null = number == 3 and one.options.get("null") and not one.key
                row[name] = None if null else value(models, one, number % 2 if few else number, rich=rich)
        found[label] = rows
        for name, one in model.fields.items():
            if one.kind == "many":
                links = [(1, 1), (1, 2), (3, 2)]
                mine, theirs = model.fields[model.keys[0]], Spec("foreign", {"to": one.to})
                found[f"{label}.{name}"] = [
                    {"source": value(models, mine, source), "target": value(models, theirs, target)}
                    for source, target in links
                ]
    return found


def value(models: Mapping[str, ModelSpec], one: Spec, row: int, *, rich: bool = False) -> Any:
    """What a row has in a field."""
    return value_of(one.kind, row, rich=rich) if one.kind in KINDS else key_value(models, str(one.to), row)


def key_value(models: Mapping[str, ModelSpec], label: str, row: int) -> Any:
    """The key of a row of a model."""
    model = models[label]
    return value(models, model.fields[model.keys[0]], row)


def is_few(one: Spec) -> bool:
    """Whether it is true or false."""
    return family_of(one.kind) == "few"


def _may_be_rich(old: Spec, new: Spec | None) -> bool:
    if old.key or (new is not None and new.key):
        return False
    return new is None or family_of(old.kind) == family_of(new.kind)


async def insert(database: Database, state: State, rows: Rows) -> None:
    """Put rows into the tables of a state."""
    before, after = UNCHECKED[database.kind]
    registry = historical_models(state)
    async with database.transaction():
        await database.script(before)
        for model in registry:
            options = model._meta
            if options.link_of is None:
                named = {field.name: field.attribute for field in options.fields}
                made: list[Any] = [
                    model(**{named[name]: each for name, each in row.items()}) for row in rows[options.label]
                ]
                manager: Any = model.objects  # type: ignore[attr-defined]
                await manager.using(database).bulk_create(made)
            for many in options.many_to_many:
                if many.through is None:
                    link: Any = many.link
                    source, target = (field.attribute for field in _ends(link))
                    there = [
                        link(**{source: row["source"], target: row["target"]})
                        for row in rows[f"{options.label}.{many.name}"]
                    ]
                    await link.objects.using(database).bulk_create(there)
        await database.script(after)


async def read(database: Database, state: State) -> Rows:
    """The rows that are in the tables of a state."""
    found: Rows = {}
    for model in historical_models(state):
        options = model._meta
        if options.link_of is not None:
            continue
        manager: Any = model.objects  # type: ignore[attr-defined]
        found[options.label] = [
            {field.name: getattr(one, field.attribute) for field in options.fields}
            for one in await manager.using(database).all()
        ]
        for many in options.many_to_many:
            if many.through is None:
                link: Any = many.link
                source, target = (field.attribute for field in _ends(link))
                found[f"{options.label}.{many.name}"] = [
                    {"source": getattr(one, source), "target": getattr(one, target)}
                    for one in await link.objects.using(database).all()
                ]
    return found


def _ends(link: Any) -> list[Any]:
    return [field for field in link._meta.fields if hasattr(field, "to")]


def kept(pair: Pair, rows: Rows, *, back: bool = False) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
    """What is to be there of the rows that were put in, in the columns that are in both sets: the name of the table's
    model, or of its many-to-many field, and the values.

    Args:
        pair: the pair.
        rows: those of the first set that were put in.
        back: whether it was gone forward, and back again.
    """
    models, then = pair.specs
    for label, new in pair.models.items():
        fields = pair.fields[label]
        wanted = []
        for row in rows[label]:
            values = []
            for name, after in fields.items():
                given = row[name]
                if given is None and not then[new].fields[after].options.get("null"):
                    # What `fill` says.
                    old, spec = models[label].fields[name], then[new].fields[after]
                    given = value(then, spec, 3 if is_few(old) == is_few(spec) else 1)
                values.append(plain(given))
            wanted.append(tuple(values))
        yield label if back else new, wanted


def plain(given: Any) -> str | None:
    """A value in one form of the several that fields of a family have."""
    if given is None:
        return None
    if isinstance(given, enum.Enum):
        return plain(given.value)
    if isinstance(given, (bool, int, Decimal, str)):
        try:
            number = Decimal(int(given) if isinstance(given, bool) else given)
        except InvalidOperation:
            return str(given)
        return str(number.normalize().quantize(Decimal("0.0001")).normalize())
    if isinstance(given, datetime):
        return (
            given.replace(tzinfo=None).isoformat()
            if given.time().replace(tzinfo=None).isoformat() != "00:00:00"
            else given.date().isoformat()
        )
    return given.isoformat() if isinstance(given, date) else repr(given)
