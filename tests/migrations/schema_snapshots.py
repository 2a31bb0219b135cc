"""What stands in the catalogue of a database, told so that two schemas can be compared whatever way each was made.

Left out is what nobody declares: the order of columns, the names of sequences, the index that InnoDB makes for a
foreign key of its own accord.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.services.databases import ask

__all__ = ["Snapshot", "snapshot", "table_rows"]

Snapshot = dict[str, dict[str, str]]
"""By table, by column, index or constraint, what is said of it."""


async def snapshot(url: str) -> Snapshot:
    """The schema of a database."""
    if url.startswith("sqlite"):
        return await _sqlite(url)
    return await (_postgresql(url) if url.startswith("postgresql") else _mariadb(url))


async def table_rows(url: str, table: str, columns: list[str], key: str = "id") -> list[tuple[object, ...]]:
    """The rows of some columns of a table, in the order of one."""
    quote = '"' if not url.startswith(("mysql", "mariadb")) else "`"
    names = ", ".join(f"{quote}{column}{quote}" for column in columns)
    return await ask(url, f"SELECT {names} FROM {quote}{table}{quote} ORDER BY {quote}{key}{quote}")


async def _postgresql(url: str) -> Snapshot:
    found: Snapshot = {}
    tables = "SELECT c.oid, c.relname FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
    for table, comment in await ask(
        url, f"SELECT t.relname, coalesce(obj_description(t.oid, 'pg_class'), '') FROM ({tables}) t"
    ):
        found[str(table)] = {"comment": str(comment)}
    for table, column, *parts in await ask(
        url,
        "SELECT t.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attgenerated::text, "
        "a.attidentity::text, coalesce(pg_get_expr(d.adbin, d.adrelid), ''), "
        "coalesce(col_description(t.oid, a.attnum), '') "
        f"FROM ({tables}) t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum",
    ):
        text = " | ".join(part.decode() if isinstance(part, bytes) else str(part) for part in parts)
        found[str(table)][f"column {column}"] = re.sub(r"nextval\('.*?'::regclass\)", "nextval", text)
    for table, name, text, valid in await ask(
        url,
        "SELECT t.relname, c.conname, pg_get_constraintdef(c.oid), c.convalidated::text "
        f"FROM ({tables}) t JOIN pg_constraint c ON c.conrelid = t.oid WHERE c.contype <> 'n'",
    ):
        found[str(table)][f"constraint {name}"] = f"{text} | {valid}"
    for table, name, text, valid in await ask(
        url,
        "SELECT t.relname, c.relname, pg_get_indexdef(c.oid), i.indisvalid::text "
        f"FROM ({tables}) t JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class c ON c.oid = i.indexrelid",
    ):
        found[str(table)][f"index {name}"] = f"{text} | {valid}"
    for table, column, kind in await ask(
        url,
        "SELECT t.relname, a.attname, s.seqtypid::regtype::text "
        "FROM pg_depend p JOIN pg_sequence s ON s.seqrelid = p.objid "
        f"JOIN ({tables}) t ON t.oid = p.refobjid "
        "JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = p.refobjsubid",
    ):
        found[str(table)][f"counts {column}"] = str(kind)
    return found


async def _mariadb(url: str) -> Snapshot:
    found: Snapshot = {}
    for (table,) in await ask(url, "SHOW TABLES"):
        ((_, text),) = await ask(url, f"SHOW CREATE TABLE {_quoted(table, '`')}")
        _head, *lines, tail = str(text).splitlines()
        told = {line.strip().removesuffix(",") for line in lines}
        keys = {match[1] for line in told if (match := re.match(r"CONSTRAINT `(.*?)` FOREIGN KEY", line))}
        found[str(table)] = {line: "" for line in told if not any(line.startswith(f"KEY `{key}` ") for key in keys)}
        found[str(table)]["options"] = re.sub(r" AUTO_INCREMENT=\d+", "", tail)
    return found


async def _sqlite(url: str) -> Snapshot:
    found: Snapshot = {}
    for table, sql in await ask(
        url, "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ):
        found[str(table)] = told = dict[str, str]()
        for row in await ask(url, f"PRAGMA table_xinfo({_quoted(table)})"):
            told[f"column {row[1]}"] = " | ".join(map(str, row[2:]))
        body = str(sql).partition("(")[2].rpartition(")")[0]
        for part in _split(body):
            text = " ".join(part.replace('"', "").split())
            quoted = re.match(r'\s*"(.*?)"', part)
            column = quoted[1] if quoted is not None else text.partition(" ")[0]
            inline = re.search(r"CONSTRAINT (.+?) REFERENCES (.*)", text)
            if column == "CONSTRAINT":
                told[text] = ""
            elif inline is not None:
                told[f"CONSTRAINT {inline[1]} FOREIGN KEY({column}) REFERENCES {inline[2]}"] = ""
            generated = re.search(r"GENERATED ALWAYS AS (.*)", text)
            if generated is not None:
                told[f"generated {column}"] = generated[1]
        for kind, name, text in await ask(
            url,
            "SELECT type, name, sql FROM sqlite_master WHERE type <> 'table' AND sql <> '' "
            f"AND tbl_name = {_quoted(table, chr(39))}",
        ):
            told[f"{kind} {name}"] = " ".join(str(text).replace('"', "").split())
        keys = await ask(url, f"PRAGMA foreign_key_list({_quoted(table)})")
        told["foreign keys"] = str(sorted(row[2:] for row in keys))
    return found


def _quoted(name: object, quote: str = '"') -> str:
    """A name, or a text, as it stands in SQL."""
    return f"{quote}{str(name).replace(quote, quote * 2)}{quote}"


def _split(body: str) -> Iterator[str]:
    """The parts of a table's definition: what stands between commas that are in no parentheses and no literal."""
    depth, start, quoted = 0, 0, ""
    for position, letter in enumerate(body):
        if quoted:
            quoted = "" if letter == quoted else quoted
        elif letter in "'\"":
            quoted = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == "," and depth == 0:
            yield body[start:position]
            start = position + 1
    yield body[start:]
