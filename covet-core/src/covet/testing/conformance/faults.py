"""Cancelling a call at every place where it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from itertools import count
from typing import Any, Literal, TypeAlias, get_args

from anyio import CancelScope

__all__ = ["WAYS", "Way", "at_every_await"]

Way: TypeAlias = Literal["scope", "task", "twice", "late", "timeout"]
"""How a call is cancelled; all but the first are ways of asyncio alone.

- `scope`: by a cancel scope of anyio, which cancels again wherever the call waits from then on.
- `task`: by `asyncio.Task.cancel`, once: what the call awaits afterwards, to clean up, is left alone.
- `twice`: by the same, and again at the next place.
- `late`: by the same, once, when what the call waited for has happened, and before the call hears of it.
- `timeout`: by `asyncio.timeout`, as if its time were over.
"""
WAYS: tuple[Way, ...] = get_args(Way)
"""All of them."""


class _Counted:
    """Awaits a call; `strike` is called with the number of each place where it waits, and with what it waits for."""

    def __init__(self, awaitable: Awaitable[Any], strike: Callable[[int, Any], None]) -> None:
        self.awaitable = awaitable
        self.strike = strike

    def __await__(self) -> Generator[Any, Any, Any]:
        steps: Any = self.awaitable.__await__()
        step: Callable[[], Any] = partial(steps.send, None)
        for number in count():
            try:
                trap = step()
            except StopIteration as done:
                return done.value
            self.strike(number, trap)
            try:
                sent = yield trap
            except BaseException as error:  # noqa: BLE001 - it goes where it belongs: into the call
                step = partial(steps.throw, error)
            else:
                step = partial(steps.send, sent)
        raise AssertionError("unreachable: there are always more numbers")


async def at_every_await(
    call: Callable[[], Awaitable[object]], check: Callable[[], Awaitable[object]], *, way: Way = "scope"
) -> int:
    """Make a call again and again, cancelled where it waits first, second, and so on; `check` runs after each.

    What the call raises beside the cancellation is raised here. Cancelled, this cancels the call.

    Args:
        call: makes the call; each time from the same beginning, as far as that matters.
        check: raises when what the call left is not right.
        way: how it is cancelled. By those of `task`, it runs in a task of its own.

    Returns:
        How many places there are where it can be cancelled.

    Raises:
        AssertionError: the call was cancelled by a way of asyncio, which tells it once, and ended as if it had not
            been.
        RuntimeError: it is a way of asyncio, and that does not run.
    """
    cancelled = _RUNS[way]
    for number in count():
        struck = await cancelled(call, number)
        await check()
        if not struck:
            return number
    raise AssertionError("unreachable: there are always more numbers")


async def _by_scope(call: Callable[[], Awaitable[object]], at: int) -> bool:
    with CancelScope() as scope:

        def strike(number: int, trap: object) -> None:
            if number == at:
                scope.cancel()

        await _Counted(call(), strike)
    return scope.cancel_called


async def _by_task(call: Callable[[], Awaitable[object]], at: int, *, times: int = 1, late: bool = False) -> bool:
    struck = False

    def strike(number: int, trap: Any) -> None:
        nonlocal struck
        if not at <= number < at + times:
            return
        struck = True
        if late and trap is not None:
            # Before the task has the chance to ask for the same, so that this is called first.
            trap.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()

    async def run() -> None:
        await _Counted(call(), strike)

    task = asyncio.get_running_loop().create_task(run())
    try:
        await asyncio.wait([task])
    finally:
        task.cancel()
    if not task.cancelled():
        task.result()
        _check_told(struck, at)
    elif not struck:
        raise AssertionError("the call ended as if it had been cancelled, and nobody had cancelled it")
    return struck


async def _by_timeout(call: Callable[[], Awaitable[object]], at: int) -> bool:
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)
    passed_on = False

    def strike(number: int, trap: object) -> None:
        if number == at:
            limit.reschedule(loop.time())

    try:
        async with limit:
            try:
                await _Counted(call(), strike)
            except asyncio.CancelledError:
                passed_on = True
                raise
    except TimeoutError:
        # The call may raise one of its own.
        if not passed_on or not limit.expired():
            raise
        return True
    _check_told(limit.expired(), at)
    return False


def _check_told(struck: bool, at: int) -> None:
    if struck:
        raise AssertionError(f"the call was cancelled at place {at}, counted from 0, and ended as if it had not been")


_RUNS: dict[Way, Callable[[Callable[[], Awaitable[object]], int], Awaitable[bool]]] = {
    "scope": _by_scope,
    "task": _by_task,
    "twice": partial(_by_task, times=2),
    "late": partial(_by_task, late=True),
    "timeout": _by_timeout,
}
