"""What can go wrong with migrations. Every message says what, where, and what to do next."""

from __future__ import annotations

from covet.exceptions import CovetError

__all__ = [
    "ConflictingMigrations",
    "DataLoss",
    "HistoryError",
    "Irreversible",
    "MigrationError",
    "MigrationFailed",
    "MigrationLocked",
    "MigrationNotFound",
    "NotSerializable",
    "QuestionUnanswered",
]


class MigrationError(CovetError):
    """The root of what covet-migrate raises."""


class MigrationNotFound(MigrationError):
    """There is no such migration, application or dependency."""


class ConflictingMigrations(MigrationError):
    """Migrations contradict each other: two of one number, several ends of one application, a cycle."""


class HistoryError(MigrationError):
    """What the database knows of migrations is not what the files say: an applied file was changed, or is gone."""


class Irreversible(MigrationError):
    """An operation has no way back."""


class DataLoss(MigrationError):
    """What was asked for deletes rows or columns, and nobody said yes to it."""


class MigrationLocked(MigrationError):
    """Somebody else migrates the database, or a table stays locked, for longer than one was to wait."""


class MigrationFailed(MigrationError):
    """A statement of a migration failed. The message says which one, and in what state the database is.

    Attributes:
        migration: the migration, as `app.name`.
        operation: what the operation does, for people; empty where it was none of them.
        statement: the statement; empty where it was none.
        done: how many of the migration's steps are done, and kept.
    """

    def __init__(
        self, message: str, *, migration: str = "", operation: str = "", statement: str = "", done: int = 0
    ) -> None:
        super().__init__(message)
        self.migration = migration
        self.operation = operation
        self.statement = statement
        self.done = done


class NotSerializable(MigrationError):
    """A value cannot be written into a migration file."""


class QuestionUnanswered(MigrationError):
    """Something is to be asked, and there is nobody who could answer. The message says which option answers it."""
