"""The field of UUIDs."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, Unpack, cast, overload
from uuid import UUID

from covet_orm.deferred import mysql, sqlalchemy
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions

__all__ = ["UUIDField"]

T = TypeVar("T")


class UUIDField(Field[T]):
    """A UUID: `id = UUIDField(primary_key=True, default=uuid4)`.

    PostgreSQL has a type for it, MySQL and MariaDB keep 16 bytes, SQLite the text of 36 characters. MariaDB's own type
    refuses some UUIDs that are none of the usual versions.
    """

    kind = "UUID"

    @overload
    def __init__(self: UUIDField[UUID], *, null: Literal[False] = False, **options: Unpack[FieldOptions]) -> None: ...
    @overload
    def __init__(self: UUIDField[UUID | None], *, null: Literal[True], **options: Unpack[FieldOptions]) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return (
            sqlalchemy.Uuid()
            .with_variant(mysql.BINARY(16), "mysql", "mariadb")
            .with_variant(sqlalchemy.Text(), "sqlite")
        )

    def to_python(self, value: Any) -> T:
        return cast("T", self._exact(value))

    def binder(self, kind: str) -> Convert:
        exact = self._exact
        if kind == "postgresql":
            return exact
        if kind in ("mysql", "mariadb"):
            return lambda value: exact(value).bytes
        return lambda value: str(exact(value))

    def loader(self, kind: str) -> Convert | None:
        if kind == "postgresql":
            return None
        if kind in ("mysql", "mariadb"):
            return lambda value: UUID(bytes=value)
        return UUID

    def _exact(self, value: Any) -> UUID:
        if isinstance(value, UUID):
            return value
        try:
            if isinstance(value, str):
                return UUID(value)
            if isinstance(value, bytes):
                return UUID(bytes=value)
        except ValueError as error:
            raise ValueError(f"{value!r} is no UUID") from error
        raise ValueError(f"{value!r} is no UUID")
