"""The errors of covet-orm, a branch of the one tree that begins at `covet.CovetError`.

What a server says becomes one of these, the same on every database, with the server's own error as `__cause__`. The
names are those of Django and of PEP 249 where they have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from covet.exceptions import ConfigurationError, CovetError

if TYPE_CHECKING:
    from covet_orm.deadlocks import DeadlockParticipant

if TYPE_CHECKING:
    from covet_orm.transactions.confirming import Mark

__all__ = [
    "CheckViolation",
    "CommitHookFailed",
    "CommitIncomplete",
    "CommitUncertain",
    "ConnectionLost",
    "DataError",
    "DatabaseError",
    "DatabaseUnavailable",
    "DeadlockDetected",
    "ExclusionViolation",
    "FieldError",
    "FieldNotLoaded",
    "ForeignKeyViolation",
    "HeuristicOutcome",
    "IntegrityError",
    "InvalidIdentifier",
    "LockTimeout",
    "ModelError",
    "MultipleObjectsReturned",
    "NotNullViolation",
    "NotSupported",
    "ObjectDoesNotExist",
    "OrmError",
    "PoolClosed",
    "PoolTimeout",
    "ProgrammingError",
    "QueryError",
    "ReadOnlyDatabase",
    "RelationNotLoaded",
    "SerializationFailure",
    "StaleObject",
    "StatementTimeout",
    "TransactionError",
    "TransactionTimeout",
    "UniqueViolation",
    "ValidationError",
]


class OrmError(CovetError):
    """Root of every error that covet-orm raises on purpose."""


class ModelError(OrmError, ConfigurationError):
    """A model is not declared as one can be; raised before the first query."""


class QueryError(OrmError):
    """A query cannot be built as it was asked for; nothing was sent to the server."""


class FieldError(QueryError):
    """A query names a field, relation, lookup or alias that is not there. The message gives the nearest that is."""


class InvalidIdentifier(QueryError, ValueError):
    """The name of a table, column or alias is none that a database could have, or not one by itself."""


class NotSupported(QueryError):
    """The database cannot do what was asked. The message names one that can, or the way around."""


class ObjectDoesNotExist(OrmError):
    """`get` found no row. Every model has a `DoesNotExist` of its own, derived from this one."""


class MultipleObjectsReturned(OrmError):
    """`get` found more than one row. Every model has one of its own, derived from this one."""


class FieldNotLoaded(OrmError, AttributeError):
    """A deferred field was read. Nothing is ever loaded behind one's back; the message says what would load it."""


class RelationNotLoaded(FieldNotLoaded):
    """A related object was read that the query did not load. The message says what would load it."""


class StaleObject(OrmError):
    """An object with a version field was changed by somebody else since it was read; nothing was written."""


class TransactionError(OrmError):
    """A transaction cannot be used like this: by another task, after its end, with what its database does not offer."""


class TransactionTimeout(TransactionError, TimeoutError):
    """A block took longer than the `timeout` that it was given, and was rolled back."""


class CommitUncertain(TransactionError):
    """The connection was lost while a transaction was committed: whether it was, is not known."""

    def __init__(self, message: str, mark: Mark | None = None) -> None:
        super().__init__(message)
        self._mark = mark

    async def resolve(self, timeout: float = 30.0) -> bool:
        """Find out whether it was committed, where the block was opened with `confirm=True`.

        Args:
            timeout: seconds for the server to be there again, and to know.

        Raises:
            TransactionError: it cannot be found out: the block was opened without `confirm=True`, or the server does
                not know yet, or not any more.
            DatabaseError: the server cannot be asked.
        """
        if self._mark is None:
            raise TransactionError(
                "whether it was committed cannot be found out; a block that is opened with confirm=True tells by "
                "resolve() what became of it"
            )
        return await self._mark.resolve(timeout)


class CommitHookFailed(TransactionError):
    """A transaction was committed, and a function that was to be called afterwards failed.

    Attributes:
        errors: what the functions raised, in the order in which they were called.
    """

    def __init__(self, message: str, errors: Sequence[Exception] = ()) -> None:
        super().__init__(message)
        self.errors = list(errors)


