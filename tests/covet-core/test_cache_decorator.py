"""`cached` on functions: their keys, their values, and what cannot be."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import anyio
import pytest

from covet import ConfigurationError, Covet, RouteError
from covet.cache import CacheKeyError, CacheManager, CacheValueError, MemoryCache, cached
from covet.testing import plugin_sandbox

pytestmark = pytest.mark.anyio

cache = CacheManager(backend=MemoryCache(), namespace="decorated")
calls: list[Any] = []


class Colour(Enum):
    RED = 1


@dataclass
class Article:
    title: str
    colours: tuple[Colour, ...]


@cached(60, cache=cache)
async def add(left: int, right: int = 2, *, more: int = 0) -> int:
    """Adds."""
    calls.append((left, right, more))
    return left + right + more


@cached(60, cache=cache)
def plain(value: Any) -> Any:
    calls.append(threading.get_ident())
    return value


@cached(60, cache=cache)
async def articles(count: int) -> list[Article] | None:
    calls.append(count)
    return [Article("a", (Colour.RED,))] * count


@cached(60, cache=cache)
async def spread(*args: Any, **kwargs: Any) -> str:
    calls.append((args, kwargs))
    return repr((args, kwargs))


@pytest.fixture(autouse=True)
async def _fresh() -> None:
    await cache.clear()
    calls.clear()


async def test_what_a_function_returns_is_kept_by_its_arguments() -> None:
    assert await add(1) == 3
    assert await add(1, 2) == await add(left=1, right=2) == await add(1, more=0) == 3
    assert calls == [(1, 2, 0)]
    assert await add(1, 3) == 4
    assert await add(1, more=5) == 8
    assert len(calls) == 3
    assert add.__name__ == "add"
    assert add.__doc__ == "Adds."


async def test_arguments_of_different_types_are_different() -> None:
    for value in (1, 1.0, True, "1", b"1", None, (1,), [1], {"a": 1}, {1}, Colour.RED, Article("a", ())):
        await spread(value)
    assert len(calls) == 12
    assert await spread("a", "b") != await spread("ab")
    assert await spread(a=1) != await spread(1)
    assert await spread(("a",), "b") != await spread(("a", "b"))


async def test_one_that_is_kept_can_be_forgotten() -> None:
    await add(1)
    assert await add.forget(left=1) is True
    assert await add.forget(1) is False
    await add(1)
    assert len(calls) == 2
    assert await cache.get(add.key_for(1, 2)) == 3


async def test_a_plain_function_runs_in_a_worker_thread() -> None:
    assert await plain("a") == await plain("a") == "a"
    assert len(calls) == 1
    assert calls[0] != threading.get_ident()


async def test_calls_at_the_same_time_compute_once() -> None:
    @cached(60, cache=cache, name="slow")
    async def slow() -> None:
        calls.append(1)
        await anyio.sleep(0.05)

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(slow)
    assert len(calls) == 1


async def test_the_return_annotation_says_the_type_where_values_need_it() -> None:
    made = await articles(2)
    found = await articles(2)
    assert made == found == [Article("a", (Colour.RED,))] * 2
    assert len(calls) == 1
    # Where they do not, they are what they were: here the annotation says less.
    assert await plain((1, {2})) == await plain((1, {2})) == (1, {2})


async def test_a_result_that_cannot_be_kept_is_an_error() -> None:
    with pytest.raises(CacheValueError, match="a object cannot be kept"):
        await cached(60, cache=cache)(nothing_to_keep)()


async def nothing_to_keep() -> object:
    return object()


async def test_arguments_that_make_no_key_are_named() -> None:
    with pytest.raises(CacheKeyError, match=r"argument 'value' of .*plain: a builtins.object makes no key.*key="):
        await plain(object())
    with pytest.raises(TypeError, match="missing a required argument"):
        await add()  # type: ignore[call-arg]


def counting(step: int) -> Callable[..., Any]:
    @cached(60, cache=cache)
    async def count(value: int) -> int:
        return value + step

    return count


async def test_a_function_that_remembers_variables_needs_a_name() -> None:
    with pytest.raises(CacheKeyError, match=r"counting.<locals>.count remembers variables.*name="):
        await counting(1)(1)
    with pytest.raises(CacheKeyError, match="name="):
        await cached(60, cache=cache)(lambda: 1)()

    def named(step: int) -> Callable[..., Any]:
        async def count(value: int) -> int:
            return value + step

        return cached(60, cache=cache, name=f"count by {step}")(count)

    assert [await named(step)(1) for step in (1, 2, 1)] == [2, 3, 2]


async def test_keys_and_tags_of_ones_own() -> None:
    @cached(60, cache=cache, key=lambda user, page: f"page {page}", tags=lambda user, page: [f"user {user}"])
    async def show(user: object, page: int) -> int:
        calls.append(page)
        return page

    await show("a", 1)
    await show("b", 1)
    assert calls == [1]
    assert await cache.get("page 1") == 1
    await cache.invalidate("user b")
    await show("a", 1)
    assert calls == [1]
    await cache.invalidate("user a")
    await show("a", 1)
    assert calls == [1, 1]


async def test_the_cache_of_an_alias() -> None:
    @cached(60, cache="pages")
    async def number() -> int:
        calls.append(1)
        return len(calls)

    app = plugin_sandbox("cache", settings={"cache": {"pages": {}}})
    async with app.running():
        assert await number() == await number() == 1
        assert await CacheManager("pages").get(number.key_for()) == 1


async def test_what_cannot_be_cached() -> None:
    with pytest.raises(ConfigurationError, match=r"`@cached\(\)`"):
        cached(add)  # type: ignore[arg-type]

    async def stream() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="is a generator"):
        cached(60)(stream)


async def test_nothing_may_stand_between_it_and_the_route() -> None:
    from functools import wraps

    def checked(function: Any) -> Any:
        @wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            raise PermissionError

        return call

    app = Covet(installed_plugins=False)
    with pytest.raises(RouteError, match=r"cached.*change their order"):

        @app.get("/")
        @checked
        @cached(60)
        async def secret() -> str:
            return "secret"
