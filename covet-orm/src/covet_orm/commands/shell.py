"""`covet db shell`: the database's own prompt, or a plain one."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

from covet.cli.groups import command
from covet.cli.reporting import Failure, note, print_table
from covet_orm.commands.chosen import alias_argument, app_option, one_database

if TYPE_CHECKING:
    from covet_orm.databases import Database
    from covet_orm.urls import Target

__all__ = ["client_of", "shell"]

PROGRAMS = {"postgresql": ("psql",), "mysql": ("mariadb", "mysql"), "sqlite": ("sqlite3",)}
LIMIT = 1000
TLS_VARIABLES = {"tls_ca": "PGSSLROOTCERT", "tls_certificate": "PGSSLCERT", "tls_key": "PGSSLKEY"}
TLS_OPTIONS = {"tls_ca": "--ssl-ca", "tls_certificate": "--ssl-cert", "tls_key": "--ssl-key"}


@command("shell", example="covet db shell\ncovet db shell reports -c 'SELECT count(*) FROM users'")
@alias_argument
@app_option
@click.option("-c", "--command", "sql", metavar="SQL", help="Run this instead of asking.")
@click.option("--plain", is_flag=True, help="Ask here, even where the database's own program is installed.")
def shell(alias: str | None, target: str | None, sql: str | None, plain: bool) -> None:
    """Open the prompt of psql, mariadb or sqlite3 in a database; where that is not installed, a plain one for SQL.

    The password goes through the environment of that program, never through its command line.
    """
    database = one_database(target, alias)
    found = None if plain else client_of(database._target, database._driver, sql)
    if found is None:
        if not plain:
            names = " or ".join(PROGRAMS[database._target.kind])
            note(f"{names} is not installed, so that this is a plain prompt: SQL, and a semicolon at its end")
        _converse(database, sql)
        return
    program, arguments, environment = found
    sys.stdout.flush()
    # In place of this process, so that signals and the terminal are that program's alone.
    os.execve(program, arguments, environment)


def client_of(target: Target, driver: Any, sql: str | None = None) -> tuple[str, list[str], dict[str, str]] | None:
    """The program that talks to a database: its path, arguments and environment. None where it is not installed.

    Args:
        target: the database.
        driver: its driver, whose options say how TLS is used.
        sql: what it runs instead of asking.
    """
    for name in PROGRAMS[target.kind]:
        program = shutil.which(name)
        if program is not None:
            break
    else:
        return None
    environment = dict(os.environ)
    if target.kind == "sqlite":
        return program, [name, target.database, *([sql] if sql is not None else [])], environment
    options = driver.options
    if target.kind == "postgresql":
        settings = {
            "PGHOST": ",".join(host.name for host in target.hosts),
            "PGPORT": ",".join(str(host.port) for host in target.hosts),
            "PGUSER": target.user,
            "PGPASSWORD": target.password or "",
            "PGDATABASE": target.database,
            "PGSSLMODE": options.tls,
            **{variable: getattr(options, name) for name, variable in TLS_VARIABLES.items()},
        }
        environment.update({name: value for name, value in settings.items() if value})
        return program, [name, *(["-c", sql] if sql is not None else [])], environment
    host = target.hosts[0]
    place = (
        [f"--socket={host.name}"]
        if host.is_socket
        else [f"--host={host.name}", f"--port={host.port}", "--protocol=tcp"]
    )
    if target.password is not None:
        environment["MYSQL_PWD"] = target.password
    arguments = [name, *place, "--default-character-set=utf8mb4"]
    if target.user:
        arguments.append(f"--user={target.user}")
    arguments += [f"{option}={value}" for field, option in TLS_OPTIONS.items() if (value := getattr(options, field))]
    if options.tls == "verify-full":
        arguments.append("--ssl-verify-server-cert")
    if sql is not None:
        arguments.append(f"--execute={sql}")
    if target.database:
        arguments.append(f"--database={target.database}")
    return program, arguments, environment


def _converse(database: Database, sql: str | None) -> None:
    """Ask for statements and run them, until the end of the input."""
    from covet_orm.exceptions import OrmError

    with asyncio.Runner() as runner:
        try:
            if sql is not None:
                runner.run(_show(database, sql))
                return
            while (statement := _read()) is not None:
                try:
                    runner.run(_show(database, statement))
                except OrmError as error:
                    click.secho(str(error), fg="red", err=True)
                except KeyboardInterrupt:
                    click.echo("interrupted", err=True)
        except OrmError as error:
            raise Failure(str(error)) from error
        finally:
            runner.run(database.close())


def _read() -> str | None:
    """A statement, up to its semicolon; None at the end of the input."""
    lines: list[str] = []
    asks = sys.stdin.isatty()
    while True:
        try:
            line = input(("  -> " if lines else "sql> ") if asks else "")
        except EOFError:
            if asks:
                click.echo()
            return "\n".join(lines) if "".join(lines).strip() else None
        except KeyboardInterrupt:
            click.echo()
            lines.clear()
            continue
        if not lines and line.strip().lower() in ("exit", "quit", "\\q", ".quit"):
            return None
        if line.strip() or lines:
            lines.append(line)
        if line.rstrip().endswith(";"):
            return "\n".join(lines)


async def _show(database: Database, sql: str) -> None:
    text = sql.strip().rstrip(";")
    if not text:
        return
    # A percent sign is one, with no parameters beside it.
    told = await database.query(text.replace("%", "%%") if database.kind in ("mysql", "mariadb") else text)
    if not told.columns:
        click.echo("done")
        return
    print_table(told.columns, [["NULL" if value is None else str(value) for value in row] for row in told.rows[:LIMIT]])
    more = len(told.rows) - LIMIT
    click.echo(f"({len(told.rows)} rows{f', {LIMIT} of them shown' if more > 0 else ''})", err=True)
