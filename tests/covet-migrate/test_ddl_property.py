"""Random pairs of states of a model: one altered into the other is as the other created from nothing, on each database.

`COVET_MIGRATE_PAIRS` is the number of pairs for each server; SQLite, at hand at once, gets three times as many.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.migrations.migrating import APP, create, migrate, model
from tests.migrations.schema_snapshots import snapshot, table_rows
from tests.services.databases import Database, ask

import covet_orm as orm
from covet_migrate.operations import Change, ModelOperation
from covet_migrate.state import State
from covet_orm import F, Q
from covet_orm.models.definitions import DefinedValue

PAIRS = int(os.environ.get("COVET_MIGRATE_PAIRS", "6"))

Spec = dict[str, Any]

plain = st.fixed_dictionaries(
    {"null": st.booleans()},
    optional={"db_default": st.just(True), "unique": st.just(True), "db_index": st.just(True),
              "comment": st.sampled_from(["it's", "100 %"]), "db_column": st.just(True)},
)  # fmt: skip
FAMILIES: Mapping[str, Sequence[str]] = {
    "words": ["char", "longer", "text", "number"],
    "count": ["number", "big", "positive", "decimal", "char"],
    "done": ["boolean", "number"],
    "other": ["key", "key restrict", "key null", "one", "big", "many"],
    "twice": ["stored", "stored otherwise", "stored big", "number"],
}
GENERATED = ("stored", "stored otherwise", "stored big")


def _field(kinds: Sequence[str]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.sampled_from(kinds), plain)


specs: st.SearchStrategy[Spec] = st.fixed_dictionaries(
    {},
    optional={
        **{name: _field(kinds) for name, kinds in FAMILIES.items()},
        "Meta.indexed": st.sets(st.sampled_from(["words", "count", "other", "twice", "done"]), max_size=2),
        "Meta.unique": st.sampled_from(["count", "other", "done"]),
        "Meta.check": st.sampled_from([1, 2]),
        "Meta.comment": st.sampled_from(["It's", "100 %"]),
        "Meta.table": st.sampled_from(["group", "shop_renamed"]),
    },
)


def field_of(name: str, kind: str, given: Mapping[str, Any]) -> Any:
    """A field of a kind, with the options that it can have."""
    options: dict[str, Any] = {key: value for key, value in given.items() if key != "db_default"}
    if kind in GENERATED:
        indexed = {"db_index": True} if options.get("db_index") else {}
        output = orm.BigIntegerField() if kind == "stored big" else orm.IntegerField()
        return orm.GeneratedField(F("k") * (3 if kind == "stored otherwise" else 2), output, **indexed)
    if kind == "many":
        return orm.ManyToManyField(f"{APP}.Other")
    if kind == "text" or options.get("unique"):
        options.pop("db_index", None)
    if kind == "text" or name == "done":
        options.pop("unique", None)
    default: Any = {"char": "3", "longer": "3", "text": "3", "boolean": True}.get(kind, 3)
    if "db_default" in given and not options.get("unique"):
        options["db_default"] = default
    if kind.startswith("key") or kind == "one":
        options.pop("unique", None)
        if kind == "key null":
            options["null"] = True
        on_delete = {"key restrict": orm.RESTRICT, "key null": orm.SET_NULL}.get(kind, orm.CASCADE)
        if kind == "one":
            options.pop("db_index", None)
            options.pop("db_default", None)
            options["null"] = True
        made = orm.OneToOneField if kind == "one" else orm.ForeignKey
        return made(f"{APP}.Other", on_delete=on_delete, related_name="+", **options)
    if options.get("unique"):
        options["null"] = True
    classes: dict[str, Any] = {
        "char": lambda **more: orm.CharField(max_length=20, **more),
        "longer": lambda **more: orm.CharField(max_length=90, **more),
        "text": orm.TextField, "number": orm.IntegerField, "big": orm.BigIntegerField,
        "positive": orm.PositiveIntegerField, "boolean": orm.BooleanField,
        "decimal": lambda **more: orm.DecimalField(max_digits=8, decimal_places=2, **more),
    }  # fmt: skip
    return classes[kind](**options)


def state_of(spec: Spec) -> State:
    """A model that is told by a specification, and the one that it refers to."""
    fields: dict[str, Any] = {"id": orm.BigAutoField(primary_key=True), "k": orm.IntegerField()}
    for name, kinds in FAMILIES.items():
        if name in spec and kinds:
            kind, options = spec[name]
            options = {key: value for key, value in options.items() if key != "db_column"} | (
                {"db_column": f"Other {name}"} if "db_column" in options and kind not in (*GENERATED, "many") else {}
            )
            fields[name] = field_of(name, kind, options)
    columns = [name for name in fields if name in spec and spec[name][0] not in ("many", "text")]
    chosen = [name for name in columns if name in spec.get("Meta.indexed", ())]
    options: dict[str, Any] = {"indexes": tuple(orm.Index(name, "-k") for name in chosen)}
    if len(chosen) > 1:
        options["indexes"] += (orm.Index(*chosen, name="both"),)
    if spec.get("Meta.unique") in columns:
        options["unique_together"] = (("k", spec["Meta.unique"]),)
    if "Meta.check" in spec:
        options["constraints"] = (orm.CheckConstraint(Q(k__lt=1000 * spec["Meta.check"]), name="small"),)
    models = [
        model("Other", {"id": orm.BigAutoField(primary_key=True)}),
        model("Thing", fields, **options, comment=spec.get("Meta.comment"), db_table=spec.get("Meta.table")),
    ]
    return State({one.label: one for one in models})


class Become(ModelOperation):
    """Make a model what another state says, all at once."""

    def __init__(self, name: str, to: State) -> None:
        super().__init__(name)
        self.to = to

    def apply(self, state: State, app: str) -> State:
        return self.to

    def actions(self, change: Change) -> Any:
        label = self.label(change.app)
        made: Any = change.rendered(change.after, label).model
        fill = {
            field.column: DefinedValue(field, True if isinstance(field, orm.BooleanField) else _three(field))
            for field in made._meta.fields
            if not field.null and not field.generated and not field.primary_key
        }
        return change.model_actions(label, label, fill=fill)


def _three(field: Any) -> Any:
    return "3" if isinstance(field, (orm.CharField, orm.TextField)) else 3


async def check(url: str, kind: str, before: State, after: State) -> None:
    tables = ["shop_thing", "group", "shop_renamed", "shop_other"]
    links = [f"{table}_other" for table in tables[:3]]
    quote = "`" if kind == "mariadb" else '"'
    drop = [f"DROP TABLE IF EXISTS {quote}{table}{quote}" for table in (*links, *tables)]
    if kind == "mariadb":
        # It warns of what is not there.
        drop.insert(0, "SET sql_notes = 0")
    wanted = []
    for state in (after, before):
        await ask(url, *drop)
        await create(url, state)
        wanted.append(await snapshot(url))
    label = f"{APP}.Thing"
    await ask(url, *_inserts(before, kind))
    operations = [Become("Thing", after)]
    await migrate(url, kind, before, operations)
    assert await snapshot(url) == wanted[0]
    table = after[label].options.get("db_table") or "shop_thing"
    assert [tuple(row) for row in await table_rows(url, table, ["id", "k"])] == [(1, 10), (2, 20), (3, 30)]
    back = [Become("Thing", after)]
    await migrate(url, kind, before, back, backward=True)
    assert await snapshot(url) == wanted[1]
    table = before[label].options.get("db_table") or "shop_thing"
    assert [tuple(row) for row in await table_rows(url, table, ["id", "k"])] == [(1, 10), (2, 20), (3, 30)]


def _inserts(state: State, kind: str) -> list[str]:
    thing = state[f"{APP}.Thing"]
    quote = "`" if kind == "mariadb" else '"'
    table = thing.options.get("db_table") or "shop_thing"
    found = [f"INSERT INTO shop_other (id) VALUES ({number})" for number in (1, 2, 3)]
    names, fields = ["id", "k"], []
    for name, field in thing.fields.items():
        if name not in ("id", "k") and not field.generated and field.column_is_there:
            usual = f"{name}_id" if isinstance(field, orm.ForeignKey) else name
            names.append(field.db_column or usual)
            fields.append(field)
    columns = ", ".join(f"{quote}{name}{quote}" for name in names)
    for number in (1, 2, 3):
        values = [f"{number}", f"{number * 10}"]
        for field in fields:
            value = min(number, 1) if isinstance(field, orm.BooleanField) else number
            values.append("NULL" if number == 3 and field.null else f"'{value}'")
        found.append(f"INSERT INTO {quote}{table}{quote} ({columns}) VALUES ({', '.join(values)})")
    return found


def test_one_state_altered_into_another_is_that_created_from_nothing(server: Database) -> None:
    url = server.empty_database("pairs")

    @settings(
        max_examples=3 * PAIRS if server.kind == "sqlite" else PAIRS,
        # To look for the smallest pair takes longer than a test may.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(specs, specs)
    def pairs(one: Spec, other: Spec) -> None:
        asyncio.run(check(url, server.kind, state_of(one), state_of(other)))

    pairs()
