"""The field of IP addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, TypeVar, Unpack, cast, overload

from covet_orm.deferred import mysql, postgresql, sqlalchemy
from covet_orm.exceptions import ModelError
from covet_orm.fields.base import Convert, Field
from covet_orm.fields.options import FieldOptions

__all__ = ["IPAddressField"]

T = TypeVar("T")

LONGEST = 45
"""Characters of an address, of one of IPv6 that ends like one of IPv4."""


class IPAddressField(Field[T]):
    """An address of IPv4 or IPv6: `inet` on PostgreSQL, its shortest text elsewhere.

    MariaDB's own type would make an IPv6 address of each of IPv4.

    Args:
        version: 4 or 6, for addresses of one kind alone.
    """

    kind = "IP address"

    @overload
    def __init__(
        self: IPAddressField[IPv4Address | IPv6Address],
        *,
        version: Literal[4, 6] | None = None,
        null: Literal[False] = False,
        **options: Unpack[FieldOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: IPAddressField[IPv4Address | IPv6Address | None],
        *,
        version: Literal[4, 6] | None = None,
        null: Literal[True],
        **options: Unpack[FieldOptions],
    ) -> None: ...
    def __init__(self, *, version: Literal[4, 6] | None = None, null: bool = False, **options: Any) -> None:
        if version not in (None, 4, 6):
            raise ModelError(f"IPAddressField(version={version!r}): it is 4, 6, or left out for both")
        self.version = version
        Field.__init__(self, null=null, **options)

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        ascii_text = mysql.VARCHAR(LONGEST, charset="ascii", collation="ascii_bin")
        return (
            sqlalchemy.String(LONGEST)
            .with_variant(postgresql.INET(), "postgresql")
            .with_variant(ascii_text, "mysql", "mariadb")
        )

    def to_python(self, value: Any) -> T:
        if isinstance(value, bool) or not isinstance(value, (str, IPv4Address, IPv6Address)):
            raise ValueError(f"{value!r} is no IP address")
        try:
            address = ip_address(value)
        except ValueError:
            raise ValueError(f"{value!r} is no IP address") from None
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            raise ValueError(f"{value!r} has a zone, which means something on one machine alone")
        if self.version is not None and address.version != self.version:
            raise ValueError(f"{value!r} is no address of IPv{self.version}")
        return cast("T", address)

    def binder(self, kind: str) -> Convert:
        exact: Convert = self.to_python
        return exact if kind == "postgresql" else lambda value: str(exact(value))

    def loader(self, kind: str) -> Convert | None:
        return None if kind == "postgresql" else ip_address
