"""`select_subclasses`: rows of a model as objects of the models that derive from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from covet_orm.exceptions import QueryError
from covet_orm.queries.clauses import NONE

if TYPE_CHECKING:
    from covet_orm.models.options import Options
    from covet_orm.queries.querysets import QuerySet

__all__ = ["most_derived", "select_subclasses"]

Q = TypeVar("Q", bound="QuerySet[Any]")
Load = Callable[[list[Any], Any], list[Any]]


def select_subclasses(query: Q, models: Sequence[type[Any]]) -> Q:
    """A query whose objects are of the models that derive from its own.

    Args:
        query: the query.
        models: the models; all of them when empty.

    Raises:
        QueryError: a model does not derive from the query's, or has no table of its own.
    """
    query._not_combined("select_subclasses")
    options = query.model._meta
    there = dict(_paths(options))
    for model in models:
        if model not in there:
            known = ", ".join(one.__name__ for one in there) or "none"
            raise QueryError(
                f"select_subclasses({getattr(model, '__name__', model)!s:.100}): no table of its own derives from "
                f"{options.model.__name__}; there are: {known}"
            )
    paths = tuple(path for model, path in there.items() if not models or model in models)
    made = query.select_related(*paths)
    made._clauses = (query._clauses or NONE).but(subclasses=paths)
    return made


def most_derived(load: Load, paths: Sequence[str]) -> Load:
    """What loads rows, with the objects of derived models in place of those that they belong to.

    Args:
        load: loads the objects, with those of derived models as related ones.
        paths: where these are.
    """
    # Of a model and those that derive from it the deepest: longer paths first, and otherwise in their order.
    steps = [path.split("__") for path in sorted(paths, key=lambda path: -path.count("__"))]

    def load_derived(rows: list[Any], database: Any) -> list[Any]:
        found = load(rows, database)
        for number, one in enumerate(found):
            found[number] = _derived(one, steps)
        return found

    return load_derived


def _derived(one: Any, paths: Sequence[Sequence[str]]) -> Any:
    """The object of a derived model that stands for one, with what was loaded beside either; or that one itself."""
    for path in paths:
        current, beside = one, dict(one._related)
        for name in path:
            beside.pop(name, None)
            current = current._related.get(name)
            if current is None:
                break
            beside |= getattr(current, "_related", {})
        else:
            current._related = beside
            return current
    return one


def _paths(options: Options) -> Iterator[tuple[type[Any], str]]:
    """The models with a table of their own that derive from one, and the paths that lead to them."""
    for heir in _heirs(options.concrete._meta):
        link = heir.parent_link
        assert link is not None
        name = next(
            (one.name for one in options.relations.values() if one.field is link and one.target is heir.model), None
        )
        if name is None:
            raise QueryError(
                f"{heir.model.__name__} cannot be reached from {options.model.__name__}: its link has no name there"
            )
        yield heir.model, name
        for model, path in _paths(heir):
            yield model, f"{name}__{path}"


def _heirs(options: Options) -> Iterator[Options]:
    """Those that derive from a model and have a table, by way of proxies as well."""
    for heir in options.heirs:
        if heir.proxy:
            yield from _heirs(heir)
        else:
            yield heir
