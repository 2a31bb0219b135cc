"""Digests of texts, in hexadecimal digits. None of them is for passwords."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet_orm.exceptions import NotSupported
from covet_orm.expressions.functions.texts import TextFunc

if TYPE_CHECKING:
    from covet_orm.queries.scope import Scope

__all__ = ["MD5", "SHA1", "SHA224", "SHA256", "SHA384", "SHA512"]


class MD5(TextFunc):
    """The MD5 of a text's UTF-8 (RFC 1321)."""

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.covet_md5(*arguments) if scope.kind == "sqlite" else func.md5(*arguments)


class SHA1(TextFunc):
    """The SHA-1 of a text's UTF-8 (RFC 3174). PostgreSQL has it in an extension alone, and is refused.

    Raises:
        NotSupported: when it is compiled for PostgreSQL.
    """

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            raise NotSupported("PostgreSQL has no SHA-1 without the extension pgcrypto; SHA256() is everywhere")
        return func.covet_sha1(*arguments) if scope.kind == "sqlite" else func.sha1(*arguments)


class SHA256(TextFunc):
    """The SHA-256 of a text's UTF-8 (FIPS 180-4)."""

    bits = "256"

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "sqlite":
            return getattr(func, f"covet_sha{self.bits}")(*arguments)  # type: ignore[no-any-return]
        if scope.kind == "postgresql":
            data = func.convert_to(arguments[0], sqlalchemy.literal_column("'UTF8'"))
            return func.encode(getattr(func, f"sha{self.bits}")(data), sqlalchemy.literal_column("'hex'"))
        return func.sha2(arguments[0], sqlalchemy.literal_column(self.bits))


class SHA224(SHA256):
    """The SHA-224 of a text's UTF-8 (FIPS 180-4)."""

    bits = "224"


class SHA384(SHA256):
    """The SHA-384 of a text's UTF-8 (FIPS 180-4)."""

    bits = "384"


class SHA512(SHA256):
    """The SHA-512 of a text's UTF-8 (FIPS 180-4)."""

    bits = "512"
