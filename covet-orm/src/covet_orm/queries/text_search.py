"""Full text: `body__search="bread and butter"`; on PostgreSQL also `trigram_similar` and `unaccent`, if it has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, func
from sqlalchemy.dialects.mysql import match
from sqlalchemy.dialects.postgresql import TSVECTOR

from covet_orm.exceptions import NotSupported
from covet_orm.fields.inference import TEXT
from covet_orm.queries.lookups import Lookup, Transform

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.queries.scope import Scope

__all__ = ["LOOKUPS", "TRANSFORMS", "require_extension"]


class Search(Lookup):
    """Words in a text.

    PostgreSQL looks for them as web searches do (`websearch_to_tsquery`), in the language of its setting
    `default_text_search_config`; an index on `to_tsvector` of the column, or a column of type tsvector, makes it fast.
    MySQL and MariaDB look in their full-text index of the column (`MATCH ... AGAINST`), which must be there.
    """

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        right = self.right(scope, TEXT, value)
        if scope.kind == "postgresql":
            vector = left if isinstance(left.type, TSVECTOR) else func.to_tsvector(func.coalesce(left, _nothing()))
            return vector.op("@@", is_comparison=True)(func.websearch_to_tsquery(right))
        if scope.kind in ("mysql", "mariadb"):
            return match(left, against=right) > sqlalchemy.literal_column("0")
        raise NotSupported(
            f"{scope.kind} searches words in tables of FTS5 alone, which are no models; use icontains, or PostgreSQL, "
            "MySQL or MariaDB"
        )


class Similar(Lookup):
    """A text that has many groups of three letters in common with another one (PostgreSQL, extension pg_trgm): more
    than its settings `pg_trgm.similarity_threshold` and the like say. An index with the operator class `gin_trgm_ops`
    or `gist_trgm_ops` makes it fast.

    Args:
        name: what keywords call it.
        operator: PostgreSQL's.
    """

    def __init__(self, name: str, operator: str) -> None:
        super().__init__(name)
        self.operator = operator

    def build(self, scope: Scope, left: ColumnElement[Any], field: Field[Any], value: Any) -> ColumnElement[Any]:
        require_extension(scope, self.name, "pg_trgm")
        return left.op(self.operator, is_comparison=True)(self.right(scope, TEXT, value))


def require_extension(scope: Scope, what: str, extension: str) -> None:
    """Raise NotSupported where there are no extensions."""
    if scope.kind != "postgresql":
        raise NotSupported(f"{scope.kind} has no {what}; PostgreSQL has, with CREATE EXTENSION {extension}")


def _unaccent(scope: Scope, column: ColumnElement[Any], field: Field[Any]) -> ColumnElement[Any]:
    require_extension(scope, "unaccent", "unaccent")
    return func.unaccent(column, type_=sqlalchemy.Text())


def _nothing() -> ColumnElement[Any]:
    return sqlalchemy.literal_column("''")


LOOKUPS: dict[str, Lookup] = {
    lookup.name: lookup
    for lookup in (
        Search("search"),
        Similar("trigram_similar", "%"),
        Similar("trigram_word_similar", "%>"),
        Similar("trigram_strict_word_similar", "%>>"),
    )
}
"""The lookups of text that not every database has, by name."""

TRANSFORMS: dict[str, Transform] = {"unaccent": Transform("unaccent", _unaccent, lambda field: TEXT)}
"""The transforms of text, by name."""
