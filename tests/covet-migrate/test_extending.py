"""What third parties bring takes part: actions, fields, values, types of columns, extensions."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy
from tests.migrations.lint_examples import Logged, Unlog, findings
from tests.migrations.migrating import APP, migrate, state_after
from tests.migrations.schema_changes import add, shop
from tests.services.databases import Databases, ask

import covet_orm as orm
from covet_migrate import extensions
from covet_migrate import operations as ops
from covet_migrate.ddl import steps_of
from covet_migrate.exceptions import MigrationError
from covet_migrate.execution.effects import in_effect
from covet_migrate.execution.stages import tables_of
from covet_migrate.files.writer import source_of
from covet_migrate.inspection import field_types
from covet_migrate.inspection.field_types import FieldType, field_type, register_type
from covet_migrate.migrations import Migration
from covet_migrate.safety.effects import effects_of
from covet_migrate.state.declarations import declaration_of, migrated_field, same
from covet_migrate.state.from_models import state_of
from covet_orm import Database, Registry
from covet_orm.fields.base import Field

pytestmark = pytest.mark.anyio


class ColourField(Field[str]):
    """A field of an application, which stands as a plain one in migrations."""

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.String(7)

    def to_python(self, value: Any) -> str:
        return str(value)

    def migrated(self) -> Field[Any]:
        field: Field[Any] = orm.CharField(max_length=7, **self.declared.options)
        return field


def test_an_action_makes_its_steps_and_says_what_they_do() -> None:
    action = Logged(table="shop_book", logged=False)
    (step,) = steps_of([action], "postgresql")
    assert step.action is action
    (effect,) = effects_of([step], "postgresql", (18,))
    assert effect.describe() == (
        "ACCESS EXCLUSIVE on shop_book, which blocks readers and writers; every row is written anew"
    )
    assert tables_of(action) == {"shop_book"}
    assert steps_of([action], "mariadb") == []
    (found,) = findings([Unlog("shop_book")])
    assert (found.rule, found.what) == ("custom-action-stalls", "the table shop_book")
    assert found.effect == effect.describe()


def test_rows_that_are_changed_under_its_lock_are_found() -> None:
    found = findings([Unlog("shop_book"), ops.RunSQL("UPDATE shop_book SET pages = 1 WHERE id = 3")])
    assert {one.rule for one in found} == {"custom-action-stalls", "rows-under-lock"}


async def test_it_is_run_and_taken_back(databases: Databases) -> None:
    url = databases.postgresql(18).empty_database("test")
    state = state_after(shop(), [])
    await ask(url, "CREATE TABLE shop_book (id int)")
    logged = "SELECT relpersistence FROM pg_class WHERE relname = 'shop_book'"
    await migrate(url, "postgresql", state, [Unlog("shop_book")])
    assert (await ask(url, logged))[0][0] == b"u"
    await migrate(url, "postgresql", state, [Unlog("shop_book")], backward=True)
    assert (await ask(url, logged))[0][0] == b"p"
    async with Database(url) as database, database.connection() as connection:
        assert await in_effect(connection, "postgresql", Logged(table="shop_book", logged=True)) is None


def test_a_field_stands_in_migrations_for_another_one() -> None:
    field = ColourField(null=True, db_column="hue")
    assert type(migrated_field(field)) is orm.CharField
    assert same(field, ColourField(null=True, db_column="hue"))
    declares, _, options = declaration_of(field)
    assert (declares, dict(options)) == (orm.CharField, {"max_length": 7, "null": True, "db_column": "hue"})
    text = source_of(Migration([add("hue", migrated_field(field))], app=APP, name="x"))
    assert 'orm.CharField(max_length=7, null=True, db_column="hue")' in text.replace(
        'db_column="hue", max_length=7, null=True', 'max_length=7, null=True, db_column="hue"'
    ).replace('max_length=7, db_column="hue", null=True', 'max_length=7, null=True, db_column="hue"')


def test_so_it_does_in_the_state_of_models() -> None:
    models = Registry()

    class Car(orm.Model):
        colour = ColourField(default="#000000")

        class Meta:
            app_label = "garage"
            registry = models

    assert type(state_of(models)["garage.Car"].fields["colour"]) is orm.CharField


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered is forgotten again."""
    monkeypatch.setattr(field_types, "_registered", {})


@pytest.mark.usefixtures("registered")
def test_a_type_of_a_column_gets_a_field() -> None:
    register_type("postgresql", r"colour\((\d)\)", lambda found: FieldType(ColourField, (), {"null": found[1] == "1"}))
    assert field_type("postgresql", "colour(1)").made().declared.options == {"null": True}
    assert field_type("postgresql", "colour(1)[]").declares is orm.ArrayField
    assert field_type("mariadb", "colour(1)").declares is orm.TextField
    with pytest.raises(MigrationError, match="no database is called 'oracle'"):
        register_type("oracle", "x", lambda found: FieldType(ColourField))
    with pytest.raises(MigrationError, match="no regular expression"):
        register_type("sqlite", "(", lambda found: FieldType(ColourField))


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """Extensions that are installed, and not imported yet."""
    installed: list[EntryPoint] = []
    monkeypatch.setattr(extensions, "_loaded", set())
    monkeypatch.setattr(extensions, "entry_points", lambda *, group: [one for one in installed if one.group == group])
    return installed


def test_extensions_are_imported_once(fresh: list[EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Module(ModuleType):
        def __getattr__(self, name: str) -> str:
            seen.append(name)
            return name

    monkeypatch.setitem(__import__("sys").modules, "kit_extension", Module("kit_extension"))
    fresh += [EntryPoint(name, f"kit_extension:{name}", extensions.GROUP) for name in ("b", "a")]
    fresh.append(EntryPoint("other", "kit_extension:other", "covet.plugins"))
    for _ in range(2):
        findings([Unlog("shop_book")])
        source_of(Migration([], app=APP, name="x"))
        field_type("sqlite", "TEXT")
    assert [name for name in seen if len(name) == 1] == ["a", "b"]
    assert "other" not in seen


def test_one_that_cannot_be_imported_is_named(fresh: list[EntryPoint]) -> None:
    fresh.append(EntryPoint("geo", "covet_geo_that_is_not_there", extensions.GROUP))
    for _ in range(2):
        with pytest.raises(MigrationError, match=r"the extension 'geo' cannot be imported.*ModuleNotFoundError"):
            findings([Unlog("shop_book")])
