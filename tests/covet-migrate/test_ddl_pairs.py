"""Pairs of sets of models, migrated from one to the other and back; `tests/proofs/migrate_pairs.py` does many of them.

What it found is here as well, each as small as it could be made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.migrations.model_pairs import Pair, pair_of
from tests.migrations.model_specs import Definition, ModelSpec, Spec
from tests.proofs.migrate_pairs import Answers, Outcome, WrongError, check, prove
from tests.services.databases import Database as Server

from covet_migrate.actions import comparing
from covet_migrate.changes import detect
from covet_migrate.exceptions import MigrationError
from covet_migrate.operations import fields

PAIRS = {"sqlite": 10, "postgresql": 3, "mariadb": 3}
KEY: dict[str, Any] = {"primary_key": True}


def model(label: str, *definitions: Definition, table: str | None = None, **fields: Spec) -> ModelSpec:
    """A model."""
    return ModelSpec(label, fields, list(definitions), {"db_table": table} if table else {})


def number(kind: str = "number", **options: Any) -> Spec:
    """A field."""
    return Spec(kind, options)


def to(label: str, kind: str = "foreign", **options: Any) -> Spec:
    """A relation."""
    return Spec(kind, {"to": label, **options})


def a_pair(
    before: list[ModelSpec], after: list[ModelSpec], names: Mapping[str, Mapping[str, str]] | None = None
) -> Pair:
    """A pair of models that keep their names; `names` are those of fields that have another one."""
    old, new = ({one.label: one for one in each} for each in (before, after))
    models = {label: label for label in old if label in new}
    renamed = names or {}
    both = {
        label: {
            name: then
            for name in old[label].fields
            if (then := renamed.get(label, {}).get(name, name)) in new[label].fields
        }
        for label in models
    }
    return pair_of(old, new, models, both)


AUTO = Spec("auto", KEY)


def found() -> Iterator[tuple[str, Pair]]:
    """What random pairs found."""
    yield (
        "a field is renamed to the column of one that goes",
        a_pair(
            [model("app.A", id=AUTO, a=number(), b=number("char", db_column="c", null=True))],
            [model("app.A", id=AUTO, c=number())],
            {"app.A": {"a": "c"}},
        ),
    )
    yield (
        "two columns exchange their names",
        a_pair(
            [model("app.A", id=AUTO, a=number(db_column="x"), b=number("char", db_column="y"))],
            [model("app.A", id=AUTO, a=number(db_column="y"), b=number("char", db_column="x"))],
        ),
    )
    yield (
        "two columns exchange the names that their fields give them",
        a_pair(
            [model("app.A", id=AUTO, a=number(), b=number("char"))],
            [model("app.A", id=AUTO, a=number(db_column="b"), b=number("char", db_column="a", null=True))],
        ),
    )
    yield (
        "two columns that have each other's names get their own",
        a_pair(
            [model("app.A", id=AUTO, a=number(db_column="b"), b=number(db_column="a"))],
            [model("app.A", id=AUTO, a=number(), b=number())],
        ),
    )
    yield (
        "three columns hand their names on, one of them the key's",
        a_pair(
            [model("app.A", id=AUTO, a=number(), b=number(db_column="c"))],
            [model("app.A", id=Spec("auto", {**KEY, "db_column": "a"}), a=number(db_column="c"), b=number("big"))],
        ),
    )
    yield (
        "a new field has a column that another one had",
        a_pair(
            [model("app.A", id=AUTO, a=number(db_column="new"))],
            [model("app.A", id=AUTO, a=number(), new=number("char", null=True))],
        ),
    )
    yield (
        "another field is the key, and the old one stays",
        a_pair(
            [model("app.A", id=AUTO, code=number("char"))],
            [model("app.A", id=number(null=True), code=number("char", **KEY))],
        ),
    )
    yield (
        "another field is part of the key, and the old one stays beside it",
        a_pair(
            [model("app.A", id=AUTO, code=number("char"), k=number())],
            [model("app.A", id=number(), code=number("char", **KEY), k=number(**KEY))],
        ),
    )
    yield (
        "a key of several columns becomes one that a new model refers to",
        a_pair(
            [model("shop.B", k1=number(**KEY), k2=number(**KEY))],
            [model("shop.B", k1=number(**KEY), k2=number()), model("app.A", id=AUTO, b=to("shop.B"))],
        ),
    )
    yield (
        "models in a circle go, and the key of one is the other's",
        a_pair(
            [
                model("shop.A", id=AUTO, order=to("app.Order", null=True)),
                model("app.Order", base=to("shop.A", "one", **KEY)),
            ],
            [model("app.Z", id=AUTO)],
        ),
    )
    for old, new in (("date", "datetime"), ("datetime", "date"), ("naive", "datetime"), ("datetime", "naive")):
        yield (
            f"{old} to {new}",
            a_pair([model("app.A", id=AUTO, at=number(old))], [model("app.A", id=AUTO, at=number(new))]),
        )
    again = Definition("unique", ("id",), "again", {"deferrable": None, "nulls": None})
    yield (
        "the key is said to be unique once more",
        a_pair([model("app.A", again, id=AUTO)], [model("app.A", id=AUTO), model("app.B", again, id=AUTO)]),
    )
    down = Definition("index", ("parent",), "down", {"signs": "-", "unique": False})
    parent = to("app.A", null=True, db_index=False)
    yield (
        "a foreign key has an index that descends",
        a_pair(
            [model("app.A", down, id=AUTO, parent=parent)],
            [model("app.A", down, id=AUTO, parent=parent, table="group")],
        ),
    )
    own = to("app.A", null=True, db_column="group")
    yield (
        "a column is called as the table is, which gets another name",
        a_pair([model("app.A", id=AUTO, a=own)], [model("app.A", id=AUTO, a=own, table="group")]),
    )
    yield (
        "a column of JSON gets another name",
        a_pair(
            [model("app.A", id=AUTO, a=number("json", null=True))],
            [model("app.A", id=AUTO, b=number("json", null=True))],
            {"app.A": {"a": "b"}},
        ),
    )
    long = Definition("unique", ("text",), "long", {"deferrable": None, "nulls": None})
    yield (
        "a foreign key beside a long text that is unique gets another name",
        a_pair(
            [model("app.A", long, id=AUTO, text=number("text"), parent=to("app.A", null=True))],
            [model("app.A", long, id=AUTO, text=number("text"), of=to("app.A", null=True, db_column="above"))],
            {"app.A": {"parent": "of"}},
        ),
    )
    yield (
        "rows get bytes that are no text",
        a_pair([model("app.A", id=AUTO)], [model("app.A", id=AUTO, data=number("binary"))]),
    )


FOUND = dict(found())


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("server", ["sqlite", "postgresql-15", "mariadb"], indirect=True)
def test_what_was_found_once_is_right(server: Server, name: str) -> None:
    outcome = Outcome(server.name)
    asyncio.run(check(server.empty_database("pair"), FOUND[name], outcome, files=name.startswith("two")))
    assert not outcome.refused


def test_random_pairs_are_migrated_there_and_back(server: Server) -> None:
    assert not prove(server, PAIRS[server.kind], 7).failures


def test_a_key_that_something_refers_to_is_not_replaced() -> None:
    before = [model("app.A", id=AUTO, code=number("char")), model("app.B", id=AUTO, a=to("app.A"))]
    after = [model("app.A", id=number(), code=number("char", **KEY)), before[1]]
    asked = a_pair(before, after)
    with pytest.raises(MigrationError, match=r"code is to be the primary key of app\.A in place of id, and app\.B\.a "):
        detect(asked.before, asked.after, Answers(asked))


async def nothing_changes(*arguments: Any, **options: Any) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("where", "what", "told"),
    [
        (comparing.Texts, "default", "default"),
        (fields.AlterField, "apply", "makemigrations still finds"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, where: Any, what: str, told: str
) -> None:
    """The proof notices a migration that forgets something."""
    instead = {"default": lambda self, column, old=False: None, "apply": lambda self, state, app: state}[what]
    monkeypatch.setattr(where, what, instead)
    asked = a_pair(
        [model("app.A", id=AUTO, a=number(null=True))], [model("app.A", id=AUTO, a=number(null=True, db_default=3))]
    )
    with pytest.raises(WrongError, match=told):
        asyncio.run(check(f"sqlite:///{tmp_path}/pair.db", asked, Outcome("sqlite")))
