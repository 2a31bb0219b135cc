"""Plugins: found through entry points, ordered, loaded one by one, each failure recorded.

Discovery imports nothing. Loading imports what the settings leave enabled, each plugin guarded: one that fails leaves
nothing registered and is recorded with its traceback, so that `covet plugins list` always works. Serving is strict:
`require_usable` refuses to go on with a failed plugin that is not optional.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from covet.exceptions import PluginError

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

    import pluggy

    from covet.hooks import Contribution
    from covet.settings import PluginsSettings

__all__ = ["Finding", "PluginManager", "PluginRecord", "discover_commands"]

GROUP = "covet.plugins"
COMMANDS = "covet.commands"
KERNEL = "covet-core"

PluginState = Literal["builtin", "active", "disabled", "failed", "incompatible"]


class PluginRecord:
    """What is known of a plugin.

    Attributes:
        name: the name of its entry point.
        version, distribution, summary: of the distribution that brings it; empty for an object given in code.
        state: `builtin` (active, of the kernel's own distribution), `active`, `disabled`, `failed` or `incompatible`.
        provides: the hooks it implements, without their prefix, and its commands.
        error: what went wrong, in one line.
        traceback: the traceback of that, for `covet plugins show`.
        import_seconds: how long importing it took; None when it was not imported.
        entry_point: `module:attribute`.
        requires: the requirements of its distribution.
        optional: whether the start goes on without it.
    """

    __slots__ = (
        "distribution", "entry_point", "error", "import_seconds", "name", "optional", "provides", "requires", "state",
        "summary", "traceback", "version",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        *,
        distribution: str = "",
        version: str = "",
        summary: str = "",
        entry_point: str = "",
        requires: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.distribution = distribution
        self.version = version
        self.summary = summary
        self.entry_point = entry_point
        self.requires = requires
        self.state: PluginState = "builtin" if normalized(distribution) == KERNEL else "active"
        self.provides: tuple[str, ...] = ()
        self.error: str | None = None
        self.traceback: str | None = None
        self.import_seconds: float | None = None
        self.optional = False

    @property
    def usable(self) -> bool:
        """Whether it takes part."""
        return self.state in ("builtin", "active")

    @property
    def called(self) -> str:
        """Its name with what brings it, for messages."""
        return f"{self.name!r}" + (f" (of {self.distribution} {self.version})" if self.distribution else "")

    def fail(self, error: BaseException | str, state: PluginState = "failed") -> None:
        """Record a failure."""
        self.state = state
        if isinstance(error, str):
            self.error, self.traceback = error, None
        else:
            self.error = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            self.traceback = "".join(traceback.format_exception(error))

    def __repr__(self) -> str:
        return f"<PluginRecord {self.name} {self.state}>"


class Finding:
    """Something that `covet plugins check` found: a plugin, how serious it is, and what it is."""

    __slots__ = ("message", "plugin", "severity")

    def __init__(self, plugin: str, severity: Literal["error", "warning"], message: str) -> None:
        self.plugin = plugin
        self.severity = severity
        self.message = message

    def __repr__(self) -> str:
        return f"<Finding {self.severity} {self.plugin}: {self.message}>"


class PluginManager:
    """The plugins of one application.

    Args:
        settings: `[plugins]`: what is enabled, disabled and optional.
        names: only these entry points are looked at; None for all.
        extra: further plugins by name: modules or objects, as code gives them to `Covet(plugins=...)`.
        installed: whether entry points are looked at.

    Attributes:
        records: what is known of each plugin, by name, in plugin order once loaded.
    """

    def __init__(
        self,
        settings: PluginsSettings,
        *,
        names: Sequence[str] | None = None,
        extra: Mapping[str, object] | None = None,
        installed: bool = True,
    ) -> None:
        self.settings = settings
        self.records: dict[str, PluginRecord] = {}
        self._names = names
        self._extra = dict(extra or {})
        self._installed = installed
        self._entry_points: dict[str, EntryPoint] = {}
        self._objects: dict[str, Any] = {}
        self._manager: pluggy.PluginManager | None = None

    # Finding

    def discover(self) -> None:
        """Find the plugins without importing any.

        Raises:
            PluginError: `[plugins]` names one that is not installed.
        """
        if self._installed:
            found: dict[str, list[EntryPoint]] = {}
            for entry_point in _entry_points(GROUP):
                found.setdefault(entry_point.name, []).append(entry_point)
            for name in sorted(found):
                if self._names is None or name in self._names:
                    self._add(name, found[name])
        for name in sorted(self._extra):
            self.records[name] = PluginRecord(name, entry_point=_where(self._extra[name]))
        self._choose()

    def _add(self, name: str, found: list[EntryPoint]) -> None:
        first = found[0]
        self.records[name] = record = _record(name, first)
        self._entry_points[name] = first
        if len(found) > 1:
            owners = " and ".join(sorted(getattr(entry.dist, "name", "?") for entry in found))
            record.fail(f"two distributions bring a plugin of this name: {owners}; uninstall one")
        elif name in PLUGINS_KEYS:
            record.fail(f"a plugin cannot be called {name!r}: that is a key of the settings table [plugins]")

    def _choose(self) -> None:
        settings = self.settings
        for key in ("enable", "disable", "optional"):
            for name in getattr(settings, key) or ():
                if name not in self.records and self._names is None and self._installed:
                    from covet.settings_schema import nearest

                    raise PluginError(
                        f"[plugins] {key} names {name!r}, which is not installed{nearest(name, self.records)}"
                    )
        for name, record in self.records.items():
            record.optional = name in settings.optional
            listed = settings.enable is None or name in settings.enable or name in self._extra
            if name in settings.disable or not listed:
                record.state, record.error = "disabled", None

    # Loading

    def load(self) -> None:
        """Find, check, import and register the enabled plugins. Failures are recorded, not raised.

        Raises:
            PluginError: `[plugins]` names a plugin that is not installed, or their order is a cycle.
        """
        if not self.records:
            self.discover()
        import pluggy

        from covet import hookspecs

        self._manager = manager = pluggy.PluginManager("covet")
        manager.add_hookspecs(hookspecs)
        for record in self.records.values():
            if record.usable:
                self._import(record)
        order = self._ordered()
        for name in order:
            self._bring_specifications(self.records[name])
        # pluggy calls the last registered first.
        for name in reversed(order):
            if self.records[name].usable:
                self._register(self.records[name])
        self.records = {
            **{name: self.records[name] for name in order},
            **{name: record for name, record in self.records.items() if name not in order},
        }

    def _import(self, record: PluginRecord) -> None:
        if not self._compatible(record):
            return
        if record.name in self._extra:
            self._objects[record.name] = self._extra[record.name]
            return
        began = perf_counter()
        try:
            self._objects[record.name] = self._entry_points[record.name].load()
        except (Exception, SystemExit) as error:
            record.fail(error)
        record.import_seconds = perf_counter() - began

    def _compatible(self, record: PluginRecord) -> bool:
        """Whether the plugin's distribution accepts this kernel; one that does not is not imported."""
        from covet import __version__

        for requirement in record.requires:
            if normalized(_name_of(requirement)) == KERNEL and not _accepts(requirement, __version__):
                record.fail(f"it requires {requirement.split(';')[0].strip()}, and this is {KERNEL} {__version__}", "incompatible")
                return False
        return True

    def _bring_specifications(self, record: PluginRecord) -> None:
        assert self._manager is not None
        bring = getattr(self._objects.get(record.name), "covet_hookspecs", None)
        if bring is None or not record.usable:
            return
        try:
            for specifications in bring():
                self._manager.add_hookspecs(specifications)
        except Exception as error:
            record.fail(error)

    def _register(self, record: PluginRecord) -> None:
        assert self._manager is not None
        plugin = self._objects[record.name]
        try:
            self._manager.register(plugin, record.name)
            record.provides = self._check_hooks(plugin)
        except Exception as error:
            record.fail(_plainly(error, record))
            if self._manager.has_plugin(record.name):
                self._manager.unregister(name=record.name)

    def _check_hooks(self, plugin: Any) -> tuple[str, ...]:
        from inspect import isasyncgenfunction, iscoroutinefunction

        assert self._manager is not None
        names = []
        for caller in self._manager.get_hookcallers(plugin) or ():
            impl = next(impl for impl in caller.get_hookimpls() if impl.plugin is plugin)
            if caller.spec is None:
                from covet.settings_schema import nearest

                if impl.optionalhook:
                    continue
                raise PluginError(f"there is no hook {caller.name!r}{nearest(caller.name, self.hook_names())}")
            is_async = iscoroutinefunction(caller.spec.function)
            wrapper = impl.wrapper or impl.hookwrapper
            if is_async and wrapper:
                raise PluginError(f"{caller.name} is asynchronous, so it takes no wrapper; use a middleware instead")
            if not is_async and (iscoroutinefunction(impl.function) or isasyncgenfunction(impl.function)):
                raise PluginError(
                    f"{caller.name} is called while the application is built, so it must be a plain `def`; "
                    "do asynchronous work in covet_lifespan"
                )
            names.append(caller.name.removeprefix("covet_"))
        return tuple(sorted(names))

    def _ordered(self) -> list[str]:
        """The loaded plugins, those that others need first, else by name."""
        owners: dict[str, list[str]] = {}
        for name, record in self.records.items():
            if record.distribution:
                owners.setdefault(normalized(record.distribution), []).append(name)
        loaded = [name for name, record in self.records.items() if record.usable and name in self._objects]
        needs: dict[str, set[str]] = {name: set() for name in loaded}
        for name in loaded:
            for requirement in self.records[name].requires:
                needs[name].update(owners.get(normalized(_name_of(requirement)), ()))
            needs[name].update(getattr(self._objects[name], "covet_after", ()))
            for other in getattr(self._objects[name], "covet_before", ()):
                if other in needs:
                    needs[other].add(name)
        for name in loaded:
            needs[name] &= set(loaded) - {name}
        return _topological(needs)

    # Using

    @property
    def manager(self) -> pluggy.PluginManager:
        """pluggy's manager, with everything registered."""
        if self._manager is None:
            raise PluginError("the plugins are not loaded yet")
        return self._manager

    def hook_names(self) -> list[str]:
        """The names of all hooks, those of plugins included."""
        return sorted(
            name for name, caller in vars(self.manager.hook).items() if getattr(caller, "spec", None) is not None
        )

    def call(self, hook: str, **arguments: Any) -> list[Contribution]:
        """Call a composition hook: what each plugin returned, in plugin order.

        Raises:
            PluginError: an implementation raised, or there is no such hook.
        """
        from covet.hooks import call

        return call(self._caller(hook), arguments)

    def compile(self, hook: str) -> Callable[..., Any] | None:
        """One callable for all implementations of an asynchronous hook, awaited with its arguments by position; or None
        where nobody implements it. `covet_event` gives a plain function.

        Raises:
            PluginError: there is no such hook.
        """
        from inspect import iscoroutinefunction

        from covet.hooks import compile_async, compile_event

        caller = self._caller(hook)
        assert caller.spec is not None
        if not iscoroutinefunction(caller.spec.function):
            return compile_event(caller)
        compiled: Callable[..., Awaitable[Any]] | None = compile_async(caller, caller.spec.argnames)
        return compiled

    def _caller(self, hook: str) -> pluggy.HookCaller:
        caller: pluggy.HookCaller | None = getattr(self.manager.hook, hook, None)
        if caller is None or caller.spec is None:
            raise PluginError(f"there is no hook {hook!r}")
        return caller

    def implementers(self, hook: str) -> list[str]:
        """The names of the plugins that implement a hook, in the order in which they are called."""
        from covet.hooks import in_call_order

        return [impl.plugin_name for impl in in_call_order(self._caller(hook))]

    def object(self, name: str) -> Any:
        """The module or object of a loaded plugin."""
        return self._objects[name]

    def fail(self, name: str, error: BaseException | str) -> None:
        """Record that a loaded plugin cannot be used after all, and take back what it registered."""
        self.records[name].fail(error)
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)

    def require_usable(self) -> None:
        """Refuse to go on with a plugin that failed and is not optional.

        Raises:
            PluginError: one message for all of them, with the settings line that helps.
        """
        broken = [r for r in self.records.values() if r.state in ("failed", "incompatible") and not r.optional]
        if broken:
            raise PluginError("\n".join(_refusal(record) for record in broken))

    def check(self) -> list[Finding]:
        """What is wrong with the loaded plugins, or will be."""

        findings = [
            Finding(name, "error", record.error or record.state)
            for name, record in self.records.items()
            if record.state in ("failed", "incompatible")
        ]
        for name, plugin in self._objects.items():
            findings += [Finding(name, "warning", message) for message in self._unmarked(plugin)]
            for caller in self.manager.get_hookcallers(plugin) or ():
                assert caller.spec is not None
                if caller.spec.warn_on_impl is not None:
                    findings.append(Finding(name, "warning", f"{caller.name}: {caller.spec.warn_on_impl}"))
        return findings

    def _unmarked(self, plugin: Any) -> list[str]:
        from covet.settings_schema import nearest

        known = self.hook_names()
        told = []
        for attribute in dir(plugin):
            if attribute.startswith("covet_") and callable(getattr(plugin, attribute, None)):
                marked = hasattr(getattr(plugin, attribute), "covet_impl")
                if attribute in known and not marked:
                    told.append(f"{attribute} lacks the mark @covet.hookimpl, so it is never called")
                elif attribute not in known and not marked:
                    told.append(f"{attribute} is no hook{nearest(attribute, known)}")
        return told


