"""`covet inspectdb`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure
from covet.settings_schema import nearest
from covet_migrate.commands.project import app_option, database_option, failures, with_database

if TYPE_CHECKING:
    from covet_migrate.inspection.descriptions import Schema
    from covet_orm import Database

__all__ = ["inspectdb"]


@command("inspectdb", example="covet inspectdb > blog/models.py\ncovet inspectdb posts --label blog")
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@app_option
@database_option
@click.option("--label", default="", metavar="APP", help="Of the application that they are to belong to.")
def inspectdb(tables: tuple[str, ...], target: str | None, alias: str | None, label: str) -> None:
    """Print models for the tables of a database, such as would make the same tables; those that they refer to, as well.

    What a model cannot say stands above it as a comment.
    """

    async def work(database: Database) -> tuple[Schema, frozenset[str]]:
        from covet_migrate.inspection.own_tables import own_tables
        from covet_migrate.inspection.schema import read_schema

        return await read_schema(database), own_tables(database)

    schema, own = with_database(target, alias, work)
    for name in tables:
        if name not in schema.tables:
            raise Failure(
                f"there is no table {name!r}{nearest(name, schema.tables)}\n  `covet db inspect` lists those that are."
            )
    from covet_migrate.inspection.models import inspected_models
    from covet_migrate.inspection.source import models_source

    with failures():
        inspected = inspected_models(schema, app=label, only=tables or None, leave_out=own)
        if not inspected.state.models:
            raise Failure("the database has no tables, but for those of Covet itself")
        click.echo(models_source(inspected), nl=False)
