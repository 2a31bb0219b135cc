"""Querysets whose results are there already: what `author.books.all()` gives after `prefetch_related("books")`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeVar

from covet_orm.queries.querysets import QuerySet

if TYPE_CHECKING:
    from covet_orm.models.instances import Model

__all__ = ["loaded_queryset"]

M = TypeVar("M", bound="Model")


def loaded_queryset(query: QuerySet[M], objects: Sequence[M]) -> QuerySet[M]:
    """A queryset that gives objects without a query; one that is made of it, by `filter` for instance, asks.

    Args:
        query: what would ask for them.
        objects: the objects.
    """
    kind: Any = type(query)
    made: Any = object.__new__(_loaded_class(kind))
    for name in QuerySet.__slots__:
        setattr(made, name, getattr(query, name))
    made._objects = objects
    result: QuerySet[M] = made
    return result


@cache
def _loaded_class(kind: type[QuerySet[Any]]) -> type[QuerySet[Any]]:
    """A class that derives from a queryset's, so that methods of its own are there as well."""

    class Loaded(kind):  # type: ignore[valid-type, misc]
        __slots__ = ("_objects",)

        def all(self) -> Self:
            return self

        def _copy(self) -> Any:
            made = object.__new__(kind)
            for name in QuerySet.__slots__:
                setattr(made, name, getattr(self, name))
            return made

        async def _fetch(self) -> list[Any]:
            return list(self._objects)

        async def count(self) -> int:
            return len(self._objects)

        async def exists(self) -> bool:
            return bool(self._objects)

    Loaded.__name__ = Loaded.__qualname__ = kind.__name__
    return Loaded
