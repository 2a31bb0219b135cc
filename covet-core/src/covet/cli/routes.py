"""`covet routes`."""

from __future__ import annotations

from typing import Any

import click

from covet.cli.groups import command
from covet.cli.reporting import aside, print_json, print_table
from covet.cli.targets import load_application, target_argument

__all__ = ["routes"]


@command("routes", example="covet routes --source\ncovet routes shop.web:app --json")
@target_argument
@click.option("--source", is_flag=True, help="Show where each handler is written.")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def routes(target: str | None, source: bool, as_json: bool) -> None:
    """List the routes of the application, with those of its plugins.

    Columns: methods (WS for a WebSocket, ANY below a mounted application), path, name for `url_for`, handler, and who
    declared the route.
    """
    with aside():
        app = load_application(target)
    rows = [_row(route) for route in app.routes]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("The application has no routes.")
        return
    columns = ["path", "name", "handler", "owner", *(["source"] if source else [])]
    print_table(["methods", *columns], [[" ".join(row["methods"]), *(row[name] for name in columns)] for row in rows])


def _row(route: Any) -> dict[str, Any]:
    from covet.routing import Mount, WebSocketRoute, handler_name

    if isinstance(route, Mount):
        methods, path, handler, source = ["ANY"], f"{route.path}/...", type(route.app).__qualname__, ""
    else:
        methods = ["WS"] if isinstance(route, WebSocketRoute) else sorted(route.methods)
        path, handler, source = route.path, handler_name(route.handler), _source(route.handler)
    return {
        "methods": methods,
        "path": path,
        "name": route.name,
        "handler": handler,
        "owner": route.owner,
        "source": source,
    }


def _source(handler: Any) -> str:
    """File and line of a handler; empty when it is not written in Python."""
    import os
    from functools import partial
    from inspect import unwrap

    while isinstance(handler, partial):
        handler = handler.func
    handler = unwrap(handler)
    code = getattr(getattr(handler, "__func__", handler), "__code__", None)
    if code is None:
        code = getattr(type(handler).__call__, "__code__", None)
    if code is None:
        return ""
    near = os.path.relpath(code.co_filename)
    return f"{code.co_filename if near.startswith(os.pardir) else near}:{code.co_firstlineno}"
