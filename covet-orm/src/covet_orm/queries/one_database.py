"""One statement goes to one database: subqueries whose `using` names another one are refused.

Which database a subquery names is part of the shape of the query around it, so that the two are compared when a
statement is compiled, and not each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from covet_orm.ambient import database_for, stand_ins
from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Add

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.queries.querysets import QuerySet

__all__ = ["Within", "key_of_database", "require_one_database"]


class Within(NamedTuple):
    """A part of a shape: the database that a query inside of another names.

    Attributes:
        model: the model of that query.
        database: its alias, or itself.
    """

    model: type[Any]
    database: str | Database


def key_of_database(query: QuerySet[Any], key: Add) -> None:
    """Tell the shape of the query around another which database that one names, if any."""
    named = query._database
    if named is not None:
        key(Within(query.model, query.database if isinstance(named, tuple) else named))


def require_one_database(shape: Iterable[Any], database: Database) -> None:
    """Return when all parts of a query are for the database that it is sent to.

    Raises:
        QueryError: one names another database.
        NoDatabase: one names an alias that there is not.
    """
    for part in shape:
        if type(part) is Within:
            inner = database_for(part.model, part.database)
            if not _same(inner, database):
                raise QueryError(
                    f"a query of {part.model.__name__} from {inner!r} is part of one from {database!r}, and a "
                    "statement is sent to one database: fetch the keys first, as in `keys = await "
                    "queryset.values_list('pk', flat=True)`, and give the list in place of the queryset; or leave "
                    "using() out of it"
                )


def _same(one: Database, other: Database) -> bool:
    """Whether two stand for the same database: with replicas and without, or one that tests put in its place."""
    return one._lanes is other._lanes or (bool(stand_ins) and one.alias == other.alias)