PLUGINS_KEYS = frozenset({"enable", "disable", "optional", "prefer"})


def discover_commands() -> dict[str, list[EntryPoint]]:
    """The commands that plugins bring, by name, without importing any. Several of one name are a collision."""
    found: dict[str, list[EntryPoint]] = {}
    for entry_point in _entry_points(COMMANDS):
        found.setdefault(entry_point.name, []).append(entry_point)
    return found


def normalized(name: str) -> str:
    """A distribution's name as it is compared (PEP 503)."""
    return name.lower().replace("_", "-").replace(".", "-")


def _entry_points(group: str) -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points

    return entry_points(group=group)


def _record(name: str, entry_point: EntryPoint) -> PluginRecord:
    fields = _metadata(entry_point.dist)
    return PluginRecord(
        name,
        distribution=fields.get("name", ("",))[0],
        version=fields.get("version", ("",))[0],
        summary=fields.get("summary", ("",))[0],
        entry_point=entry_point.value,
        requires=tuple(fields.get("requires-dist", ())),
    )


def _metadata(distribution: Distribution | None) -> dict[str, list[str]]:
    """The header fields of a distribution's metadata.

    The format is that of e-mail headers; the standard library's parser for these takes ten times as long as all the
    rest of discovery, and of the four fields that are needed none is ever folded.
    """
    text = (distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "") if distribution else ""
    fields: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if not line:
            break
        name, found, value = line.partition(":")
        if found:
            fields.setdefault(name.lower(), []).append(value.strip())
    return fields


