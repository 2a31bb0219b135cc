"""The field of an enumeration."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal, TypeVar, Unpack, cast, overload

from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import DataError, ModelError
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions
from covet_orm.fields.text import check_text

__all__ = ["EnumField"]

T = TypeVar("T")
E = TypeVar("E", bound=Enum)


class EnumField(Field[T]):
    """A member of an enumeration, stored by its value: `colour = EnumField(Colour)`.

    The values are texts or whole numbers. The column is one of these: a new member needs no change of the database.

    Args:
        enum: the enumeration.
        max_length: the most characters of a value, where they are texts; those of the longest by default, and at least
            20.

    Raises:
        ModelError: the values are neither all texts nor all whole numbers.
    """

    kind = "enum"

    @overload
    def __init__(
        self: EnumField[E],
        enum: type[E],
        *,
        max_length: int | None = None,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: EnumField[E | None],
        enum: type[E],
        *,
        max_length: int | None = None,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(self, enum: Any, *, max_length: int | None = None, null: bool = False, **options: Any) -> None:
        members: list[Any] = list(enum)
        values = [member.value for member in members]
        self.enum = enum
        self.members = members
        self.texts = bool(values) and all(isinstance(value, str) for value in values)
        if not self.texts and not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            raise ModelError(
                f"EnumField({enum.__name__}): its values are {values!r:.200}; they are to be texts, or whole numbers"
            )
        if not values:
            raise ModelError(f"EnumField({enum.__name__}): it has no members, and so a column would have no type")
        longest = max(len(value) for value in values) if self.texts else 0
        if max_length is not None and longest > max_length:
            raise ModelError(f"EnumField({enum.__name__}, max_length={max_length}): a value has {longest} characters")
        self.max_length = max_length or max(longest, 20)
        self.wide = not self.texts and any(not -(2**31) <= value < 2**31 for value in values)
        if self.wide and any(not -(2**63) <= value < 2**63 for value in values):
            raise ModelError(f"EnumField({enum.__name__}): a value is beyond the 64 bits that a column has")
        if self.texts:
            for value in values:
                check_text(value)
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        if self.texts:
            return sqlalchemy.String(self.max_length)
        return sqlalchemy.BigInteger() if self.wide else sqlalchemy.Integer()

    def to_python(self, value: Any) -> T:
        try:
            return cast("T", self.enum(value))
        except ValueError:
            there = ", ".join(repr(member.value) for member in self.members)
            raise ValueError(f"{value!r} is none of {self.enum.__name__}: {there}") from None

    def binder(self, kind: str) -> Convert:
        enum, slow = self.enum, self.to_python
        plain = str if self.texts else int

        def bind(value: Any) -> Any:
            member: Any = value if isinstance(value, enum) else slow(value)
            # A member of a StrEnum is a text with a class of its own, of which a driver knows nothing.
            return plain(member.value)

        return bind

    def loader(self, kind: str) -> Convert | None:
        members = {member.value: member for member in self.members}
        slow = self.to_python

        def load(value: Any) -> Any:
            member = members.get(value)
            if member is not None:
                return member
            try:
                return slow(value)
            except ValueError as error:
                name = f"{self.model.__name__}.{self.name}" if hasattr(self, "model") else "an enum"
                raise DataError(f"{name}: what is in the database is not what the field holds: {error}") from error

        return load