class CommitIncomplete(TransactionError):
    """A distributed transaction is committed, and participants are still to be told so, which recovery does. To try it
    again would do it twice.

    Attributes:
        pending: the aliases of those that are still to be told.
    """

    def __init__(self, message: str, pending: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.pending = tuple(pending)


class HeuristicOutcome(TransactionError):
    """Somebody ended prepared parts of a distributed transaction by hand, otherwise than was decided: its databases do
    not agree.

    Attributes:
        participants: the aliases of those that did otherwise.
    """

    def __init__(self, message: str, participants: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.participants = tuple(participants)


class ValidationError(OrmError):
    """Values that a model does not take.

    Attributes:
        errors: what is wrong with them, by field name; what concerns no single field has the empty name.
    """

    def __init__(self, errors: Mapping[str, Sequence[str]], model: str = "") -> None:
        self.errors = {field: list(messages) for field, messages in errors.items()}
        self.model = model
        told = "; ".join(
            f"{field}: {message}" if field else message
            for field, messages in self.errors.items()
            for message in messages
        )
        super().__init__(f"{model}: {told}" if model else told)


class PoolTimeout(OrmError, TimeoutError):
    """No connection became free in time. The message names who holds them: task, age, last statement."""


class PoolClosed(OrmError):
    """The pool was closed, or is about to be."""


class DatabaseError(OrmError):
    """The server, or the connection to it, refused.

    Attributes:
        code: the server's: an SQLSTATE (PostgreSQL), an error number (MySQL, MariaDB), a name such as
            `SQLITE_CONSTRAINT_UNIQUE` (SQLite); empty when there is none.
        statement: the SQL that was refused, without its parameters; empty when there was none.
    """

    def __init__(self, message: str, *, code: str = "", statement: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.statement = statement


class ProgrammingError(DatabaseError):
    """The statement itself is wrong: its syntax, or a table, column or function that is not there."""


class DataError(DatabaseError, ValueError):
    """A value does not fit: out of its column's range, too long, not of its type, not of the database's encoding."""


class DatabaseUnavailable(DatabaseError):
    """No connection could be made: refused, unknown host, wrong password, too many, starting up or shutting down."""


class ConnectionLost(DatabaseError):
    """The connection broke while it was used.

    Attributes:
        sent: whether the statement may have reached the server; where it is False, it can be sent again.
    """

    def __init__(self, message: str, *, code: str = "", statement: str = "", sent: bool = True) -> None:
        super().__init__(message, code=code, statement=statement)
        self.sent = sent


class StatementTimeout(DatabaseError, TimeoutError):
    """The server ended a statement that took longer than `statement_timeout`, or somebody cancelled it."""


class LockTimeout(DatabaseError, TimeoutError):
    """A lock was not to be had: in time, or at once with `nowait`."""


class SerializationFailure(DatabaseError):
    """The transaction conflicts with another one and was rolled back; it can be tried again from its beginning."""


class DeadlockDetected(SerializationFailure):
    """Transactions wait for each other, and the server chose this one to end.

    Attributes:
        participants: who waited for whom, as far as the server tells: `DeadlockParticipant`, this transaction first.
            What others ran may hold values of rows, which is why no message shows it.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        statement: str = "",
        participants: Sequence[DeadlockParticipant] = (),
    ) -> None:
        super().__init__(message, code=code, statement=statement)
        self.participants = tuple(participants)

    @property
    def locks(self) -> tuple[str, ...]:
        """The locks that they waited for, in the words of the server, each once."""
        return tuple(dict.fromkeys(one.waits_for for one in self.participants if one.waits_for))


class ReadOnlyDatabase(DatabaseError):
    """A write reached a server or a transaction that only reads, such as a primary that was demoted."""


class IntegrityError(DatabaseError):
    """A constraint would be violated.

    Attributes:
        table: the table, where the server tells it.
        constraint: the name of the constraint, where the server tells it.
        columns: the columns, where they are known.
        fields: the fields of the model that the columns belong to, where it is known.
        details: the server's own words on it, which may hold values of the row.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        statement: str = "",
        table: str = "",
        constraint: str = "",
        columns: Sequence[str] = (),
        details: Any = "",
    ) -> None:
        super().__init__(message, code=code, statement=statement)
        self.table = table
        self.constraint = constraint
        self.columns = tuple(columns)
        self.fields: tuple[str, ...] = ()
        self.details = details


class UniqueViolation(IntegrityError):
    """Another row has these values already."""


class ForeignKeyViolation(IntegrityError):
    """A row refers to one that is not there, or one that others refer to would go."""


class NotNullViolation(IntegrityError):
    """A column that must have a value got none."""


class CheckViolation(IntegrityError):
    """A check constraint does not hold."""


class ExclusionViolation(IntegrityError):
    """An exclusion constraint does not hold (PostgreSQL)."""
