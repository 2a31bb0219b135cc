"""Models that make the schema that is there: `inspectdb`.

What is there becomes a state of migrations, as if these had made it; that is written down as source of models, or
compared with another state. What a model cannot say is noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import covet_orm as orm
from covet_migrate.inspection.constraints import ConstraintReader
from covet_migrate.inspection.descriptions import Column, ForeignKey, Schema, Table
from covet_migrate.inspection.field_types import FieldType, counting_type, field_type
from covet_migrate.inspection.naming import class_name, field_name, free_name
from covet_migrate.inspection.own_tables import OWN_TABLES
from covet_migrate.state.models import ModelState, State
from covet_orm import Field, RawSQL
from covet_orm.models.names import name_of, shortened
from covet_orm.models.options import usual_table

__all__ = ["Inspected", "Note", "inspected_models"]

ACTIONS = {
    "CASCADE": None,
    "SET NULL": orm.SET_NULL,
    "SET DEFAULT": orm.SET_DEFAULT,
    "RESTRICT": orm.RESTRICT,
    "NO ACTION": orm.DO_NOTHING,
}


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a model does not say as the database has it.

    Attributes:
        model: the label of the model.
        field: the name of the field; None where it is of the table.
        text: what it is.
    """

    model: str
    field: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.model}.{self.field}: {self.text}" if self.field else f"{self.model}: {self.text}"


@dataclass
class Inspected:
    """What was read of a schema.

    Attributes:
        state: the models.
        notes: what they do not say, in the order of the models.
        kind: of the database.
    """

    state: State
    kind: str
    notes: list[Note] = field(default_factory=list)


def inspected_models(
    schema: Schema, *, app: str = "", only: Iterable[str] | None = None, leave_out: Iterable[str] = OWN_TABLES
) -> Inspected:
    """The models of the tables of a schema.

    Args:
        schema: what is there, as `read_schema` gives it.
        app: the label of the application that they are to belong to.
        only: the names of the tables; all of them by default. What they refer to comes with them.
        leave_out: the names of tables that get no model, unless `only` names them: those of Covet itself by default;
            `own_tables` gives those of a database.
    """
    named = None if only is None else set(only)
    wanted = _wanted(schema, named) - (set(leave_out) - (named or set()))
    tables = {name: table for name, table in sorted(schema.tables.items()) if name in wanted}
    labels: dict[str, str] = {}
    for name in tables:
        found = free_name(class_name(name, app), [label.rpartition(".")[2] for label in labels.values()])
        labels[name] = f"{app}.{found}" if app else found
    made = Inspected(State({}), schema.kind)
    backward: dict[str, set[str]] = {}
    models = {name: _TableReader(schema, table, labels, made, backward) for name, table in tables.items()}
    for name, reader in models.items():
        backward[labels[name]] = reader.taken
    read = [reader.model(app) for reader in models.values()]
    made.state = State({model.label: model for model in _ordered(read)})
    order = {label: position for position, label in enumerate(made.state.models)}
    made.notes.sort(key=lambda note: order[note.model])
    return made


def _wanted(schema: Schema, only: set[str] | None) -> set[str]:
    if only is None:
        return set(schema.tables)
    found: set[str] = set()
    waiting = [name for name in sorted(only) if name in schema.tables]
    while waiting:
        name = waiting.pop()
        if name not in found and name in schema.tables:
            found.add(name)
            waiting += [key.table for key in schema.tables[name].foreign_keys]
    return found


def _ordered(models: Sequence[ModelState]) -> list[ModelState]:
    """Each after those that it refers to, where they do not refer to each other; those by name."""
    left = {model.label: model for model in models}
    found: list[ModelState] = []
    while left:
        ready = [
            model for model in left.values() if all(to == model.label or to not in left for to in model.refers_to())
        ]
        for model in ready or [next(iter(left.values()))]:
            found.append(left.pop(model.label))
    return found


