"""What users of tools for migrations suffered, as something to be done with any of them.

`tests/proofs/migrate_peers.py` does it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.migrations.peers import PEERS, Alembic, Column, Covet, Ended, Models, Peer
from tests.services.databases import ask

__all__ = ["ALL", "CASES", "NEXT_DATABASE", "Case", "Seen"]

TOGETHER = 3
"""Processes that apply migrations at the same time."""
ROUNDS = 3
KEY = Column("key")


@dataclass
class Seen:
    """What a tool did.

    Attributes:
        facts: in words.
        shows: whether it is what the users suffered.
    """

    facts: list[str] = field(default_factory=list)
    shows: bool = False

    def add(self, fact: str, *, shows: bool = False) -> None:
        """Note what was seen, and whether it is what users suffered."""
        self.facts.append(fact)
        self.shows |= shows

    def ended(self, command: str, ended: Ended) -> None:
        """Note how a command ended."""
        self.add(f"`{command}` exits with {ended.code}{f' (*{ended.why}*)' if ended.code else ''}")


@dataclass(frozen=True)
class Case:
    """Something that users suffered.

    Attributes:
        title: what it is.
        told: who told it, and how it is done here.
        databases: on which databases.
        tools: by which tools.
        run: does it with a project.
    """

    title: str
    told: str
    databases: Sequence[str]
    tools: Sequence[str]
    run: Callable[[Peer, Seen], Coroutine[Any, Any, None]]


async def begin(peer: Peer, seen: Seen, models: Models, *rows: str) -> None:
    """Make the first migration, apply it, and put rows into its tables."""
    peer.write(models)
    for ended in (peer.make(), peer.apply()):
        if ended.code:
            raise RuntimeError(f"{peer.name} could not even begin: {ended.out}")
    if rows:
        await ask(peer.url, *rows)


def made(peer: Peer, seen: Seen, models: Models, *, enter: bool = False) -> bool:
    """Change the models and make a migration; whether there is a new one."""
    before = peer.migrations()
    peer.write(models)
    ended = peer.make(enter=enter)
    new = peer.migrations() != before
    seen.ended(peer.making, ended)
    words = [line.strip() for line in ended.out.splitlines() if re.search("renamed|remov|loses", line, re.IGNORECASE)]
    if new and words:
        seen.add(f"it says *{' / '.join(words)[:300]}*")
    if not new:
        seen.add(f"and writes no migration{' (*' + ended.why + '*)' if not ended.code else ''}")
    return new


def applied(peer: Peer, seen: Seen) -> Ended:
    """Apply migrations, and note how that ended."""
    ended = peer.apply()
    seen.ended(peer.applying, ended)
    return ended


async def widen(peer: Peer, seen: Seen) -> None:
    book = {"id": KEY, "author": Column("reference", to="Author")}
    await begin(
        peer, seen, {"Author": {"id": KEY, "name": Column()}, "Book": book},
        "INSERT INTO author (id, name) VALUES (1, 'a')", "INSERT INTO book (id, author_id) VALUES (1, 1), (2, 1)",
    )  # fmt: skip
    if not made(peer, seen, {"Author": {"id": KEY, "name": Column(length=50)}, "Book": book}):
        return
    applied(peer, seen)
    (left,) = (await ask(peer.url, "SELECT count(*) FROM book"))[0]
    seen.add(f"{left} of 2 children are there", shows=left != 2)


FAX, PHONE = ({"Person": {"id": KEY, name: Column(null=True)}} for name in ("fax", "phone"))
NUMBER = "INSERT INTO person (id, fax) VALUES (1, '555')"


async def rename_unasked(peer: Peer, seen: Seen) -> None:
    await begin(peer, seen, FAX, NUMBER)
    if made(peer, seen, PHONE):
        seen.shows |= await renamed(peer, seen)


async def rename_by_enter(peer: Peer, seen: Seen) -> None:
    await begin(peer, seen, FAX, NUMBER)
    if made(peer, seen, PHONE, enter=True):
        seen.shows |= await renamed(peer, seen)


async def rename_meant(peer: Peer, seen: Seen) -> None:
    await begin(peer, seen, FAX, NUMBER)
    if isinstance(peer, Covet):
        peer.write(PHONE)
        seen.ended(
            f"{peer.making} --rename shop.Person.fax:phone", peer.make(more=["--rename", "shop.Person.fax:phone"])
        )
    else:
        # aerich asks, and its answer is Yes.
        made(peer, seen, PHONE, enter=True)
    seen.shows |= not await renamed(peer, seen)


async def renamed(peer: Peer, seen: Seen) -> bool:
    """Apply what was made, and look whether the fax number is a phone number now."""
    applied(peer, seen)
    names = await _columns(peer.url, "person")
    if "fax" in names:
        seen.add("the fax number is there as before")
        return False
    kept = await ask(peer.url, "SELECT phone FROM person") == [("555",)]
    seen.add("the fax number is a phone number now" if kept else "the fax number is gone")
    return kept


async def _columns(url: str, table: str) -> set[str]:
    if url.startswith("sqlite"):
        return {row[1] for row in await ask(url, f"PRAGMA table_info({table})")}
    schema = "current_schema()" if url.startswith("postgresql") else "database()"
    found = await ask(
        url,
        f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' AND table_schema = {schema}",
    )
    return {str(row[0]) for row in found}


async def not_null(peer: Peer, seen: Seen) -> None:
    await begin(peer, seen, {"Person": {"id": KEY, "fax": Column()}}, "INSERT INTO person (fax) VALUES ('555')")
    changed = {"Person": {"id": KEY, "fax": Column(), "age": Column("integer")}}
    if made(peer, seen, changed):
        ended = applied(peer, seen)
        seen.add("nobody was asked what the row gets", shows=ended.code != 0)
    elif isinstance(peer, Covet):
        seen.ended(f"{peer.making} --default shop.Person.age=7", peer.make(more=["--default", "shop.Person.age=7"]))
        ended = applied(peer, seen)
        rows = await ask(peer.url, "SELECT age FROM person")
        seen.add(f"the row has {rows[0][0]}", shows=ended.code != 0 or rows != [(7,)])


async def crash(peer: Peer, seen: Seen) -> None:
    await begin(peer, seen, {"Person": {"id": KEY}})
    if not made(peer, seen, {"Person": {"id": KEY, "note": Column(null=True)}}):
        return
    died = peer.apply(dies=True)
    there = "note" in await _columns(peer.url, "person")
    seen.add(f"killed (exit code {died.code}) as it begins to write down that it is applied")
    if died.code != -9:
        raise RuntimeError(f"{peer.name} was not killed: {died.out}")
    seen.add(f"the column is {'there, and not recorded' if there else 'not there'}")
    ended = applied(peer, seen)
    both = "note" in await _columns(peer.url, "person")
    seen.add("typed again, it is as it should be" if both and not ended.code else "it cannot be gone on with")
    seen.shows |= ended.code != 0 or not both


async def larger_key(peer: Peer, seen: Seen) -> None:
    def models(kind: str) -> Models:
        author = {"id": Column(kind), "name": Column(null=True)}
        return {"Author": author, "Book": {"id": KEY, "author": Column("reference", to="Author")}}

    await begin(
        peer, seen, models("key"),
        "INSERT INTO author (name) VALUES ('a')", "INSERT INTO book (author_id) VALUES (1)",
    )  # fmt: skip
    if not made(peer, seen, models("big key")):
        seen.add("the key cannot be changed", shows=True)
        return
    text = peer.last()
    dropped = [name for name in ("RemoveField", "drop_column", "DROP COLUMN") if name in text]
    changes = "author" in text.lower()
    alters = "alters the column" if changes else "changes nothing, as every key has 64 bits there"
    seen.add(f"the migration {'removes the column: `' + dropped[0] + '`' if dropped else alters}")
    ended = applied(peer, seen)
    rows = await ask(peer.url, "SELECT a.id FROM author a JOIN book b ON b.author_id = a.id")
    seen.add(f"the book {'has its author' if rows == [(1,)] else 'has lost its author'}")
    seen.shows |= ended.code != 0 or rows != [(1,)] or bool(dropped)
    if not seen.shows and peer.url.startswith("postgresql"):
        try:
            await ask(
                peer.url, "SELECT setval(pg_get_serial_sequence('author', 'id'), 2147483647)",
                "INSERT INTO author (name) VALUES ('b')",
            )  # fmt: skip
            seen.add("keys go on beyond 2³¹")
        except Exception as error:
            seen.add(f"keys end at 2³¹ all the same (*{str(error)[:100]}*)", shows=True)


async def on_delete(peer: Peer, seen: Seen) -> None:
    def models(action: str) -> Models:
        book = {"id": KEY, "author": Column("reference", to="Author", null=True, on_delete=action)}
        return {"Author": {"id": KEY, "name": Column(null=True)}, "Book": book}

    await begin(
        peer, seen, models("CASCADE"),
        "INSERT INTO author (name) VALUES ('a')", "INSERT INTO book (author_id) VALUES (1)",
    )  # fmt: skip
    if made(peer, seen, models("SET_NULL")):
        applied(peer, seen)
    rows = await ask(peer.url, "DELETE FROM author", "SELECT author_id FROM book")
    seen.add(f"with its author deleted, the book {'stays' if rows else 'is deleted'}", shows=not rows)


async def unique(peer: Peer, seen: Seen) -> None:
    await begin(peer, seen, {"Book": {"id": KEY, "code": Column(index=True)}})
    if made(peer, seen, {"Book": {"id": KEY, "code": Column(index=True, unique=True)}}):
        applied(peer, seen)
    try:
        await ask(peer.url, "INSERT INTO book (code) VALUES ('a')", "INSERT INTO book (code) VALUES ('a')")
        seen.add("the same code is accepted twice", shows=True)
    except Exception as error:
        seen.add(f"the same code is refused ({type(error).__name__})")


async def together(peer: Peer, seen: Seen) -> None:
    models: dict[str, dict[str, Column]] = {f"Thing{number}": {"id": KEY, "name": Column()} for number in range(5)}
    first = dict(models)
    await begin(peer, seen, first)
    for number in range(3):
        models = {**models, f"More{number}": {"id": KEY, "code": Column(unique=True)}}
        peer.write(models)
        if peer.make().code:
            raise RuntimeError(f"{peer.name} made no migration")
        if isinstance(peer, Alembic | PEERS["aerich"]):
            # Both compare with the database, which has to have what is there so far.
            peer.apply()
    failed = 0
    outs: list[str] = []
    for _ in range(ROUNDS):
        url = NEXT_DATABASE[0]()
        for file in peer.folder.rglob("*"):
            if file.suffix in (".toml", ".ini") or file.name == "settings.py":
                text = file.read_text(encoding="utf-8")
                file.write_text(text.replace(peer.url.rpartition("/")[2], url.rpartition("/")[2]), encoding="utf-8")
        peer.url = url
        processes = [peer.start() for _ in range(TOGETHER)]
        for process in processes:
            out, _ = await asyncio.to_thread(process.communicate)
            if process.returncode:
                failed += 1
                outs.append(Ended(process.returncode, out.decode(errors="replace")).why)
    seen.add(f"{failed} of {TOGETHER * ROUNDS} processes failed", shows=failed > 0)
    if outs:
        seen.add(f"as with *{outs[0]}*")


NEXT_DATABASE: list[Callable[[], str]] = []
"""Makes one more database of the kind that a case is run on."""


async def running_loop(peer: Peer, seen: Seen) -> None:
    peer.write({"Book": {"id": KEY}})
    if peer.make().code:
        raise RuntimeError(f"{peer.name} made no migration")
    work = {
        "covet": (
            "from covet_migrate import Migrator, load_files, locations_of\nfrom covet_orm import Database\n"
            "import shop.models\n"
            "async def work():\n    async with Database(URL) as database:\n"
            "        await Migrator(database, load_files(locations_of([shop.models.Book]))).migrate()\n"
        ),
        "alembic": (
            "from alembic import command\nfrom alembic.config import Config\n"
            "async def work(): command.upgrade(Config('alembic.ini'), 'head')\n"
        ),
        "tortoise": (
            "from tortoise import Tortoise\nfrom tortoise.migrations.api import migrate\n"
            "from settings import TORTOISE_ORM\n"
            "async def work():\n    await migrate(config=TORTOISE_ORM)\n    await Tortoise.close_connections()\n"
        ),
    }[peer.name]
    ended = peer.run(["-c", f"import asyncio\nURL = {peer.url!r}\n{work}\nasyncio.run(work())"])
    seen.ended("called from a coroutine, the library", ended)
    rows = await ask(peer.url, "SELECT count(*) FROM sqlite_master WHERE name = 'book'")
    seen.add(f"the table is {'there' if rows == [(1,)] else 'not there'}", shows=rows != [(1,)])


async def half(peer: Peer, seen: Seen) -> None:
    await begin(
        peer, seen, {"Book": {"id": KEY, "code": Column()}},
        "INSERT INTO book (code) VALUES ('a')", "INSERT INTO book (code) VALUES ('a')",
    )  # fmt: skip
    changed = {"Book": {"id": KEY, "code": Column(unique=True)}, "Shelf": {"id": KEY, "name": Column()}}
    if not made(peer, seen, changed):
        return
    applied(peer, seen)
    seen.add(f"the new table is {'there' if await _columns(peer.url, 'shelf') else 'not there'}")
    await ask(peer.url, "UPDATE book SET code = 'b' WHERE id = 2")
    ended = applied(peer, seen)
    seen.add("when what was in its way is gone, typed again, " + ("it cannot go on" if ended.code else "it is done"))
    seen.shows |= ended.code != 0


CONCURRENTLY = {
    "covet": """from covet_migrate import Migration, operations
