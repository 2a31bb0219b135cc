"""Writes the reference pages from the code, while the documentation is built.

A page says where with a comment such as `<!-- generated: hooks -->`; an unknown name there fails the build.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import click

from covet import exceptions, hookspecs
from covet.backends import HOOKS
from covet.cli.groups import make_root
from covet.plugins import PluginManager
from covet.settings_schema import describe
from covet.settings_sections import BACKED_SECTIONS, SECTIONS, PluginsSettings

MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
DOCS = Path(__file__).parent
HOOK_SECTIONS = ("When", "By whom", "Returns", "On failure")


@dataclass(frozen=True)
class Hook:
    """A hook, as its specification documents it.

    Attributes:
        signature: as it is declared.
        summary: its first line.
        sections: what stands behind `When:` and the others, by that name.
        example: the code under `Example:`.
    """

    name: str
    signature: str
    is_async: bool
    summary: str
    sections: dict[str, str]
    example: str


def hooks() -> list[Hook]:
    """Every hook of the kernel, in the order of `covet/hookspecs.py`."""
    functions = [function for name, function in vars(hookspecs).items() if name.startswith("covet_")]
    return [_hook(function) for function in functions]


def _hook(function: Callable[..., Any]) -> Hook:
    summary, _, rest = inspect.getdoc(function).partition("\n")  # type: ignore[union-attr]
    text, _, example = rest.partition("\nExample:\n")
    sections: dict[str, str] = {}
    for name, body in re.findall(r"^([A-Z][a-z ]+): (.*?)(?=^[A-Z][a-z ]+: |\Z)", text, re.MULTILINE | re.DOTALL):
        sections[name] = " ".join(body.split())
    is_async = inspect.iscoroutinefunction(function)
    signature = f"{'async ' if is_async else ''}def {function.__name__}{inspect.signature(function)}"
    return Hook(function.__name__, signature.replace("'", ""), is_async, summary, sections, dedent(example).strip())


def hook_reference() -> str:
    """The body of the hook reference."""
    parts = []
    for hook in hooks():
        kind = "asynchronous: `def` or `async def`" if hook.is_async else "synchronous: `def`"
        parts += [f"## {hook.name}", hook.summary, f"```python\n{hook.signature}\n```"]
        facts = [f"- **{name}:** {hook.sections[name]}" for name in HOOK_SECTIONS]
        parts += ["\n".join([f"- **Kind:** {kind}", *facts]), f"```python\n{hook.example}\n```"]
    return "\n\n".join(parts)


def settings_reference() -> str:
    """The body of the settings reference: the kernel's sections, then those of the builtin plugins."""
    schemas = {f"[{section}]": schema for section, schema in {**SECTIONS, "plugins": PluginsSettings}.items()}
    parts = []
    for title, schema in {**schemas, **dict(_backed_settings()), **dict(_builtin_settings())}.items():
        text = inspect.getdoc(schema) or ""
        about = text.partition("`: ")[2] or text
        parts.append(f"## {title} {{ #{re.sub(r'[^a-z0-9_]+', '-', title.lower()).strip('-')} }}")
        parts.append(about[:1].upper() + about[1:])
        rows = [
            f"| `{field.name}` | {field.type} | {_as_toml(field.default)} | {field.description} |"
            for field in describe(schema)
        ]
        parts.append("\n".join(["| key | type | default | what it is |", "|---|---|---|---|", *rows]))
    return "\n\n".join(parts)


def _as_toml(default: str) -> str:
    """A default as a settings file would have it; `describe` gives it as Python has it."""
    if default == "required":
        return default
    value = ast.literal_eval(default)
    return "" if value is None else f"`{json.dumps(value)}`"


def _backed_settings() -> Iterator[tuple[str, type]]:
    """The sections that name a backend, and the builtin backends that have keys of their own."""
    manager = _builtin_plugins()
    for section, (chooser, common) in BACKED_SECTIONS.items():
        table = f"[{section}]" if section == "sessions" else f"[{section}.ALIAS]"
        yield table, common
        for contribution in manager.call(HOOKS[section]):
            for name, backend in contribution.value.items():
                if describe(backend.settings):
                    yield f'{table} {chooser} = "{name}"', backend.settings


def _builtin_settings() -> Iterator[tuple[str, type]]:
    for contribution in _builtin_plugins().call("covet_settings"):
        yield f"[plugins.{contribution.plugin}]", contribution.value


def _builtin_plugins() -> PluginManager:
    manager = PluginManager(PluginsSettings())
    manager.discover()
    builtin = [name for name, record in manager.records.items() if record.state == "builtin"]
    manager = PluginManager(PluginsSettings(), names=builtin)
    manager.load()
    return manager


def command_reference() -> str:
    """The body of the command-line reference: the help of every command."""
    root = make_root()
    # The commands of plugins that happen to be installed here are no part of Covet's own.
    root._plugins = False
    parts = []
    for path, context in _commands(root, "covet", None):
        parts.append(f"## {path}\n\n```text\n{context.get_help()}\n```")
    return "\n\n".join(parts)


def _commands(command: click.Command, path: str, parent: click.Context | None) -> Iterator[tuple[str, click.Context]]:
    name = path.rpartition(" ")[2]
    context = click.Context(command, info_name=name, parent=parent, terminal_width=100, **command.context_settings)
    yield path, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _commands(inner, f"{path} {name}", context)


def error_reference() -> str:
    """The tree of errors, each with the first line of what it says of itself."""
    lines = []

    def walk(error: type[BaseException], depth: int) -> None:
        summary = (inspect.getdoc(error) or "").partition("\n\n")[0].replace("\n", " ")
        lines.append(f"{'    ' * depth}- `{error.__name__}`: {summary}")
        for inner in error.__subclasses__():
            if inner.__module__ == exceptions.__name__:
                walk(inner, depth + 1)

    walk(exceptions.CovetError, 0)
    return "\n".join(lines)


def listing(folder: str) -> str:
    """The pages of a folder, by their titles."""
    lines = []
    for page in sorted((DOCS / folder).glob("*.md")):
        if page.stem != "index":
            title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
            lines.append(f"- [{title}]({page.name})")
    return "\n".join(lines)


GENERATORS: dict[str, Callable[[], str]] = {
    "hooks": hook_reference,
    "settings": settings_reference,
    "commands": command_reference,
    "errors": error_reference,
    "evidence": lambda: listing("evidence"),
    "decisions": lambda: listing("decisions"),
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return MARK.sub(lambda mark: GENERATORS[mark[1]](), markdown)
