"""The OpenAPI 3.1 document of an application, made of its routes and their plans."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from covet.applications import Covet
from covet.builtin.openapi.operations import describe_operation, problem_responses
from covet.builtin.openapi.schemas import Schema, Schemas
from covet.routing import Route

if TYPE_CHECKING:
    from covet.builtin.openapi import OpenAPISettings

__all__ = ["make_document", "operation_ids"]

logger = logging.getLogger("covet.openapi")

# OpenAPI 3.1 section 4.8.9.1: a path item knows no others. HEAD and OPTIONS are automatic.
METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "TRACE")
_NAME = re.compile(r"\{([^{}]*)\}")


def make_document(app: Covet, settings: OpenAPISettings) -> dict[str, Any]:
    """The document of an application, as JSON has it: what its routes say, then what plugins add.

    Args:
        app: the application; it is built if it was not.
        settings: `[plugins.openapi]`.

    Raises:
        PluginError: a plugin's `covet_openapi` failed.
        CovetError: pydantic has no schema for one of its models.
    """
    schemas = Schemas()
    routes = [route for route in app.routes if isinstance(route, Route) and route.in_schema]
    info: Schema = {"title": settings.title or app.settings.app.name, "version": settings.version}
    if settings.description:
        info["description"] = settings.description
    paths = _paths(app, routes, schemas)
    responses = problem_responses(app, schemas, _references(paths))
    schemas.resolve()
    document: dict[str, Any] = {"openapi": "3.1.0", "info": info, "paths": paths}
    components = {
        "schemas": dict(sorted(schemas.components.items())),
        "responses": responses,
    }
    document["components"] = {name: content for name, content in components.items() if content}
    tags = dict.fromkeys(tag for route in routes for tag in route.tags)
    if tags:
        document["tags"] = [{"name": tag} for tag in tags]
    encoded = msgspec.json.encode(document, enc_hook=str)
    plain: dict[str, Any] = msgspec.json.decode(encoded)
    app.plugins.call("covet_openapi", app=app, document=plain)
    return plain


def _paths(app: Covet, routes: list[Route], schemas: Schemas) -> dict[str, Schema]:
    ids = operation_ids(routes)
    paths: dict[str, Schema] = {}
    # Two templates that differ only in the names of their parameters are one path (OpenAPI 3.1 section 4.8.8.2).
    known: dict[str, str] = {}
    for route in _strictest_first(routes):
        template = known.setdefault(_NAME.sub("{}", route.template.display), route.template.display)
        names = dict(zip(route.template.names, _NAME.findall(template), strict=True))
        item = paths.setdefault(template, {})
        for method in METHODS:
            if method not in route.methods:
                continue
            if method.lower() in item:
                logger.warning(
                    "the OpenAPI document leaves out %r: it has %s %s already, and cannot tell converters apart",
                    route, method, template,
                )  # fmt: skip
                continue
            assert route.plan is not None
            operation = describe_operation(app, route, route.plan, schemas, names)
            item[method.lower()] = {"operationId": ids[id(route), method], **operation}
    # In the order in which they were declared.
    order = {_NAME.sub("{}", route.template.display): None for route in routes}
    return {known[shape]: paths[known[shape]] for shape in order if paths[known[shape]]}


def _strictest_first(routes: list[Route]) -> list[Route]:
    """The routes as they are tried, so that of two which the document cannot tell apart the first one stays."""
    return sorted(routes, key=lambda route: [converter.rank for converter in route.template.converters])


def operation_ids(routes: list[Route]) -> dict[tuple[int, str], str]:
    """A unique name for each operation: the route's, with the method and the path where that takes it.

    Returns: the names by the `id` of the route and the method.
    """
    operations = [(route, method) for route in routes for method in METHODS if method in route.methods]
    plain = Counter(route.name for route, _ in operations)
    with_method = Counter(f"{route.name}_{method.lower()}" for route, method in operations)
    taken = {name for name, count in plain.items() if count == 1}
    ids: dict[tuple[int, str], str] = {}
    for route, method in operations:
        name = route.name
        if plain[name] > 1:
            name = f"{name}_{method.lower()}"
            if with_method[name] > 1:
                words = re.sub(r"[^A-Za-z0-9]+", "_", route.template.display).strip("_")
                name = f"{name}_{words}" if words else f"{name}_root"
            name = next(candidate for candidate in _numbered(name) if candidate not in taken)
            taken.add(name)
        ids[id(route), method] = name
    return ids


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 1
    while True:
        number += 1
        yield f"{name}_{number}"


def _references(value: Any) -> set[str]:
    """What a part of the document refers to."""
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*map(_references, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(_references, value))
    return set()
