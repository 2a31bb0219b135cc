"""What few queries have: groups, set operations, common table expressions; kept together, so that the others pay
nothing for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from covet_orm.expressions.base import Add

if TYPE_CHECKING:
    from covet_orm.models.options import Options
    from covet_orm.queries.combinators import Combination
    from covet_orm.queries.ctes import Joined
    from covet_orm.queries.filtered import Filtered

__all__ = ["NONE", "Clauses"]


@dataclass(frozen=True, slots=True)
class Clauses:
    """The clauses of a queryset that few have.

    Attributes:
        group: the names whose equal values make a group; None where rows are not grouped.
        of_rows: the annotations that were there before the groups, and are of each row.
        hidden: the annotations that are used and not given back.
        empty: whether it gives nothing, whatever there is.
        combined: the queries that it is made of, where it is a set operation.
        joined: the common table expressions that are joined to its rows.
        filtered: relations with a condition.
        options: those of the model with these relations; None without any.
        subclasses: the paths to the models that derive from the query's, whose objects stand for its own.
    """

    group: tuple[str, ...] | None = None
    of_rows: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    empty: bool = False
    combined: Combination | None = None
    joined: tuple[Joined, ...] = ()
    filtered: tuple[Filtered, ...] = ()
    options: Options | None = None
    subclasses: tuple[str, ...] = ()

    def but(self, **changes: Any) -> Clauses:
        """The same with changes."""
        return replace(self, **changes)

    def shape(self, key: Add, values: Add) -> None:
        """As of an expression."""
        key(("clauses", self.group, self.of_rows, self.hidden, self.empty, len(self.joined), len(self.filtered)))
        key(self.subclasses)
        if self.combined is not None:
            self.combined.shape(key, values)
        for one in self.joined:
            one.shape(key, values)
        for relation in self.filtered:
            relation.shape(key, values)


NONE = Clauses()
"""Those of a query that has none of them."""
