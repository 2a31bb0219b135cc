"""Calling hooks.

pluggy registers and checks the implementations; how they are called is here. A composition hook is called once, while
an application is built, and each value is kept with the plugin it came from. A hook of the request path is compiled
into one callable that knows its implementations, or into None where there are none, so that it costs nothing then.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from inspect import Parameter, iscoroutinefunction, isroutine, signature
from typing import Any, NamedTuple, TypeVar, overload

import pluggy

from covet.exceptions import ClientDisconnected, CovetError, PluginError

__all__ = ["Contribution", "call", "compile_async", "compile_event", "hookimpl", "hookspec", "in_call_order"]

F = TypeVar("F", bound=Callable[..., Any])

hookspec = pluggy.HookspecMarker("covet")
"""Marks a function as the specification of a hook."""

logger = logging.getLogger("covet.hooks")


@overload
def hookimpl(function: F) -> F: ...


@overload
def hookimpl(
    *,
    tryfirst: bool = False,
    trylast: bool = False,
    wrapper: bool = False,
    optionalhook: bool = False,
    specname: str | None = None,
) -> Callable[[F], F]: ...


def hookimpl(
    function: F | None = None,
    *,
    tryfirst: bool = False,
    trylast: bool = False,
    wrapper: bool = False,
    optionalhook: bool = False,
    specname: str | None = None,
) -> F | Callable[[F], F]:
    """Mark a function, or anything that can be called, as the implementation of the hook of its name.

    Args:
        function: what implements the hook.
        tryfirst, trylast: call it before, or behind, those of the other plugins.
        wrapper: it is a generator around all implementations of a composition hook: it yields once, is given the
            contributions there, and may return others in their place.
        optionalhook: there may be no such hook, because the plugin that brings it need not be installed.
        specname: the hook's name, when it is not the function's.
    """

    options = pluggy.HookimplMarker("covet")(
        tryfirst=tryfirst, trylast=trylast, wrapper=wrapper, optionalhook=optionalhook, specname=specname
    )

    def mark(implementation: F) -> F:
        # pluggy takes functions alone.
        given: Any = implementation
        if isroutine(given):
            options(given)
            return implementation
        # Up to 1.6, pluggy looks at the function in a class, and at what is around it in a module.
        static: Any = staticmethod(options(_as_function(given)))
        marked: F = options(static)
        return marked

    return mark if function is None else mark(function)


def _as_function(callable_: Any) -> Any:
    """A callable object or `functools.partial` as a function of the same parameters.

    It is written out, for pluggy reads the names of parameters from a function's code. Those with a default are left
    out, as hooks never give them.
    """
    required = [parameter for parameter in signature(callable_).parameters.values() if _is_required(parameter)]
    by_name = [parameter.name for parameter in required if parameter.kind is Parameter.KEYWORD_ONLY]
    by_position = [parameter.name for parameter in required if parameter.name not in by_name]
    taken = ", ".join([*by_position, *(["*"] if by_name else []), *by_name])
    passed = ", ".join([*by_position, *(f"{name}={name}" for name in by_name)])
    space: dict[str, Any] = {"_marked_callable": callable_}
    if _gives_coroutine(callable_):
        exec(f"async def implementation({taken}): return await _marked_callable({passed})", space)
    else:
        exec(f"def implementation({taken}): return _marked_callable({passed})", space)
    return space["implementation"]


def _is_required(parameter: Parameter) -> bool:
    named = parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return named and parameter.default is Parameter.empty


def _gives_coroutine(function: Any) -> bool:
    """Whether calling it gives a coroutine: an `async def`, a partial of one, or an object with such a `__call__`."""
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)


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


# Composition


def call(
    caller: pluggy.HookCaller, given: Mapping[str, Any], called: Callable[[str], str] = repr
) -> list[Contribution]:
    """Call a composition hook: what each plugin returned, in plugin order, without those that returned None.

    What a plugin contributes is copied at once, iterables into tuples and mappings into dicts, so that nobody can
    change it later. A hook whose specification says `firstresult` ends with the first contribution. Wrappers stand
    around all of it, as pluggy's do; they are given the contributions and may return others, but drop no plugin's.

    Args:
        given: the hook's arguments.
        called: how a plugin is named in a message.

    Raises:
        PluginError: an implementation or a wrapper raised, or returned what the hook does not take; the message names
            plugin and hook.
    """
    arguments = _complete(caller, given)
    wrappers: list[tuple[str, Generator[None, Any, Any]]] = []
    outcome: list[Contribution] | Exception
    try:
        for impl in reversed(caller.get_hookimpls()):
            if impl.wrapper:
                wrappers.append((impl.plugin_name, _begun(caller, impl, arguments, called)))
        outcome = _contributions(caller, arguments, called)
    except Exception as error:  # noqa: BLE001 -- the wrappers may handle it, else it is raised below
        outcome = error
    for plugin, generator in reversed(wrappers):
        outcome = _ended(caller, plugin, generator, outcome, called)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _complete(caller: pluggy.HookCaller, given: Mapping[str, Any]) -> dict[str, Any]:
    assert caller.spec is not None
    known = parameters_of(caller)
    declared = signature(caller.spec.function).parameters
    arguments = {name: declared[name].default for name in known if declared[name].default is not Parameter.empty}
    arguments.update(given)
    if arguments.keys() != set(known):
        raise PluginError(
            f"the hook {caller.name} takes {', '.join(known) or 'no argument'}, "
            f"and was called with {', '.join(given) or 'none'}"
        )
    return arguments


def parameters_of(caller: pluggy.HookCaller) -> list[str]:
    """The names of a hook's arguments, those with a default behind the others."""
    assert caller.spec is not None
    # Up to 1.6, pluggy knew of no defaults in a specification.
    return [*caller.spec.argnames, *getattr(caller.spec, "kwargnames", ())]


