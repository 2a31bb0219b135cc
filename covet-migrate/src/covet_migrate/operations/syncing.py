"""Two fields that are kept the same while programs run that know one of them, and programs that know the other one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

from covet_migrate.actions.actions import Execute
from covet_migrate.exceptions import MigrationError
from covet_migrate.operations.base import Change
from covet_migrate.operations.models import ModelOperation
from covet_migrate.state.models import State
from covet_migrate.steps import Call, Statement
from covet_orm.deferred import sqlalchemy
from covet_orm.schema import defining_dialect

__all__ = ["StopSyncFields", "SyncFields"]


class _Syncing(ModelOperation):
    """The base of both.

    Args:
        model_name: the name of the model.
        old: the field that programs of before know.
        new: the field that programs of after know.
    """

    starts = True

    def __init__(self, model_name: str, old: str, new: str) -> None:
        super().__init__(model_name)
        self.model_name = model_name
        self.old = old
        self.new = new

    def apply(self, state: State, app: str) -> State:
        model = state[self.label(app)]
        for name in (self.old, self.new):
            if name not in model.fields:
                from covet.settings_schema import nearest

                raise MigrationError(
                    f"{type(self).__name__}: {model.label} has no field {name!r} at this point of the migrations"
                    f"{nearest(name, model.fields)}"
                )
        return state

    def actions(self, change: Change) -> Sequence[Any]:
        label = self.label(change.app)
        if not change.lives_here(change.after[label]):
            return ()
        model: Any = change.rendered(change.after, label).model
        columns = [model._meta.by_name[name].column for name in (self.old, self.new)]
        triggers = _Triggers(change.kind, model.__table__, *columns)
        if self.starts is change.backward:
            return [triggers.statement(sql) for sql in triggers.drop()]
        fill = partial(_fill, model.__table__, triggers.new, triggers.quote(triggers.old))
        copied = Call(function=fill, name=f"fill {triggers.table.name}.{triggers.new}", transactional=False)
        if change.kind == "sqlite":
            # Nobody else runs meanwhile: there is one file.
            return [triggers.statement(triggers.copy())]
        return [*map(triggers.statement, triggers.create()), copied]


class SyncFields(_Syncing):
    """Keep two fields the same: triggers put what is written into one of them into the other one, and rows that are
    there are copied in batches. So a field is renamed while programs run that know the old name and programs that know
    the new one; `makemigrations --safe` writes it.

    The migration needs `atomic=False`. On SQLite rows are copied once, and there are no triggers.

    Args:
        model_name: the name of the model.
        old: the field that programs of before know.
        new: the field that programs of after know; it may be NULL.
    """

    def describe(self) -> str:
        return f"Keep {self.new} of {self.model_name} the same as {self.old}"

    def file_name(self) -> str:
        return f"sync_{self.model_name.lower()}_{self.old.lower()}_{self.new.lower()}"


class StopSyncFields(_Syncing):
    """End what `SyncFields` began, when no program runs any more that knows the old field.

    Args:
        model_name: the name of the model.
        old: the field that programs of before knew.
        new: the field that programs know now.
    """

    starts = False

    def describe(self) -> str:
        return f"Keep {self.new} of {self.model_name} the same as {self.old} no longer"

    def file_name(self) -> str:
        return f"no_sync_{self.model_name.lower()}_{self.old.lower()}_{self.new.lower()}"


class _Triggers:
    """The triggers of two columns."""

    def __init__(self, kind: str, table: sqlalchemy.Table, old: str, new: str) -> None:
        self.kind = kind
        self.table = table
        self.old = old
        self.new = new
        preparer = defining_dialect(kind).identifier_preparer
        self.quote = preparer.quote
        self._table = preparer.format_table(table)
        told = f"{table.name}.{old}.{new}".encode()
        self._name = f"covet_sync_{blake2b(told, digest_size=8).hexdigest()}"

    def create(self) -> Iterator[str]:
        """What makes them."""
        old, new = self.quote(self.old), self.quote(self.new)
        if self.kind == "postgresql":
            yield (
                f"CREATE OR REPLACE FUNCTION {self._name}() RETURNS trigger LANGUAGE plpgsql AS $covet$ BEGIN "
                f"IF TG_OP = 'INSERT' THEN NEW.{new} := coalesce(NEW.{new}, NEW.{old}); "
                f"NEW.{old} := coalesce(NEW.{old}, NEW.{new}); "
                f"ELSIF NEW.{old} IS DISTINCT FROM OLD.{old} THEN NEW.{new} := NEW.{old}; "
                f"ELSIF NEW.{new} IS DISTINCT FROM OLD.{new} THEN NEW.{old} := NEW.{new}; "
                "END IF; RETURN NEW; END $covet$"
            )
            yield (
                f"CREATE TRIGGER {self._name} BEFORE INSERT OR UPDATE ON {self._table} "
                f"FOR EACH ROW EXECUTE FUNCTION {self._name}()"
            )
            return
        yield from self.drop()
        yield (
            f"CREATE TRIGGER {self._name}_i BEFORE INSERT ON {self._table} FOR EACH ROW "
            f"SET NEW.{new} = COALESCE(NEW.{new}, NEW.{old}), NEW.{old} = COALESCE(NEW.{old}, NEW.{new})"
        )
        yield (
            f"CREATE TRIGGER {self._name}_u BEFORE UPDATE ON {self._table} FOR EACH ROW "
            f"SET NEW.{new} = IF(NEW.{old} <=> OLD.{old}, NEW.{new}, NEW.{old}), "
            f"NEW.{old} = IF(NEW.{new} <=> OLD.{new}, NEW.{old}, NEW.{new})"
        )

    def drop(self) -> Iterator[str]:
        """What takes them away."""
        if self.kind == "postgresql":
            yield f"DROP TRIGGER IF EXISTS {self._name} ON {self._table}"
            yield f"DROP FUNCTION IF EXISTS {self._name}()"
        elif self.kind != "sqlite":
            yield f"DROP TRIGGER IF EXISTS {self._name}_i"
            yield f"DROP TRIGGER IF EXISTS {self._name}_u"

    def copy(self) -> str:
        """What copies all rows at once."""
        new, old = self.quote(self.new), self.quote(self.old)
        return f"UPDATE {self._table} SET {new} = {old} WHERE {new} IS NULL"

    def statement(self, sql: str) -> Statement:
        """A step of it. Of a table that has a trigger, nobody may write while it comes or goes."""
        tables = (self.table.name,) if " TRIGGER " in sql.partition(" ON ")[0] else ()
        return Statement(sql=sql, action=Execute(sql=sql, tables=tables))


async def _fill(table: sqlalchemy.Table, column: str, value: str, step: Any) -> None:
    from covet_migrate.ddl.filling import fill_in_batches

    await fill_in_batches(table, column, value, 5000, step)
