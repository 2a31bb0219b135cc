"""Hostile input to the query builder, in every place that takes any: none of it becomes SQL.

Twice: the text for a hostile value is that for a harmless one, and the text for a hostile name differs from that for a
harmless one by the quoted name alone; and run on real databases, nothing but what was asked for happens.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from covet_orm.databases import Database
from covet_orm.dialects import KINDS
from covet_orm.exceptions import DatabaseError, DataError, InvalidIdentifier, NotSupported, QueryError
from covet_orm.querybuilder import (
    Conditions,
    QueryBuilder,
    case,
    cast,
    col,
    count,
    excluded,
    fn,
    json_path,
    json_value,
    raw,
    value,
)
from covet_orm.querybuilder.conditions import OPERATORS

# What is known in public, by what it tries.
PAYLOADS: dict[str, list[str]] = {
    "tautologies": [
        "' OR '1'='1", "' OR 1=1 -- ", '" OR ""="', "` OR `a`=`a", "1 OR 1=1", "1) OR (1=1", "') OR ('a'='a",
        "admin'-- ", "x' OR id IS NOT NULL OR 'x'='y", "' OR true --", "1' || '1'='1", "'='", "'-0 OR '1",
    ],
    "comments": [
        "admin'/*", "*/ OR 1=1 /*", "--", "-- -", "#", "';#", "/*!50000 OR 1=1 */", "/**/OR/**/1=1", "'--\n OR 1=1",
    ],
    "stacked statements": [
        "'; DROP TABLE victims; --", "1; DELETE FROM victims", '"; DROP TABLE victims; --',
        "`; DROP TABLE victims; -- ", "'); DROP TABLE victims; --", "; COMMIT; DROP TABLE victims; BEGIN",
        "'; SELECT pg_sleep(9); --", "$$; DROP TABLE victims; $$", "\\'; DROP TABLE victims; --",
        ";ATTACH DATABASE '/tmp/x.db' AS x; --",
    ],
    "unions": [
        "' UNION SELECT name, secret FROM victims --", "1 UNION ALL SELECT NULL,NULL", "') UNION SELECT 1 --",
        "' UNION SELECT sqlite_version() --", "0 UNION SELECT table_name FROM information_schema.tables",
    ],
    "blind and timed": [
        "' AND SLEEP(9) --", "1 AND (SELECT COUNT(*) FROM victims) > 0", "'||(SELECT pg_sleep(9))||'",
        "' AND 1=randomblob(9) --", "1' AND extractvalue(1, concat(0x7e, version())) --",
        "' AND 1=CAST(version() AS int) --", "BENCHMARK(99,MD5(1))",
    ],
    "quotes": [
        "'", "''", '"', '""', "`", "``", "]", "[", '\'"`', "$tag$", "$$", "E'\\''", "N'x'", "q'[x]'", "'''", '"""',
        "```",
    ],
    "backslashes": [
        "\\", "\\'", "\\\\'", '\\"', "\\`", "\\x27 OR 1=1", "\\u0027", "\\0", "%5c%27", "\\' OR 1=1 -- ", "a\\",
    ],
    "bytes of other encodings": [
        "\xbf' OR 1=1 -- ", "\xbf\\' OR 1=1 -- ", "\u7e17' OR 1=1", "\u8a63\\' OR 1=1 --", "\u0160\\'",
        "\uff07\u5c5c'", "\xc0\xa7", "\xf0'", "\u5c27", "+ACc- OR 1=1",
    ],
    "NUL and controls": [
        "\x00", "'\x00 OR 1=1", "a\x00b", "\x1a'", "\x08'", "a\rb", "a\nb' OR 1=1", "\t' OR 1=1", "\x7f'", "\x85'",
        "\u2028",
    ],
    "quotes that only look like one": [
        "\u2018 OR 1=1 --", "\u2019 OR \u20191\u2019=\u20191", "\u02bc OR 1=1 --", "\uff07 OR 1=1 --",
        "\u201c OR \u201d", "\uff02", "\u2032 OR 1=1", "\u0301'", "\uff40", "\u02cb; DROP TABLE victims",
        "\ufe63\ufe63", "\u037e DROP TABLE victims", "\u202e' OR 1=1", "\u212a", "\ufeff'",
    ],
    "placeholders": [
        "?", "??", "%s", "%%s", "%(name)s", "%(__value_1)s", "%(param_1)s", "$1", "$2", ":name", ":p0", "{0}", "{}",
        "%", "%%", "%d", "__[POSTCOMPILE_param_1]", "__value_1", "@a := 1", "\\:x", "%(a)s%(b)s", "~~",
    ],
    "names": [
        'victims"; DROP TABLE victims; --', "victims`; DROP TABLE victims; -- ", 'name" FROM victims --',
        "secret` FROM `victims", "id, secret", "(SELECT secret FROM victims)", "*", "victims.*", "a.b", "a.b.c",
        "a.b.c.d", ".", "..", "a.", ".a", " ", "", "order by", "SELECT", "name AS x", "name -- ",
        "pg_catalog.pg_user", "sqlite_master", "mysql.user", "name; --", "name ",
    ],
    "JSON paths": [
        "$", "$.a", '$."a"', "a.b", 'a"."b', "a'||'", '"]', "[0]", "a[*]", "**", "{a,b}", "a,b", "a}", '"',
        "$**.secret", '\\"', "a' RETURNING data --",
    ],
    "orders and limits": [
        "1 DESC", "id; --", "RAND()", "(CASE WHEN 1=1 THEN id ELSE name END)", "1 OFFSET 1", "1,1", "ALL", "-1",
        "id ASC, name",
    ],
    "numbers as text": [
        "0", "1e309", "0x27", "0b1", "NaN", "-1", "1_000", "\u0661",
    ],
}  # fmt: skip
EVERY = [payload for payloads in PAYLOADS.values() for payload in payloads]
HARMLESS = "harmless"
# A function is named by the program alone: any word is one, perhaps after that of a schema.
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
REFUSED = (InvalidIdentifier, QueryError, DataError)

