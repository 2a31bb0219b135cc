"""Two sets of models made such that each can hold the rows of the other."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import assume
from tests.migrations.model_kinds import family_of
from tests.migrations.model_specs import (
    DEFINITIONS,
    Definition,
    Models,
    ModelSpec,
    is_defaulted,
    is_distinct,
    is_unique,
)

__all__ = ["Fitting"]


class Fitting:
    """Makes two sets such that each can hold the rows of the other.

    Args:
        before: the first set.
        after: the second one.
        models: the models that are in both.
        names: the fields that are in both.
    """

    def __init__(
        self, before: Models, after: Models, models: Mapping[str, str], names: Mapping[str, dict[str, str]]
    ) -> None:
        self.before = before
        self.after = after
        self.models = models
        self.names = names

    def fit(self) -> None:
        """Change what does not fit."""
        for each in (self.before, self.after):
            for model in each.values():
                self._references(model, each)
            for model in each.values():
                self._tidy(model, each)
        self._keys()
        for label in self.before.keys() - self.models.keys():
            gone = self.before[label]
            self._uniques(gone, {name for name, one in gone.fields.items() if is_distinct(one)})
        for label, new in self.models.items():
            old, then, names = self.before[label], self.after[new], self.names[label]
            kept = {name: one for name, one in names.items() if name in old.fields and one in then.fields}
            names.clear()
            names.update(kept)
            self._few_values(old, then, names)
            self._come_and_gone(old, set(names), then=False)
            self._come_and_gone(then, set(names.values()), then=True)
            distinct = [
                (name, one)
                for name, one in names.items()
                if is_distinct(old.fields[name])
                and is_distinct(then.fields[one])
                and not is_defaulted(old.fields[name], then.fields[one])
            ]
            self._uniques(old, {name for name, _ in distinct})
            self._uniques(then, {one for _, one in distinct})

    def _references(self, model: ModelSpec, models: Models) -> None:
        """A foreign key has one column, and so has what it refers to."""
        for name, one in list(model.fields.items()):
            if one.to is None:
                continue
            if one.to not in models or len(models[one.to].keys) != 1 or (one.kind == "many" and len(model.keys) != 1):
                assume(not one.key)
                del model.fields[name]

    def _keys(self) -> None:
        """What refers to a key that another one takes the place of is not kept."""
        for label, new in self.models.items():
            old, then = self.before[label].keys, self.after[new].keys
            if len(old) == len(then) == 1 and self.names[label].get(old[0]) != then[0]:
                for model in self.after.values():
                    for name, one in list(model.fields.items()):
                        if one.to == new and name in {n for each in self.names.values() for n in each.values()}:
                            assume(not one.key)
                            del model.fields[name]
        for model in self.after.values():
            self._tidy(model, self.after)

    def _tidy(self, model: ModelSpec, models: Models) -> None:
        for name, one in list(model.fields.items()):
            if one.kind == "through":
                link = models.get(str(one.options["through"]))
                through = one.options["through_fields"]
                if link is None or any(part not in link.fields for part in through):
                    del model.fields[name]
            if one.computed:
                base = model.fields.get(str(one.options["of"]))
                if base is None or family_of(base.kind) != "whole":
                    del model.fields[name]
        columns: dict[str, str] = {}
        for name, one in sorted(model.fields.items(), key=lambda item: "db_column" in item[1].options):
            usual = f"{name}_id" if one.kind in ("foreign", "one") else name
            column = str(one.options.get("db_column") or usual).lower()
            if column in columns:
                model.fields[name] = one.having(db_column=None)
                assume(usual.lower() not in columns)
                column = usual.lower()
            columns[column] = name
        fitting = []
        for definition in model.definitions:
            known = DEFINITIONS[definition.kind]
            named = [model.fields.get(name) for name in definition.names]
            if all(one is not None and known.takes(one) for one in named):
                fitting.append(definition)
        model.definitions = fitting

    def _few_values(self, old: ModelSpec, new: ModelSpec, names: Mapping[str, str]) -> None:
        """A number that is only true or false in the other set is not unique."""
        for name, then in names.items():
            families = {family_of(old.fields[name].kind), family_of(new.fields[then].kind)}
            if len(families) > 1 and "db_default" in new.fields[then].options and "text" in families:
                # It has to be one that the other family has as well.
                new.fields[then] = new.fields[then].having(db_default=None)
            if len(families) > 1 and "few" in families:
                old.fields[name] = old.fields[name].having(unique=None)
                new.fields[then] = new.fields[then].having(unique=None)
            unique = [one for one in (old.fields[name], new.fields[then]) if one.options.get("unique")]
            if unique and is_defaulted(old.fields[name], new.fields[then]):
                new.fields[then] = new.fields[then].having(db_default=None)

    def _come_and_gone(self, model: ModelSpec, stays: set[str], *, then: bool) -> None:
        """Rows get a value in a field that comes, and when one is brought back that is gone."""
        for name, one in model.fields.items():
            if name in stays or one.computed or one.kind in ("many", "through"):
                continue
            assume(not one.key or one.kind.endswith("auto"))
            if one.key:
                continue
            if one.options.get("unique") or one.kind == "one":
                # Each row would get the same value.
                model.fields[name] = one.having(null=True, db_default=None)
            elif one.kind == "foreign" and (not then or one.to not in self.models.values()):
                # There may be no row to refer to.
                model.fields[name] = one.having(null=True)
            elif not then and not one.options.get("null"):
                model.fields[name] = one.having(default=True)

    def _uniques(self, model: ModelSpec, distinct: set[str]) -> None:
        """What is unique is so of the rows that are there."""

        def holds(one: Definition) -> bool:
            names = one.names[:1] if one.kind == "partial" else one.names
            return not is_unique(one) or not distinct.isdisjoint(names)

        model.definitions = [one for one in model.definitions if holds(one)]
