"""What an implementation of a hook must be, checked when its plugin is loaded; and what to tell of the others."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import Parameter, getattr_static, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import TYPE_CHECKING, Any

from covet.exceptions import PluginError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pluggy

__all__ = ["deprecations", "unmarked", "verify"]

MARK = "covet_impl"


def verify(manager: pluggy.PluginManager, plugin: Any, known: Sequence[str]) -> tuple[str, ...]:
    """Check everything that a registered plugin implements.

    Args:
        known: the names of all hooks.

    Returns:
        The hooks it implements, without their prefix, sorted.

    Raises:
        PluginError: it implements a hook that is none, or in a way in which it would not be called.
    """
    for name in dir(plugin):
        if _is_marked(plugin, name) and manager.parse_hookimpl_opts(plugin, name) is None:
            raise PluginError(f"{name} carries the mark @covet.hookimpl and is nothing that can be called as a hook")
    callers = manager.get_hookcallers(plugin) or []
    found = [(caller, impl) for caller in callers for impl in caller.get_hookimpls() if impl.plugin is plugin]
    names = set()
    for caller, impl in found:
        if caller.spec is None:
            if impl.optionalhook:
                continue
            from covet.settings_schema import nearest

            raise PluginError(f"there is no hook {caller.name!r}{nearest(caller.name, known)}")
        _verify_kind(caller, impl)
        _verify_parameters(caller, impl)
        names.add(caller.name.removeprefix("covet_"))
    return tuple(sorted(names))


def _verify_kind(caller: pluggy.HookCaller, impl: pluggy.HookImpl) -> None:
    """That an implementation is called at all: plain, asynchronous or a wrapper where such is taken."""
    assert caller.spec is not None
    hook, function = caller.name, impl.function
    is_async = iscoroutinefunction(caller.spec.function)
    if impl.hookwrapper:
        raise PluginError(f"{hook}: `hookwrapper` is pluggy's old kind of wrapper; write it with `wrapper=True`")
    if impl.wrapper:
        if is_async:
            raise PluginError(f"{hook} is asynchronous, so it takes no wrapper; use a middleware instead")
        if hook == "covet_event":
            raise PluginError("covet_event takes no wrapper: listeners are told one by one")
        return
    if is_async:
        if isgeneratorfunction(function) or isasyncgenfunction(function):
            raise PluginError(f"{hook} must not `yield`: it is called and awaited, not iterated")
        return
    if hook == "covet_lifespan":
        if iscoroutinefunction(function) or isgeneratorfunction(function) or isasyncgenfunction(function):
            raise PluginError(
                "covet_lifespan must return an asynchronous context manager: mark an asynchronous generator with "
                "@contextlib.asynccontextmanager, below @covet.hookimpl"
            )
        return
    if iscoroutinefunction(function) or isasyncgenfunction(function):
        if hook == "covet_event":
            raise PluginError("covet_event is called as things happen, so it must be a plain `def` that does not wait")
        raise PluginError(
            f"{hook} is called while the application is built, so it must be a plain `def`; "
            "do asynchronous work in covet_lifespan"
        )
    if isgeneratorfunction(function) and caller.spec.function.__annotations__.get("return") in (None, "None"):
        raise PluginError(f"{hook} must not `yield`: it returns nothing, so nobody would iterate it")


def _verify_parameters(caller: pluggy.HookCaller, impl: pluggy.HookImpl) -> None:
    """That it can be called: the hook's arguments are given by position, those it asks for by name."""
    if isinstance(impl.plugin, type) and next(iter(signature(impl.function).parameters), None) == "self":
        raise PluginError(
            f"{caller.name}: the plugin is the class {impl.plugin.__qualname__}, so that there is no `self`; "
            f"let it be an instance, {impl.plugin.__qualname__}()"
        )
    for parameter in signature(impl.function).parameters.values():
        if parameter.kind is Parameter.KEYWORD_ONLY and parameter.default is Parameter.empty:
            raise PluginError(
                f"{caller.name} asks for {parameter.name!r} behind a `*`; a hook's arguments are given by position"
            )


def deprecations(caller: pluggy.HookCaller, plugin: Any) -> Iterator[str]:
    """What a plugin implements and soon should not: hooks and arguments that are marked so in their specification."""
    if caller.spec is None:
        return
    if caller.spec.warn_on_impl is not None:
        yield f"{caller.name}: {caller.spec.warn_on_impl}"
    arguments = caller.spec.warn_on_impl_args or {}
    for impl in caller.get_hookimpls():
        if impl.plugin is plugin:
            yield from (f"{caller.name}({name}): {arguments[name]}" for name in impl.argnames if name in arguments)


def unmarked(plugin: Any, known: Sequence[str]) -> Iterator[str]:
    """The functions of a plugin that are called like hooks and lack the mark, so that nobody calls them."""
    from covet.settings_schema import nearest

    for name in dir(plugin):
        if not (name.startswith("covet_") or name in known) or _is_marked(plugin, name):
            continue
        if not callable(getattr_static(plugin, name, None)):
            continue
        if name in known:
            yield f"{name} lacks the mark @covet.hookimpl, so it is never called"
        else:
            yield f"{name} is no hook{nearest(name, known)}"


def _is_marked(plugin: Any, name: str) -> bool:
    # A property is not run for this.
    found = getattr_static(plugin, name, None)
    return any(isinstance(getattr(holder, MARK, None), dict) for holder in (found, getattr(found, "__func__", None)))
