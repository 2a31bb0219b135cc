"""`covet db inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure, print_json, print_table
from covet_orm.commands.chosen import app_option, one_database, opened, run

if TYPE_CHECKING:
    from covet_orm.databases import Database

__all__ = ["inspect"]


@command("inspect", example="covet db inspect\ncovet db inspect users\ncovet db inspect --database reports --json")
@click.argument("table", required=False, metavar="[TABLE]")
@click.option("--database", "alias", metavar="ALIAS", help="Which database; the default one by default.")
@app_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(table: str | None, alias: str | None, target: str | None, as_json: bool) -> None:
    """Show the tables of a database with their rows and sizes; or the columns, keys and indexes of one.

    The numbers of rows are the server's estimates, which its statistics give; SQLite counts.
    """
    database = one_database(target, alias)
    if table is None:
        tables = run(lambda: _tables(database))
        if as_json:
            print_json(tables)
        elif tables:
            print_table(
                ["table", "rows", "size", "model"],
                [[one["table"], _number(one["rows"]), _size(one["bytes"]), one["model"] or ""] for one in tables],
            )
        else:
            click.echo("The database has no tables; `covet db create` creates those of the models.")
        return
    found = run(lambda: _table(database, table))
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['table']}: {_number(found['rows'])} rows, {_size(found['bytes'])}")
    click.echo()
    print_table(
        ["column", "type", "null", "default"],
        [[one["name"], one["type"], "yes" if one["null"] else "no", one["default"] or ""] for one in found["columns"]],
    )
    for title, rows in (("keys", found["keys"]), ("indexes", found["indexes"])):
        if rows:
            click.echo()
            print_table([title, "what it is"], [[one["name"], one["definition"]] for one in rows])


async def _tables(database: Database) -> list[dict[str, Any]]:
    from covet_orm.commands.catalogs import tables_of
    from covet_orm.models.registry import registry

    models = {model._meta.db_table: model.__qualname__ for model in registry if not model._meta.proxy}
    async with opened(database):
        found = await tables_of(database)
    return [{**one._asdict(), "model": models.get(one.table)} for one in found]


async def _table(database: Database, name: str) -> dict[str, Any]:
    from covet.settings_schema import nearest
    from covet_orm.commands.catalogs import columns_of, indexes_of, keys_of, tables_of

    async with opened(database):
        tables = {one.table: one for one in await tables_of(database)}
        if name not in tables:
            raise Failure(f"there is no table {name!r}{nearest(name, tables)}\n  `covet db inspect` lists them.")
        return {
            **tables[name]._asdict(),
            "columns": [one._asdict() for one in await columns_of(database, name)],
            "keys": [one._asdict() for one in await keys_of(database, name)],
            "indexes": [one._asdict() for one in await indexes_of(database, name)],
        }


def _number(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _size(size: int | None) -> str:
    """Bytes for people."""
    if size is None:
        return "?"
    number = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
