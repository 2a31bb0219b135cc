"""`covet sqlmigrate`."""

from __future__ import annotations

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure
from covet_migrate.commands.project import app_option, database_option, failures, load_project

__all__ = ["sqlmigrate"]


@command("sqlmigrate", example="covet sqlmigrate blog 0003\ncovet sqlmigrate blog 0003 --backward --dialect sqlite")
@click.argument("app", metavar="APP")
@click.argument("name", metavar="NAME")
@app_option
@database_option
@click.option("--backward", is_flag=True, help="What takes it back.")
@click.option(
    "--dialect",
    type=click.Choice(["postgresql", "mysql", "mariadb", "sqlite"]),
    help="For which database; by default that of the application's database. No server is asked.",
)
@click.option("--server-version", metavar="VERSION", help="Of which version, such as 15.4; that of now, if not said.")
def sqlmigrate(
    app: str,
    name: str,
    target: str | None,
    alias: str | None,
    backward: bool,
    dialect: str | None,
    server_version: str | None,
) -> None:
    """Print the SQL of a migration. No database is needed."""
    from covet_migrate.commands.sql import sql_of
    from covet_migrate.ddl import LATEST

    project = load_project(target)
    project.check_apps([app])
    if dialect is None:
        from covet_orm.commands.chosen import one_database

        dialect = one_database(target, alias).kind
    with failures():
        graph = project.files.graph()
        migration = graph[graph.find(app, name)]
        version = LATEST[dialect] if server_version is None else _version(server_version)
        lines = sql_of(project, migration, dialect, version, alias or "default", backward=backward)
    for line in lines:
        click.echo(line)


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    if not all(part.isdecimal() for part in parts):
        raise Failure(f"--server-version {text!r}: numbers with dots between them are needed, such as 15.4")
    return tuple(int(part) for part in parts)
