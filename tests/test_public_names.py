"""Every public name says what it is, and is annotated in full."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

import covet
import covet_migrate
import covet_orm

MODULES = [
    module.name
    for package in (covet, covet_migrate, covet_orm)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not any(part.startswith("_") for part in module.name.split("."))
]


def public_names(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """The names in a module's `__all__` that are defined there; without one, its functions and classes."""
    listed = getattr(module, "__all__", None)
    for name in [name for name in vars(module) if not name.startswith("_")] if listed is None else listed:
        value = getattr(module, name)
        if listed is None and not (inspect.isfunction(value) or inspect.isclass(value)):
            continue
        if getattr(value, "__module__", module.__name__) == module.__name__:
            yield name, value


def members(class_: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The public methods and properties that a class defines itself, and its constructor."""
    for name, value in vars(class_).items():
        function = value.fget if isinstance(value, property) else inspect.unwrap(getattr(value, "__func__", value))
        if not inspect.isfunction(function) or (name.startswith("_") and name != "__init__"):
            continue
        # Those that dataclasses generate are not written by anybody.
        if function.__module__ == class_.__module__ and function.__code__.co_filename != "<string>":
            yield name, function


def lacking_annotations(function: Callable[..., Any]) -> list[str]:
    """The parameters without an annotation; and `return`."""
    parameters = list(inspect.signature(function).parameters.values())
    lacking = [
        parameter.name
        for position, parameter in enumerate(parameters)
        if parameter.annotation is parameter.empty and not (position == 0 and parameter.name in ("self", "cls"))
    ]
    if "return" not in function.__annotations__:
        lacking.append("return")
    return lacking


def names_assigned(module: ModuleType) -> set[str]:
    """The names that a module assigns itself; what it imports is documented where it comes from."""
    body = ast.parse(Path(inspect.getfile(module)).read_text(encoding="utf-8")).body
    targets = [target for node in body for target in getattr(node, "targets", [getattr(node, "target", None)])]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def documented_assignments(module: ModuleType) -> set[str]:
    """The names that a module assigns with a docstring or comment at them: such values have no `__doc__`."""
    source = Path(inspect.getfile(module)).read_text(encoding="utf-8")
    lines = source.splitlines()
    body = ast.parse(source).body
    found = set()
    for statement, following in zip(body, [*body[1:], None], strict=True):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        above = lines[statement.lineno - 2].startswith("#") if statement.lineno > 1 else False
        below = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if above or below:
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented_and_annotated(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what it is"
    assigned = documented_assignments(module)
    wrong = []
    for public, value in public_names(module):
        if inspect.isclass(value) or inspect.isroutine(value):
            if not inspect.getdoc(value):
                wrong.append(f"{public} has no docstring")
        elif not isinstance(value, ModuleType | click.Command) and public in names_assigned(module) - assigned:
            wrong.append(f"{public} has neither docstring nor comment")
        if inspect.isfunction(value):
            wrong += [f"{public}: {lacking} is not annotated" for lacking in lacking_annotations(value)]
        if inspect.isclass(value):
            for member, function in members(value):
                if member != "__init__" and not inspect.getdoc(getattr(value, member)):
                    wrong.append(f"{public}.{member} has no docstring")
                wrong += [f"{public}.{member}: {lacking} is not annotated" for lacking in lacking_annotations(function)]
    assert wrong == []


def test_the_names_of_the_package_are_all_there() -> None:
    assert len(set(covet.__all__)) == len(covet.__all__)
    for name in covet.__all__:
        assert getattr(covet, name) is not None
    assert dir(covet) == sorted(covet.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Covert'"):
        covet.Covert  # type: ignore[attr-defined]
