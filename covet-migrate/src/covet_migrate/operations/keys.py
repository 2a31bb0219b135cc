"""What a change of a primary key needs of the tables that refer to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from covet_migrate.actions.actions import Action, AddConstraint, AlterColumn, DropConstraint, TableAction
from covet_migrate.operations.base import Change
from covet_orm.deferred import sqlalchemy

__all__ = ["with_referring"]


def with_referring(change: Change, label: str, actions: Sequence[Action]) -> list[Action]:
    """The actions on the tables of a model, and what has to be done for them to those that refer to its key.

    Where the key gets another type, or is another one, the columns that refer to it follow; and the foreign keys are
    dropped before and added after, as no database changes a key that has some. SQLite, which looks at no foreign key
    while a table is made anew, needs the columns alone.

    Args:
        change: the change.
        label: the model.
        actions: what is done to its own tables.
    """
    found = list(actions)
    if not _changes_key(found):
        return found
    involved = [label]
    changed = [label]
    while changed:
        target = changed.pop()
        for model in change.after:
            if model.label in involved or target not in model.refers_to() or model.label not in change.before:
                continue
            own = change.model_actions(model.label, model.label)
            involved.append(model.label)
            if _changes_key(own):
                # Its key is a reference itself, and others may refer to that.
                changed.append(model.label)
            found += own
    if change.kind == "sqlite":
        return found
    return _around(change, involved, found)


def _changes_key(actions: Iterable[Action]) -> bool:
    for one in actions:
        if isinstance(one, AlterColumn) and "type" in one.changes and one.before.primary_key:
            return True
        if isinstance(one, DropConstraint) and isinstance(one.constraint, sqlalchemy.PrimaryKeyConstraint):
            return True
    return False


def _around(change: Change, labels: Sequence[str], actions: list[Action]) -> list[Action]:
    """The actions between those that drop foreign keys and those that add them again."""
    keys = {
        one.before.table.name
        for one in actions
        if isinstance(one, AlterColumn) and "type" in one.changes and one.before.primary_key
    }
    keys |= {
        one.constraint.table.name
        for one in actions
        if isinstance(one, DropConstraint) and isinstance(one.constraint, sqlalchemy.PrimaryKeyConstraint)
    }
    dropped = [one for one in actions if isinstance(one, DropConstraint) and _is_key(one)]
    added = [one for one in actions if isinstance(one, AddConstraint) and _is_key(one)]
    rest = [one for one in actions if one not in dropped and one not in added]
    gone = {(one.table.name, str(one.constraint.name)) for one in dropped}
    there = {(one.table.name, str(one.constraint.name)) for one in added}
    for before, after in _tables(change, labels):
        for key in _keys_to(before, keys):
            if (after.name, str(key.name)) not in gone:
                dropped.append(DropConstraint(table=after, constraint=key))
        for key in _keys_to(after, keys):
            if (after.name, str(key.name)) not in there:
                added.append(AddConstraint(table=after, constraint=key))
    return [*dropped, *rest, *added]


def _tables(change: Change, labels: Sequence[str]) -> Iterator[tuple[sqlalchemy.Table, sqlalchemy.Table]]:
    """The tables of models before and after."""
    for label in labels:
        if not (change.lives_here(change.before[label]) and change.lives_here(change.after[label])):
            continue
        before, after = change.rendered(change.before, label), change.rendered(change.after, label)
        yield before.table, after.table
        yield from ((table, after.links[name]) for name, table in before.links.items() if name in after.links)


def _keys_to(table: sqlalchemy.Table, names: set[str]) -> list[sqlalchemy.ForeignKeyConstraint]:
    found = [key for key in table.foreign_key_constraints if key.referred_table.name in names]
    return sorted(found, key=lambda key: str(key.name))


def _is_key(action: TableAction) -> bool:
    return isinstance(action, (AddConstraint, DropConstraint)) and isinstance(
        action.constraint, sqlalchemy.ForeignKeyConstraint
    )
