"""What a transaction can be asked for, and how each database says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple, TypedDict, get_args

from covet.settings_schema import nearest
from covet_orm.exceptions import TransactionError

__all__ = [
    "DEFAULT",
    "ISOLATION_LEVELS",
    "BlockOptions",
    "IsolationLevel",
    "Opening",
    "TransactionOptions",
    "begin_statement",
    "check_inner",
    "opening",
]

IsolationLevel = Literal["read uncommitted", "read committed", "repeatable read", "serializable"]
"""How much a transaction sees of others that run at the same time (ISO SQL, of which each database makes its own)."""

ISOLATION_LEVELS: tuple[IsolationLevel, ...] = get_args(IsolationLevel)
"""From the weakest to the strongest."""

OFFERED: Mapping[str, tuple[IsolationLevel, ...]] = {
    "postgresql": ISOLATION_LEVELS,
    "mysql": ISOLATION_LEVELS,
    "mariadb": ISOLATION_LEVELS,
    "sqlite": ("serializable",),
}
"""What each database offers. PostgreSQL makes `read committed` of `read uncommitted`."""

USUAL: Mapping[str, IsolationLevel] = {
    "postgresql": "read committed",
    "mysql": "repeatable read",
    "mariadb": "repeatable read",
    "sqlite": "serializable",
}
"""What a transaction has that asks for none, unless its server was configured otherwise."""

SNAPSHOT = re.compile(r"[0-9A-Fa-f-]+")


class TransactionOptions(NamedTuple):
    """What a block is asked for. See `transaction_manager.atomic`."""

    savepoint: bool = True
    isolation: IsolationLevel | None = None
    read_only: bool = False
    deferrable: bool = False
    timeout: float | None = None
    statement_timeout: float | None = None
    lock_timeout: float | None = None
    durable: bool = False
    label: str = ""
    snapshot: str | None = None
    confirm: bool = False

    @classmethod
    def of(cls, **given: object) -> TransactionOptions:
        """Checked, as far as no database need be known for it.

        Raises:
            TransactionError: a value is none that there is, or two contradict each other.
        """
        options = cls(**given)  # type: ignore[arg-type]
        if options.isolation is not None:
            options = options._replace(isolation=_level(options.isolation))
        for name in ("timeout", "statement_timeout", "lock_timeout"):
            seconds = getattr(options, name)
            if seconds is not None and (isinstance(seconds, bool) or not 0 < seconds < 10**9):
                raise TransactionError(f"{name}={seconds!r}: a number of seconds, more than 0")
        if options.deferrable and not (options.read_only and options.isolation == "serializable"):
            raise TransactionError(
                "deferrable=True waits for a moment when nothing can conflict, which means something to "
                "isolation='serializable' with read_only=True alone"
            )
        if options.snapshot is not None:
            if not SNAPSHOT.fullmatch(options.snapshot):
                raise TransactionError(f"snapshot={options.snapshot!r} is none that export_snapshot() gave")
            if options.isolation not in ("repeatable read", "serializable"):
                raise TransactionError(
                    "snapshot= needs isolation='repeatable read' (or 'serializable'): a weaker one sees a new snapshot "
                    "at each statement"
                )
        if options.confirm and options.read_only:
            raise TransactionError("confirm=True: what only reads has nothing to be uncertain of")
        if options.durable and not options.savepoint:
            raise TransactionError(
                "durable=True is for an outermost block, and savepoint=False for an inner one: choose one of them"
            )
        return options


class BlockOptions(TypedDict, total=False):
    """The keywords of a block, for type checkers. See `transaction_manager.atomic`."""

    savepoint: bool
    isolation: IsolationLevel | None
    read_only: bool
    deferrable: bool
    timeout: float | None
    statement_timeout: float | None
    lock_timeout: float | None
    durable: bool
    label: str
    snapshot: str | None
    confirm: bool


DEFAULT = TransactionOptions()
"""What a block is asked for that is asked for nothing."""


class Opening(NamedTuple):
    """The statements around a transaction.

    Attributes:
        begin: what begins it, in this order.
        restore: what gives the session its own settings back, before the connection goes to somebody else.
        limits: whether the driver itself ends what takes too long (SQLite, which has no server to do it).
    """

    begin: tuple[str, ...]
    restore: tuple[str, ...] = ()
    limits: bool = False


@lru_cache(maxsize=256)
def opening(kind: str, options: TransactionOptions, *, one_connection: bool = False) -> Opening:
    """How a database begins a transaction with such options.

    Args:
        kind: the database's.
        options: what is asked for.
        one_connection: whether readers and writers share one (SQLite in memory), which is made read-only for a while.

    Raises:
        TransactionError: the database does not offer it; the message names what it does.
    """
    if options.isolation is not None and options.isolation not in OFFERED[kind]:
        raise TransactionError(
            f"isolation={options.isolation!r} is nothing that {kind} offers, which has {_listed(OFFERED[kind])}"
        )
    if kind != "postgresql":
        for name in ("deferrable", "snapshot"):
            if getattr(options, name):
                raise TransactionError(f"{name}= is nothing that {kind} offers; PostgreSQL does")
    if kind == "postgresql":
        return _postgresql(options)
    if kind == "sqlite":
        return _sqlite(options, one_connection=one_connection)
    return _mysql(kind, options)


def begin_statement(kind: str) -> str:
    """What begins a transaction that is asked for nothing."""
    return opening(kind, DEFAULT).begin[0]


def check_inner(kind: str, options: TransactionOptions, outer: TransactionOptions) -> None:
    """Check that a block can be what it is asked to be, within another one.

    Raises:
        TransactionError: it cannot; the message says which option belongs to the outer one.
    """
    if options.durable:
        raise TransactionError(
            "durable=True: this block is to commit when it ends, and there is a transaction around it"
        )
    if options.isolation is not None:
        has = outer.isolation or USUAL[kind]
        if ISOLATION_LEVELS.index(options.isolation) > ISOLATION_LEVELS.index(has):
            raise TransactionError(
                f"isolation={options.isolation!r} is asked of an inner block, and the transaction around it has {has!r}"
                f"{'' if outer.isolation else ', which is usual'}: ask the outermost block for it"
            )
    if options.read_only and not outer.read_only:
        raise TransactionError(
            "read_only=True is asked of an inner block, and the transaction around it writes: ask the outermost one"
        )
    for name in ("deferrable", "snapshot", "confirm", "statement_timeout", "lock_timeout"):
        if getattr(options, name):
            raise TransactionError(f"{name}= is asked of an inner block; it is one of the outermost")


def _level(text: str) -> IsolationLevel:
    told = text.lower().replace("_", " ").replace("-", " ") if isinstance(text, str) else text
    for level in ISOLATION_LEVELS:
        if told == level:
            return level
    raise TransactionError(
        f"isolation={text!r}: there are {_listed(ISOLATION_LEVELS)}{nearest(str(told), ISOLATION_LEVELS)}"
    )


def _listed(levels: tuple[str, ...]) -> str:
    return ", ".join(map(repr, levels))


def _postgresql(options: TransactionOptions) -> Opening:
    """One message: a round trip (https://www.postgresql.org/docs/current/sql-set-transaction.html)."""
    begin = "BEGIN"
    if options.isolation is not None:
        begin += f" ISOLATION LEVEL {options.isolation.upper()}"
    if options.read_only:
        begin += " READ ONLY"
    if options.deferrable:
        begin += " DEFERRABLE"
    parts = [begin]
    if options.snapshot is not None:
        parts.append(f"SET TRANSACTION SNAPSHOT '{options.snapshot}'")
    for name in ("statement_timeout", "lock_timeout"):
        seconds = getattr(options, name)
        if seconds is not None:
            parts.append(f"SET LOCAL {name} = {_milliseconds(seconds)}")
    return Opening(("; ".join(parts),))


def _mysql(kind: str, options: TransactionOptions) -> Opening:
    """`SET TRANSACTION` is of the next transaction alone (https://mariadb.com/kb/en/set-transaction/); of the times,
    nothing is."""
    begin: list[str] = []
    restore: list[str] = []
    if options.isolation is not None:
        begin.append(f"SET TRANSACTION ISOLATION LEVEL {options.isolation.upper()}")
    if options.lock_timeout is not None:
        # Whole seconds.
        seconds = max(1, -int(-options.lock_timeout // 1))
        begin.append(f"SET @covet_lock = @@innodb_lock_wait_timeout, innodb_lock_wait_timeout = {seconds}")
        restore.append("SET innodb_lock_wait_timeout = @covet_lock")
    if options.statement_timeout is not None:
        if kind == "mariadb":
            name, value = "max_statement_time", f"{max(options.statement_timeout, 0.001):.6f}"
        else:
            name, value = "max_execution_time", str(_milliseconds(options.statement_timeout))
        begin.append(f"SET @covet_statement = @@{name}, {name} = {value}")
        restore.append(f"SET {name} = @covet_statement")
    begin.append("START TRANSACTION READ ONLY" if options.read_only else "START TRANSACTION")
    return Opening(tuple(begin), tuple(restore))


def _sqlite(options: TransactionOptions, *, one_connection: bool) -> Opening:
    """The lock is taken at once, so that no later statement finds it taken."""
    limits = options.statement_timeout is not None or options.lock_timeout is not None
    if not options.read_only:
        return Opening(("BEGIN IMMEDIATE",), limits=limits)
    if one_connection:
        return Opening(("PRAGMA query_only = 1", "BEGIN"), ("PRAGMA query_only = 0",), limits)
    return Opening(("BEGIN",), limits=limits)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
