"""Fields of text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, TypeVar, Unpack, cast, overload
from urllib.parse import urlsplit

from covet_orm.deferred import mysql, sqlalchemy
from covet_orm.exceptions import ModelError
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions

__all__ = ["CharField", "EmailField", "SlugField", "TextField", "URLField", "check_text"]

T = TypeVar("T")

MOST_IN_A_ROW = 16_383
"""Characters that a VARCHAR of MySQL may have in utf8mb4 (MySQL Reference Manual, "Limits on Table Column Count and Row
Size")."""
MOST_IN_AN_INDEX = 768
"""Characters of utf8mb4 in the 3,072 bytes of an index (MySQL Reference Manual, "InnoDB Limits")."""
MOST_IN_POSTGRESQL = 10_485_760
"""Characters that a varchar of PostgreSQL may have (its documentation, "Character Types")."""

# What an <input type=email> takes (WHATWG HTML, "Valid e-mail address"), and letters of every script (RFC 6531).
LABEL = r"[a-zA-Z0-9\u0080-\U0010ffff](?:[a-zA-Z0-9\u0080-\U0010ffff-]{0,61}[a-zA-Z0-9\u0080-\U0010ffff])?"
EMAIL = rf"[a-zA-Z0-9\u0080-\U0010ffff.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{LABEL}(?:\.{LABEL})*"
SLUG = re.compile(r"[a-zA-Z0-9_-]+")
UNICODE_SLUG = re.compile(r"[\w-]+")


@cache
def _email() -> re.Pattern[str]:
    """The pattern of addresses; compiled when the first one is checked, as that takes as long as importing half of the
    fields."""
    return re.compile(EMAIL)


class TextField(Field[T]):
    """Text of any length."""

    kind = "text"

    @overload
    def __init__(self: TextField[str], *, null: Literal[False] = False, **options: Unpack[FieldOptions]) -> None: ...
    @overload
    def __init__(self: TextField[str | None], *, null: Literal[True], **options: Unpack[FieldOptions]) -> None: ...
    def __init__(self, *, null: bool = False, **options: Any) -> None:
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        return sqlalchemy.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")

    def unsupported(self, kind: str) -> str:
        return _no_index(self, kind)

    def to_python(self, value: Any) -> T:
        return cast("T", check_text(value))

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
    def __init__(self, *, max_length: int | None = None, null: bool = False, **options: Any) -> None:
        if max_length is None:
            raise ModelError(
                f"{type(self).__name__} needs a length: {type(self).__name__}(max_length=100); TextField() is for text "
                "of any length"
            )
        if not 1 <= max_length <= MOST_IN_POSTGRESQL:
            raise ModelError(
                f"{type(self).__name__}(max_length={max_length}): it is from 1 to {MOST_IN_POSTGRESQL}; TextField() is "
                "for text of any length"
            )
        self.max_length = max_length
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        column_type = sqlalchemy.String(self.max_length)
        return (
            column_type
            if self.max_length <= MOST_IN_A_ROW
            else column_type.with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
        )

    def unsupported(self, kind: str) -> str:
        return _no_index(self, kind) if self.max_length > MOST_IN_AN_INDEX else ""

    def to_python(self, value: Any) -> T:
        return cast("T", check_text(value))

    def binder(self, kind: str) -> Convert:
        return check_text

    def validate(self, value: Any) -> list[str]:
        if isinstance(value, str):
            if len(value) > self.max_length:
                return [f"it has {len(value)} characters, and may have {self.max_length}"]
            wrong = self.malformed(value)
            if wrong:
                return [wrong]
        return super().validate(value)

    def writer(self, kind: str) -> Convert:
        slow, most = super().writer(kind), self.max_length
        checks, kinds = (CharField.validate, CharField.malformed, CharField.binder), type(self)
        if self.choices or self.validators or (kinds.validate, kinds.malformed, kinds.binder) != checks:
            return slow

        def write(value: Any) -> Any:
            # Most texts are like this, and cost no more calls than that.
            fits = type(value) is str and len(value) <= most and value.isascii() and "\0" not in value
            return value if fits else slow(value)

        return write

    def malformed(self, value: str) -> str:
        """What is wrong with the form of a text, for the fields that have one; empty when nothing is."""
        return ""


class EmailField(CharField[T]):
    """An e-mail address, in the form that browsers take; letters of every script are taken as well.

    Upper and lower case are told apart, as everywhere: a program that takes `Ada@example.org` for `ada@example.org`
    makes it so before it saves, or has a `UniqueConstraint(Lower("email"))`.

    Args:
        max_length: the most characters (254 are the most that an address can have, RFC 5321, section 4.5.3).
    """

    kind = "e-mail address"

    @overload
    def __init__(
        self: EmailField[str], *, max_length: int = 254, null: Literal[False] = False, **options: Unpack[FieldOptions]
    ) -> None: ...
    @overload
    def __init__(
        self: EmailField[str | None], *, max_length: int = 254, null: Literal[True], **options: Unpack[FieldOptions]
    ) -> None: ...
    def __init__(self, *, max_length: int = 254, null: bool = False, **options: Any) -> None:
        _bounded(self, max_length=max_length, null=null, **options)

    def malformed(self, value: str) -> str:
        return "" if _email().fullmatch(value) else f"{value!r:.100} is no e-mail address"


class URLField(CharField[T]):
    """An absolute URL.

    Args:
        max_length: the most characters.
        schemes: what it may begin with.
    """

    kind = "URL"

    @overload
    def __init__(
        self: URLField[str],
        *,
        max_length: int = 200,
        schemes: Sequence[str] = ("http", "https"),
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: URLField[str | None],
        *,
        max_length: int = 200,
        schemes: Sequence[str] = ("http", "https"),
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(
        self,
        *,
        max_length: int = 200,
        schemes: Sequence[str] = ("http", "https"),
        null: bool = False,
        **options: Any,
    ) -> None:
        self.schemes = tuple(scheme.lower() for scheme in schemes)
        _bounded(self, max_length=max_length, null=null, **options)

    def malformed(self, value: str) -> str:
        # urlsplit drops some control characters, and so would tell nothing of them.
        if any(character.isspace() or not character.isprintable() for character in value):
            return f"{value!r:.100} is no URL: it holds a blank or a control character"
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError as error:
            return f"{value!r:.100} is no URL: {error}"
        if parts.scheme not in self.schemes:
            return f"{value!r:.100} does not begin with {' or '.join(f'{scheme}://' for scheme in self.schemes)}"
        return "" if parts.hostname and port != 0 else f"{value!r:.100} is no URL: it names no host"


class SlugField(CharField[T]):
    """A part of a URL: letters, digits, hyphens and underscores. It has an index, unless `db_index=False`.

    Args:
        max_length: the most characters.
        allow_unicode: whether letters and digits of every script are taken.
    """

    kind = "slug"

    @overload
    def __init__(
        self: SlugField[str],
        *,
        max_length: int = 50,
        allow_unicode: bool = False,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: SlugField[str | None],
        *,
        max_length: int = 50,
        allow_unicode: bool = False,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(
        self, *, max_length: int = 50, allow_unicode: bool = False, null: bool = False, **options: Any
    ) -> None:
        self.pattern = UNICODE_SLUG if allow_unicode else SLUG
        options.setdefault("db_index", True)
        _bounded(self, max_length=max_length, null=null, **options)

    def malformed(self, value: str) -> str:
        return "" if self.pattern.fullmatch(value) else f"{value!r:.100} holds more than letters, digits, - and _"


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


# Its overloads tell types to callers; for a class that derives from it they would choose one of them.
_bounded: Any = CharField.__init__


def _no_index(field: Field[Any], kind: str) -> str:
    if kind in ("mysql", "mariadb") and (field.unique or field.db_index or field.primary_key):
        return (
            f"{kind} keeps no index of text longer than {MOST_IN_AN_INDEX} characters: use a CharField with that "
            "max_length"
        )
    return ""
