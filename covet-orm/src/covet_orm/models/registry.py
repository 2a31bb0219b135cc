"""The registry: which models there are, and the tables they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from covet.settings_schema import nearest
from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import ModelError

if TYPE_CHECKING:
    from covet_orm.models.instances import Model

__all__ = ["Registry", "registry"]

Resolved = Callable[[type[Any]], None]


class Registry:
    """Models by name. A relation may name a model that is declared later; it is resolved when that one comes.

    There is one registry for all models that say nothing else; `Meta.registry` chooses another one, which makes models
    of the same names possible beside each other, in tests for instance.
    """

    def __init__(self) -> None:
        self._models: dict[str, type[Model]] = {}
        # By class name and by table, so that what declaring a model costs does not depend on how many there are.
        self._named: dict[str, list[type[Model]]] = {}
        self._tables: dict[str, type[Model]] = {}
        self._waiting: dict[str, list[tuple[str, Resolved]]] = {}

    @cached_property
    def metadata(self) -> sqlalchemy.MetaData:
        """The tables that were made until now, as SQLAlchemy has them."""
        return sqlalchemy.MetaData()

    def add(self, model: type[Model]) -> None:
        """Register a model.

        Raises:
            ModelError: another model has its name, or its table.
        """
        options = model._meta
        label = options.label
        there = self._models.get(label)
        if there is not None and (there.__module__, there.__qualname__) != (model.__module__, model.__qualname__):
            raise ModelError(
                f"two models are called {label}: {there.__module__}.{there.__qualname__} and "
                f"{model.__module__}.{model.__qualname__}; give one of them another Meta.app_label or registry"
            )
        other = None if options.proxy else self._tables.get(options.db_table)
        if other is not None and other is not there:
            raise ModelError(
                f"{model.__qualname__} and {other.__qualname__} have the same table {options.db_table!r}; give one "
                "of them another Meta.db_table"
            )
        if there is not None:
            # The same class once more: a module that is loaded again, a function that is called again.
            self._forget(there)
        self._models[label] = model
        named = self._named.setdefault(model.__name__, [])
        if there is None:
            named.append(model)
        else:
            named[named.index(there)] = model
        if not options.proxy:
            self._tables[options.db_table] = model
        for name in (label, model.__name__):
            for _, resolved in self._waiting.pop(name, ()):
                resolved(model)

    def get(self, name: str, beside: type[Model] | None = None) -> type[Model]:
        """The model called `name` or `app_label.name`; of several with one name that of the app of `beside`.

        Raises:
            ModelError: there is none, or several.
        """
        found = self._find(name, beside)
        if found is None:
            known = {*self._models, *self._named}
            raise ModelError(f"no model is called {name!r}{nearest(name, known)}")
        return found

    def __getitem__(self, name: str) -> type[Model]:
        """The model called `name` or `app_label.name`.

        Raises:
            ModelError: there is none, or several.
        """
        return self.get(name)

    def _find(self, name: str, beside: type[Model] | None) -> type[Model] | None:
        if name in self._models:
            return self._models[name]
        named = self._named.get(name, [])
        if len(named) > 1 and beside is not None:
            named = [model for model in named if model._meta.app_label == beside._meta.app_label] or named
        if len(named) > 1:
            raise ModelError(f"several models are called {name!r}: {', '.join(m._meta.label for m in named)}")
        return named[0] if named else None

    def when_there(self, name: str, beside: type[Model], resolved: Resolved) -> None:
        """Call `resolved` with a model as soon as it is there.

        Raises:
            ModelError: several models have that name, or what is called raises it.
        """
        found = self._find(name, beside)
        if found is None:
            self._waiting.setdefault(name, []).append((beside._meta.label, resolved))
        else:
            resolved(found)

    def missing(self) -> dict[str, list[str]]:
        """The models that others name and that are not there, with who names them."""
        return {name: [label for label, _ in waiting] for name, waiting in self._waiting.items()}

    def tables(self) -> list[sqlalchemy.Table]:
        """The tables of all models, each after those that it refers to, where they do not refer to each other.

        Raises:
            ModelError: a relation names a model that is not there.
        """
        for model in list(self._models.values()):
            if not model._meta.proxy:
                model.__table__  # noqa: B018 - made at first use
        known = list(self.metadata.tables.values())
        ordered: Any = sqlalchemy.schema.sort_tables_and_constraints(known)  # type: ignore[no-untyped-call]
        # Where tables refer to each other there is no such order; this one is the same every time.
        return [table for table, _ in ordered if table is not None]

    def __iter__(self) -> Iterator[type[Model]]:
        return iter(list(self._models.values()))

    def __len__(self) -> int:
        return len(self._models)

    def _forget(self, model: type[Model]) -> None:
        if self._tables.get(model._meta.db_table) is model:
            del self._tables[model._meta.db_table]
        # Looked at where it is there: before the first table is made there is none to be forgotten.
        table = self.metadata.tables.get(model._meta.db_table) if "metadata" in vars(self) else None
        if table is not None and not model._meta.proxy:
            self.metadata.remove(table)
        model._meta.forget_relations()


registry = Registry()
"""The registry of the models that choose no other."""
