"""What the statements of all databases have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy.schema import CreateColumn, CreateIndex, DropTableComment
from sqlalchemy.schema import CreateTable as CreateTableElement
from sqlalchemy.schema import SetTableComment as TableComment
from sqlalchemy.sql.operators import desc_op

from covet_migrate.actions.actions import (
    Action,
    AddColumn,
    AddConstraint,
    AddIndex,
    AlterColumn,
    CreateTable,
    DropColumn,
    DropConstraint,
    DropIndex,
    DropTable,
    Execute,
    RenameColumn,
    RenameConstraint,
    RenameIndex,
    RenameTable,
    SetTableComment,
    TableAction,
    ValidateConstraint,
)
from covet_migrate.actions.columns import alone
from covet_migrate.actions.custom import CustomAction, steps_of_custom
from covet_migrate.exceptions import MigrationError
from covet_migrate.steps import Statement, Step
from covet_orm.schema import defining_dialect, statements

__all__ = ["DDL", "Part", "Version", "alone", "covers", "is_there", "literal"]

Version = tuple[int, ...]
"""The version of a server: `(15, 4)`, `(10, 11, 6)`."""
Part = str | Statement
"""SQL of an action; or a statement, where it does what is an action by itself."""


class DDL:
    """Makes statements of actions, for one kind of database.

    Each method called after an action gives the statements of that.

    Args:
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        version: of the server.
    """

    def __init__(self, kind: str, version: Version) -> None:
        self.kind = kind
        self.version = version
        self.dialect: Any = defining_dialect(kind)
        compiler: Any = self.dialect.ddl_compiler
        self.compiler = compiler(self.dialect, None)
        self.quote = self.dialect.identifier_preparer.quote
        self.actions: Sequence[Action | Step] = ()

    def steps(self, actions: Iterable[Action | Step]) -> list[Step]:
        """The steps of the actions of one operation."""
        self.actions = list(actions)
        found: list[Step] = []
        for action in self.actions:
            found += [action] if isinstance(action, Step) else self.step(action)
        return found

    def step(self, action: Action) -> Iterator[Step]:
        """The steps of one action."""
        if isinstance(action, Execute):
            yield Statement(action=action, sql=action.sql, params=action.params)
            return
        if isinstance(action, CustomAction):
            yield from steps_of_custom(action, self.kind, self.version)
            return
        for part in self.statements(action):
            yield part if isinstance(part, Statement) else Statement(action=action, sql=part)

    def statements(self, action: Action) -> Iterable[Part]:
        """The statements of an action: their SQL, and where one does what is an action by itself, that statement.

        Raises:
            MigrationError: it is none that the database can do.
        """
        match action:
            case CreateTable():
                return self.create_table(action)
            case DropTable():
                return self.drop_table(action)
            case RenameTable():
                return self.rename_table(action)
            case SetTableComment():
                return self.set_table_comment(action)
            case AddColumn():
                return self.add_column(action)
            case DropColumn():
                return self.drop_column(action)
            case RenameColumn():
                return self.rename_column(action)
            case AlterColumn():
                return self.alter_column(action)
            case AddIndex():
                return self.add_index(action)
            case DropIndex():
                return self.drop_index(action)
            case RenameIndex():
                return self.rename_index(action)
            case AddConstraint():
                return self.add_constraint(action)
            case DropConstraint():
                return self.drop_constraint(action)
            case RenameConstraint():
                return self.rename_constraint(action)
            case ValidateConstraint():
                return self.validate_constraint(action)
            case _:
                raise MigrationError(
                    f"{type(action).__name__} is no action that {self.kind} has statements for; one of one's own "
                    "derives from covet_migrate.actions.custom.CustomAction"
                )

    def create_table(self, action: CreateTable) -> Iterable[str]:
        """Make a table, with its indexes and comments."""
        found = statements(self.kind, [action.table], create=True)
        if action.later:
            keys = [key for key in action.table.foreign_key_constraints if str(key.name) not in action.later]
            create = CreateTableElement(action.table, include_foreign_key_constraints=keys)
            found[0] = str(create.compile(dialect=self.dialect)).strip()
        return found

    def drop_table(self, action: DropTable) -> Iterable[str]:
        """Drop a table."""
        return [f"DROP TABLE {self.table(action.table)}"]

    def rename_table(self, action: RenameTable) -> Iterable[str]:
        """Rename a table."""
        return [f"ALTER TABLE {self.table(action.before)} RENAME TO {self.table(action.table)}"]

    def set_table_comment(self, action: SetTableComment) -> Iterable[str]:
        """Write a table's comment."""
        what = TableComment if action.table.comment is not None else DropTableComment
        return [str(what(action.table).compile(dialect=self.dialect))]

    def add_column(self, action: AddColumn) -> Iterable[str]:
        """Add a column; `fill` is its default for the time that it takes."""
        column = action.column
        if action.fill is None or column.computed is not None:
            return [self.alter(action, f"ADD COLUMN {self.column(column)}")]
        filled = self.column(alone(column, action.fill))
        name = self.quote(column.name)
        default = self.default(column)
        after = f"ALTER COLUMN {name} " + ("DROP DEFAULT" if default is None else f"SET DEFAULT {default}")
        return [self.alter(action, f"ADD COLUMN {filled}"), self.alter(action, after)]

    def drop_column(self, action: DropColumn) -> Iterable[str]:
        """Drop a column."""
        return [self.alter(action, f"DROP COLUMN {self.quote(action.column.name)}")]

    def rename_column(self, action: RenameColumn) -> Iterable[Part]:
        """Rename a column."""
        return [self.alter(action, f"RENAME COLUMN {self.quote(action.before)} TO {self.quote(action.after)}")]

    def alter_column(self, action: AlterColumn) -> Iterable[Part]:
        """Make a column as it is to be."""
        raise MigrationError(f"{self.kind} cannot alter the column {action.column}")

    def add_index(self, action: AddIndex) -> Iterable[str]:
        """Make an index."""
        return [str(CreateIndex(action.index).compile(dialect=self.dialect))]

    def drop_index(self, action: DropIndex) -> Iterable[Part]:
        """Drop an index."""
        return [f"DROP INDEX {self.quote(str(action.index.name))}"]

    def rename_index(self, action: RenameIndex) -> Iterable[str]:
        """Rename an index."""
        return [f"ALTER INDEX {self.quote(action.before)} RENAME TO {self.quote(str(action.index.name))}"]

    def add_constraint(self, action: AddConstraint) -> Iterable[str]:
        """Add a constraint."""
        return [self.alter(action, f"ADD {self.constraint(action.constraint)}")]

    def drop_constraint(self, action: DropConstraint) -> Iterable[Part]:
        """Drop a constraint."""
        return [self.alter(action, f"DROP CONSTRAINT {self.quote(str(action.constraint.name))}")]

    def rename_constraint(self, action: RenameConstraint) -> Iterable[Part]:
        """Rename a constraint."""
        old, new = self.quote(str(action.before.name)), self.quote(str(action.constraint.name))
        return [self.alter(action, f"RENAME CONSTRAINT {old} TO {new}")]

    def validate_constraint(self, action: ValidateConstraint) -> Iterable[str]:
        """Nothing, where a constraint was checked when it was added."""
        return []

    def table(self, table: sqlalchemy.Table) -> str:
        """The quoted name of a table."""
        return str(self.dialect.identifier_preparer.format_table(table))

    def alter(self, action: TableAction, what: str) -> str:
        """`ALTER TABLE` with a clause."""
        return f"ALTER TABLE {self.table(action.table)} {what}"

    def column(self, column: sqlalchemy.Column[Any]) -> str:
        """A column as it stands in `CREATE TABLE`."""
        return str(CreateColumn(column).compile(dialect=self.dialect))

    def constraint(self, constraint: sqlalchemy.Constraint) -> str:
        """A constraint as it stands in `CREATE TABLE`."""
        return str(self.compiler.process(constraint))

    def type(self, column: sqlalchemy.Column[Any]) -> str:
        """The type of a column."""
        return column.type.compile(self.dialect)

    def default(self, column: sqlalchemy.Column[Any]) -> str | None:
        """The default of a column."""
        text: str | None = self.compiler.get_column_default_string(column)
        return text

    def filling(self, action: AlterColumn) -> list[str]:
        """The statement that gives rows which are NULL a value, where there is one for them."""
        if action.fill is None:
            return []
        # As a default, an expression is written the same: without the name of a table.
        value = self.default(alone(action.column, action.fill))
        name = self.quote(action.column.name)
        return [f"UPDATE {self.table(action.table)} SET {name} = {value} WHERE {name} IS NULL"]

    def literal(self, text: str) -> str:
        """A text as a literal of SQL."""
        return literal(text, self.kind)

    def coming(self, table: sqlalchemy.Table) -> set[str]:
        """The names of the constraints and indexes that an action adds to a table, so that they are not there yet."""
        return {
            str(one.constraint.name if isinstance(one, AddConstraint) else one.index.name)
            for one in self.actions
            if isinstance(one, (AddConstraint, AddIndex)) and one.table.name == table.name
        }


def literal(text: str, kind: str) -> str:
    """A text as a literal of SQL.

    Args:
        text: the text.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
    """
    dialect: Any = defining_dialect(kind)
    process: Any = dialect.type_descriptor(sqlalchemy.String()).literal_processor(dialect)
    return str(process(text))


def is_there(one: Any, kind: str) -> bool:
    """Whether a database has it, or it is left out there."""
    databases = one.info.get("databases")
    return databases is None or kind in databases


def covers(one: Any, names: Sequence[str]) -> bool:
    """Whether what is unique, or an index, begins with some columns, in their order."""
    if isinstance(one, sqlalchemy.Index):
        # A descending one serves as well.
        parts = [getattr(part, "element", part) if _descends(part) else part for part in one.expressions]
        own = [part.name if isinstance(part, sqlalchemy.Column) else None for part in parts]
    elif isinstance(one, (sqlalchemy.PrimaryKeyConstraint, sqlalchemy.UniqueConstraint)):
        own = [column.name for column in one.columns]
    else:
        return False
    return own[: len(names)] == list(names)


def _descends(part: Any) -> bool:
    return isinstance(part, sqlalchemy.UnaryExpression) and part.modifier is desc_op
