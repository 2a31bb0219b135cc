"""Random pairs of whole sets of models, where the second is what somebody could have made of the first.

@given(pairs("sqlite"))
def test_something(pair: Pair) -> None: ...

All rows that the first set can have, as `tests.migrations.model_rows` makes them, the second one can hold as well, and
those of the second one the first: so nothing but a defect keeps one from being migrated into the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from tests.migrations.model_fitting import Fitting
from tests.migrations.model_kinds import FAMILIES, KINDS, RELATIONS, family_of, kinds_for
from tests.migrations.model_specs import (
    DEFINITIONS,
    Definition,
    Models,
    ModelSpec,
    Options,
    Spec,
    is_defaulted,
    model_of,
)
from tests.migrations.model_states import COLUMNS, FIELDS, MODELS, TABLES, WORDS

import covet_orm as orm
from covet_migrate.changes.questions import Rename
from covet_migrate.exceptions import MigrationError
from covet_migrate.inspection.shadow import tables_of
from covet_migrate.state.models import State
from covet_migrate.state.rendering import historical_models
from covet_orm.schema import check_supported, statements

__all__ = ["Pair", "pair_of", "pairs"]

APPS = ("app", "shop")


@dataclass
class Pair:
    """Two sets of models.

    Attributes:
        before: the first set.
        after: the second one.
        renames: the models and fields that have another name in the second.
        models: by the label of a model in the first set, its label in the second; of those that are in both.
        fields: by the label of such a model in the first set, by field, its name in the second; of those that are in
            both and keep the values of their columns.
        links: the same of many-to-many fields that keep the rows of a table of their own.
        specs: the specifications of both, by label.
    """

    before: State
    after: State
    renames: list[Rename]
    models: dict[str, str]
    fields: dict[str, dict[str, str]]
    links: dict[str, dict[str, str]]
    specs: tuple[Models, Models]


@st.composite
def pairs(draw: st.DrawFn, kind: str, *, most: int = 5) -> Pair:
    """A pair of sets of models that a database can have.

    Args:
        kind: `postgresql`, `mariadb` or `sqlite`.
        most: how many models there are at most in the first set; the second one has up to two more.
    """
    drawing = _Drawing(draw, kind)
    before = drawing.models(most)
    after, models, names = drawing.changed(before)
    Fitting(before, after, models, names).fit()
    pair = pair_of(before, after, models, names)
    for state in (pair.before, pair.after):
        _check(kind, state)
    return pair


def pair_of(before: Models, after: Models, models: Mapping[str, str], names: Mapping[str, Mapping[str, str]]) -> Pair:
    """A pair of specifications.

    Args:
        before: the first set.
        after: the second one.
        models: the labels of the models that are in both: there, by those that they have in the first set.
        names: by the label in the first set, the names of the fields that are in both, in the same way.
    """
    states = [State({label: model_of(one) for label, one in each.items()}) for each in (before, after)]
    renames = [Rename(old, new.rpartition(".")[2]) for old, new in models.items() if old != new]
    kept = {label: _kept(before[label], after[models[label]], names[label]) for label in models}
    links = {
        label: {name: then for name, then in names[label].items() if before[label].fields[name].kind == "many"}
        for label in models
    }
    for label, fields in names.items():
        renames += [Rename(f"{label}.{old}", new) for old, new in fields.items() if old != new]
    return Pair(states[0], states[1], renames, dict(models), kept, links, (before, after))


def _check(kind: str, state: State) -> None:
    """Go on with a state that a database can have."""
    try:
        found, _ = tables_of(state)
        check_supported(kind, list(historical_models(state)))
        statements(kind, found, create=True)
    except (orm.ModelError, orm.NotSupported, MigrationError):
        # Two names of it are the same, for instance.
        assume(False)


def _kept(old: ModelSpec, new: ModelSpec, names: Mapping[str, str]) -> dict[str, str]:
    """The fields whose columns keep their values."""

    def has_values(one: Spec) -> bool:
        return not one.computed and one.kind not in ("many", "through")

    return {
        name: then
        for name, then in names.items()
        if has_values(old.fields[name])
        and has_values(new.fields[then])
        and not is_defaulted(old.fields[name], new.fields[then])
    }


class _Drawing:
    """Draws specifications for a kind of database."""

    def __init__(self, draw: st.DrawFn, kind: str) -> None:
        self.draw = draw
        self.kind = kind
        self.kinds = kinds_for(kind)
        self.tags = iter(range(1000))

    def one_in(self, number: int) -> bool:
        """Something that is so once in a number of cases; not so in the smallest example."""
        return bool(self.draw(st.integers(0, number - 1)) == number - 1)

    def of(self, values: Sequence[Any]) -> Any:
        """One of some values."""
        return self.draw(st.sampled_from(values))

    def models(self, most: int) -> Models:
        """A set of models."""
        labels = self.draw(
            st.lists(st.tuples(st.sampled_from(APPS), st.sampled_from(MODELS)), min_size=1, max_size=most, unique=True)
        )
        found: Models = {}
        for app, name in labels:
            found[f"{app}.{name}"] = ModelSpec(f"{app}.{name}", self._key(found))
        for model in found.values():
            self.grow(model, found, list(found))
        self._go_through(found)
        return found

    def _key(self, others: Models) -> dict[str, Spec]:
        single = [label for label, one in others.items() if len(one.keys) == 1]
        choices = ["big auto", "auto", "small auto", "number", "char", "uuid", "composite", "composite"]
        chosen = self.of(choices + (["one"] if single else []))
        if chosen == "composite":
            second = self.of(["small", "char", "date"])
            return {"k1": Spec("number", {"primary_key": True}), "k2": Spec(second, {"primary_key": True})}
        if chosen == "one":
            to = self.of(single)
            return {"base": Spec("one", {"primary_key": True, "to": to, "on_delete": orm.CASCADE})}
        column = {"db_column": "Nr"} if self.one_in(6) else {}
        name = {"number": "number", "char": "code", "uuid": "uid"}.get(chosen, "id")
        return {name: Spec(chosen, {"primary_key": True, **column})}

    def grow(self, model: ModelSpec, models: Models, targets: Sequence[str], avoid: Sequence[str] = ()) -> None:
        """Draw fields and options of a model that has a key alone."""
        for name in self.draw(st.lists(st.sampled_from(FIELDS), unique=True, max_size=5)):
            if name not in avoid and name not in model.fields:
                model.fields[name] = self.plain()
        single = [label for label in targets if len(models[label].keys) == 1]
        for number in range(self.draw(st.integers(0, 2)) if single else 0):
            name = f"ref{number}"
            if name not in avoid and name not in model.fields:
                model.fields[name] = self.relation(self.of([*single, model.label] if model.label in single else single))
        if single and len(model.keys) == 1 and self.one_in(4) and "many" not in avoid:
            model.fields["many"] = Spec("many", {"to": self.of(single)})
        self.compute(model, avoid)
        self.define(model)
        self.options(model, models)

    def plain(self, kinds: Sequence[str] = ()) -> Spec:
        """A field with a column of its own."""
        kind = self.of(list(kinds) or self.kinds)
        options: Options = {"null": True} if self.draw(st.booleans()) else {}
        return self.decorated(Spec(kind, options))

    def decorated(self, spec: Spec) -> Spec:
        """A field with other options of those that need nothing of rows."""
        known = KINDS[spec.kind]
        made: Options = {"comment": None, "db_column": None, "db_default": None, "unique": None, "db_index": None}
        if self.one_in(4):
            made["comment"] = self.of([word for word in WORDS if word])
        if self.one_in(4):
            made["db_column"] = self.of([*COLUMNS, *FIELDS[:5]])
        if known.indexed:
            how = self.draw(st.integers(0, 6))
            made["unique"] = True if how == 6 and known.distinct else None
            made["db_index"] = True if how == 5 else None
        if self.one_in(3) and known.defaults and not (self.kind == "mariadb" and spec.kind == "text"):
            made["db_default"] = self.of(known.defaults)
        return spec.having(**made)

    def relation(self, to: str) -> Spec:
        """A foreign key, or one-to-one."""
        kind = "one" if self.one_in(3) else "foreign"
        return self.related(Spec(kind, {"to": to}))

    def related(self, spec: Spec) -> Spec:
        """A relation with other options."""
        null = self.draw(st.booleans())
        made: Options = {"null": True if null else None, "db_column": None, "db_index": None, "deferrable": None}
        actions = [orm.CASCADE, orm.RESTRICT, orm.DO_NOTHING]
        made["on_delete"] = self.of([*actions, orm.SET_NULL] if null else actions)
        if self.one_in(4):
            made["db_column"] = self.of([*COLUMNS, "Ref"])
        if self.one_in(4) and spec.kind == "foreign":
            made["db_index"] = False
        if self.kind != "mariadb" and self.one_in(4):
            made["deferrable"] = self.of(["deferred", "immediate"])
        made["db_constraint"] = False if self.one_in(8) and not made["deferrable"] else None
        if self.one_in(6):
            made["comment"] = "it's"
        return spec.having(**made)

    def compute(self, model: ModelSpec, avoid: Sequence[str] = ()) -> None:
        """Perhaps a field that is computed of another one."""
        whole = [name for name, one in model.fields.items() if family_of(one.kind) == "whole" and not one.key]
        if whole and self.one_in(3) and "computed" not in avoid:
            model.fields["computed"] = self.computing(self.of(whole))

    def computing(self, name: str) -> Spec:
        """A generated field."""
        kind = "stored" if self.kind == "postgresql" else self.of(["stored", "virtual"])
        indexed = {"db_index": True} if kind == "stored" and self.one_in(4) else {}
        return Spec(kind, {"of": name, "times": self.of([2, 3]), "output": self.of(["big", "number"]), **indexed})

    def options(self, model: ModelSpec, models: Models) -> None:
        """Draw options of a model."""
        taken = {one.options.get("db_table") for one in models.values()}
        model.options = {}
        table = self.of([None, None, *TABLES])
        if table is not None and table not in taken:
            model.options["db_table"] = table
        if self.one_in(4):
            model.options["comment"] = self.of([word for word in WORDS if word])

    def define(self, model: ModelSpec) -> None:
        """Draw indexes and constraints."""
        known = [kind for kind, one in DEFINITIONS.items() if self.kind in one.databases]
        for kind in self.draw(st.lists(st.sampled_from(known), max_size=3)):
            made = self.definition(kind, model)
            if made is not None:
                model.definitions.append(made)

    def definition(self, kind: str, model: ModelSpec) -> Definition | None:
        """An index or a constraint of some fields of a model; None where there are none for it."""
        known = DEFINITIONS[kind]
        usable = [name for name, one in model.fields.items() if known.takes(one)]
        if len(usable) < known.least:
            return None
        names = tuple(self.draw(st.permutations(usable)))[: self.draw(st.integers(known.least, known.most))]
        name = f"{kind} {next(self.tags)}" if known.named or self.draw(st.booleans()) else None
        return Definition(kind, names, name, {one: self.of(values) for one, values in known.options.items()})

    def _go_through(self, models: Models) -> None:
        """Perhaps many-to-many fields through a model."""
        for model in list(models.values()):
            keys = [
                (name, str(one.to))
                for name, one in model.fields.items()
                if one.kind == "foreign" and one.to != model.label and one.options.get("db_constraint") is not False
            ]
            if len(keys) == 2 and keys[0][1] != keys[1][1] and self.one_in(2):
                (one, source), (other, target) = keys
                spec = Spec("through", {"to": target, "through": model.label, "through_fields": (one, other)})
                models[source].fields.setdefault("through", spec)

    def changed(self, before: Models) -> tuple[Models, dict[str, str], dict[str, dict[str, str]]]:
        """What becomes of a set of models, which of them are the same, and which of their fields."""
        models: dict[str, str] = {}
        free = [f"{app}.{name}" for app in APPS for name in MODELS if f"{app}.{name}" not in before]
        free = list(self.draw(st.permutations(free)))
        for label in before:
            what = self.draw(st.integers(0, 9))
            if what == 9:
                continue
            if what == 8:
                app = label.partition(".")[0]
                new = next((one for one in free if one.startswith(f"{app}.")), None)
                if new is not None:
                    free.remove(new)
                    models[label] = new
                    continue
            models[label] = label
        # A key that is a reference goes with what it refers to.
        for label in list(models):
            seen = label
            while (base := before[seen].fields.get("base")) is not None and base.to is not None:
                seen = base.to
                if seen not in models:
                    del models[label]
                    break
        after: Models = {}
        names: dict[str, dict[str, str]] = {}
        for label, new in models.items():
            after[new] = ModelSpec(new, {})
            names[label] = self._fields(before[label], after[new], models)
        for label, new in models.items():
            self._rest(before[label], after[new], after, list(models.values()), names[label])
        come = free[: self.draw(st.integers(0, 2))]
        for label in come:
            after[label] = ModelSpec(label, self._key(after))
        for label in come:
            self.grow(after[label], after, list(after))
        if not after:
            label = free[0]
            after[label] = ModelSpec(label, {"id": Spec("auto", {"primary_key": True})})
        return after, models, names

    def _fields(self, old: ModelSpec, new: ModelSpec, models: Mapping[str, str]) -> dict[str, str]:
        """What becomes of the fields of a model; the new names of those that stay."""
        names: dict[str, str] = {}
        quiet = self.one_in(3)
        keys = self._keys(old)
        for name, one in old.fields.items():
            what = 0 if quiet else self.draw(st.integers(0, 9))
            if one.kind == "through":
                continue
            if one.to is not None:
                to = models.get(one.to)
                if to is None or (what == 9 and not one.key):
                    continue
                one = one.having(to=to)
            if what == 9 and name not in keys and (not one.key or one.kind.endswith("auto")):
                continue
            then = name
            if what == 8 and not one.computed:
                free = [f for f in FIELDS if f not in old.fields and f not in new.fields]
                then = self.of(free)
            if what in (5, 6, 7) and not one.key and name not in keys:
                one = self._altered(one)
            if what == 7 and one.key and one.kind in KEYS:
                one = Spec(self.of(KEYS), one.options)
            if (name in keys) != one.key or len(keys) > 1:
                one = one.having(primary_key=True if name in keys else None, unique=None, db_index=None)
                if one.kind.endswith("auto") and (not one.key or (len(keys) > 1 and self.kind == "sqlite")):
                    one = Spec("big" if one.kind == "big auto" else "number", one.options)
            new.fields[then] = one
            names[name] = then
        return names

    def _keys(self, old: ModelSpec) -> list[str]:
        """The fields of the key that a model is to have."""
        keys = old.keys
        if not self.one_in(4):
            return keys
        others = [
            name
            for name, one in old.fields.items()
            if one.kind in ("number", "big", "small", "char", "date") and not one.options.get("null") and not one.key
        ]
        others = [name for name in others if "db_default" not in old.fields[name].options]
        if others and self.draw(st.booleans()):
            # In place of those that were, or beside them.
            chosen = self.of(others)
            was, becomes = (family_of(old.fields[name].kind) for name in (keys[0], chosen))
            alone = becomes == was or len(keys) > 1 or (was == "whole" and becomes == "text")
            return [chosen] if alone and self.draw(st.booleans()) else [*keys, chosen]
        return [self.of(keys)] if len(keys) > 1 else keys

    def _altered(self, one: Spec) -> Spec:
        if one.computed:
            return self.computing(str(one.options["of"]))
        if one.kind in RELATIONS:
            if one.kind == "many":
                return one
            return self.related(Spec(self.of(["foreign", "one"]), {"to": one.options["to"]}))
        if self.draw(st.booleans()):
            kinds = [kind for kind in FAMILIES[family_of(one.kind)] if kind in self.kinds]
            one = Spec(self.of(kinds), one.options)
        if self.draw(st.booleans()):
            one = one.having(null=True if self.draw(st.booleans()) else None)
        return self.decorated(one)

    def _rest(
        self, old: ModelSpec, new: ModelSpec, models: Models, targets: Sequence[str], names: Mapping[str, str]
    ) -> None:
        """New fields and options of a model that was there."""
        grown = ModelSpec(new.label, {name: new.fields[name] for name in new.keys})
        if self.draw(st.booleans()):
            self.grow(grown, models, targets, [*old.fields, *new.fields])
        for name, one in grown.fields.items():
            new.fields.setdefault(name, one)
        for one in old.definitions:
            if self.one_in(4) or any(name not in names for name in one.names):
                continue
            if self.one_in(6) and one.name is not None:
                one = replace(one, name=f"{one.kind} {next(self.tags)} again")
            new.definitions.append(replace(one, names=tuple(names[name] for name in one.names)))
        new.definitions += grown.definitions
        new.options = dict(old.options)
        if self.one_in(3):
            self.options(new, models)


KEYS = ("big auto", "auto", "number", "big")
"""Keys that one can be made of the other, with all that refers to it."""
