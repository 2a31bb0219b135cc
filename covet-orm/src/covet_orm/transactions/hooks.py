"""What is called when a transaction commits or is rolled back, and before it commits."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from covet_orm.exceptions import CommitHookFailed, TransactionError

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["Hook", "Hooks", "Interceptor", "Moment", "call_committed", "call_hook", "call_rolled_back", "interceptors"]

logger = logging.getLogger("covet_orm.transactions")

Moment = Literal["pre_commit", "on_commit", "on_rollback"]
"""When a hook is called."""


class Hook(NamedTuple):
    """A function to be called.

    Attributes:
        function: takes nothing; what it returns is awaited if it can be.
        robust: whether its failure is logged, and nothing else.
    """

    function: Callable[[], object | Awaitable[object]]
    robust: bool = False


Interceptor = Callable[["Database", Hook], Hook]
"""Is asked, when an `on_commit` hook is registered, which one is to be called in its place."""

interceptors: list[Interceptor] = []
"""Those that there are now, the last one asked first: see `covet_orm.testing.capture_on_commit`."""


class Hooks:
    """The hooks of a block, each kind in the order in which they were registered."""

    __slots__ = ("on_commit", "on_rollback", "pre_commit")

    def __init__(self) -> None:
        self.pre_commit: list[Hook] = []
        self.on_commit: list[Hook] = []
        self.on_rollback: list[Hook] = []

    def add(self, moment: Moment, hook: Hook, database: Database) -> None:
        """Register a hook of a block in a database.

        Raises:
            TransactionError: it cannot be called.
        """
        if not callable(hook.function):
            raise TransactionError(f"{moment}({hook.function!r}): that cannot be called; it is to be a function")
        if interceptors and moment == "on_commit":
            for intercept in reversed(interceptors):
                hook = intercept(database, hook)
        getattr(self, moment).append(hook)

    def join(self, inner: Hooks) -> None:
        """Take over those of an inner block, which may yet be rolled back with this one."""
        self.pre_commit += inner.pre_commit
        self.on_commit += inner.on_commit
        self.on_rollback += inner.on_rollback


async def call_hook(hook: Hook) -> None:
    """Call a hook, and await what it gives."""
    try:
        found: Any = hook.function()
        if inspect.isawaitable(found):
            await found
    except Exception:
        if not hook.robust:
            raise
        logger.exception("a hook of a transaction failed: %r", hook.function)


async def call_committed(hooks: Sequence[Hook]) -> None:
    """Call the hooks of a transaction that was committed, all of them, whatever one of them raises.

    Raises:
        CommitHookFailed: some failed that are not robust; the transaction stays committed.
    """
    failed: list[tuple[Hook, Exception]] = []
    for hook in hooks:
        try:
            await call_hook(hook)
        except Exception as error:  # noqa: BLE001 - told below, when the others have had their turn
            failed.append((hook, error))
    if failed:
        told = "; ".join(f"{hook.function!r}: {type(error).__name__}: {error}" for hook, error in failed)
        raise CommitHookFailed(
            f"the transaction was committed, and stays so, but {len(failed)} of the {len(hooks)} functions that "
            f"on_commit() named failed: {told}",
            [error for _, error in failed],
        ) from failed[0][1]


async def call_rolled_back(hooks: Sequence[Hook]) -> None:
    """Call the hooks of a transaction that was rolled back. What one of them raises is logged, for the caller is about
    to raise what led to the rollback."""
    for hook in hooks:
        await call_hook(hook._replace(robust=True))