users = QueryBuilder("users")

# Where text is a value.
VALUES: dict[str, Callable[[Any], QueryBuilder]] = {
    "where": lambda text: users.where("name", "=", text),
    "or_where": lambda text: users.where("id", "=", 1).or_where("name", "!=", text),
    "where like": lambda text: users.where("name", "like", text),
    "where ilike": lambda text: users.where("name", "ilike", text),
    "where contains": lambda text: users.where("name", "contains", text),
    "where startswith": lambda text: users.where("name", "startswith", text),
    "where regexp": lambda text: users.where("name", "regexp", text),
    "where_in": lambda text: users.where_in("name", [text, "b"]),
    "where between": lambda text: users.where_between("name", text, text),
    "group": lambda text: users.where(lambda group: group.where("a", "=", text).or_where("b", "=", text)),
    "having": lambda text: users.select("name").group_by("name").having("name", "=", text),
    "select": lambda text: users.select(x=value(text)),
    "case": lambda text: users.select(x=case((Conditions().where("name", "=", text), text), else_=text)),
    "concat": lambda text: users.select(x=col("name").concat(text)),
    "function": lambda text: users.select(x=fn("coalesce", col("name"), value(text))),
    "filter": lambda text: users.select(x=count().filter(Conditions().where("name", "=", text))),
    "on": lambda text: users.join("posts", lambda on: on.where("posts.title", "=", text)),
    "raw": lambda text: users.where(raw("lower(name) = ?", text)),
    "json": lambda text: users.insert({"data": json_value({text: text})}),
    "insert": lambda text: users.insert({"name": text}, {"name": text}),
    "update": lambda text: users.where("id", "=", 1).update({"name": text}),
    "delete": lambda text: users.where("name", "=", text).delete(),
    "upsert": lambda text: users.upsert({"name": text}, conflict=["name"], update={"name": text}),
    "exists": lambda text: users.where_exists(QueryBuilder("posts").where("title", "=", text)),
    "union": lambda text: users.union(users.where("name", "=", text)),
    "with": lambda text: QueryBuilder("found").with_("found", users.where("name", "=", text)),
}

