"""Global identifiers: what a prepared transaction is called at its server, so that anybody who finds it knows whose it
is and where its fate is written.

PostgreSQL takes a text of less than 200 bytes; XA takes two parts of at most 64 bytes each and a number (X/Open CAE
Specification, Distributed Transaction Processing: The XA Specification, section 4.2).
"""

from __future__ import annotations

import re
import secrets
import time
from typing import NamedTuple

from covet_orm.exceptions import TransactionError

__all__ = ["FORMAT", "GlobalId", "check_name", "new_transaction"]

FORMAT = 1668249204
"""The number that tells Covet's XA transactions from those of others: "covt" in ASCII."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,31}")
TEXT = re.compile(r"covet:([A-Za-z0-9_.-]{1,31}):([0-9a-f]{32}):([0-9a-f]{12}):([A-Za-z0-9_.-]{1,31})")


class GlobalId(NamedTuple):
    """The identifier of one participant's part of a distributed transaction.

    Attributes:
        application: whose it is, for people.
        transaction: 32 hexadecimal digits, which begin with the time.
        log: the identity of the log that holds the decision.
        participant: the alias of the database, in the application that began it.
    """

    application: str
    transaction: str
    log: str
    participant: str

    @property
    def text(self) -> str:
        """As PostgreSQL is told."""
        return f"covet:{self.application}:{self.transaction}:{self.log}:{self.participant}"

    @property
    def xid(self) -> str:
        """As MySQL and MariaDB are told: its characters need no escape."""
        return f"'{self.application}:{self.transaction}','{self.log}:{self.participant}',{FORMAT}"

    @property
    def began(self) -> float:
        """Seconds since the epoch, by the clock of the process that began it."""
        return int(self.transaction[:12], 16) / 1000

    @classmethod
    def parse(cls, text: str) -> GlobalId | None:
        """What PostgreSQL lists; None when it is not Covet's."""
        found = TEXT.fullmatch(text)
        return None if found is None else cls(*found.groups())

    @classmethod
    def parse_xa(cls, number: int, length: int, data: bytes | str) -> GlobalId | None:
        """What `XA RECOVER` lists: the number, the length of the first part, both parts in one; None when it is not
        Covet's."""
        text = data.decode("latin-1") if isinstance(data, bytes) else data
        return cls.parse(f"covet:{text[:length]}:{text[length:]}") if number == FORMAT else None


def new_transaction() -> str:
    """A transaction that nobody else has: 48 bits of the time in milliseconds, 80 of chance."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def check_name(name: str, what: str) -> str:
    """A name that fits into an identifier.

    Raises:
        TransactionError: it does not.
    """
    if not NAME.fullmatch(name):
        raise TransactionError(
            f"{what} {name!r} is part of the names of prepared transactions, which the servers keep short: at most 31 "
            "letters, digits, dots, dashes and underscores"
        )
    return name
