"""Calling hooks.

pluggy registers and checks the implementations; how they are called is here. A composition hook is called once, while
an application is built, and each value is kept with the plugin it came from. A hook of the request path is compiled
into one callable that knows its implementations, or into None where there are none, so that it costs nothing then.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from inspect import iscoroutinefunction
from typing import Any, NamedTuple

import pluggy

from covet.exceptions import CovetError, PluginError

__all__ = ["Contribution", "call", "compile_async", "compile_event", "hookimpl", "hookspec", "in_call_order"]

hookspec = pluggy.HookspecMarker("covet")
"""Marks a function as the specification of a hook."""

hookimpl = pluggy.HookimplMarker("covet")
"""Marks a function as the implementation of a hook; takes pluggy's `tryfirst`, `trylast`, `wrapper`, `specname`."""

logger = logging.getLogger("covet.hooks")


class Contribution(NamedTuple):
    """What a plugin returned from a composition hook."""

    plugin: str
    value: Any


def in_call_order(caller: pluggy.HookCaller) -> list[pluggy.HookImpl]:
    """The implementations of a hook in the order in which they are called, wrappers apart.

    pluggy calls the last registered first, and plugins are registered in reverse order, so this is plugin order with
    `tryfirst` before and `trylast` behind.
    """
    return [impl for impl in reversed(caller.get_hookimpls()) if not (impl.wrapper or impl.hookwrapper)]


def call(caller: pluggy.HookCaller, arguments: dict[str, Any]) -> list[Contribution]:
    """Call a composition hook: what each plugin returned, in plugin order, without those that returned None.

    Wrappers see and may change the list of contributions.

    Raises:
        PluginError: an implementation raised; the message names plugin and hook.
    """
    wrappers = []
    for impl in reversed(caller.get_hookimpls()):
        if impl.wrapper:
            generator = impl.function(*(arguments[name] for name in impl.argnames))
            next(generator)
            wrappers.append((impl, generator))
    contributions = []
    for impl in in_call_order(caller):
        try:
            value = impl.function(*(arguments[name] for name in impl.argnames))
        except CovetError as error:
            raise PluginError(f"plugin {impl.plugin_name!r} failed in {caller.name}: {error}") from error
        except Exception as error:
            raise PluginError(
                f"plugin {impl.plugin_name!r} failed in {caller.name}: {type(error).__name__}: {error}"
            ) from error
        if value is not None:
            contributions.append(Contribution(impl.plugin_name, value))
    for impl, generator in reversed(wrappers):
        try:
            generator.send(contributions)
        except StopIteration as done:
            contributions = contributions if done.value is None else done.value
        else:
            raise PluginError(f"plugin {impl.plugin_name!r}: its wrapper of {caller.name} yielded more than once")
    return contributions


def compile_async(caller: pluggy.HookCaller, parameters: Sequence[str]) -> Callable[..., Awaitable[Any]] | None:
    """One coroutine function for all implementations of an asynchronous hook, or None without any.

    It takes the hook's arguments by position. The first result that is not None ends `covet_request_started`; each
    such result of `covet_response_ready` takes the place of the response; other hooks' results are dropped.
    """
    steps = [
        (_with_all(impl, parameters), iscoroutinefunction(impl.function) or _gives_coroutine(impl.function))
        for impl in in_call_order(caller)
    ]
    if not steps:
        return None
    if caller.name == "covet_response_ready":
        return _replacing(steps)
    if (caller.spec is not None and caller.spec.opts.get("firstresult")) or caller.name == "covet_request_started":
        return _first(steps)
    return _each(steps)


Steps = list[tuple[Callable[..., Any], bool]]


def _first(steps: Steps) -> Callable[..., Awaitable[Any]]:
    async def call_first(*arguments: Any) -> Any:
        for function, is_async in steps:
            result = function(*arguments)
            if is_async:
                result = await result
            if result is not None:
                return result
        return None

    return call_first


def _each(steps: Steps) -> Callable[..., Awaitable[Any]]:
    async def call_each(*arguments: Any) -> None:
        for function, is_async in steps:
            result = function(*arguments)
            if is_async:
                await result

    return call_each


def _replacing(steps: Steps) -> Callable[..., Awaitable[Any]]:
    async def call_replacing(request: Any, response: Any) -> Any:
        for function, is_async in steps:
            result = function(request, response)
            if is_async:
                result = await result
            if result is not None:
                response = result
        return response

    return call_replacing


def compile_event(caller: pluggy.HookCaller) -> Callable[[Any], None] | None:
    """One function that tells all listeners of an event, or None without any. A listener that fails is logged."""
    listeners = [(impl.plugin_name, _with_all(impl, ("event",))) for impl in in_call_order(caller)]
    if not listeners:
        return None

    def emit(event: Any) -> None:
        for plugin, listener in listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("plugin %r failed to handle the event %r", plugin, event)

    return emit


def _with_all(impl: pluggy.HookImpl, parameters: Sequence[str]) -> Callable[..., Any]:
    """The implementation as a function of all the hook's parameters, by position."""
    wanted = tuple(impl.argnames)
    if wanted == tuple(parameters):
        return impl.function
    positions = [parameters.index(name) for name in wanted]
    function = impl.function
    return lambda *arguments: function(*(arguments[position] for position in positions))


def _gives_coroutine(function: Any) -> bool:
    return iscoroutinefunction(getattr(function, "__call__", None)) and not isinstance(function, type)