# Where text is a name.
NAMES: dict[str, Callable[[str], QueryBuilder]] = {
    "table": lambda name: QueryBuilder(name).select("id"),
    "table's alias": lambda name: QueryBuilder("users", alias=name),
    "select": lambda name: users.select(name),
    "selected alias": lambda name: users.select(col("id").as_(name)),
    "col": lambda name: users.where("id", "=", col(name)),
    "where": lambda name: users.where(name, "=", 1),
    "where_in": lambda name: users.where_in(name, [1]),
    "where_null": lambda name: users.where_null(name),
    "where_column": lambda name: users.where_column("id", "=", name),
    "group_by": lambda name: users.select("id").group_by(name),
    "having": lambda name: users.select("id").group_by("id").having(name, ">", 1),
    "order_by": lambda name: users.order_by(name, "desc", nulls="last"),
    "join": lambda name: users.join(name, lambda on: on.where("users.id", "=", 1)),
    "join on": lambda name: users.join("posts", name, "=", "users.id"),
    "join alias": lambda name: users.cross_join("posts", alias=name),
    "subquery's alias": lambda name: QueryBuilder(users, alias=name),
    "with": lambda name: QueryBuilder("found").with_(name, users),
    "aggregate": lambda name: users.select(x=count(name)),
    "window": lambda name: users.select(x=fn("row_number").over(partition_by=name, order_by=name)),
    "cast": lambda name: users.select(x=cast(name, "integer")),
    "json_path": lambda name: users.select(x=json_path(name, "a")),
    "insert": lambda name: users.insert({name: 1}),
    "insert_from": lambda name: users.insert_from([name], QueryBuilder("posts").select("id")),
    "update": lambda name: users.update({name: 1}, everything=True),
    "upsert": lambda name: users.upsert({name: 1}, conflict=[name], update={name: excluded(name)}),
    "delete": lambda name: QueryBuilder(name).delete(everything=True),
}

# Where text is a word of a closed list.
WORDS: dict[str, Callable[[Any], QueryBuilder]] = {
    "operator": lambda word: users.where("id", word, 1),
    "or operator": lambda word: users.or_where("id", word, 1),
    "having operator": lambda word: users.having("id", word, 1),
    "join operator": lambda word: users.join("posts", "posts.id", word, "users.id"),
    "direction": lambda word: users.order_by("id", word),
    "nulls": lambda word: users.order_by("id", nulls=word),
    "ordering's nulls": lambda word: users.order_by(col("id").desc(word)),
    "join": lambda word: users.join("posts", "posts.id", "=", "users.id", kind=word),
    "limit": lambda word: users.limit(word),
    "offset": lambda word: users.offset(word),
    "frame": lambda word: users.select(x=count().over(order_by="id", rows=(word, 0))),
    "cast's type": lambda word: users.select(x=cast("id", word)),
    "dialect": lambda word: QueryBuilder("users", dialect=word or "?"),
    "locked table": lambda word: users.for_update(of=[word]),
    "function": lambda word: users.select(x=fn(word, col("id"))),
}


def quoted(name: str, kind: str) -> str:
    """A name as the database reads it back: written here once more, by its manual."""
    if kind == "postgresql":
        return '"' + name.replace('"', '""') + '"'
    text = "`" + name.replace("`", "``") + "`"
    return text if kind == "sqlite" else text.replace("%", "%%")


def value_changes_parameters_alone(place: str, text: str, kind: str) -> None:
    build = VALUES[place]
    harmless = build(HARMLESS).build(kind)
    try:
        hostile = build(text).build(kind)
    except DataError:
        assert "\0" in text or any("\ud800" <= character <= "\udfff" for character in text)
        return
    assert hostile.sql == harmless.sql
    assert len(hostile.params) == len(harmless.params)
    if place not in ("json", "where contains", "where startswith"):
        assert hostile.params == tuple(
            [text, "b"] if param == [HARMLESS, "b"] else text if param == HARMLESS else param
            for param in harmless.params
        )


