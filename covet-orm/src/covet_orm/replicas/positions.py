"""How far a server has come: positions in the log that replicas follow, which can be compared and written as text.

PostgreSQL: the log sequence number (LSN) together with the system identifier and the timeline, since a number of
another cluster or of another history says nothing. MariaDB: a GTID for each replication domain.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import Protocol, Self

from msgspec import Struct

from covet_orm.exceptions import OrmError

__all__ = ["GtidPosition", "InvalidToken", "LogPosition", "Position", "parse_position"]

LOG = re.compile(r"postgresql:([0-9]{1,20}):([0-9]{1,10}):([0-9A-F]{1,8})/([0-9A-F]{1,8})", re.ASCII)
GTID = re.compile(r"([0-9]{1,10})-([0-9]{1,10})-([0-9]{1,20})", re.ASCII)
# More domains than any topology has; what comes from outside has an end.
MOST_DOMAINS = 32


class InvalidToken(OrmError, ValueError):  # noqa: N818 - as its siblings in `covet_orm.exceptions`
    """A text is no token of a position: cut, changed, or made by something else."""


class Position(Protocol):
    """A position in a server's log."""

    @abstractmethod
    def covers(self, other: Position) -> bool:
        """Whether a server that has come this far has everything up to the other position."""

    @abstractmethod
    def merged(self, other: Self) -> Self:
        """The position that covers both; where no one can, `other`, which is the newer."""

    @abstractmethod
    def __str__(self) -> str: ...


class LogPosition(Struct, frozen=True):
    """A position in PostgreSQL's write-ahead log.

    Attributes:
        system: the system identifier of the cluster.
        timeline: the timeline, which a promotion counts up.
        lsn: bytes.
    """

    system: int
    timeline: int
    lsn: int

    def covers(self, other: Position) -> bool:
        """Whether this one is of the same cluster, of no older timeline, and as far.

        A server that follows a later timeline has either what was written on the older one, or this was lost for all.
        """
        return (
            isinstance(other, LogPosition)
            and self.system == other.system
            and self.timeline >= other.timeline
            and self.lsn >= other.lsn
        )

    def merged(self, other: LogPosition) -> LogPosition:
        """The one that is further in the later timeline."""
        if self.system != other.system or self.timeline < other.timeline:
            return other
        return self if self.timeline > other.timeline or self.lsn >= other.lsn else other

    def __str__(self) -> str:
        return f"postgresql:{self.system}:{self.timeline}:{self.lsn >> 32:X}/{self.lsn & 0xFFFFFFFF:X}"


class GtidPosition(Struct, frozen=True):
    """A position in MariaDB's binary log.

    Attributes:
        domains: for each replication domain, the server that wrote last and the number that it gave.
    """

    domains: dict[int, tuple[int, int]]

    @classmethod
    def parse(cls, text: str) -> GtidPosition:
        """Of a list of GTIDs, such as `0-1-100,1-2-7`.

        Raises:
            InvalidToken: it is none.
        """
        domains: dict[int, tuple[int, int]] = {}
        parts = text.split(",") if text else []
        if len(parts) > MOST_DOMAINS:
            raise InvalidToken(f"a GTID position of {len(parts)} domains; at most {MOST_DOMAINS}")
        for part in parts:
            match = GTID.fullmatch(part)
            if match is None:
                raise InvalidToken("a GTID position is domain-server-number, with commas between them")
            domain, server, number = (int(digits) for digits in match.groups())
            # Those of the same domain come in no order; the highest number is the last.
            if domain not in domains or domains[domain][1] < number:
                domains[domain] = (server, number)
        return cls(domains)

    @property
    def gtids(self) -> str:
        """As MariaDB writes it."""
        return ",".join(f"{domain}-{server}-{number}" for domain, (server, number) in sorted(self.domains.items()))

    def covers(self, other: Position) -> bool:
        """Whether this one is as far in every domain of the other."""
        if not isinstance(other, GtidPosition):
            return False
        own = self.domains
        return all(domain in own and own[domain][1] >= number for domain, (_, number) in other.domains.items())

    def merged(self, other: GtidPosition) -> GtidPosition:
        """The one that is further, of every domain."""
        domains = dict(self.domains)
        for domain, last in other.domains.items():
            if domain not in domains or domains[domain][1] < last[1]:
                domains[domain] = last
        return GtidPosition(domains)

    def __str__(self) -> str:
        return f"mariadb:{self.gtids}"


def parse_position(text: str) -> LogPosition | GtidPosition:
    """The position that a text stands for.

    Raises:
        InvalidToken: it stands for none.
    """
    kind, _, rest = text.partition(":")
    if kind == "mariadb" and rest:
        return GtidPosition.parse(rest)
    match = LOG.fullmatch(text)
    if match is None:
        raise InvalidToken("the text is no position of a PostgreSQL or MariaDB server")
    system, timeline = int(match[1]), int(match[2])
    return LogPosition(system, timeline, (int(match[3], 16) << 32) | int(match[4], 16))