def _contributions(
    caller: pluggy.HookCaller, arguments: Mapping[str, Any], called: Callable[[str], str]
) -> list[Contribution]:
    assert caller.spec is not None
    only_first = caller.spec.opts.get("firstresult")
    contributions = []
    for impl in in_call_order(caller):
        try:
            value = _frozen(caller, impl.function(*(arguments[name] for name in impl.argnames)))
        except Exception as error:
            raise _failure(impl.plugin_name, caller.name, error, called) from error
        if value is not None:
            contributions.append(Contribution(impl.plugin_name, value))
            if only_first:
                break
    return contributions


def _frozen(caller: pluggy.HookCaller, value: Any) -> Any:
    """A copy of what a plugin contributes, of the kind that the hook's specification says it returns."""
    assert caller.spec is not None
    if hasattr(value, "__await__"):
        if hasattr(value, "close"):
            value.close()
        raise PluginError("it must be a plain `def`, and what it returned is to be awaited")
    wanted = str(caller.spec.function.__annotations__.get("return", ""))
    kind = wanted.partition("[")[0].rpartition(".")[2]
    if value is None or kind not in ("Iterable", "Mapping"):
        return value
    if kind == "Mapping":
        if not isinstance(value, Mapping):
            raise PluginError(f"it returned {value!r}, and a mapping was expected")
        return dict(value)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise PluginError(f"it returned {value!r}, and a list was expected")
    return tuple(value)


def _begun(
    caller: pluggy.HookCaller, impl: pluggy.HookImpl, arguments: Mapping[str, Any], called: Callable[[str], str]
) -> Generator[None, Any, Any]:
    try:
        generator: Any = impl.function(*(arguments[name] for name in impl.argnames))
        next(generator)
    except StopIteration:
        raise PluginError(f"plugin {called(impl.plugin_name)}: its wrapper of {caller.name} did not yield") from None
    except Exception as error:
        raise _failure(impl.plugin_name, caller.name, error, called) from error
    begun: Generator[None, Any, Any] = generator
    return begun


def _ended(
    caller: pluggy.HookCaller,
    plugin: str,
    generator: Generator[None, Any, Any],
    outcome: list[Contribution] | Exception,
    called: Callable[[str], str],
) -> list[Contribution] | Exception:
    """What is left after a wrapper was given the contributions, or the error, of everything inside it."""
    try:
        if isinstance(outcome, Exception):
            generator.throw(outcome)
        else:
            generator.send(tuple(outcome))
    except StopIteration as done:
        if done.value is None:
            # It may handle an error by returning what there is instead, and an error it swallows is still one.
            return outcome
        return _replaced(caller, plugin, outcome, done.value, called)
    except Exception as error:  # noqa: BLE001 -- returned, for the wrappers further out
        return error if error is outcome else _caused(_failure(plugin, caller.name, error, called), error)
    generator.close()
    return PluginError(f"plugin {called(plugin)}: its wrapper of {caller.name} yielded more than once")


