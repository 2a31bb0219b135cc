"""What differs between the fields that a model has and those that it is to have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from covet_migrate.changes.columns import handed_on
from covet_migrate.changes.detected import Detected, targets
from covet_migrate.changes.keys import counts, gains_first, uncounted
from covet_migrate.changes.questions import Fill, Questions, Reason
from covet_migrate.operations.fields import AddField, AlterField, RemoveField
from covet_migrate.state.declarations import same
from covet_migrate.state.models import ModelState
from covet_orm import Expression, Field
from covet_orm.fields.base import UNSET
from covet_orm.fields.related import ManyToManyField

__all__ = ["FieldChanges", "adding", "field_changes", "names_in", "removing", "same_fields"]


@dataclass(slots=True)
class FieldChanges:
    """The changes of a model's fields, in the order in which they can be made.

    Attributes:
        gone: the names of the fields that are removed, also of those that are added anew.
        removed: the operations that remove fields.
        columns: those that give columns another name, as another field is to have theirs.
        keys: those that change which fields the primary key has.
        added: those that add fields.
        altered: those that alter fields.
    """

    gone: set[str] = field(default_factory=set)
    removed: list[Detected] = field(default_factory=list)
    columns: list[Detected] = field(default_factory=list)
    keys: list[Detected] = field(default_factory=list)
    added: list[Detected] = field(default_factory=list)
    altered: list[Detected] = field(default_factory=list)


def field_changes(before: ModelState, after: ModelState, questions: Questions) -> FieldChanges:
    """What has to be done with the fields of a model.

    Raises:
        QuestionUnanswered: rows need a value, or a field is replaced, and nobody says what is to be done.
        MigrationError: what was said does not fit.
    """
    changes = FieldChanges()
    if before.fields.keys() == after.fields.keys() and all(
        after.fields[name] is one for name, one in before.fields.items()
    ):
        # As of nearly every model, nearly every time.
        return changes
    altered: list[str] = []
    for name, old in before.fields.items():
        new = after.fields.get(name)
        if new is None:
            changes.gone.add(name)
        elif old is not new and not same_fields(before, old, new):
            loss = _replaced(old, new)
            if loss is None:
                altered.append(name)
                continue
            changes.gone.add(name)
            if loss and after.managed:
                questions.replace(after, name, loss)
    for name, old in before.fields.items():
        # What is computed of a column that comes anew does so as well.
        if old.generated and name not in changes.gone and not changes.gone.isdisjoint(names_in(old)):
            changes.gone.add(name)
            altered = [one for one in altered if one != name]
    # A generated column goes before those that it is computed of, and comes after them.
    gone = sorted(changes.gone, key=lambda name: (not before.fields[name].generated, name))
    come = [name for name in after.fields if name not in before.fields or name in changes.gone]
    handed = handed_on(before, after, altered, changes.gone)
    changes.columns = [one for _, one, _ in handed]
    freed = {name: field for name, _, field in handed}
    gaining: list[tuple[str, Detected]] = []
    losing: list[tuple[str, Detected]] = []
    for name in gone:
        one = removing(before, name)
        if before.fields[name].primary_key:
            losing.append((name, one))
        else:
            changes.removed.append(one)
    for name in sorted(come, key=lambda name: after.fields[name].generated):
        one = adding(after, name, _fill(after, name, after.fields[name], questions))
        if after.fields[name].primary_key:
            gaining.append((name, one))
        else:
            changes.added.append(one)
    for name in altered:
        old, new = before.fields[name], after.fields[name]
        if name in freed and same_fields(before, freed[name], new):
            continue
        one = _altering(before, after, name, questions)
        if old.primary_key == new.primary_key:
            changes.altered.append(one)
        else:
            (gaining if new.primary_key else losing).append((name, one))
    changes.keys = list(_in_order(before, after, gaining, losing))
    return changes


def _in_order(
    before: ModelState,
    after: ModelState,
    gaining: Sequence[tuple[str, Detected]],
    losing: Sequence[tuple[str, Detected]],
) -> Iterator[Detected]:
    """The changes of a primary key, in the order in which they can be made."""
    if not gains_first(before, after):
        yield from (one for _, one in (*losing, *gaining))
        return
    # Of the columns of a key that has several, a database counts none: for as long as it takes, it is a plain number.
    meets = bool(gaining and losing)
    for name, _ in losing if meets else ():
        if counts(before.fields[name]):
            yield _becoming(before, name, uncounted(before.fields[name]))
    waiting: list[Detected] = []
    for name, one in gaining:
        if meets and isinstance(one.operation, AlterField) and counts(after.fields[name]):
            yield _becoming(before, name, uncounted(after.fields[name]))
            waiting.append(one)
        else:
            yield one
    yield from (one for _, one in losing)
    yield from waiting


def _becoming(model: ModelState, name: str, field: Field[Any]) -> Detected:
    return _detected(model, AlterField(model.name, name, field), (model.fields[name], field))


def same_fields(model: ModelState, old: Field[Any], new: Field[Any]) -> bool:
    """Whether two fields of a model are the same."""
    if type(old) is type(new) and same(old.declared, new.declared):
        return True
    return same(_to_itself(model, old), _to_itself(model, new))


def adding(model: ModelState, name: str, fill: Any = UNSET) -> Detected:
    """The operation that adds a field of a model."""
    field = model.fields[name]
    given = {} if fill is UNSET else {"fill": fill}
    operation = AddField(model.name, name, field, **given)
    return _detected(model, operation, (field,))


def removing(model: ModelState, name: str) -> Detected:
    """The operation that removes a field of a model."""
    field = model.fields[name]
    where = f"{model.label}.{name}"
    if field.generated or not model.managed:
        loses = ""
    elif isinstance(field, ManyToManyField):
        loses = "" if field.through is not None else f"the rows of the table between of {where}"
    else:
        loses = f"the values of {where}"
    return _detected(model, RemoveField(model.name, name), (field,), loses)


def names_in(value: Any) -> Iterator[str]:
    """The names of fields in what an index, a constraint, an expression or a tuple of names says.

    Texts that are none are among them: who asks knows which fields there are.
    """
    if isinstance(value, str):
        bare = value.removeprefix("-").partition("__")[0]
        yield bare
        yield bare.removesuffix("_id")
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from names_in(name)
            yield from names_in(part)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from names_in(part)
    elif hasattr(value, "declared"):
        yield from names_in(tuple(value.declared))
    elif hasattr(value, "expression"):
        yield from names_in(value.expression)


def _altering(before: ModelState, after: ModelState, name: str, questions: Questions) -> Detected:
    old, new = before.fields[name], after.fields[name]
    fill: Any = UNSET
    if after.managed and old.null and not new.null and new.column_is_there and not new.generated:
        if new.unique and new.default is not UNSET:
            fill = questions.fill(Fill(after, name, new, "unique"))
        elif new.default is UNSET and not new.filled_by_database:
            fill = questions.fill(Fill(after, name, new, "altered"))
    given = {} if fill is UNSET else {"fill": fill}
    operation = AlterField(after.name, name, new, **given)
    return _detected(after, operation, (old, new))


def _fill(model: ModelState, name: str, field: Field[Any], questions: Questions) -> Any:
    """What rows get that are there, where that has to be said; UNSET where it need not."""
    if not model.managed or not field.column_is_there or field.generated or counts(field):
        return UNSET
    alone = field.unique or (field.primary_key and sum(one.primary_key for one in model.fields.values()) == 1)
    if field.db_default is not UNSET and not (alone and not isinstance(field.db_default, Expression)):
        return UNSET
    if field.null:
        # Each would get the same value, and none is a value as well.
        return None if alone and field.default is not UNSET else UNSET
    reason: Reason
    if alone:
        reason = "unique"
    elif field.default is UNSET:
        reason = "added"
    elif getattr(field, "auto_now_add", False):
        reason = "now"
    else:
        return UNSET
    return questions.fill(Fill(model, name, field, reason))


def _replaced(old: Field[Any], new: Field[Any]) -> str | None:
    """What is lost when a field is removed and added anew, empty where nothing is; None where it can be altered."""
    if isinstance(old, ManyToManyField) or isinstance(new, ManyToManyField):
        if not isinstance(old, ManyToManyField):
            return "the values of its column are lost"
        if not isinstance(new, ManyToManyField):
            return _link_loss(old)
        if (old.to, old.through) == (new.to, new.through):
            # The table between gets another name, or nothing changes in the database.
            return None
        return _link_loss(old)
    if old.generated or new.generated:
        if old.generated and new.generated:
            computed = (old.declared.args, old.declared.options.get("stored", True))
            return None if same(computed, (new.declared.args, new.declared.options.get("stored", True))) else ""
        return "what was computed is lost" if old.generated else "the values of its column are lost"
    return None


def _link_loss(field: ManyToManyField[Any]) -> str:
    if field.through is not None:
        return ""
    return "the rows of the table between are lost"


def _to_itself(model: ModelState, field: Field[Any]) -> Any:
    """A foreign key to its own model, as it is declared with `self`."""
    if isinstance(field, ManyToManyField) or getattr(field, "to", None) != model.label:
        return field
    args, options = field.declared
    kind: Any = type(field)
    return kind("self", *args[1:], **options)


def _detected(model: ModelState, operation: Any, fields: Iterable[Field[Any]], loses: str = "") -> Detected:
    fields = tuple(fields)
    return Detected(
        model.app,
        operation,
        model.label,
        changes=any(one.primary_key for one in fields),
        needs=frozenset(targets(model, fields)),
        loses=loses,
    )