import covet_orm as orm

migration = Migration(
    dependencies=[("shop", "0001_initial")],
    atomic=False,
    operations=[operations.AddIndex("Book", orm.Index("code", name="by_code", unique=True), concurrently=True)],
)
""",
    "alembic": """from alembic import op

revision, down_revision, branch_labels, depends_on = "0002", "0001", None, None


def upgrade():
    with op.get_context().autocommit_block():
        op.create_index("by_code", "book", ["code"], unique=True, postgresql_concurrently=True{more})
""",
}


async def concurrently(peer: Peer, seen: Seen) -> None:
    await _concurrently(peer, seen, "")


async def concurrently_if_not_there(peer: Peer, seen: Seen) -> None:
    await _concurrently(peer, seen, ", if_not_exists=True")


async def _concurrently(peer: Peer, seen: Seen, more: str) -> None:
    await begin(
        peer, seen, {"Book": {"id": KEY, "code": Column()}},
        "INSERT INTO book (code) VALUES ('a')", "INSERT INTO book (code) VALUES ('a')",
    )  # fmt: skip
    first = peer.migrations()[-1]
    first.with_name("0002_by_code.py").write_text(CONCURRENTLY[peer.name].replace("{more}", more), encoding="utf-8")
    applied(peer, seen)
    await ask(peer.url, "UPDATE book SET code = 'b' WHERE id = 2")
    ended = applied(peer, seen)
    seen.add("when the duplicates are gone, typed again, " + ("it cannot go on" if ended.code else "it is done"))
    valid = await ask(peer.url, "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('by_code')")
    seen.add(f"the index is {'valid' if valid == [(True,)] else 'not valid'}")
    seen.shows |= ended.code != 0 or valid != [(True,)]


ALL = ("covet", "tortoise", "aerich", "alembic")
CASES = {
    "widen": Case(
        "A longer column deletes the children of its rows",
        "Tortoise. A text of 20 characters becomes one of 50; two rows refer to the one that has it, with ON DELETE "
        "CASCADE.",
        ["sqlite"], ALL, widen,
    ),
    "rename": Case(
        "A field that goes and one that comes are taken for renamed, and nobody is asked",
        "Tortoise. `fax` goes and `phone` comes; there is nobody who could be asked.",
        ["sqlite"], ALL, rename_unasked,
    ),
    "enter": Case(
        "The answer that needs no thought is that it was renamed",
        "aerich (116, 134). The same at a terminal, at which somebody types Enter.",
        ["sqlite"], ALL, rename_by_enter,
    ),
    "meant": Case(
        "A field that was renamed loses what it holds",
        "Alembic (Flask-Migrate 563). `fax` is called `phone` from now on, and it is said where that can be said.",
        ["sqlite"], ALL, rename_meant,
    ),
    "not_null": Case(
        "A column that may not be NULL is added to rows without a value",
        "Tortoise. There is a row; `IntegerField()` comes.",
        ["postgresql-15"], ALL, not_null,
    ),
    "crash": Case(
        "A migration is applied, and not recorded",
        "Tortoise. A column comes; the process is killed as it begins to write down that it is applied.",
        ["postgresql-15", "mariadb"], ALL, crash,
    ),
    "larger_key": Case(
        "A larger key is removed and added anew, or cannot be made",
        "Tortoise. `id` becomes a 64-bit number; a book refers to its author by it.",
        ["sqlite", "postgresql-15", "mariadb"], ALL, larger_key,
    ),
    "on_delete": Case(
        "Another `on_delete` is not seen",
        "aerich (298). ON DELETE CASCADE becomes SET NULL.",
        ["postgresql-15"], ALL, on_delete,
    ),
    "unique": Case(
        "A field with an index that becomes unique is not seen",
        "aerich (404).",
        ["postgresql-15"], ALL, unique,
    ),
    "together": Case(
        "Several processes migrate at once, and fail",
        f"Alembic (633), Django. {TOGETHER} processes apply four migrations to an empty database at the same time, "
        f"{ROUNDS} times.",
        ["postgresql-15", "mariadb"], ALL, together,
    ),
    "running_loop": Case(
        "It cannot be called in a loop that runs",
        "Alembic (1353, 1606). Migrations are applied from a coroutine, as an application does when it starts.",
        ["sqlite"], ("covet", "tortoise", "alembic"), running_loop,
    ),
    "half": Case(
        "What failed half-way cannot be typed again",
        "Alembic (732). On MariaDB, which commits each statement of DDL: a new table, and a column that becomes "
        "unique, of which two rows have the same. Then these are mended, and the same is typed again.",
        ["mariadb"], ALL, half,
    ),
    "concurrently": Case(
        "An index that was built concurrently and failed is in the way",
        "Alembic. A unique index over duplicates; then these are mended, and the same is typed again. "
        "(`autocommit_block`, as its documentation has it.)",
        ["postgresql-15"], ("covet", "alembic"), concurrently,
    ),
    "if_not_there": Case(
        "An index that was built concurrently and failed is taken for done",
        "Alembic (omnigent 4541). The same with `if_not_exists=True`.",
        ["postgresql-15"], ("covet", "alembic"), concurrently_if_not_there,
    ),
}  # fmt: skip