class _TableReader:
    """Makes the model of one table."""

    def __init__(
        self,
        schema: Schema,
        table: Table,
        labels: Mapping[str, str],
        made: Inspected,
        backward: dict[str, set[str]],
    ) -> None:
        self.schema = schema
        self.kind = schema.kind
        self.table = table
        self.labels = labels
        self.label = labels[table.name]
        self.made = made
        self.backward = backward
        self.foreign: dict[str, ForeignKey] = {}
        self.names: dict[str, str] = {}
        self.taken: set[str] = set()
        self._foreign_keys()
        self._names()
        self.constraints = ConstraintReader(self.kind, table, self.names, set(self.foreign), self.note)

    def note(self, text: str, column: str | None = None) -> None:
        """Note what the model does not say."""
        self.made.notes.append(Note(self.label, None if column is None else self.names[column], text))

    def model(self, app: str) -> ModelState:
        """The model."""
        key = self.table.primary_key
        fields: dict[str, Field[Any]] = {}
        for column in self.table.columns:
            made = self._field(column)
            if made is not None:
                fields[self.names[column.name]] = made
        options: dict[str, Any] = {}
        name = self.label.rpartition(".")[2]
        if usual_table(app, name) != self.table.name:
            options["db_table"] = self.table.name
        if self.table.comment:
            options["comment"] = self.table.comment
        options["indexes"] = self.constraints.indexes()
        options["constraints"] = self.constraints.constraints()
        if key is None:
            options["managed"] = False
            self.note(
                "the table has no primary key, and a model needs one: its fields are taken for it, and no table made"
            )
        elif self.kind == "postgresql" and key.name != shortened(self.table.name, "_pkey"):
            self.note(
                f"the primary key is called {key.name!r}, and would be called {shortened(self.table.name, '_pkey')!r}"
            )
        for trigger in self.table.triggers:
            self.note(f"the trigger {trigger.name!r} is left out: no model has triggers")
        return ModelState(app, name, fields).with_options(**options)

    # Names

    def _foreign_keys(self) -> None:
        """The foreign keys that a field can be: of one column, to the key of another table."""
        for key in self.table.foreign_keys:
            other = self.schema.tables.get(key.table)
            fits = (
                other is not None
                and key.table in self.labels
                and other.primary_key is not None
                and len(key.columns) == 1
                and key.referred == other.primary_key.columns
            )
            if fits and key.columns[0] not in self.foreign:
                self.foreign[key.columns[0]] = key

    def _names(self) -> None:
        for column in self.table.columns:
            is_key = column.name in self.foreign
            bare = column.name.removesuffix("_id") if is_key and len(column.name) > 3 else column.name
            name = found = field_name(bare)
            number = 2
            # A foreign key takes two names.
            while {found, *([f"{found}_id"] if is_key else [])} & self.taken:
                found = f"{name}_{number}"
                number += 1
            self.names[column.name] = found
            self.taken |= {found, *([f"{found}_id"] if is_key else [])}

    # Fields

    def _field(self, column: Column) -> Field[Any] | None:
        name = self.names[column.name]
        key = self.table.primary_key
        columns = key.columns if key is not None else tuple(one.name for one in self.table.columns)
        alone = columns == (column.name,)
        counts = alone and column.counting is not None and column.name not in self.foreign
        found = self._type(column, counts=counts)
        options: dict[str, Any] = {}
        is_key = column.name in columns
        if column.null and not is_key and column.generated is None:
            options["null"] = True
        if is_key and not issubclass(found.declares, (orm.AutoField, orm.SmallAutoField, orm.BigAutoField)):
            options["primary_key"] = True
        foreign = self.foreign.get(column.name)
        attribute = name if foreign is None else f"{name}_id"
        if attribute != column.name:
            options["db_column"] = column.name
        if column.comment:
            options["comment"] = column.comment
        if column.default is not None:
            options["db_default"] = default_of(self.kind, column, found.declares)
        # What the field does not say, the options of the model have to.
        unique = not alone and self.constraints.is_unique(column.name)
        indexed = not alone and not unique and self.constraints.is_indexed(column.name)
        if column.collation is not None and found.declares not in (orm.IPAddressField, orm.JSONField):
            self.note(f"the collation {column.collation} is left out", column.name)
        if foreign is not None:
            return self._foreign_key(column, foreign, options, alone=alone, unique=unique, indexed=indexed)
        if unique:
            options["unique"] = True
        if indexed:
            options["db_index"] = True
        if column.generated is not None:
            return self._generated(column, found, options)
        return found.made(**options)

    def _type(self, column: Column, *, counts: bool) -> FieldType:
        if counts:
            found = counting_type(column.type)
            usual = {"postgresql": "serial", "sqlite": "rowid"}.get(self.kind, "auto_increment")
            if column.counting != usual:
                self.note(f"it counts by {column.counting!r}, and would count by {usual!r}", column.name)
            if found is not None:
                return found
        found = field_type(self.kind, column.type)
        if self.kind in ("mysql", "mariadb"):
            if column.type == "longtext" and self.constraints.json(column.name):
                return FieldType(orm.JSONField)
            if column.type == "varchar(45)" and column.collation == "ascii_bin":
                return FieldType(orm.IPAddressField)
        positive = self.constraints.positive(column.name, found.declares)
        if positive is not None:
            found = FieldType(positive)
        if column.counting is not None and not counts and column.counting != "rowid":
            self.note(f"it counts ({column.counting}), and only a key of one column does so in a model", column.name)
        if not found.exact:
            self.note(f"its type is {column.type}, and {found.declares.__name__} makes another one", column.name)
        return found

    def _generated(self, column: Column, found: FieldType, options: dict[str, Any]) -> Field[Any]:
        assert column.generated is not None
        if not column.null:
            self.note("it may not be NULL, and a generated field may", column.name)
        known = ("unique", "db_index", "db_column", "comment")
        allowed: dict[str, Any] = {name: options[name] for name in known if name in options}
        if not column.stored:
            allowed["stored"] = False
        return orm.GeneratedField(RawSQL(column.generated), found.made(), **allowed)

    def _foreign_key(
        self, column: Column, key: ForeignKey, options: dict[str, Any], *, alone: bool, unique: bool, indexed: bool
    ) -> Field[Any]:
        name = self.names[column.name]
        to = "self" if key.table == self.table.name else self.labels[key.table]
        on_delete: Any = ACTIONS.get(key.on_delete)
        if (on_delete == orm.SET_NULL and not column.null) or (on_delete == orm.SET_DEFAULT and column.default is None):
            self.note(f"on delete {key.on_delete} can only fail, and is left to the database's check", column.name)
            on_delete = orm.DO_NOTHING
        if on_delete is not None:
            options["on_delete"] = on_delete
        if key.deferrable is not None:
            options["deferrable"] = key.deferrable
        if key.on_update != "NO ACTION":
            self.note(f"on update {key.on_update} is left out", column.name)
        if not key.valid:
            self.note("rows that were there before the foreign key were not checked", column.name)
        expected = name_of(self.table.name, [column.name], "fk")
        if key.name != expected:
            self.note(f"the foreign key is called {key.name!r}, and would be called {expected!r}", column.name)
        referred = self.schema.tables[key.table].column(key.referred[0])
        if referred.type != column.type:
            self.note(f"its type is {column.type}, and would be {referred.type}, as that of the key", column.name)
        options["related_name"] = self._related_name(to, name, one=unique or alone)
        if options["related_name"] is None:
            del options["related_name"]
        if unique or alone:
            return orm.OneToOneField(to, **options)
        if not indexed:
            options["db_index"] = False
        return orm.ForeignKey(to, **options)

    def _related_name(self, to: str, name: str, *, one: bool) -> str | None:
        """What the relation is called on the other side; None for the usual name."""
        there = self.backward[self.label if to == "self" else to]
        bare = self.label.rpartition(".")[2].lower()
        usual = bare if one else f"{bare}_set"
        if usual not in there:
            there.add(usual)
            return None
        other = f"{bare}_{name}_set"
        if other in there:
            return "+"
        there.add(other)
        return other


LITERAL = re.compile(r"'((?:[^']|'')*)'(?:::[\w ]+(?:\(\d+\))?)?")
TEXTS = (orm.CharField, orm.TextField)


def default_of(kind: str, column: Column, declares: type[Any]) -> Any:
    """The default of a column: a value where that is certain to be the same, else its SQL.

    Args:
        kind: of the database.
        column: a column with a default.
        declares: the class of its field.
    """
    text = str(column.default)
    if declares is orm.BooleanField and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    if issubclass(declares, orm.IntegerField) and re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    found = LITERAL.fullmatch(text)
    if issubclass(declares, TEXTS) and found is not None and "\\" not in found[1] and "\0" not in found[1]:
        return found[1].replace("''", "'")
    return RawSQL(text)