def name_is_quoted_or_refused(place: str, name: str, kind: str) -> None:
    build = NAMES[place]
    try:
        sql = build(name).build(kind).sql
    except REFUSED:
        return
    if (name == "*" and place in ("select", "aggregate")) or (name == "users.*" and place == "select"):
        return
    harmless = build(HARMLESS).build(kind).sql
    path = ".".join(quoted(part, kind) for part in name.split("."))
    assert sql == harmless.replace(quoted(HARMLESS, kind), path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", VALUES)
def test_known_payloads_as_values(place: str, kind: str) -> None:
    for payload in EVERY:
        value_changes_parameters_alone(place, payload, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", NAMES)
def test_known_payloads_as_names(place: str, kind: str) -> None:
    for payload in EVERY:
        name_is_quoted_or_refused(place, payload, kind)


@pytest.mark.parametrize("place", WORDS)
def test_known_payloads_as_words(place: str) -> None:
    for payload in EVERY:
        if place == "function" and WORD.fullmatch(payload):
            continue
        with pytest.raises(QueryError):
            WORDS[place](payload).build("postgresql")


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(sorted(VALUES)), text=st.text(), kind=st.sampled_from(KINDS))
@example(place="where", text="'\\\"`%?$1", kind="mysql")
def test_any_text_as_a_value(place: str, text: str, kind: str) -> None:
    value_changes_parameters_alone(place, text, kind)


hostile_names = st.text(st.sampled_from("ab\"`'[]%()s_$1?:;-/*\\ .\0\n#ä😀\u02bc\uff07"), max_size=70) | st.text(
    max_size=70
)


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(sorted(NAMES)), name=hostile_names, kind=st.sampled_from(KINDS))
@example(place="select", name="%(param_1)s", kind="sqlite")
@example(place="where", name="__value_1", kind="sqlite")
@example(place="insert", name="__value_1", kind="postgresql")
@example(place="table", name="a%sb", kind="mysql")
@example(place="update", name="param_1", kind="mysql")
def test_any_text_as_a_name(place: str, name: str, kind: str) -> None:
    name_is_quoted_or_refused(place, name, kind)


@settings(max_examples=150, deadline=None)
@given(place=st.sampled_from(sorted(WORDS)), word=st.text(min_size=1))
def test_any_text_as_a_word(place: str, word: str) -> None:
    if (place == "function" and WORD.fullmatch(word)) or " ".join(word.lower().split()) in OPERATORS:
        return
    with pytest.raises(QueryError):
        WORDS[place](word).build("postgresql")


@settings(max_examples=150, deadline=None)
@given(keys=st.lists(st.text() | st.integers(0, 9), min_size=1, max_size=4), kind=st.sampled_from(KINDS))
def test_any_path_into_json_is_a_parameter(keys: list[str | int], kind: str) -> None:
    build = users.select(x=json_path("data", *keys)).where
    try:
        hostile = build("id", "=", 1).build(kind)
    except (DataError, NotSupported):
        assert any(
            isinstance(key, str) and not (key.isascii() and key.isprintable() and '"' not in key and "\\" not in key)
            for key in keys
        )
        return
    assert hostile.sql == users.select(x=json_path("data", "a")).where("id", "=", 1).build(kind).sql


@pytest.mark.parametrize("wrong", [-1, 2**63, 1.5, True, None, "1", [1], "1; DROP TABLE victims"])
def test_a_limit_is_a_number_of_rows(wrong: Any) -> None:
    for bounded in (users.limit, users.offset):
        with pytest.raises(QueryError, match="number of rows"):
            bounded(wrong)


@pytest.mark.parametrize("odd", [["a", "b"], ("a",), {"a": 1}, {"a"}, object(), {"$ne": None}])
@pytest.mark.parametrize("kind", ["mysql", "mariadb", "sqlite"])
def test_a_value_of_a_structure_does_not_become_sql(kind: str, odd: Any) -> None:
    """What a JSON body holds where a text was expected: PyMySQL writes a list as `('a','b')`."""
    with pytest.raises(DataError):
        users.where("password", "=", odd).build(kind)


