"""Whether the tables of the first migration of an application are there already, as it would make them."""

from __future__ import annotations

import re
from collections.abc import Collection

from covet_migrate.exceptions import HistoryError
from covet_migrate.inspection.comparing import Difference
from covet_migrate.inspection.descriptions import Schema
from covet_migrate.inspection.drift import compare_with
from covet_migrate.inspection.shadow import tables_of
from covet_migrate.migrations import Migration
from covet_migrate.state.models import ModelState, State
from covet_migrate.state.rendering import historical_models
from covet_orm import Database
from covet_orm.fields.related import ManyToManyField

__all__ = ["is_there"]


async def is_there(database: Database, migration: Migration, before: State, there: Schema) -> bool:
    """Whether all tables that a migration creates are there, and are what it makes them.

    Constraints and indexes may have other names, there may be an index more, and a key may be counted in another way:
    `find_drift` tells of that afterwards, and a migration mends it. On SQLite a type may have another name, of which
    values are kept in the same way.

    Args:
        database: where.
        migration: the first of its application.
        before: the state before it.
        there: what is in the database.

    Raises:
        HistoryError: some are there and others not, or are otherwise; the message tells all that differs.
        MigrationError: the user may not create what is needed for the comparison; the message says what to grant.
        DatabaseError: the database cannot be asked.
    """
    after = migration.apply(before)
    labels = {
        label
        for label, model in after.models.items()
        if model.app == migration.app
        and label not in before
        and model.managed
        and model.options.get("database") in (None, database.alias)
    }
    part = _part(after, labels)
    wanted: set[str] = set()
    for model in historical_models(part):
        owner = model._meta.link_of or model
        if owner._meta.label in labels:
            wanted.add(model._meta.db_table)
    if wanted.isdisjoint(there.tables):
        return False
    tables, _ = tables_of(part, database.alias)
    drift = await compare_with(database, there, tables, wanted)
    differences = [one for one in drift.differences if _matters(one, there.kind)]
    if differences:
        raise HistoryError(
            f"{migration} cannot be taken for done, as what is there is not what it makes: "
            f"{'; '.join(map(str, differences))}. Make the tables what it says, or the models what the tables are "
            f"(`inspectdb` prints such), or let `migrate {migration.app} {migration.name} --fake` take it for done as "
            "it is: then `migrations drift --migration` writes what mends it. Nothing was changed"
        )
    return True


def _part(state: State, labels: Collection[str]) -> State:
    """Some models of a state, with no more of those that they refer to than their keys."""
    models: dict[str, ModelState] = {}
    waiting = list(labels)
    while waiting:
        label = waiting.pop()
        if label in models:
            continue
        model = state[label]
        if label in labels:
            # What a declared model keeps is told by that.
            fields = {
                name: one
                for name, one in model.fields.items()
                if not (isinstance(one, ManyToManyField) and one.through is not None)
            }
            models[label] = model if len(fields) == len(model.fields) else model.with_fields(fields)
        else:
            keys = {name: one for name, one in model.fields.items() if one.primary_key}
            models[label] = ModelState(model.app, model.name, keys).with_options(db_table=model.options.get("db_table"))
        waiting += models[label].refers_to()
    return State({label: models[label] for label in state.models if label in models})


def _matters(one: Difference, kind: str) -> bool:
    """Whether a table is another one for it."""
    if one.part == "index" and one.other is None and not str(one.one).startswith("unique"):
        return False
    if one.only_name or (one.attribute == "counting" and one.one is not None and one.other is not None):
        return False
    if kind == "sqlite" and one.attribute == "type":
        return _storage(str(one.one)) != _storage(str(one.other))
    return True


def _storage(declared: str) -> str:
    """How SQLite keeps the values of a column (https://sqlite.org/datatype3.html#determination_of_column_affinity)."""
    words = declared.upper()
    # A text that is no number stays one, whatever the affinity is.
    rules = [("INT", "integer"), ("DATE|TIME|CHAR|CLOB|TEXT", "text"), ("BLOB", "blob"), ("REAL|FLOA|DOUB", "real")]
    return next((storage for pattern, storage in rules if re.search(pattern, words)), "numeric")
