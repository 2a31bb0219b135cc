"""Fields of text."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, Unpack, overload

import sqlalchemy

from covet_orm.exceptions import ModelError
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions

__all__ = ["CharField", "TextField", "check_text"]

T = TypeVar("T")


class TextField(Field[T]):
    """Text of any length."""

    kind = "text"

    @overload
    def __init__(self: TextField[str], *, null: Literal[False] = False, **options: Unpack[FieldOptions]) -> None: ...
    @overload
    def __init__(self: TextField[str | None], *, null: Literal[True], **options: Unpack[FieldOptions]) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        super().__init__(null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        from sqlalchemy.dialects.mysql import LONGTEXT

        return sqlalchemy.Text().with_variant(LONGTEXT(), "mysql", "mariadb")

    def to_python(self, value: Any) -> T:
        return check_text(value)  # type: ignore[return-value]

    def binder(self, kind: str) -> Convert:
        return check_text


class CharField(Field[T]):
    """Text of a bounded length.

    Args:
        max_length: the most characters (not bytes) that a value may have.
    """

    checks_values = True
    kind = "text"

    @overload
    def __init__(
        self: CharField[str], *, max_length: int, null: Literal[False] = False, **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: CharField[str | None], *, max_length: int, null: Literal[True], **options: Unpack[FieldOptions]
    ) -> None: ...
    def __init__(self, *, max_length: int, null: bool = False, **options: Any) -> None:
        if max_length < 1:
            raise ModelError(f"a field with max_length={max_length} can hold nothing; give at least 1")
        self.max_length = max_length
        super().__init__(null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.String(self.max_length)

    def to_python(self, value: Any) -> T:
        return check_text(value)  # type: ignore[return-value]

    def binder(self, kind: str) -> Convert:
        return check_text

    def validate(self, value: T) -> list[str]:
        if isinstance(value, str) and len(value) > self.max_length:
            return [f"it has {len(value)} characters, and may have {self.max_length}"]
        return super().validate(value)


def check_text(value: Any) -> str:
    """The text itself, if every database can hold it.

    Raises:
        ValueError: it is no text, holds a NUL (which PostgreSQL cannot store) or a lone surrogate (which is no text in
            UTF-8).
    """
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    if "\0" in value:
        raise ValueError("it holds a NUL character, which a database cannot store as text")
    # What is ASCII is known to be so, and is not looked through.
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"it holds a lone surrogate ({error.object[error.start]!a}), which is no text") from None
    return value