def test_a_type_that_pretends_to_be_text_is_taken_as_the_text_that_it_is() -> None:
    class Sly(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "' OR 1=1 --"

        def replace(self, *args: Any) -> str:
            return "' OR 1=1 --"

    for kind in KINDS:
        (param,) = users.where("name", "=", Sly("mild")).build(kind).params
        assert type(param) is str
        assert param == "mild"


@pytest.fixture
async def victims(url: str) -> AsyncIterator[Database]:
    """A database with a table that must stay as it is."""
    async with Database(url) as db:
        text = "varchar(400)" if db.kind == "mariadb" else "text"
        data = "jsonb" if db.kind == "postgresql" else text
        for table in ("victims", "users"):
            key = {"sqlite": "integer PRIMARY KEY", "mariadb": "integer PRIMARY KEY AUTO_INCREMENT"}.get(
                db.kind, "integer GENERATED BY DEFAULT AS IDENTITY (START WITH 10) PRIMARY KEY"
            )
            await db.script(f"CREATE TABLE {table} (id {key}, name {text}, secret {text}, data {data})")
            await (
                QueryBuilder(table)
                .insert({"id": 1, "name": "ada", "secret": "s1"}, {"id": 2, "name": "bob", "secret": "s2"})
                .execute(db)
            )
        yield db


async def unharmed(db: Database) -> None:
    rows = await QueryBuilder("victims").order_by("id").fetch_all(db)
    assert [tuple(row.values()) for row in rows] == [(1, "ada", "s1", None), (2, "bob", "s2", None)]


@contextmanager
def refused_perhaps() -> Iterator[None]:
    """A hostile name is refused, by us or by the server, or names nothing."""
    try:
        yield
    except (*REFUSED, DatabaseError):
        return


@pytest.mark.anyio
@pytest.mark.parametrize("category", PAYLOADS)
async def test_values_on_real_databases(victims: Database, category: str) -> None:
    db = victims
    for payload in PAYLOADS[category]:
        if "\0" in payload:
            with pytest.raises(DataError):
                await users.where("name", "=", payload).fetch_all(db)
            continue
        assert await users.where("name", "=", payload).or_where_in("secret", [payload]).fetch_all(db) == []
        assert await users.where("name", "contains", payload).where("id", "<", 0).fetch_all(db) == []
        assert await users.where(raw("name = ?", payload)).fetch_all(db) == []
        assert await QueryBuilder().select(x=value(payload)).fetch_value(db) == payload
        # What went in comes out, and is found by what it is and by a part of it.
        assert await users.insert({"name": payload, "data": json_value({"k": payload})}).execute(db) == 1
        one = users.where("id", ">", 2)
        assert await one.select("name").fetch_value(db) == payload
        assert await one.select(json_path("data", "k")).fetch_value(db) == payload
        if payload:
            assert await one.where("name", "contains", payload).select(count()).fetch_value(db) == 1
        assert await one.update({"secret": payload}).execute(db) == 1
        assert await one.select("secret").fetch_value(db) == payload
        assert await one.delete().execute(db) == 1
    await unharmed(db)
    assert await users.select(count()).fetch_value(db) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("category", PAYLOADS)
async def test_names_on_real_databases(victims: Database, category: str) -> None:
    db = victims
    for payload in PAYLOADS[category]:
        for place in NAMES:
            # What changes rows is undone; nothing of the attempts is.
            if place in ("insert", "insert_from", "update", "upsert", "delete"):
                continue
            with refused_perhaps():
                await NAMES[place](payload).fetch_all(db)
        for place in ("insert", "insert_from", "update", "upsert"):
            with refused_perhaps():
                await NAMES[place](payload).execute(db)
        with refused_perhaps():
            # An alias comes back as it was given, or was refused.
            row = await QueryBuilder().select(value(1).as_(payload)).fetch_one(db)
            assert row == {payload: 1}
    await unharmed(db)
    rows = await users.order_by("id").fetch_all(db)
    assert [(row["id"], row["name"], row["secret"]) for row in rows] == [(1, "ada", "s1"), (2, "bob", "s2")]


@pytest.mark.anyio
async def test_keys_of_json_reach_their_own_values_alone(victims: Database) -> None:
    db = victims
    keys = [payload for payload in [*PAYLOADS["JSON paths"], *PAYLOADS["quotes"], *PAYLOADS["backslashes"]] if payload]
    for key in keys:
        data = {"a": {"b": "inner"}, "secret": "hidden"} | {key: "own"}
        await users.where("id", "=", 1).update({"data": json_value(data)}).execute(db)
        query = users.where("id", "=", 1).select(json_path("data", key))
        try:
            assert await query.fetch_value(db) == "own", key
        except NotSupported:
            assert db.kind == "sqlite"
            assert '"' in key or "\\" in key


@pytest.mark.anyio
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50))
async def test_any_text_goes_in_and_comes_out(victims: Database, text: str) -> None:
    row = await users.select(x=value(text)).where("id", "=", 1).fetch_one(victims)
    assert row == {"x": text}
