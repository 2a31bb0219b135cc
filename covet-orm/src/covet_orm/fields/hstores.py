"""The field of texts by key, which PostgreSQL has in an extension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

from covet_orm.deferred import postgresql, sqlalchemy
from covet_orm.exceptions import NotSupported
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions
from covet_orm.fields.text import check_text

__all__ = ["HStoreField", "hstore_text"]

T = TypeVar("T")

ONLY_POSTGRESQL = (
    "only PostgreSQL has hstore; a JSONField(schema=dict[str, str | None]) keeps texts by key on every database"
)


class HStoreField(Field[T]):
    """Texts, or None, by keys that are texts (PostgreSQL, extension `hstore`).

    The database needs the extension before it can have such a column: `create_all(extensions=["hstore"])`. It keeps the
    keys in an order of its own. An index of it has the method `gin` or `gist`: `Index("labels", method="gin")`.
    """

    kind = "hstore"

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: HStoreField[dict[str, str | None]],
            *,
            null: Literal[False] = False,
            **options: Unpack[FieldOptions],
        ) -> None: ...
        @overload
        def __init__(
            self: HStoreField[dict[str, str | None] | None], *, null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...
        def __init__(self, *, null: bool = False, **options: Any) -> None: ...

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return postgresql.HSTORE()

    def unsupported(self, kind: str) -> str:
        return ONLY_POSTGRESQL if kind != "postgresql" else ""

    def to_python(self, value: Any) -> T:
        if not isinstance(value, Mapping):
            raise ValueError(f"a {type(value).__name__} is no dict of texts")
        found: dict[str, str | None] = {}
        for key, one in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{key!r} is no text, as every key has to be")
            if one is not None and not isinstance(one, str):
                raise ValueError(f"{key!r}: {one!r} is neither a text nor None")
            found[check_text(key)] = None if one is None else check_text(one)
        return cast("T", found)

    def binder(self, kind: str) -> Convert:
        if kind != "postgresql":
            raise NotSupported(f"{self!r}: {ONLY_POSTGRESQL}")
        return self.to_python

    def loader(self, kind: str) -> Convert | None:
        # The row is kept, and a dict of its own makes a change in place a change.
        return dict


def hstore_text(value: Any) -> str:
    """The text of a value as PostgreSQL writes it: for the definition of a table."""
    from covet_orm.dialects import dialect_of

    written: Any = postgresql.HSTORE().bind_processor(dialect_of("postgresql"))
    return cast("str", written(value))
