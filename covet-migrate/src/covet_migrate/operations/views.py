"""Operations on views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from covet_migrate.exceptions import MigrationError
from covet_migrate.operations.base import Change, Operation
from covet_migrate.state.models import State
from covet_migrate.steps import Statement
from covet_orm.dialects import KINDS
from covet_orm.schema import defining_dialect

__all__ = ["CreateView", "DropView"]

Query = str | Mapping[str, str]


class CreateView(Operation):
    """Create a view; backward it is dropped.

        operations.CreateView("adults", "SELECT * FROM person WHERE age > 17")

    Args:
        name: its name.
        query: its SELECT: one for all databases, or one by the kind of database; others have no such view then. MariaDB
            has that of MySQL, unless it has its own.
        materialized: whether its rows are kept (PostgreSQL; elsewhere it is a view as any other).

    Raises:
        MigrationError: there is no such kind of database.
    """

    def __init__(self, name: str, query: Query, *, materialized: bool = False) -> None:
        _check(name, query)
        self.name = name
        self.query = query
        self.materialized = materialized

    def apply(self, state: State, app: str) -> State:
        return state

    def describe(self) -> str:
        return f"Create view {self.name}"

    def file_name(self) -> str:
        return f"view_{self.name.lower()}"

    def actions(self, change: Change) -> Sequence[Any]:
        return _statements(change, self, create=not change.backward)


class DropView(CreateView):
    """Drop a view; backward it is created again.

    Args:
        name: its name.
        query: as of `CreateView`: what it was.
        materialized: as of `CreateView`.
    """

    def describe(self) -> str:
        return f"Drop view {self.name}"

    def file_name(self) -> str:
        return f"drop_view_{self.name.lower()}"

    def actions(self, change: Change) -> Sequence[Any]:
        return _statements(change, self, create=change.backward)


def _check(name: str, query: Query) -> None:
    unknown = sorted(set(query) - set(KINDS)) if not isinstance(query, str) else []
    if unknown:
        raise MigrationError(f"the view {name!r}: no database is called {unknown[0]!r}; there are {', '.join(KINDS)}")


def _statements(change: Change, view: CreateView, *, create: bool) -> list[Statement]:
    query = view.query
    if not isinstance(query, str):
        found = query.get(change.kind, query.get("mysql") if change.kind == "mariadb" else None)
        if found is None:
            return []
        query = found
    what = "MATERIALIZED VIEW" if view.materialized and change.kind == "postgresql" else "VIEW"
    name = defining_dialect(change.kind).identifier_preparer.quote(view.name)
    return [Statement(sql=f"CREATE {what} {name} AS {query}" if create else f"DROP {what} {name}")]
