"""Cancelling a call at every place where it waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import partial
from itertools import count
from typing import Any

from anyio import CancelScope

__all__ = ["at_every_await"]


class _Counted:
    """Awaits a call, and cancels a scope when it waits for the `number`-th time."""

    def __init__(self, awaitable: Awaitable[Any], scope: CancelScope, number: int) -> None:
        self.awaitable = awaitable
        self.scope = scope
        self.number = number

    def __await__(self) -> Generator[Any, Any, Any]:
        steps: Any = self.awaitable.__await__()
        step: Callable[[], Any] = partial(steps.send, None)
        for number in count():
            try:
                trap = step()
            except StopIteration as done:
                return done.value
            if number == self.number:
                self.scope.cancel()
            try:
                sent = yield trap
            except BaseException as error:  # noqa: BLE001 - it goes where it belongs: into the call
                step = partial(steps.throw, error)
            else:
                step = partial(steps.send, sent)
        raise AssertionError("unreachable: there are always more numbers")


async def at_every_await(call: Callable[[], Awaitable[object]], check: Callable[[], Awaitable[object]]) -> int:
    """Make a call again and again, cancelled where it waits first, second, and so on; `check` runs after each.

    Args:
        call: makes the call; each time from the same beginning, as far as that matters.
        check: raises when what the call left is not right.

    Returns:
        How many places there are where it can be cancelled.
    """
    for number in count():
        with CancelScope() as scope:
            await _Counted(call(), scope, number)
        await check()
        if not scope.cancel_called:
            return number
    raise AssertionError("unreachable: there are always more numbers")
