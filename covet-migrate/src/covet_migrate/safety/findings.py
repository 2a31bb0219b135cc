"""What is found in a migration, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Severity", "Where"]


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """It loses data, breaks the program that runs, or keeps others waiting the longer the more rows there are."""
    WARNING = "warning"
    """It does so for some programs, or some rows."""
    NOTE = "note"
    """There is a better way, or something to know."""

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Where:
    """The place of a finding.

    Attributes:
        migration: `app.name`.
        operation: which of its operations, from 1.
        description: what that does, for people.
        statement: the statement; empty where it is about all of them.
    """

    migration: str
    operation: int
    description: str
    statement: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a rule has found.

    Attributes:
        rule: the name of the rule.
        severity: how bad it is.
        where: where it is.
        what: what it is about.
        why: what is bad about that.
        instead: what to do instead.
        effect: what the statement locks, and how long; empty where it is about none.
    """

    rule: str
    severity: Severity
    where: Where
    what: str
    why: str
    instead: str
    effect: str = ""

    def as_dict(self) -> dict[str, object]:
        """The finding in the form that JSON has for it."""
        return {
            "rule": self.rule,
            "severity": str(self.severity),
            "migration": self.where.migration,
            "operation": self.where.operation,
            "description": self.where.description,
            "statement": self.where.statement,
            "what": self.what,
            "why": self.why,
            "instead": self.instead,
            "effect": self.effect,
        }
