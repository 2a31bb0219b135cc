"""Managers: `User.objects`, where queries begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from covet_orm.expressions.conditions import Condition
    from covet_orm.models.instances import Model
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Manager", "ManagerDescriptor"]

M = TypeVar("M", bound="Model")


class ManagerDescriptor:
    """Gives each model a manager of its own, which is the same at each access."""

    def __init__(self, manager: type[Manager[Any]] | None = None) -> None:
        self._manager = manager
        self._made: dict[type[Any], Manager[Any]] = {}

    @overload
    def __get__(self, instance: None, owner: type[M]) -> Manager[M]: ...
    @overload
    def __get__(self, instance: Model, owner: type[M]) -> Manager[M]: ...
    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        if instance is not None:
            raise AttributeError(f"objects belongs to the model {owner.__name__}, not to one of its instances")
        made = self._made.get(owner)
        if made is None:
            made = self._made[owner] = (self._manager or Manager)(owner)
        return made


class Manager(Generic[M]):
    """Where queries begin: each of its methods is one of a new queryset.

    Derive from it to give a model methods of its own, and override `get_queryset` to restrict what it sees.
    """

    def __init__(self, model: type[M]) -> None:
        self.model = model

    def get_queryset(self) -> QuerySet[M]:
        """What every query of this manager begins with."""
        from covet_orm.queries.querysets import QuerySet

        return QuerySet(self.model)

    def all(self) -> QuerySet[M]:
        """Every object."""
        return self.get_queryset()

    def filter(self, *conditions: Condition, **lookups: Any) -> QuerySet[M]:
        """As `QuerySet.filter`."""
        return self.get_queryset().filter(*conditions, **lookups)

    def exclude(self, *conditions: Condition, **lookups: Any) -> QuerySet[M]:
        """As `QuerySet.exclude`."""
        return self.get_queryset().exclude(*conditions, **lookups)

    async def get(self, *conditions: Condition, **lookups: Any) -> M:
        """As `QuerySet.get`."""
        return await self.get_queryset().get(*conditions, **lookups)

    async def create(self, **values: Any) -> M:
        """Make an object and save it: as `QuerySet.create`."""
        return await self.get_queryset().create(**values)

    def __getattr__(self, name: str) -> Any:
        """The other methods of a queryset."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.get_queryset(), name)
