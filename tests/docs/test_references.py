"""The reference pages are written from the code; what the code lacks, a test finds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import covet
import covet.events
import covet.resilience
import covet.testing
import covet_migrate
import covet_migrate.operations
from covet import hookspecs
from covet.cli.groups import make_root
from covet.plugins import PluginManager
from covet.settings_schema import describe
from covet.settings_sections import SECTIONS, PluginsSettings

ROOT = Path(__file__).parent.parent.parent


def load_generator() -> Any:
    specification = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # A dataclass looks its own module up.
    import sys

    sys.modules["generate"] = module
    specification.loader.exec_module(module)
    return module


generate = load_generator()
HOOKS = {hook.name: hook for hook in generate.hooks()}


def test_every_specification_is_in_the_reference() -> None:
    manager = PluginManager(PluginsSettings(), installed=False)
    manager.load()
    assert sorted(HOOKS) == manager.hook_names()
    page = generate.hook_reference()
    assert all(f"## {name}\n" in page for name in HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_hook_is_documented(name: str) -> None:
    hook = HOOKS[name]
    assert hook.summary.endswith("."), "the first line of a hook's docstring is a sentence"
    assert list(hook.sections) == list(generate.HOOK_SECTIONS)
    assert all(hook.sections.values())
    parameters = re.search(r"\((.*?)\)", hook.signature)
    assert parameters is not None
    assert hook.example, "a hook needs an example"


@pytest.mark.parametrize("name", HOOKS)
def test_hook_example_is_a_plugin_that_loads(name: str) -> None:
    """The example is run as a plugin's module; the kernel then finds the hook in it, and nothing to complain of."""
    module = ModuleType("example")
    lines = ["import contextlib, time", "import covet, covet.events, covet.storage, msgspec", HOOKS[name].example]
    exec(compile("\n".join(lines), f"example of {name}", "exec"), vars(module))
    manager = PluginManager(PluginsSettings(), extra={"example": module}, installed=False)
    manager.load()
    assert manager.records["example"].error is None
    assert manager.records["example"].provides == (name.removeprefix("covet_"),)
    assert manager.check() == []


def test_every_setting_is_in_the_reference_with_a_description() -> None:
    page = generate.settings_reference()
    for section, schema in {**SECTIONS, "plugins": PluginsSettings}.items():
        assert f"## [{section}]" in page
        for field in describe(schema):
            assert field.description, f"{section}.{field.name} has no description"
            assert f"| `{field.name}` | {field.type} |" in page
    assert not re.search(r"\|\s*\|$", page, re.MULTILINE), "a builtin plugin's setting has no description"


def test_every_command_is_in_the_reference_with_an_example() -> None:
    page = generate.command_reference()
    sections = dict(re.findall(r"^## (covet.*?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    root = make_root()
    assert {f"covet {name}" for name in ("new", "run", "routes", "check", "config", "shell", "plugins")} <= set(
        sections
    )
    for path, text in sections.items():
        command: Any = root
        for part in path.split()[1:]:
            command = command.get_command(None, part)
        if not hasattr(command, "list_commands"):
            assert "Example" in text, f"`{path} --help` shows no example"


def test_every_option_of_the_commands_for_migrations_is_explained() -> None:
    page = (ROOT / "docs" / "migrate" / "commands.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    beginning = page.partition("\n## ")[0]
    root: Any = make_root()
    names = ["makemigrations", "migrate", "showmigrations", "sqlmigrate", "squashmigrations", "inspectdb"]
    names += [f"migrations {name}" for name in root.get_command(None, "migrations").list_commands(None)]
    assert {*names} == {*parts}
    for name in names:
        command = root
        for word in name.split():
            command = command.get_command(None, word)
        for option in (option for one in command.params for option in one.opts if option.startswith("--")):
            assert option == "--help" or f"`{option}" in parts[name] + beginning or f" {option}" in parts[name], (
                f"docs/migrate/commands.md says nothing of `{name} {option}`"
            )


def test_every_error_is_in_the_reference() -> None:
    page = generate.error_reference()
    errors = [name for name in covet.exceptions.__all__ if issubclass(getattr(covet.exceptions, name), Exception)]
    assert all(f"- `{name}`: " in page for name in errors if name != "Fault")


def test_every_public_name_is_in_the_reference() -> None:
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md")]
    entries = {entry for page in pages for entry in re.findall(r"^::: ([\w.]+)", page, re.MULTILINE)}
    for package in (
        covet, covet.testing, covet.resilience, covet.events, covet_migrate, covet_migrate.operations
    ):  # fmt: skip
        for name in package.__all__:
            home = getattr(getattr(package, name), "__module__", package.__name__)
            listed = {package.__name__, home} & entries or any(
                entry.endswith(f".{name}") or entry.startswith(f"{package.__name__}.{name}.") for entry in entries
            )
            assert listed or name == "__version__", f"{package.__name__}.{name} is not in docs/reference/"


def test_every_generated_part_stands_in_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    assert set(generate.MARK.findall(pages)) == set(generate.GENERATORS)


def test_every_test_that_a_page_names_is_there() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for path, name in re.findall(r"(tests/[\w/-]+\.py)::(\w+)", page.read_text(encoding="utf-8")):
            assert re.search(rf"def {name}\(", (ROOT / path).read_text(encoding="utf-8")), f"{page}: {path}::{name}"


def test_the_specifications_and_nothing_else_are_hooks() -> None:
    assert {name for name in vars(hookspecs) if name.startswith("covet")} == set(HOOKS)


def test_the_map_of_the_kernel_has_every_module() -> None:
    page = (ROOT / "docs" / "concepts" / "kernel.md").read_text(encoding="utf-8")
    package = Path(covet.__file__).parent
    modules = {path.stem for path in package.glob("[a-z]*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    assert set(re.findall(r"`([a-z_]+)`", page)) - {"covet"} == modules