def _name_of(requirement: str) -> str:
    for index, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:index]
    return requirement


_ACCEPTED: dict[tuple[str, str], bool] = {}


def _accepts(requirement: str, version: str) -> bool:
    key = (requirement, version)
    if key not in _ACCEPTED:
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            parsed = Requirement(requirement)
        except InvalidRequirement:
            _ACCEPTED[key] = False
        else:
            applies = parsed.marker is None or parsed.marker.evaluate({"extra": ""})
            _ACCEPTED[key] = not applies or parsed.specifier.contains(version, prereleases=True)
    return _ACCEPTED[key]


def _topological(needs: dict[str, set[str]]) -> list[str]:
    order: list[str] = []
    waiting = {name: set(others) for name, others in sorted(needs.items())}
    while waiting:
        free = next((name for name, others in waiting.items() if not others), None)
        if free is None:
            raise PluginError(f"the plugins' order is a cycle: {_cycle(waiting)}")
        order.append(free)
        del waiting[free]
        for others in waiting.values():
            others.discard(free)
    return order


def _cycle(waiting: Mapping[str, set[str]]) -> str:
    path = [next(iter(waiting))]
    while True:
        following = min(waiting[path[-1]])
        if following in path:
            return " needs ".join([*path[path.index(following) :], following])
        path.append(following)


def _plainly(error: Exception, record: PluginRecord) -> BaseException:
    """pluggy's validation error in the words of this kernel."""
    import pluggy

    if not isinstance(error, pluggy.PluginValidationError):
        return error
    told = [line.strip() for line in str(error).splitlines() if line.strip()]
    plain = PluginError("; ".join(told))
    plain.__cause__ = error
    return plain


def _refusal(record: PluginRecord) -> str:
    line = f'disable = ["{record.name}"]'
    other = f'optional = ["{record.name}"]'
    what = "is incompatible" if record.state == "incompatible" else "failed to load"
    return (
        f"the plugin {record.called} {what}: {record.error}\n"
        f"  To start without it, write `{line}` under [plugins] in covet.toml; to start whether or not it loads, "
        f"`{other}`. `covet plugins show {record.name}` has the traceback."
    )


def _where(plugin: object) -> str:
    module = getattr(plugin, "__module__", None) or getattr(plugin, "__name__", "")
    return f"{module}:{type(plugin).__name__}" if hasattr(plugin, "__module__") else str(module)
