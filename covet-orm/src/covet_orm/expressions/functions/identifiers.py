"""UUIDs that the database makes (RFC 9562): `id = UUIDField(primary_key=True, db_default=UUID4())`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet_orm.exceptions import NotSupported
from covet_orm.expressions.functions.base import Func
from covet_orm.fields.uuids import UUIDField

if TYPE_CHECKING:
    from covet_orm.queries.scope import Scope

__all__ = ["UUID4", "UUID7", "RandomUUID"]


class UUID4(Func[UUID]):
    """A random UUID (version 4), another one for each row.

    PostgreSQL has a function for it; elsewhere it is put together from random bytes of the server: `randomblob` on
    SQLite, `RANDOM_BYTES` on MySQL and on MariaDB from 10.10 on.
    """

    arity = (0, 0)
    output_field = UUIDField[UUID]()

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            return func.gen_random_uuid()
        return sqlalchemy.literal_column(ON_SQLITE if scope.kind == "sqlite" else ON_MYSQL)


RandomUUID = UUID4
"""As `UUID4`, by the name that django.contrib.postgres gives it."""


class UUID7(Func[UUID]):
    """A UUID that begins with the time (version 7), so that later ones are greater: PostgreSQL from version 18 on.

    Elsewhere give the field a default in Python that makes one.

    Raises:
        NotSupported: when it is compiled: the database is not PostgreSQL.
        ProgrammingError: PostgreSQL is older.
    """

    arity = (0, 0)
    output_field = UUIDField[UUID]()

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind != "postgresql":
            raise NotSupported(
                f"{scope.kind} makes no UUIDs of version 7 that every version of it has; PostgreSQL does from 18 on, "
                "UUID4() is everywhere, and a default=... of the field makes them in Python"
            )
        return func.uuidv7()


# The version is the thirteenth digit, the variant (8, 9, a or b) the seventeenth.
ON_SQLITE = """(
lower(hex(randomblob(4))) || '-' || lower(hex(randomblob(2)))
|| '-4' || substr(lower(hex(randomblob(2))), 2)
|| '-' || substr('89ab', (random() & 3) + 1, 1) || substr(lower(hex(randomblob(2))), 2)
|| '-' || lower(hex(randomblob(6))))""".replace("\n", " ")
ON_MYSQL = (
    "unhex(concat(hex(random_bytes(6)), '4', substr(hex(random_bytes(2)), 2), "
    "hex(ascii(random_bytes(1)) & 63 | 128), hex(random_bytes(7))))"
)
