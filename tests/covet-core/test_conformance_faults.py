"""Cancelling a call at every place where it waits: each way does what it says, and finds all places."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from covet.testing.conformance.faults import WAYS, Way, at_every_await

pytestmark = pytest.mark.anyio
ASYNCIO = pytest.param("asyncio", id="asyncio")


async def nothing() -> None:
    pass


def resolved_soon() -> asyncio.Future[str]:
    """What happens a little later."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()

    def resolve() -> None:
        if not future.done():
            future.set_result("done")

    loop.call_later(0.01, resolve)
    return future


async def test_a_scope_cancels_again_and_again() -> None:
    """Under trio as well."""
    seen: list[str] = []

    async def call() -> None:
        for step in "ab":
            try:
                await anyio.lowlevel.checkpoint()
                seen.append(step)
            finally:
                with anyio.move_on_after(1):
                    await anyio.lowlevel.checkpoint()
                    seen.append(step.upper())

    async def check() -> None:
        seen.append("|")

    places = await at_every_await(call, check)
    told = "".join(seen).split("|")
    assert len(told) == places + 2
    assert told[0] == ""
    assert told[places] == "aAbB"


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_the_ways_of_asyncio_need_it() -> None:
    for way in WAYS[1:]:
        with pytest.raises(RuntimeError):
            await at_every_await(nothing, nothing, way=way)


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
@pytest.mark.parametrize("way", WAYS)
async def test_every_place_once_and_the_last_time_undisturbed(way: Way) -> None:
    reached: list[int] = []

    async def call() -> None:
        reached.append(0)
        for _ in range(3):
            await asyncio.sleep(0)
            reached[-1] += 1
        await resolved_soon()
        reached[-1] += 1

    assert await at_every_await(call, nothing, way=way) == 4
    assert reached == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
@pytest.mark.parametrize(("way", "told"), [("scope", 3), ("task", 1), ("twice", 2), ("late", 1), ("timeout", 1)])
async def test_how_often_it_is_told(way: Way, told: int) -> None:
    """What the call awaits after the first time is cancelled or not, as the way says."""
    counts: list[int] = []

    async def call() -> None:
        counts.append(0)
        caught: asyncio.CancelledError | None = None
        for _ in range(3):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                counts[-1] += 1
                caught = error
        if caught is not None:
            raise caught

    assert await at_every_await(call, nothing, way=way) == 3
    assert counts == [min(told, 3), min(told, 2), 1, 0]


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_late_is_after_what_it_waited_for() -> None:
    futures: list[asyncio.Future[str]] = []

    async def call() -> None:
        futures.append(resolved_soon())
        await futures[-1]

    ways: dict[Way, bool] = {"late": True, "task": False}
    for way, there in ways.items():
        futures.clear()
        assert await at_every_await(call, nothing, way=way) == 1
        assert futures[0].cancelled() is not there
        assert futures[1].result() == "done"


async def swallow(error: Callable[[], Exception] | None = None) -> None:
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if error is not None:
            raise error() from None


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
@pytest.mark.parametrize("way", WAYS[1:])
async def test_what_does_not_pass_on_its_cancellation_is_found(way: Way) -> None:
    with pytest.raises(AssertionError, match="ended as if it had not been"):
        await at_every_await(swallow, nothing, way=way)


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [LookupError, TimeoutError])
async def test_what_it_raises_is_raised(way: Way, error: type[Exception]) -> None:
    with pytest.raises(error):
        await at_every_await(lambda: swallow(error), nothing, way=way)

    async def fail() -> None:
        raise error

    with pytest.raises(error):
        await at_every_await(fail, nothing, way=way)


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
async def test_cancelled_by_itself_it_is_told() -> None:
    async def call() -> None:
        raise asyncio.CancelledError

    with pytest.raises(AssertionError, match="nobody had cancelled it"):
        await at_every_await(call, nothing, way="task")


@pytest.mark.parametrize("anyio_backend", [ASYNCIO])
@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_it_cancels_the_call(way: Way) -> None:
    ended = asyncio.Event()

    async def call() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    async def stuck() -> None:
        await asyncio.sleep(3600)

    with anyio.fail_after(10):
        # Its first place is struck by all but `late`, which never is for what never happens; then it is in `check`.
        with anyio.move_on_after(0.05) as scope:
            await at_every_await(call, stuck, way=way)
        assert scope.cancelled_caught
        await ended.wait()
