"""Managers: `User.objects`, where queries begin."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from covet_orm.exceptions import ModelError
from covet_orm.models.delegation import QueryMethods

if TYPE_CHECKING:
    from covet_orm.models.instances import Model
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Manager", "ManagerDescriptor", "QuerySetManager", "base_queryset", "default_queryset"]

M = TypeVar("M", bound="Model")
Q = TypeVar("Q", bound="QuerySet[Any]")


class ManagerDescriptor:
    """What stands in a model for its manager, and gives each model one of its own, the same at each access."""

    def __init__(self) -> None:
        self._made: dict[type[Any], Manager[Any]] = {}

    @overload
    def __get__(self, instance: None, owner: type[M]) -> Manager[M]: ...
    @overload
    def __get__(self, instance: Model, owner: type[M]) -> Manager[M]: ...
    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        refuse_instance(instance, owner)
        made = self._made.get(owner)
        if made is None:
            made = self._made[owner] = Manager(owner)
        return made


class Manager(ManagerDescriptor, QueryMethods[M]):
    """Where queries begin: each of its methods is one of a new queryset.

    Derive from it to give a model methods of its own, and override `get_queryset` to restrict what it sees:

        class PublishedManager(Manager["Book"]):
            def get_queryset(self) -> QuerySet[Book]:
                return super().get_queryset().filter(published=True)

        class Book(Model):
            published = BooleanField()
            objects = PublishedManager()

    Relations to many begin with the default manager as well: `objects`, or the one that `Meta.default_manager` names.

    Args:
        model: the model; given by the model itself where the manager is declared in it.
    """

    model: type[M]

    def __init__(self, model: type[M] | None = None) -> None:
        super().__init__()
        if model is not None:
            self.model = model

    @overload  # type: ignore[override]
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: Model, owner: type[Any]) -> Self: ...
    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        refuse_instance(instance, owner)
        made = self._made.get(owner)
        if made is None:
            made = copy.copy(self)
            made.model = owner
            self._made[owner] = made
        return made

    def get_queryset(self) -> QuerySet[M]:
        """What every query of this manager begins with."""
        return _queryset()(self.model)

    def __repr__(self) -> str:
        model = getattr(self, "model", None)
        return f"<{type(self).__name__} of {model.__name__ if model is not None else 'no model yet'}>"


class QuerySetManager(ManagerDescriptor, Generic[Q]):
    """A manager whose methods are those of a queryset class: `objects = BookQuerySet.as_manager()`.

    `Book.objects` is a new queryset of that class, with all its methods.

    Args:
        queryset: the class.
    """

    def __init__(self, queryset: type[Q]) -> None:
        super().__init__()
        self.queryset = queryset

    @overload  # type: ignore[override]
    def __get__(self, instance: None, owner: type[Any]) -> Q: ...
    @overload
    def __get__(self, instance: Model, owner: type[Any]) -> Q: ...
    def __get__(self, instance: Any, owner: type[Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        refuse_instance(instance, owner)
        return self.queryset(owner)


def base_queryset(model: type[M]) -> QuerySet[M]:
    """All objects of a model, whatever its managers restrict."""
    return _queryset()(model)


def default_queryset(model: type[M]) -> QuerySet[M]:
    """What a model's default manager begins with.

    Raises:
        ModelError: `Meta.default_manager` names none.
    """
    name = model._meta.default_manager
    manager: Any = getattr(model, name, None)
    if manager is None or not hasattr(manager, "all"):
        raise ModelError(f"{model.__qualname__}.Meta.default_manager is {name!r}, and the model has no such manager")
    found: QuerySet[M] = manager.all()
    return found


def refuse_instance(instance: Any, owner: type[Any]) -> None:
    """Managers belong to models.

    Raises:
        AttributeError: one is asked for of an instance.
    """
    if instance is not None:
        raise AttributeError(f"a manager belongs to the model {owner.__name__}, not to one of its instances")


@cache
def _queryset() -> type[QuerySet[Any]]:
    # An import statement costs more than the rest of `User.objects.all()`.
    from covet_orm.queries.querysets import QuerySet

    return QuerySet
