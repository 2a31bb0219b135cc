"""`covet routes`."""

from __future__ import annotations

from typing import Any

import click

from covet.cli.groups import command
from covet.cli.reporting import print_json, print_table
from covet.cli.targets import load_application, target_argument

__all__ = ["routes"]


@command("routes", example="covet routes\ncovet routes shop.web:app --json")
@target_argument
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def routes(target: str | None, as_json: bool) -> None:
    """List the routes of the application, with those of its plugins.

    Columns: methods (WS for a WebSocket, ANY below a mounted application), path, name for `url_for`, handler, and who
    declared the route.
    """
    rows = [_row(route) for route in load_application(target).routes]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("The application has no routes.")
        return
    print_table(
        ["methods", "path", "name", "handler", "owner"],
        [[" ".join(row["methods"]), row["path"], row["name"], row["handler"], row["owner"]] for row in rows],
    )


def _row(route: Any) -> dict[str, Any]:
    from covet.routing import Mount, WebSocketRoute, handler_name

    if isinstance(route, Mount):
        methods, path, handler = ["ANY"], f"{route.path}/...", type(route.app).__qualname__
    else:
        methods = ["WS"] if isinstance(route, WebSocketRoute) else sorted(route.methods)
        path, handler = route.path, handler_name(route.handler)
    return {"methods": methods, "path": path, "name": route.name, "handler": handler, "owner": route.owner}
