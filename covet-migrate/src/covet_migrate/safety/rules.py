"""Rules about operations of migrations, by name. Others are added by `register` or `rule`:

from covet_migrate.safety.findings import Severity
from covet_migrate.safety.rules import Found, rule

@rule("no-json", Severity.WARNING, title="A column of JSON", why="it has no schema", instead="make it columns")
def no_json(subject):
    for action in subject.actions(AddColumn):
        if isinstance(action.column.type, sqlalchemy.JSON):
            yield Found(f"{action.column}")
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from covet_migrate.actions.actions import Action, TableAction
from covet_migrate.actions.custom import CustomAction
from covet_migrate.ddl import DIALECTS
from covet_migrate.exceptions import MigrationError
from covet_migrate.execution.stages import Stage
from covet_migrate.extensions import load_extensions
from covet_migrate.migrations import Migration
from covet_migrate.safety.effects import Effect
from covet_migrate.safety.findings import Severity
from covet_migrate.safety.raw_sql import RawStatement
from covet_migrate.steps import RebuildTable, Statement, Step

__all__ = ["Found", "Rule", "Subject", "all_rules", "register", "rule"]

A = TypeVar("A", bound=Action)


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule finds.

    Attributes:
        what: what it is about: `the column price of shop_book`.
        step: the step that does it, where it is one.
    """

    what: str
    step: Step | None = None


@dataclass(frozen=True)
class Subject:
    """An operation of a migration, as a rule sees it.

    Attributes:
        migration: the migration.
        stage: the operation, its states, actions and steps.
        kind: of the database.
        version: of the server.
        effects: what each step of it does to others.
        earlier: what the steps of the operations before it do.
        new_tables: the tables that the migration creates: nobody uses them, and they have no rows.
        flat: the actions, those within others as well.
        raw: the SQL that somebody wrote.
    """

    migration: Migration
    stage: Stage
    kind: str
    version: tuple[int, ...]
    effects: Sequence[Effect]
    earlier: Sequence[tuple[Step, Effect]] = ()
    new_tables: frozenset[str] = frozenset()
    flat: Sequence[object] = ()
    raw: Sequence[tuple[Step, RawStatement]] = field(default_factory=tuple)

    @property
    def together(self) -> bool:
        """Whether all of the migration is one transaction, which keeps each lock to its end."""
        return self.migration.atomic and self.kind in ("postgresql", "sqlite")

    def actions(self, kind: type[A]) -> Iterator[A]:
        """The actions of a kind on tables that are in use."""
        for one in self.flat:
            if isinstance(one, kind) and not self.is_new(one):
                yield one

    def steps(self, kind: type[A]) -> Iterator[tuple[A, Step, Effect]]:
        """The steps of actions of a kind on tables that are in use, with their effects."""
        for step, effect in zip(self.stage.steps, self.effects, strict=True):
            action = step.action
            if isinstance(action, kind) and not self.is_new(action):
                yield action, step, effect

    def is_new(self, action: Action | None) -> bool:
        """Whether an action is about tables alone that the migration creates."""
        if isinstance(action, CustomAction):
            tables = set(action.tables())
            return bool(tables) and tables <= self.new_tables
        return isinstance(action, TableAction) and action.table.name in self.new_tables

    def step_of(self, action: Action) -> Step | None:
        """The step that does an action, the first of several that do more than fill rows; None where none is told to be
        of it."""
        about = _about(action)
        found = [
            step
            for step in self.stage.steps
            if (isinstance(step, RebuildTable) and any(one is action for one in step.actions))
            # What is done online is done for actions like it.
            or (type(step.action) is type(action) and _about(step.action) == about)
        ]
        fills = (isinstance(step, Statement) and step.sql.startswith("UPDATE") for step in found)
        return next((step for step, fill in zip(found, fills, strict=True) if not fill), found[0] if found else None)

    def written(self, rule: str) -> Iterator[Found]:
        """What a rule finds in SQL that somebody wrote."""
        for step, statement in self.raw:
            if rule in statement.rules and not (statement.tables and statement.tables <= self.new_tables):
                yield Found("SQL that somebody wrote", step)


def _about(action: Any) -> tuple[object, ...]:
    """What tells an action from others of its kind."""
    named = [getattr(getattr(action, part, None), "name", None) for part in ("table", "column", "constraint", "index")]
    named.append(getattr(action, "after", None))
    return tuple(None if name is None else str(name) for name in named)


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: of words with hyphens between them; it stays the same from version to version.
        severity: of what it finds.
        title: what it finds, in a line.
        why: what is bad about that.
        instead: what to do instead.
        check: finds it in an operation.
        kinds: the databases that it is about.
    """

    name: str
    severity: Severity
    title: str
    why: str
    instead: str
    check: Callable[[Subject], Iterable[Found]]
    kinds: Collection[str] = tuple(DIALECTS)


_rules: dict[str, Rule] = {}
_HOMES = ("data_rules", "compatibility_rules", "lock_rules", "design_rules", "written_rules", "custom_rules")


def register(new: Rule) -> Rule:
    """Add a rule.

    Raises:
        MigrationError: there is one of that name, or its name is none.
    """
    if new.name in _rules:
        raise MigrationError(f"there is a rule {new.name!r} already; give the other one another name")
    if not new.name or not all(letter.islower() or letter.isdigit() or letter == "-" for letter in new.name):
        raise MigrationError(f"{new.name!r} is no name of a rule: lower-case words with hyphens, such as drop-column")
    _rules[new.name] = new
    return new


Check = Callable[[Subject], Iterable[Found]]


def rule(
    name: str, severity: Severity, *, title: str, why: str, instead: str, kinds: Collection[str] = tuple(DIALECTS)
) -> Callable[[Check], Check]:
    """Make a function a rule, and add it. The arguments are those of `Rule`.

    Raises:
        MigrationError: as `register`.
    """

    def made(check: Check) -> Check:
        register(Rule(name, severity, title, why, instead, check, tuple(kinds)))
        return check

    return made


def all_rules() -> Mapping[str, Rule]:
    """All rules by name, in the order in which they were added: Covet's own first.

    Raises:
        MigrationError: an extension cannot be imported.
    """
    for home in _HOMES:
        import_module(f"covet_migrate.safety.{home}")
    load_extensions()
    return dict(_rules)
