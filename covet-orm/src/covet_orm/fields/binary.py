"""The field of bytes."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, Unpack, cast, overload

from covet_orm.deferred import mysql, sqlalchemy
from covet_orm.exceptions import ModelError
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions

__all__ = ["BinaryField"]

T = TypeVar("T")

MOST_IN_A_ROW = 65_532
"""Bytes that a VARBINARY of MySQL may have (MySQL Reference Manual, "Limits on Table Column Count and Row Size")."""

MOST_IN_AN_INDEX = 3_072
"""Bytes of an index (MySQL Reference Manual, "InnoDB Limits")."""


class BinaryField(Field[T]):
    """Bytes: `bytea`, `longblob`, `blob`.

    Args:
        max_length: the most bytes that a value may have. MySQL and MariaDB want one where the column is unique, has an
            index, or is a key.
    """

    checks_values = True
    kind = "bytes"

    @overload
    def __init__(
        self: BinaryField[bytes],
        *,
        max_length: int | None = None,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: BinaryField[bytes | None],
        *,
        max_length: int | None = None,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(self, *, max_length: int | None = None, null: bool = False, **options: Any) -> None:
        if max_length is not None and max_length < 1:
            raise ModelError(f"a field with max_length={max_length} can hold nothing; give at least 1")
        self.max_length = max_length
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        bounded = self.max_length is not None and self.max_length <= MOST_IN_A_ROW
        variant: sqlalchemy.types.TypeEngine[Any] = mysql.VARBINARY(self.max_length) if bounded else mysql.LONGBLOB()
        return sqlalchemy.LargeBinary().with_variant(variant, "mysql", "mariadb")

    def unsupported(self, kind: str) -> str:
        indexed = kind in ("mysql", "mariadb") and (self.unique or self.db_index or self.primary_key)
        if indexed and (self.max_length is None or self.max_length > MOST_IN_AN_INDEX):
            return f"{kind} keeps no index of bytes without bounds: give it a max_length of at most {MOST_IN_AN_INDEX}"
        return ""

    def to_python(self, value: Any) -> T:
        if type(value) is bytes:
            return cast("T", value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return cast("T", bytes(value))
        raise ValueError(f"a {type(value).__name__} is no bytes")

    def validate(self, value: Any) -> list[str]:
        if self.max_length is not None and value is not None and len(value) > self.max_length:
            return [f"it has {len(value)} bytes, and may have {self.max_length}"]
        return super().validate(value)

    def loader(self, kind: str) -> Convert | None:
        return None
