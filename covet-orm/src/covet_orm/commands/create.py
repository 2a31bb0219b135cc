"""`covet db create`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from covet.cli.groups import command
from covet.cli.reporting import note, print_json, print_table
from covet_orm.commands.chosen import alias_argument, app_option, databases_and_routers, run

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["create"]


@command("create", example="covet db create\ncovet db create reports")
@alias_argument
@app_option
@click.option("--no-tables", is_flag=True, help="Create no tables: migrations do that.")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def create(alias: str | None, target: str | None, no_tables: bool, as_json: bool) -> None:
    """Create what is missing: the databases themselves, then the tables of the models that live in them.

    What is there stays as it is: this changes no table. It suits the first start of a project, and tests. Where
    migrations make the tables, they are not to be made here: --no-tables.
    """
    chosen, routers = databases_and_routers(target, alias)
    made = run(lambda: _create(chosen, tables=not no_tables), routers)
    if as_json:
        print_json(made)
        return
    rows = [
        [one["database"], "created" if one["created"] else "there already", ", ".join(one["tables"]) or "none"]
        for one in made
    ]
    print_table(["database", "it is", "new tables"], rows)


async def _create(chosen: list[Database], *, tables: bool) -> list[dict[str, Any]]:
    from covet_orm.provisioning import create_database

    made: list[dict[str, Any]] = []
    for database in chosen:
        note(f"{database.alias}: {database.url}", label="Database")
        created = await create_database(database)
        try:
            names = await database.create_all() if tables else []
        finally:
            await database.close()
        made.append({"database": database.alias, "created": created, "tables": names})
    return made
