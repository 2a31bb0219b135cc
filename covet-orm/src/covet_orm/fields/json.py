"""The field of JSON."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

import msgspec

from covet_orm.deferred import mysql, postgresql, sqlalchemy
from covet_orm.exceptions import DataError
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions

__all__ = ["JSONField"]

T = TypeVar("T")
S = TypeVar("S")

DEEPEST = 31
"""How deep values may be nested on MariaDB (its `JSON_DEPTH_LIMIT` is 32, the value itself included)."""

# An escaped NUL; a backslash before it that is escaped itself makes it a text of six characters.
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

SORTED = msgspec.json.Encoder(order="deterministic")


class JSONField(Field[T]):
    """A value of JSON: `jsonb` on PostgreSQL, `json` on MySQL and MariaDB (there a checked text), a text on SQLite.

    It is written with the keys of its objects sorted and without blanks, so that equal values are equal texts where a
    database compares texts. None is NULL; the null of JSON can stand inside of a value alone.

    What JSON has not is refused on every database: NaN and the infinities, keys that are no text. So is what one of the
    databases cannot keep: NUL characters and lone surrogates. PostgreSQL keeps numbers as decimals: a float such as
    1e23, which has no digits behind the point, comes back from it as an int.

    Args:
        schema: a type that msgspec knows, such as a Struct, a dataclass or `list[int]`: values are of it, and what is
            in the database is checked against it when it is loaded.
    """

    kind = "JSON"

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: JSONField[Any], *, schema: None = None, null: bool = ..., **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: JSONField[S], *, schema: type[S], null: Literal[False] = False, **options: Unpack[FieldOptions]
        ) -> None: ...
        @overload
        def __init__(
            self: JSONField[S | None], *, schema: type[S], null: Literal[True], **options: Unpack[FieldOptions]
        ) -> None: ...

    def __init__(self, *, schema: Any = None, null: bool = False, **options: Any) -> None:
        self.schema = schema
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return (
            sqlalchemy.Text()
            .with_variant(postgresql.JSONB(), "postgresql")
            .with_variant(mysql.JSON(), "mysql", "mariadb")
        )

    def unsupported(self, kind: str) -> str:
        if kind in ("mysql", "mariadb") and (self.unique or self.db_index or self.primary_key):
            return (
                f"{kind} keeps no index of JSON: add a GeneratedField with what is looked for, and give that an index"
            )
        return ""

    def to_python(self, value: Any) -> T:
        if self.schema is not None:
            try:
                value = msgspec.convert(value, self.schema)
            except (msgspec.ValidationError, ValueError, TypeError) as error:
                raise ValueError(str(error)) from None
        encode(value)
        return cast("T", value)

    def differs(self, before: Any, value: Any) -> bool:
        # By their texts, which tell true from 1, also deep inside. What is no JSON is told by the save that follows.
        if value is None or before is None or super().differs(before, value):
            return value is not before
        return SORTED.encode(before) != SORTED.encode(value)

    def binder(self, kind: str) -> Convert:
        typed: Convert | None = self.to_python if self.schema is not None else None
        deepest = DEEPEST if kind == "mariadb" else 0

        def bind(value: Any) -> str:
            text = encode(value if typed is None else typed(value))
            if deepest and text.count("[") + text.count("{") > deepest and _depth(msgspec.json.decode(text)) > deepest:
                raise ValueError(f"it is nested deeper than {deepest} levels, which MariaDB does not keep")
            return text

        return bind

    def loader(self, kind: str) -> Convert | None:
        decoder: Any = msgspec.json.Decoder() if self.schema is None else msgspec.json.Decoder(self.schema)
        decode = decoder.decode

        def load(value: Any) -> Any:
            try:
                return decode(value)
            except msgspec.MsgspecError as error:
                name = f"{self.model.__name__}.{self.name}" if hasattr(self, "model") else "a JSON value"
                raise DataError(f"{name}: what is in the database is not what the field holds: {error}") from error

        return load


def encode(value: Any) -> str:
    """The text of a value, keys sorted.

    Raises:
        ValueError: it is no JSON, or none that every database can hold.
    """
    try:
        encoded = SORTED.encode(value)
    except UnicodeEncodeError as error:
        raise ValueError(f"it holds a lone surrogate ({error.object[error.start]!a}), which is no text") from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error or type(error).__name__}") from None
    # The encoder writes null for a number that JSON has not; most values have no null, and are not looked through.
    if b"null" in encoded:
        _refuse_not_finite(msgspec.to_builtins(value))
    if b"\\u0000" in encoded and NUL.search(encoded):
        raise ValueError("it holds a NUL character, which a database cannot store as text")
    return encoded.decode()


def _refuse_not_finite(value: Any) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"it holds {value!r}, which is no number of JSON")
    elif isinstance(value, dict):
        for one in value.values():
            _refuse_not_finite(one)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for one in value:
            _refuse_not_finite(one)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
