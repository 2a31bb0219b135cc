"""Which plugins are installed, and what their distributions say of them. Nothing is imported to find out."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from covet.exceptions import CovetError, PluginError

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

__all__ = [
    "PluginRecord",
    "PluginState",
    "accepts",
    "applies",
    "describe",
    "discover_commands",
    "find_entry_points",
    "make_record",
    "name_plugins",
    "normalized",
    "required_name",
    "where",
]

logger = logging.getLogger("covet.plugins")

GROUP = "covet.plugins"
COMMANDS = "covet.commands"
KERNEL = "covet-core"

PluginState = Literal["builtin", "active", "disabled", "failed", "incompatible"]
"""What became of a plugin; the first two take part."""


class PluginRecord:
    """What is known of a plugin.

    Attributes:
        name: the name of its entry point.
        version, distribution, summary: of the distribution that brings it; empty for an object given in code.
        state: `builtin` (active, of the kernel's own distribution), `active`, `disabled`, `failed` or `incompatible`.
        provides: the hooks it implements, without their prefix.
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
        self.provides = ()
        if isinstance(error, str):
            self.error, self.traceback = error, None
        else:
            told = str(error)
            kind = type(error).__name__
            self.error = told if isinstance(error, CovetError) else f"{kind}: {told}" if told else kind
            self.traceback = "".join(traceback.format_exception(error))

    def __repr__(self) -> str:
        return f"<PluginRecord {self.name} {self.state}>"


def find_entry_points(group: str) -> list[EntryPoint]:
    """The entry points of a group, of every installed distribution, those found first on `sys.path` first.

    One distribution whose entry points cannot be read does not hide the others: it is logged and left out.
    """
    from importlib.metadata import entry_points

    try:
        return list(entry_points(group=group))
    except Exception:  # noqa: BLE001 -- whatever is wrong is found and told distribution by distribution
        return _read_one_by_one(group)


def _read_one_by_one(group: str) -> list[EntryPoint]:
    from importlib.metadata import distributions

    found: list[EntryPoint] = []
    seen: set[str] = set()
    for distribution in distributions():
        # A distribution hides one of the same name that comes later on the path.
        name = normalized(describe(distribution).get("name", [""])[0])
        if name and name in seen:
            continue
        seen.add(name)
        try:
            found += distribution.entry_points.select(group=group)
        except Exception as error:  # noqa: BLE001 -- logged
            logger.warning("the entry points of %r cannot be read, it is left out: %s", name or distribution, error)
    return found


def discover_commands() -> dict[str, list[EntryPoint]]:
    """The commands that plugins bring, by name, without importing any. Several of one name are a collision."""
    found: dict[str, list[EntryPoint]] = {}
    for entry_point in find_entry_points(COMMANDS):
        found.setdefault(entry_point.name, []).append(entry_point)
    return found


def normalized(name: str) -> str:
    """A distribution's name as it is compared (PEP 503)."""
    return name.lower().replace("_", "-").replace(".", "-")


def describe(distribution: Distribution | None) -> dict[str, list[str]]:
    """The header fields of a distribution's metadata, their names in lower case; none when it cannot be read.

    The format is that of e-mail headers; the standard library's parser for these takes ten times as long as all the
    rest of discovery, and of the four fields that are needed none is ever folded.
    """
    fields: dict[str, list[str]] = {}
    if distribution is None:
        return fields
    try:
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    except (OSError, ValueError) as error:
        logger.warning("the metadata of %r cannot be read: %s", distribution, error)
        return fields
    for line in text.split("\n"):
        if not line:
            break
        name, found, value = line.partition(":")
        if found:
            fields.setdefault(name.lower(), []).append(value.strip())
    return fields


def make_record(name: str, entry_point: EntryPoint, fields: Mapping[str, list[str]]) -> PluginRecord:
    """What an entry point and the metadata of its distribution say of a plugin."""
    return PluginRecord(
        name,
        distribution=fields.get("name", [""])[0],
        version=fields.get("version", [""])[0],
        summary=fields.get("summary", [""])[0],
        entry_point=entry_point.value,
        requires=tuple(fields.get("requires-dist", ())),
    )


def required_name(requirement: str) -> str:
    """The distribution that a requirement (PEP 508) is about."""
    for index, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:index]
    return requirement


_ACCEPTED: dict[tuple[str, str], bool] = {}


def accepts(requirement: str, version: str) -> bool:
    """Whether a requirement is met by that version; one that does not apply here is, one that is malformed is not."""
    key = (requirement, version)
    if key not in _ACCEPTED:
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            parsed = Requirement(requirement)
        except InvalidRequirement:
            _ACCEPTED[key] = False
        else:
            _ACCEPTED[key] = not applies(requirement) or parsed.specifier.contains(version, prereleases=True)
    return _ACCEPTED[key]


def applies(requirement: str) -> bool:
    """Whether a requirement applies in this environment without any extra; a malformed one does not."""
    if ";" not in requirement:
        return True
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        marker = Requirement(requirement).marker
    except InvalidRequirement:
        return False
    return marker is None or marker.evaluate({"extra": ""})


def name_plugins(plugins: Sequence[object] | Mapping[str, object]) -> dict[str, object]:
    """Plugins that code gives, by name: a module by the last part of its name, an object by its class.

    Raises:
        PluginError: two would have one name.
    """
    if isinstance(plugins, Mapping):
        return dict(plugins)
    named: dict[str, object] = {}
    for plugin in plugins:
        name: str = getattr(plugin, "__name__", None) or type(plugin).__name__
        name = name.rpartition(".")[2]
        if name in named:
            raise PluginError(
                f"two plugins given to the application are called {name!r}: {where(named[name])} and "
                f'{where(plugin)}; name them: plugins={{"one": ..., "other": ...}}'
            )
        named[name] = plugin
    return named


def where(plugin: object) -> str:
    """The module of a plugin that code gives, and of an object its class."""
    module = getattr(plugin, "__module__", None) or getattr(plugin, "__name__", "")
    return f"{module}:{type(plugin).__name__}" if hasattr(plugin, "__module__") else str(module)
