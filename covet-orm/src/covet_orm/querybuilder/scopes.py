"""What a name means where it stands: the database it is for, and the tables it can refer to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnClause, quoted_name
from sqlalchemy.types import NullType

from covet.settings_schema import nearest
from covet_orm.exceptions import FieldError
from covet_orm.identifiers import check_identifier, check_path

__all__ = ["Name", "Scope"]


class Name(ColumnClause[Any]):
    """A column by its name and those of its table and schema, each of them quoted.

    It belongs to no table of SQLAlchemy's, which would add one to the FROM clause or correlate it away: what is
    selected from is what the query says.
    """

    inherit_cache = False

    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__(quoted_name(path[-1], True), NullType())
        self.path = path


@compiles(Name)
def _name_text(element: Name, compiler: Any, add_to_result_map: Any = None, **options: Any) -> str:
    if add_to_result_map is not None:
        add_to_result_map(element.name, element.name, (element, element.name), element.type)
    return ".".join(compiler.preparer.quote_identifier(part) for part in element.path)


class Scope:
    """The tables that a name may be qualified with, those of the queries around it included.

    Args:
        kind: the database that is compiled for.
        outer: the scope of the query around this one.
        home: what a name without a table is qualified with; nothing when empty.
    """

    __slots__ = ("home", "kind", "outer", "seen")

    def __init__(self, kind: str, outer: Scope | None = None, home: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.outer = outer
        self.home = home
        self.seen: set[tuple[str, ...]] = set()

    def add(self, path: tuple[str, ...]) -> None:
        """Let names be qualified with a table; with its schema or without it."""
        self.seen |= {path, path[-1:]}

    def alias(self, name: str, what: str = "alias") -> quoted_name:
        """A checked name that is always quoted. Raises InvalidIdentifier."""
        return quoted_name(check_identifier(name, self.kind, what), True)

    def column(self, path: str) -> ColumnElement[Any]:
        """A column. Raises InvalidIdentifier, or FieldError when its table is none of the query's."""
        parts = check_path(path, self.kind, "column")
        if len(parts) > 1:
            self._require(parts[:-1], path)
        elif self.home:
            parts = (*self.home, *parts)
        return Name(parts)

    def star(self, path: str) -> ColumnElement[Any]:
        """`*` or `table.*`. Raises as `column` does."""
        star: ColumnElement[Any] = literal_column("*")
        if path == "*":
            return star
        parts = check_path(path.removesuffix(".*"), self.kind, "table", most=2)
        self._require(parts, path)
        return Star(parts)

    def _require(self, table: tuple[str, ...], path: str) -> None:
        known: set[tuple[str, ...]] = set()
        scope: Scope | None = self
        while scope is not None:
            if table in scope.seen:
                return
            known |= scope.seen
            scope = scope.outer
        asked = ".".join(table)
        there = nearest(asked, [".".join(name) for name in known])
        raise FieldError(f"{path!r:.100}: the query has no table {asked!r:.60}{there}")


class Star(Name):
    """All the columns of a table."""

    inherit_cache = False

    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__((*path, "*"))


@compiles(Star)
def _star_text(element: Star, compiler: Any, **options: Any) -> str:
    return ".".join([*map(compiler.preparer.quote_identifier, element.path[:-1]), "*"])
