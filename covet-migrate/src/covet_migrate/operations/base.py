"""What an operation of a migration is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from covet_migrate.actions.actions import Action, CreateTable, DropTable
from covet_migrate.actions.comparing import compare_tables
from covet_migrate.state.models import ModelState, State
from covet_migrate.state.rendering import Rendered, Renderer
from covet_orm.fields.base import Declared

if TYPE_CHECKING:
    from typing import Self

    import sqlalchemy

__all__ = ["Change", "Operation"]


@dataclass(frozen=True)
class Change:
    """A change that is to be made in a database: from one state to another.

    Backward, an operation gets its states the other way round: `before` is what it made, and `after` what it was.

    Attributes:
        app: the label of the application whose migration it is.
        before: the state that the database is in.
        after: the state that it is to be in.
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        renderer: makes tables of models.
        backward: whether the operation is taken back.
        alias: of the database; a model that names another one lives there.
    """

    app: str
    before: State
    after: State
    kind: str
    renderer: Renderer
    backward: bool = False
    alias: str = "default"

    def lives_here(self, model: ModelState) -> bool:
        """Whether migrations keep the table of a model in this database."""
        return model.managed and model.options.get("database") in (None, self.alias)

    def rendered(self, state: State, label: str) -> Rendered:
        """The tables of a model in a state."""
        return self.renderer.render(state, label)

    def model_actions(
        self,
        before: str | None,
        after: str | None,
        *,
        fields: Mapping[str, str] | None = None,
        fill: Mapping[str, sqlalchemy.ColumnElement[Any]] | None = None,
        tables: Mapping[str, str] | None = None,
    ) -> list[Action]:
        """The actions that make the tables of a model as they are to be.

        Args:
            before: its label before; None when it was not there.
            after: its label after; None when it will not be there.
            fields: those that have another name afterwards.
            fill: by column, what rows get that are there.
            tables: tables of other models that have another name afterwards.
        """
        old = self._there(self.before, before)
        new = self._there(self.after, after)
        if (old is None or new is None) and before is not None and after is not None:
            # The model is there, and its table is somebody else's to keep, before or after.
            return []
        if old is None or new is None:
            actions: list[Action] = []
            if old is not None:
                actions += [DropTable(table=table) for table in (*old.links.values(), old.table)]
            if new is not None:
                actions += [CreateTable(table=table) for table in (new.table, *new.links.values())]
            return actions
        names = fields or {}
        columns = {
            field.column: now.column
            for field in old.model._meta.fields
            if (now := new.model._meta.by_name.get(names.get(field.name, field.name))) is not None
            and now.column != field.column
        }
        tables = {**(tables or {}), old.table.name: new.table.name}
        actions = compare_tables(old.table, new.table, self.kind, renamed=columns, fill=fill, tables=tables)
        links = {names.get(name, name): table for name, table in old.links.items()}
        actions += [DropTable(table=table) for name, table in links.items() if name not in new.links]
        for name, table in new.links.items():
            if name not in links:
                actions.append(CreateTable(table=table))
                continue
            renamed = {
                one.name: other.name
                for one, other in zip(links[name].columns, table.columns, strict=True)
                if one.name != other.name
            }
            actions += compare_tables(links[name], table, self.kind, renamed=renamed, tables=tables)
        return actions

    def _there(self, state: State, label: str | None) -> Rendered | None:
        if label is None or label not in state or not self.lives_here(state[label]):
            return None
        return self.rendered(state, label)


class Operation:
    """The base of all operations, and of those of third parties.

    One of one's own overrides `apply` and `describe`, and where the schema changes `actions`; the arguments that it is
    made with must be attributes, or be such as the file writer can write (see `declared`).

    Attributes:
        declared: what it was made with: by that it is written down.
    """

    reversible: bool = True
    """Whether it can be taken back."""
    elidable: bool = False
    """Whether it may be left out where migrations are squashed, as what it did is done."""
    frees: ClassVar[bool] = False
    """Whether it may end that one model refers to another, so that this one can be deleted or renamed."""
    needs_freedom: ClassVar[bool] = False
    """Whether it does not say all models that it concerns: those that refer to its own."""
    declared: Declared

    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **options: Any) -> Self:
            made = super().__new__(cls)
            made.declared = Declared(args, options)
            return made

    def apply(self, state: State, app: str) -> State:
        """The state after it.

        Args:
            state: the state before it.
            app: the label of the application whose migration it is.

        Raises:
            MigrationError: it does not fit the state.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it does to the state: override apply()")

    def describe(self) -> str:
        """What it does, as people read it: `Add field slug to Post`."""
        return repr(self)

    def file_name(self) -> str:
        """What a file is called that has this operation alone: `post_slug`."""
        return type(self).__name__.lower()

    def actions(self, change: Change) -> Sequence[Any]:
        """What is done in the database: actions, or steps that a database runs; forward and backward alike."""
        return ()

    def touches(self, app: str) -> Iterable[str] | None:
        """The labels of the models that it changes: by these the optimizer knows what may pass it.

        None where they may be any, as of code and of SQL: nothing passes it.
        """
        return None

    def refers_to(self, app: str) -> Iterable[str]:
        """The labels of other models that it names, such as those that its fields lead to."""
        return ()

    def passes(self, other: Operation, app: str) -> bool:
        """Whether it does the same before another operation as after it, and the other one too."""
        mine, theirs = self.touches(app), other.touches(app)
        if mine is None or theirs is None:
            return False
        mine, theirs = set(mine), set(theirs)
        return (
            mine.isdisjoint(theirs)
            and mine.isdisjoint(other.refers_to(app))
            and theirs.isdisjoint(self.refers_to(app))
            and not (self.frees and other.needs_freedom)
            and not (self.needs_freedom and other.frees)
        )

    def reduce(self, other: Operation, app: str) -> list[Operation] | None:
        """What stands for this operation and a later one, which directly follows it; None where nothing does.

        An empty list where they undo each other.
        """
        return None

    def __repr__(self) -> str:
        args = [*map(repr, self.declared.args), *(f"{name}={value!r}" for name, value in self.declared.options.items())]
        return f"{type(self).__name__}({', '.join(args)})"
