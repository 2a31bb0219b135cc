"""The functions that wait for a commit, in the hands of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from covet_orm.exceptions import CommitHookFailed
from covet_orm.transactions.context import active
from covet_orm.transactions.hooks import Hook, call_committed, call_hook, interceptors

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["capture_on_commit"]


class _Capture:
    """Takes the hooks that are registered from its beginning to its end.

    Attributes:
        committed: those whose transaction was committed, in the order in which they would have been called.
        calls: whether they are called now, at their commit as ever.
    """

    def __init__(self, aliases: frozenset[str]) -> None:
        self.aliases = aliases
        self.committed: list[Hook] = []
        self.calls = False

    def __call__(self, database: Database, hook: Hook) -> Hook:
        # Of two captures, the inner one has it.
        if isinstance(hook.function, _Captured) or (self.aliases and database.alias not in self.aliases):
            return hook
        return Hook(_Captured(self, hook), hook.robust)

    def take_open(self) -> list[Hook]:
        """Take those out that wait in the blocks around the caller, which it has not left yet."""
        taken: list[Hook] = []
        block, blocks = active.get(), []
        while block is not None:
            blocks.append(block)
            block = block.outer
        # Those of an outer block are called before those that it takes over from an inner one.
        for block in reversed(blocks):
            hooks = block._hooks
            if hooks is None or block.ended:
                continue
            own = [hook for hook in hooks.on_commit if self._has(hook)]
            hooks.on_commit = [hook for hook in hooks.on_commit if not self._has(hook)]
            taken += [hook.function.hook for hook in own if isinstance(hook.function, _Captured)]
        return taken

    def _has(self, hook: Hook) -> bool:
        return isinstance(hook.function, _Captured) and hook.function.capture is self


class _Captured:
    """Stands in a block for a hook that was taken; called, its transaction is committed."""

    def __init__(self, capture: _Capture, hook: Hook) -> None:
        self.capture = capture
        self.hook = hook

    def __repr__(self) -> str:
        return repr(self.hook.function)

    async def __call__(self) -> None:
        self.capture.committed.append(self.hook)
        if self.capture.calls:
            await call_hook(self.hook)


@asynccontextmanager
async def capture_on_commit(*using: str | Database, execute: bool = False) -> AsyncIterator[list[Hook]]:
    """Keep the functions from being called that are registered with `on_commit` within a block, in every task, and give
    them to the test.

        async with capture_on_commit() as hooks:
            await client.post("/orders")
        assert [hook.function.__name__ for hook in hooks] == ["send_mail"]

    The list is filled when the block ends, in the order in which a commit calls them. Those of transactions that were
    rolled back, or of inner blocks that were, are not in it. A transaction that the test itself has open around the
    block counts as committed: so that the hooks can be tested of what it never commits. Nobody else calls them.

    Args:
        using: the databases, or their aliases; all by default.
        execute: whether they are called when the block ends, unless an exception leaves it: one after the other, those
            included that they register themselves. They are in the list as well.

    Raises:
        CommitHookFailed: with `execute`, some failed that are not robust, when all have been called.
    """
    capture = _Capture(frozenset(one if isinstance(one, str) else one.alias for one in using))
    found: list[Hook] = []
    interceptors.append(capture)
    try:
        try:
            yield found
        finally:
            found += [*capture.committed, *capture.take_open()]
            capture.committed.clear()
        if execute:
            await _call(capture, found)
    finally:
        interceptors.remove(capture)


async def _call(capture: _Capture, found: list[Hook]) -> None:
    """Call what was found, and what that registers: with a transaction of its own at its commit, as ever, and without
    one after the others."""
    capture.calls = True
    waiting, failed = list(found), None
    while waiting:
        try:
            await call_committed(waiting)
        except CommitHookFailed as error:
            failed = failed or error
        finally:
            waiting = capture.take_open()
            found += [*capture.committed, *waiting]
            capture.committed.clear()
    if failed is not None:
        raise failed