def _replaced(
    caller: pluggy.HookCaller,
    plugin: str,
    before: list[Contribution] | Exception,
    after: Any,
    called: Callable[[str], str],
) -> list[Contribution] | Exception:
    whose = f"plugin {called(plugin)}: its wrapper of {caller.name}"
    if not isinstance(after, list | tuple) or not all(isinstance(item, Contribution) for item in after):
        return PluginError(f"{whose} returned {after!r}; it returns a list of Contribution, or None to leave it")
    if not isinstance(before, Exception):
        dropped = {item.plugin for item in before} - {item.plugin for item in after}
        if dropped:
            return PluginError(f"{whose} dropped what {', '.join(map(called, sorted(dropped)))} contributed")
    return list(after)


def _failure(plugin: str, hook: str, error: Exception, called: Callable[[str], str]) -> PluginError:
    told = str(error) if isinstance(error, CovetError) else f"{type(error).__name__}: {error}"
    return PluginError(f"plugin {called(plugin)} failed in {hook}: {told}")


def _caused(error: PluginError, cause: Exception) -> PluginError:
    error.__cause__ = cause
    return error


# The request path and the lifecycle

# A hook that the kernel calls to tell of something: one listener that fails keeps none of the others from hearing it.
TELLING = frozenset({"covet_draining", "covet_request_failed", "covet_request_finished"})


class _Step(NamedTuple):
    """An implementation in a compiled hook."""

    plugin: str
    function: Callable[..., Any]
    is_async: bool


def compile_async(caller: pluggy.HookCaller) -> Callable[..., Awaitable[Any]] | None:
    """One coroutine function for all implementations of an asynchronous hook, or None without any.

    It takes the hook's arguments by position. The first result that is not None ends `covet_request_started` and every
    hook that is specified with `firstresult`; each such result of `covet_response_ready` takes the place of the
    response; other hooks give a list of these results. An error carries a note that names the plugin; those of hooks
    that only tell of something are logged.
    """
    assert caller.spec is not None
    parameters = parameters_of(caller)
    steps = [
        _Step(impl.plugin_name, _with_all(impl, parameters), _gives_coroutine(impl.function))
        for impl in in_call_order(caller)
    ]
    if not steps:
        return None
    if caller.name == "covet_response_ready":
        return _replacing(caller.name, steps)
    if caller.name == "covet_request_started" or caller.spec.opts.get("firstresult"):
        return _first(caller.name, steps)
    if caller.name in TELLING:
        return _telling(caller.name, steps)
    return _each(caller.name, steps)


def _first(hook: str, steps: Sequence[_Step]) -> Callable[..., Awaitable[Any]]:
    async def call_first(*arguments: Any) -> Any:
        plugin = ""
        try:
            for plugin, function, is_async in steps:  # noqa: B007 -- used in the note
                result = function(*arguments)
                # A plain function that was made of an asynchronous one gives what has to be awaited, too.
                if is_async or (result is not None and hasattr(result, "__await__")):
                    result = await result
                if result is not None:
                    return result
        except Exception as error:
            error.add_note(f"raised by the plugin {plugin!r} in {hook}")
            raise
        return None

    return call_first


def _each(hook: str, steps: Sequence[_Step]) -> Callable[..., Awaitable[Any]]:
    async def call_each(*arguments: Any) -> list[Any]:
        results = []
        plugin = ""
        try:
            for plugin, function, is_async in steps:  # noqa: B007 -- used in the note
                result = function(*arguments)
                if is_async or (result is not None and hasattr(result, "__await__")):
                    result = await result
                if result is not None:
                    results.append(result)
        except Exception as error:
            error.add_note(f"raised by the plugin {plugin!r} in {hook}")
            raise
        return results

    return call_each


def _telling(hook: str, steps: Sequence[_Step]) -> Callable[..., Awaitable[Any]]:
    async def tell(*arguments: Any) -> None:
        for plugin, function, is_async in steps:
            try:
                result = function(*arguments)
                if is_async or (result is not None and hasattr(result, "__await__")):
                    await result
            except ClientDisconnected:
                logger.debug("the client left while the plugin %r was in %s", plugin, hook)
            except Exception:
                logger.exception("the plugin %r failed in the hook %s", plugin, hook)

    return tell


def _replacing(hook: str, steps: Sequence[_Step]) -> Callable[..., Awaitable[Any]]:
    async def call_replacing(request: Any, response: Any) -> Any:
        plugin = ""
        try:
            for plugin, function, is_async in steps:  # noqa: B007 -- used in the note
                result = function(request, response)
                if is_async or (result is not None and hasattr(result, "__await__")):
                    result = await result
                if result is not None:
                    response = result
        except Exception as error:
            error.add_note(f"raised by the plugin {plugin!r} in {hook}")
            raise
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
