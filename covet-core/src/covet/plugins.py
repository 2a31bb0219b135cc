"""The plugins of an application: chosen, put in order, loaded one by one, each failure recorded.

Discovery imports nothing. Loading imports what the settings leave enabled, each plugin guarded: one that fails leaves
nothing registered and is recorded with its traceback, so that `covet plugins list` always works. Serving is strict:
`require_usable` refuses to go on with a failed plugin that is not optional.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from covet.collisions import APPLICATION
from covet.collisions import KERNEL as COVET
from covet.discovery import (
    GROUP,
    KERNEL,
    PluginRecord,
    accepts,
    applies,
    describe,
    discover_commands,
    find_entry_points,
    make_record,
    name_plugins,
    normalized,
    required_name,
    where,
)
from covet.exceptions import PluginError
from covet.ordering import in_order, neighbours

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import pluggy

    from covet.hooks import Contribution
    from covet.settings import Settings
    from covet.settings_sections import PluginsSettings

__all__ = ["Finding", "PluginManager", "PluginRecord", "discover_commands", "name_plugins"]

logger = logging.getLogger("covet.plugins")

# What `[plugins]` itself holds, so that no plugin can have its table [plugins.NAME] there.
RESERVED = frozenset({"enable", "disable", "optional", "prefer"})


class Finding:
    """Something that `covet plugins check` found: a plugin, how serious it is, and what it is."""

    __slots__ = ("message", "plugin", "severity")

    def __init__(self, plugin: str, severity: Literal["error", "warning"], message: str) -> None:
        self.plugin = plugin
        self.severity: Literal["error", "warning"] = severity
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
        self._records: dict[str, PluginRecord] = {}
        self._names = names
        self._extra = dict(extra or {})
        self._installed = installed
        self._discovered = False
        self._entry_points: dict[str, EntryPoint] = {}
        self._objects: dict[str, Any] = {}
        # Hooks that plugins specify, and who does.
        self._specified: dict[str, str] = {}
        self._manager: pluggy.PluginManager | None = None

    @property
    def records(self) -> Mapping[str, PluginRecord]:
        """What is known of each plugin, by name; in plugin order once loaded, those that take no part behind."""
        return MappingProxyType(self._records)

    # Finding

    def discover(self) -> None:
        """Find the plugins without importing any.

        Raises:
            PluginError: `[plugins]` names one that is not installed.
        """
        self._discovered = True
        if self._installed:
            found: dict[str, list[EntryPoint]] = {}
            for entry_point in find_entry_points(GROUP):
                if self._names is None or entry_point.name in self._names:
                    found.setdefault(entry_point.name, []).append(entry_point)
            self._add_installed(found)
        for name in sorted(self._extra):
            self._add_given(name, self._extra[name])
        for name, record in self._records.items():
            record.optional = name in self.settings.optional
            if name in RESERVED:
                record.fail(f"a plugin cannot be called {name!r}: that is a key of the settings table [plugins]")
        self._choose()

    def _add_installed(self, found: Mapping[str, list[EntryPoint]]) -> None:
        # One distribution may bring several plugins; its metadata is read once.
        read: dict[int, dict[str, list[str]]] = {}

        def fields(entry_point: EntryPoint) -> dict[str, list[str]]:
            key = id(entry_point.dist)
            if key not in read:
                read[key] = describe(entry_point.dist)
            return read[key]

        for name in sorted(found):
            first = found[name][0]
            self._records[name] = record = make_record(name, first, fields(first))
            self._entry_points[name] = first
            if len(found[name]) > 1:
                owners = sorted({_called(fields(entry_point)) for entry_point in found[name]})
                if len(owners) == 1:
                    record.fail(f"{owners[0]} brings two plugins of this name")
                else:
                    record.fail(f"two distributions bring a plugin of this name: {' and '.join(owners)}; uninstall one")
            elif not record.distribution:
                record.fail("the metadata of the distribution that brings it cannot be read; install it again")

    def _add_given(self, name: str, plugin: object) -> None:
        installed = self._records.get(name)
        if installed is None:
            self._records[name] = PluginRecord(name, entry_point=where(plugin))
        else:
            installed.fail(
                f"the application is given a plugin of this name, {where(plugin)}, and "
                f"{installed.distribution} {installed.version} brings one; give the application's another name: "
                f'Covet(plugins={{"other_name": ...}})'
            )

    def _choose(self) -> None:
        settings = self.settings
        for name, record in self._records.items():
            listed = settings.enable is None or name in settings.enable or name in self._extra
            if name in settings.disable or not listed:
                record.state, record.error, record.traceback = "disabled", None, None
        if self._names is not None or not self._installed:
            return
        unknown = [
            f"[plugins] {key} names {name!r}, which is not installed{self._nearest(name)}"
            for key, known in (("enable", ()), ("disable", ()), ("prefer", (APPLICATION, COVET)))
            for name in getattr(settings, key) or ()
            if name not in self._records and name not in settings.optional and name not in known
        ]
        if unknown:
            raise PluginError("\n".join(unknown))

    def _nearest(self, name: str) -> str:
        from covet.settings_schema import nearest

        return nearest(name, self._records)

    # Loading

    def load(self) -> None:
        """Find, check, import and register the enabled plugins. Failures are recorded, not raised.

        Raises:
            PluginError: `[plugins]` names a plugin that is not installed, or their order is a cycle.
        """
        if not self._discovered:
            self.discover()
        import pluggy

        from covet import hookspecs

        self._manager = manager = pluggy.PluginManager("covet")
        manager.add_hookspecs(hookspecs)
        for record in self._records.values():
            if record.usable:
                self._import(record)
        order = self._ordered()
        for name in order:
            self._bring_specifications(self._records[name])
        # pluggy calls the last registered first.
        for name in reversed(order):
            if self._records[name].usable:
                self._register(self._records[name])
        self._records = {
            **{name: self._records[name] for name in order},
            **{name: record for name, record in self._records.items() if name not in order},
        }

    def _import(self, record: PluginRecord) -> None:
        if not self._compatible(record):
            return
        if record.name in self._extra:
            self._objects[record.name] = self._extra[record.name]
            return
        began = perf_counter()
        try:
            found = _load(self._entry_points[record.name])
        except KeyboardInterrupt:
            raise
        # Whatever a plugin's module raises, SystemExit and the like included, is that plugin's failure.
        except BaseException as error:  # noqa: BLE001
            record.fail(error)
        else:
            self._objects[record.name] = found
        record.import_seconds = perf_counter() - began

    def _compatible(self, record: PluginRecord) -> bool:
        """Whether the plugin's distribution accepts this kernel; one that does not is not imported."""
        from covet import __version__

        for requirement in record.requires:
            if normalized(required_name(requirement)) == KERNEL and not accepts(requirement, __version__):
                wanted = requirement.split(";")[0].strip()
                record.fail(f"it requires {wanted}, and this is {KERNEL} {__version__}", "incompatible")
                return False
        return True

    def _ordered(self) -> list[str]:
        """The imported plugins, those that others need first, else by name."""
        owners: dict[str, list[str]] = {}
        for name, record in self._records.items():
            if record.distribution:
                owners.setdefault(normalized(record.distribution), []).append(name)
        needs: dict[str, dict[str, str]] = {name: {} for name in self._objects}
        wishes: list[tuple[str, str, str]] = []
        for name, plugin in list(self._objects.items()):
            record = self._records[name]
            for requirement in record.requires:
                brought = owners.get(normalized(required_name(requirement)))
                if brought and applies(requirement):
                    reason = f"{record.distribution} requires {required_name(requirement)}"
                    wishes += [(name, other, reason) for other in brought]
            try:
                wishes += [(name, other, f"covet_after of {name}") for other in neighbours(plugin, "covet_after")]
                wishes += [(other, name, f"covet_before of {name}") for other in neighbours(plugin, "covet_before")]
            except Exception as error:  # noqa: BLE001 -- recorded
                record.fail(error)
        usable = {name for name in needs if self._records[name].usable}
        for name, other, reason in wishes:
            # Of one distribution's own plugins none requires the other.
            if name in usable and other in usable and name != other:
                needs[name].setdefault(other, reason)
        return in_order({name: needs[name] for name in needs if name in usable})

    def _bring_specifications(self, record: PluginRecord) -> None:
        plugin = self._objects[record.name]
        try:
            for attribute in dir(plugin):
                options = self.manager.parse_hookimpl_opts(plugin, attribute)
                if options is None or (options.get("specname") or attribute) != "covet_hookspecs":
                    continue
                brought = getattr(plugin, attribute)()
                if isinstance(brought, str) or not isinstance(brought, Iterable):
                    raise PluginError(
                        f"covet_hookspecs returned {brought!r}, and a list of modules or objects was expected"
                    )
                for specifications in brought:
                    self._specify(record, specifications)
        except Exception as error:  # noqa: BLE001 -- recorded
            self.fail(record.name, error)

    def _specify(self, record: PluginRecord, specifications: Any) -> None:
        parse = self.manager.parse_hookspec_opts
        hooks = [name for name in dir(specifications) if parse(specifications, name) is not None]
        for hook in hooks:
            if hasattr(self.manager.hook, hook):
                owner = f"the plugin {self._specified[hook]!r}" if hook in self._specified else "Covet itself"
                raise PluginError(f"it specifies the hook {hook}, which {owner} has already")
        if not hooks:
            raise PluginError(f"nothing in {specifications!r} carries the mark @covet.hookspec")
        self.manager.add_hookspecs(specifications)
        self._specified.update(dict.fromkeys(hooks, record.name))

    def _register(self, record: PluginRecord) -> None:
        from covet.implementations import verify

        plugin = self._objects[record.name]
        try:
            if plugin is None:
                raise PluginError(f"{record.entry_point} is None, which implements no hook")
            self.manager.register(plugin, record.name)
            record.provides = verify(self.manager, plugin, self.hook_names())
        except Exception as error:  # noqa: BLE001 -- recorded
            self.fail(record.name, _plainly(error))

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
            PluginError: an implementation raised, there is no such hook, or it is an asynchronous one.
        """
        from inspect import iscoroutinefunction

        from covet.hooks import call

        caller = self._caller(hook)
        assert caller.spec is not None
        if iscoroutinefunction(caller.spec.function):
            raise PluginError(f"the hook {hook} is asynchronous: `compile` it, and await what that gives")
        return call(caller, arguments, self._called)

    def compile(self, hook: str) -> Callable[..., Any] | None:
        """One callable for all implementations of an asynchronous hook, awaited with its arguments by position; or None
        where nobody implements it. `covet_event` gives a plain function.

        Raises:
            PluginError: there is no such hook, or it is a composition hook.
        """
        from inspect import iscoroutinefunction

        from covet.hooks import compile_async, compile_event

        caller = self._caller(hook)
        assert caller.spec is not None
        if hook == "covet_event":
            return compile_event(caller)
        if not iscoroutinefunction(caller.spec.function):
            raise PluginError(f"the hook {hook} is a plain one: `call` it")
        compiled: Callable[..., Awaitable[Any]] | None = compile_async(caller)
        return compiled

    def _caller(self, hook: str) -> pluggy.HookCaller:
        caller: pluggy.HookCaller | None = getattr(self.manager.hook, hook, None)
        if caller is None or caller.spec is None:
            from covet.settings_schema import nearest

            raise PluginError(f"there is no hook {hook!r}{nearest(hook, self.hook_names())}")
        return caller

    def _called(self, name: str) -> str:
        return self._records[name].called if name in self._records else repr(name)

    def implementers(self, hook: str) -> list[str]:
        """The names of the plugins that implement a hook, in the order in which they are called."""
        from covet.hooks import in_call_order

        return [impl.plugin_name for impl in in_call_order(self._caller(hook))]

    def object(self, name: str) -> Any:
        """The module or object of a loaded plugin.

        Raises:
            PluginError: no plugin of that name was loaded.
        """
        if name not in self._objects:
            raise PluginError(f"no plugin {name!r} is loaded{self._nearest(name)}")
        return self._objects[name]

    def configure(self, settings: Settings) -> None:
        """Check the table `[plugins.NAME]` of every plugin against the type that it declares with `covet_settings`.

        A plugin that cannot say its type, or whose table does not fit, is recorded as failed.
        """
        from covet.hooks import in_call_order

        for impl in in_call_order(self._caller("covet_settings")):
            try:
                schema: Any = impl.function()
                settings.claim_plugin(impl.plugin_name, schema, impl.plugin_name)
            except Exception as error:  # noqa: BLE001 -- recorded
                self.fail(impl.plugin_name, error)

    def fail(self, name: str, error: BaseException | str) -> None:
        """Record that a plugin cannot be used after all, and take back what it registered.

        A hook that it specified stays known while another plugin implements it; nobody calls it then.
        """
        self._records[name].fail(error)
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)
        for hook in [hook for hook, owner in self._specified.items() if owner == name]:
            if not getattr(self.manager.hook, hook).get_hookimpls():
                delattr(self.manager.hook, hook)
                del self._specified[hook]

    def require_usable(self) -> None:
        """Refuse to go on with a plugin that failed and is not optional; one that is, is logged.

        Raises:
            PluginError: one message for all of them, with the settings line that helps.
        """
        broken = [record for record in self._records.values() if record.state in ("failed", "incompatible")]
        for record in broken:
            if record.optional:
                logger.warning("going on without the optional plugin %s: %s", record.called, record.error)
        refused = [_refusal(record) for record in broken if not record.optional]
        if refused:
            raise PluginError("\n".join(refused))

    def check(self) -> list[Finding]:
        """What is wrong with the loaded plugins, or will be."""
        from covet.implementations import deprecations, unmarked

        findings = [
            Finding(name, "error", record.error or record.state)
            for name, record in self._records.items()
            if record.state in ("failed", "incompatible")
        ]
        known = self.hook_names()
        for name, plugin in self._objects.items():
            if not self._records[name].usable:
                continue
            findings += [Finding(name, "warning", message) for message in unmarked(plugin, known)]
            for caller in self.manager.get_hookcallers(plugin) or ():
                findings += [Finding(name, "warning", message) for message in deprecations(caller, plugin)]
            if not self._records[name].provides:
                findings.append(Finding(name, "warning", "it implements no hook, so it does nothing"))
        return findings


def _load(entry_point: EntryPoint) -> Any:
    try:
        module = entry_point.module
    except AttributeError:
        module = ""
    if not module:
        raise PluginError(f"its entry point is {entry_point.value!r}, and `module` or `module:attribute` was expected")
    return entry_point.load()


def _plainly(error: Exception) -> BaseException:
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


def _called(fields: Mapping[str, list[str]]) -> str:
    return f"{fields.get('name', ['?'])[0]} {fields.get('version', ['?'])[0]}"
