"""Models and fields that may be one under two names. Whether they are is asked, or was said; it is never assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from covet.settings_schema import nearest
from covet_migrate.changes.columns import called, column_of
from covet_migrate.changes.detected import Detected, targets
from covet_migrate.changes.questions import Questions, Rename
from covet_migrate.exceptions import MigrationError
from covet_migrate.operations.fields import AlterField, RenameField
from covet_migrate.operations.models import RenameModel
from covet_migrate.state.declarations import same
from covet_migrate.state.models import ModelState, State
from covet_orm import Field
from covet_orm.fields.related import RelatedField

__all__ = ["Said", "renamed_fields", "renamed_models"]


class Said:
    """The renames that somebody said, and which of them were found."""

    def __init__(self, renames: Sequence[Rename]) -> None:
        self._new = {rename.old: rename.new for rename in renames}
        self._found: set[str] = set()

    def new_name(self, old: str) -> str | None:
        """The new name of a model or a field that is gone; None where nobody said one."""
        new = self._new.get(old)
        if new is not None:
            self._found.add(old)
        return new

    def check(self, before: State, after: State) -> None:
        """Return when each of them was one.

        Raises:
            MigrationError: one of them was not.
        """
        for old, new in self._new.items():
            if old in self._found:
                continue
            where, _, name = old.rpartition(".")
            gone = f"--rename {old}:{new}: "
            if old in before:
                raise MigrationError(f"{gone}the model {old} is still there; a model that is renamed is gone")
            if where in before and name in before[where].fields:
                raise MigrationError(f"{gone}{where} still has a field {name!r}; one that is renamed is gone")
            known = {*before.models, *(f"{model.label}.{one}" for model in before for one in model.fields)}
            raise MigrationError(f"{gone}the migrations know neither model nor field {old!r}{nearest(old, known)}")


def renamed_models(state: State, after: State, questions: Questions, said: Said) -> tuple[State, list[Detected]]:
    """The models that got another name, and the state after that.

    Raises:
        MigrationError: a rename was said to a model that has not come.
    """
    found: list[Detected] = []
    gone = sorted(label for label in state.models if label not in after)
    come = {label for label in after.models if label not in state}
    for label in gone:
        old = state[label]
        new = _new_model(old, after, sorted(come), questions, said)
        if new is None:
            continue
        come.discard(new.label)
        operation = RenameModel(old.name, new.name)
        needs = frozenset((label, *targets(old, old.fields.values())))
        state = operation.apply(state, old.app)
        found.append(Detected(old.app, operation, new.label, changes=True, needs=needs))
    return state, found


def renamed_fields(
    state: State, after: State, questions: Questions, said: Said, models: Mapping[str, str]
) -> tuple[State, list[Detected]]:
    """The fields that got another name, and the state after that.

    Args:
        state: after the renames of models.
        after: what is to be.
        questions: who is asked.
        said: what was said.
        models: the labels that renamed models had, by those that they have.

    Raises:
        MigrationError: a rename was said to a field that has not come.
    """
    found: list[Detected] = []
    for label in sorted(state.models):
        new_model = after.models.get(label)
        # Most models have the fields that they had.
        if new_model is None or state.models[label].fields.keys() == new_model.fields.keys():
            continue
        for old, new in list(_renames(state[label], new_model, questions, said, models.get(label, label))):
            for one in _renaming(state[label], new_model, old, new):
                found.append(one)
                state = one.operation.apply(state, new_model.app)
    return state, found


def _new_model(
    old: ModelState, after: State, come: Sequence[str], questions: Questions, said: Said
) -> ModelState | None:
    name = said.new_name(old.label)
    if name is not None:
        label = f"{old.app}.{name}" if old.app else name
        if label not in come:
            raise MigrationError(
                f"--rename {old.label}:{name}: no model {label} has come{nearest(label, come)}; a model keeps its "
                "application when it is renamed"
            )
        return after[label]
    candidates = [after[label] for label in come if after[label].app == old.app]
    likely = sorted((-_likeness(old, one), one.label) for one in candidates)
    for likeness, label in likely:
        if -likeness >= 0.5 and questions.is_model_renamed(old, after[label]):
            return after[label]
    return None


def _likeness(old: ModelState, new: ModelState) -> float:
    """How much two models have in common, from 0 to 1: fields of one name and kind, of all fields but the key."""
    names = {name for name, field in (*old.fields.items(), *new.fields.items()) if not field.primary_key}
    alike = [
        name
        for name in names
        if name in old.fields and name in new.fields and type(old.fields[name]) is type(new.fields[name])
    ]
    return len(alike) / len(names) if names else 1.0


def _renames(
    old: ModelState, new: ModelState, questions: Questions, said: Said, label: str
) -> Iterator[tuple[str, str]]:
    gone = [name for name in old.fields if name not in new.fields]
    come = [name for name in new.fields if name not in old.fields]
    for name in list(gone):
        told = said.new_name(f"{label}.{name}") or said.new_name(f"{new.label}.{name}")
        if told is None:
            continue
        if told not in come:
            raise MigrationError(
                f"--rename {new.label}.{name}:{told}: {new.label} has no new field {told!r}{nearest(told, come)}"
            )
        gone.remove(name)
        come.remove(told)
        yield name, told
    for name in gone:
        field = old.fields[name]
        candidates = [(not same(field, new.fields[one]), one) for one in come if _may_be(field, new.fields[one])]
        for _, one in sorted(candidates):
            if questions.is_field_renamed(new, name, one):
                come.remove(one)
                yield name, one
                break


def _may_be(old: Field[object], new: Field[object]) -> bool:
    """Whether somebody is to be asked about two fields: those of one kind, to one model."""
    if type(old) is not type(new) or old.generated:
        return False
    return not isinstance(old, RelatedField) or old.to == getattr(new, "to", None)


def _renaming(model: ModelState, new_model: ModelState, old: str, new: str) -> Iterator[Detected]:
    """The operations that rename a field. Its column keeps its name where the new field says so, or where another
    column has the new one."""
    field, target = model.fields[old], new_model.fields[new]
    column, then = column_of(old, field), column_of(new, field)
    if column is not None and field.db_column is None:
        others = [column_of(name, one) for name, one in model.fields.items() if name != old]
        if target.db_column == column or str(then).lower() in [str(other).lower() for other in others]:
            yield _changed(model, AlterField(model.name, old, called(field, column)), field)
    yield _changed(model, RenameField(model.name, old, new), field)


def _changed(model: ModelState, operation: AlterField | RenameField, field: Field[object]) -> Detected:
    needs = frozenset(targets(model, (field,)))
    return Detected(model.app, operation, model.label, changes=field.primary_key, needs=needs)
