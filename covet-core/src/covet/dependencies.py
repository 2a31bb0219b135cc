"""Dependencies that clean up after themselves: generators, entered in order, left last-in first-out.

A generator's part before `yield` makes the value, the part after it cleans up. An error of the request is thrown into
it at the `yield`, so that it can roll back. It may raise another error instead; if it ends without raising, the error
counts all the same: a clean-up cannot make a failed request succeed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Any

from anyio import CancelScope, to_thread

from covet.exceptions import HandlerError

__all__ = ["ThreadGenerator", "enter", "leave"]


class ThreadGenerator:
    """A plain generator driven in worker threads, with the methods of an asynchronous one that `leave` uses."""

    def __init__(self, generator: Generator[Any, None, None]) -> None:
        self._generator = generator
        self._entered = False

    async def __anext__(self) -> Any:
        """Run it to its next `yield`. Cancellation waits for that; it never keeps the clean-up from running."""
        if self._entered:
            with CancelScope(shield=True):
                return await to_thread.run_sync(self._advance, self._generator.__next__)
        value = await to_thread.run_sync(self._advance, self._generator.__next__)
        self._entered = True
        return value

    async def athrow(self, error: BaseException) -> Any:
        """Raise `error` at its `yield`, also while the request is cancelled: it has to be rolled back then, too."""
        # A worker thread cannot be started while cancelled.
        with CancelScope(shield=True):
            return await to_thread.run_sync(self._advance, partial(self._generator.throw, error))

    async def aclose(self) -> None:
        """Close it, also while the request is cancelled."""
        with CancelScope(shield=True):
            await to_thread.run_sync(self._generator.close)

    @staticmethod
    def _advance(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except StopIteration:
            # StopIteration cannot leave a coroutine.
            raise StopAsyncIteration from None


Exits = list[AsyncGenerator[Any, None] | ThreadGenerator]


async def enter(exits: Exits, generator: AsyncGenerator[Any, None] | ThreadGenerator) -> Any:
    """Run a dependency up to its `yield`, note it in `exits` for `leave`, and return what it yielded.

    Raises:
        HandlerError: it ended without yielding.
    """
    try:
        value = await generator.__anext__()
    except StopAsyncIteration:
        raise HandlerError(f"the dependency {_name(generator)} ended without yielding a value") from None
    exits.append(generator)
    return value


async def leave(exits: Exits, error: BaseException | None = None) -> None:
    """Clean up the dependencies in `exits`, last in first out, each told of `error` if there is one.

    Raises:
        BaseException: `error`, or what a clean-up raised in its place. All of them are run before.
    """
    while exits:
        generator = exits.pop()
        try:
            if error is None:
                await generator.__anext__()
            else:
                await generator.athrow(error)
        except StopAsyncIteration:
            continue
        except BaseException as raised:  # noqa: BLE001 - raised when all are cleaned up
            error = raised
        else:
            error = HandlerError(f"the dependency {_name(generator)} yielded more than once")
            try:
                await generator.aclose()
            except BaseException as raised:  # noqa: BLE001 - raised when all are cleaned up
                # It yields once more, or fails; those before it are to be cleaned up all the same.
                raised.__context__ = error
                error = raised
    if error is not None:
        raise error


def _name(generator: Any) -> str:
    inner = getattr(generator, "_generator", generator)
    return getattr(inner, "__qualname__", repr(inner))
