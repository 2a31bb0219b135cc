"""The query builder without a database: what it builds, and what it refuses."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet_orm.dialects import KINDS
from covet_orm.exceptions import DataError, FieldError, InvalidIdentifier, NotSupported, QueryError
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

users = QueryBuilder("users")


def sql(query: QueryBuilder, kind: str = "postgresql") -> str:
    return " ".join(query.build(kind).sql.split())


def where(query: QueryBuilder) -> str:
    return sql(query).partition(" WHERE ")[2]


def test_the_first_example() -> None:
    text, params = QueryBuilder("users").select("*").where("active", "=", True).build()
    assert " ".join(text.split()) == 'SELECT * FROM "users" WHERE "active" = $1'
    assert params == (True,)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("postgresql", 'SELECT "id" FROM "s"."users" WHERE "id" = $1 LIMIT $2'),
        ("mysql", "SELECT `id` FROM `s`.`users` WHERE `id` = %s LIMIT %s"),
        ("mariadb", "SELECT `id` FROM `s`.`users` WHERE `id` = %s LIMIT %s"),
        ("sqlite", "SELECT `id` FROM `s`.`users` WHERE `id` = ? LIMIT ? OFFSET ?"),
    ],
)
def test_each_database_has_its_quotes_and_placeholders(kind: str, expected: str) -> None:
    query = QueryBuilder("s.users", dialect=kind).select("id").where("id", "=", 1).limit(2)
    assert " ".join(query.build().sql.split()) == expected
    assert query.build().params[:2] == (1, 2)


def test_every_name_is_quoted() -> None:
    query = QueryBuilder("users", alias="u").select("u.id", n="u.name", x=count("u.id")).group_by("u.id").order_by("n")
    assert (
        sql(query) == 'SELECT "u"."id", "u"."name" AS "n", count("u"."id") AS "x" FROM "users" AS "u" '
        'GROUP BY "u"."id" ORDER BY "n" ASC'
    )


def test_a_builder_can_be_shared() -> None:
    base = users.where("active", "=", True)
    before = base.build()
    changes: list[Callable[[QueryBuilder], QueryBuilder]] = [
        lambda q: q.select("id"), lambda q: q.where("id", "=", 1), lambda q: q.or_where("id", "=", 1),
        lambda q: q.distinct(),
        lambda q: q.join("posts", "posts.id", "=", "users.id"), lambda q: q.group_by("id"),
        lambda q: q.having(count(), ">", 1),
        lambda q: q.order_by("id"), lambda q: q.limit(1), lambda q: q.offset(1), lambda q: q.for_update(),
        lambda q: q.with_("x", users), lambda q: q.union(users), lambda q: q.delete(), lambda q: q.update({"id": 1}),
        lambda q: q.distinct_on("id"),
    ]  # fmt: skip
    for change in changes:
        assert change(base).build("postgresql") != before
        assert base.build() == before
    group = Conditions().where("a", "=", 1)
    assert sql(users.where(group.or_where("b", "=", 2))) != sql(users.where(group))
    assert where(users.where(group)) == '"a" = $1'


def test_what_is_said_later_narrows_all_that_was_said_before() -> None:
    a, b, c = ("a", "=", 1), ("b", "=", 2), ("c", "=", 3)
    assert where(users.where(*a).or_where(*b).where(*c)) == '("a" = $1 OR "b" = $2) AND "c" = $3'
    assert where(users.where(*a).where(*b).or_where(*c)) == '"a" = $1 AND "b" = $2 OR "c" = $3'
    assert where(users.where(*a).or_where(lambda g: g.where(*b).where(*c))) == '"a" = $1 OR "b" = $2 AND "c" = $3'
    assert where(users.where(*a).where(lambda g: g.where(*b).or_where(*c))) == '"a" = $1 AND ("b" = $2 OR "c" = $3)'
    assert where(users.where_not(lambda g: g.where(*a).where(*b))) == 'NOT ("a" = $1 AND "b" = $2)'
    assert where(users.where(raw("x or y")).where(*a)) == '(x or y) AND "a" = $1'
    # The first condition has nothing to widen.
    assert where(users.or_where(*a)) == '"a" = $1'


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_conditions_mean_what_they_are_said_to_mean(said: list[tuple[bool, bool]]) -> None:
    """The words, one after the other, against Python's own: by SQLite."""
    import sqlite3

    query, expected = QueryBuilder().select(value(1)), None
    for widening, holds in said:
        query = (query.or_where if widening else query.where)(value(int(holds)), "=", 1)
        expected = holds if expected is None else (expected or holds) if widening else (expected and holds)
    built = query.build("sqlite")
    connection = sqlite3.connect(":memory:")
    try:
        assert bool(connection.execute(built.sql, built.params).fetchall()) is expected
    finally:
        connection.close()


def test_a_thousand_conditions() -> None:
    query = users
    for number in range(1000):
        query = query.or_where("id", "=", number)
    assert len(query.build("sqlite").params) == 1000


def test_a_query_that_is_nested_too_deeply() -> None:
    query = group = users
    for number in range(1000):
        query = query.where("id", "=", number).or_where("id", "=", number)
        group = users.where_in("id", group)
    for deep in (query, group):
        with pytest.raises(QueryError, match="nested too deeply"):
            deep.build("sqlite")


def test_a_list_is_one_parameter_where_the_database_has_arrays() -> None:
    query = users.where_in("id", [1, 2, 3])
    assert query.build("postgresql").params == ([1, 2, 3],)
    assert where(query) == '"id" = ANY ($1)'
    assert where(users.where_not_in("id", [1])) == '"id" != ALL ($1)'
    assert query.build("mysql").params == (1, 2, 3)


def test_an_empty_list_holds_for_nothing() -> None:
    assert where(users.where_in("id", [])) == "false"
    assert sql(users.where_not_in("id", []).where("a", "=", 1)).endswith('WHERE "a" = $1')


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_together(kind: str) -> None:
    with pytest.raises(QueryError, match="takes no order_by and no limit; choose the rows by where_in"):
        users.order_by("id").limit(1).delete(everything=True).build(kind)
    with pytest.raises(QueryError, match="an insert takes no where"):
        users.where("id", "=", 1).insert({"a": 1}).build(kind)
    with pytest.raises(QueryError, match="an upsert takes no select and no join"):
        users.select("a").cross_join("b").upsert({"a": 1}, conflict=["a"]).build(kind)
    with pytest.raises(QueryError, match="an update takes no distinct and no group_by"):
        users.distinct().group_by("a").update({"a": 1}).build(kind)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QueryBuilder("users", dialect="postgres"), "did you mean 'postgresql'"),
        (lambda: users.build("mysq"), "did you mean 'mysql'"),
        (lambda: users.where("id", "==", 1), "'==' is no operator; did you mean|'==' is no operator; there are: ="),
        (lambda: users.where("id", "lik", 1), "did you mean 'like'"),
        (lambda: users.where("id", None, 1), "None is no operator; there are: =, !="),
        (lambda: users.where("id"), "neither operator nor value"),
        (lambda: users.where("id", 3), "has no value"),
        (lambda: users.where(col("id")), "neither operator nor value"),
        (lambda: users.where(5, "=", 1), "5 is no column"),  # type: ignore[arg-type]
        (lambda: users.where("id", "<", None), "nothing is < NULL"),
        (lambda: users.where("id", "is", 3).build(), "takes None, True or False"),
        (lambda: users.where("id", "contains", 3).build(), "no text to look for"),
        (lambda: users.where_in("id", "abc"), "no list of values"),
        (lambda: users.where_in("id", 5), "no list of values"),  # type: ignore[arg-type]
        (lambda: users.where_in("id", [1, None]), "or_where_null"),
        (lambda: users.where_between("id", None, 3), "two values"),
        (lambda: users.where("id", "between", 3), "two values"),
        (lambda: users.where(lambda group: group), "group of conditions is empty"),
        (lambda: users.where(lambda group: None), "no group of conditions"),  # type: ignore[arg-type, return-value]
        (lambda: users.where(Conditions()), "is empty"),
        (lambda: users.where("*", "=", 1), "stands for all columns"),
        (lambda: users.select(3), "3 is no column"),  # type: ignore[arg-type]
        (lambda: users.order_by("id", "up"), "one call of order_by"),
        (lambda: users.order_by("id", nulls="maybe"), "'first' or 'last'"),  # type: ignore[arg-type]
        (lambda: users.order_by(col("id").asc("maybe")).build(), "'first' or 'last'"),  # type: ignore[arg-type]
        (lambda: users.join("posts"), "no condition"),
        (lambda: users.join("posts", "posts.id"), "name the other column"),
        (lambda: users.join("posts", "a", "=", "b", kind="cross"), "cross join has no condition"),
        (lambda: users.join("posts", "a", "=", "b", kind="outer"), "no kind of join"),  # type: ignore[arg-type]
        (lambda: users.join("posts", lateral=True), "query can be lateral"),
        (lambda: QueryBuilder().cross_join("posts").build(), "without a table"),
        (lambda: users.cross_join("users").build(), "two tables that go by 'users'"),
        (lambda: QueryBuilder(users).build(), "needs an alias"),
        (lambda: QueryBuilder(users.delete(everything=True), alias="x").build(), "no table to select from"),
        (lambda: users.select(x=users.delete(everything=True)).build(), "no value"),
        (lambda: users.for_update(nowait=True, skip_locked=True), "choose one"),
        (lambda: users.for_update(of=["posts"]).build(), "no such table; there are: users"),
        (lambda: users.union(users.delete()), "no side of UNION"),
        (lambda: users.for_update().union(users), "no side of UNION"),
        (lambda: users.union("users"), "no query to combine"),  # type: ignore[arg-type]
        (lambda: users.union(users).where("a", "=", 1), "after a set operation"),
        (lambda: users.union(users).for_update().build(), "cannot be locked"),
        (lambda: users.insert(), "no row to insert"),
        (lambda: users.insert([("a", 1)]), "is no row"),  # type: ignore[arg-type]
        (lambda: users.insert({"a": 1}, {"b": 1}), "row 1 has not the columns of the first one: a, b"),
        (lambda: users.insert({}, {}), "one row without values"),
        (lambda: users.insert_from("id", users), "names of the columns"),
        (lambda: users.insert_from([], users), "names of the columns"),
        (lambda: users.upsert({"a": 1}, conflict=[]), "unique key"),
        (lambda: users.upsert({"a": 1}, conflict="a"), "unique key"),
        (lambda: users.update({}), "update of nothing"),
        (lambda: users.update({"a": excluded("a")}, everything=True).build(), "outside of the update of an upsert"),
        (lambda: QueryBuilder("users", alias="u").update({"a": 1}, everything=True).build(), "has no alias"),
        (lambda: QueryBuilder(users, alias="u").delete(everything=True).build(), "the builder has none"),
        (lambda: QueryBuilder().insert({"a": 1}).build(), "the builder has none"),
        (lambda: users.returning("id").build(), "goes with an insert"),
        (lambda: users.with_("x", users.delete(everything=True)).build(), "returns nothing"),
        (lambda: users.with_recursive("x", users, users).build(), "names each of its columns"),
        (lambda: users.with_recursive("x", users.select(count()), users).build(), "names each of its columns"),
        (lambda: users.with_recursive("x", users.select("id").union(users), users).build(), "without set operations"),
        (lambda: users.with_("x", users).with_("x", users.select("id")).build(), "same name"),
        (lambda: raw("a = ?"), "1 places for parameters"),
        (lambda: raw("a = 1", 5), "0 places for parameters"),
        (lambda: raw(5), "takes text"),  # type: ignore[arg-type]
        (lambda: raw("%(a)s"), "marks a parameter"),
        (lambda: raw("a\0b"), "NUL"),
        (lambda: fn("lower", "name"), r"write col\('name'\) or value\('name'\)"),
        (lambda: col("a") + "b", "could be a column or a value"),
        (lambda: users.select(fn("next_value")).build(), "nextval"),
        (lambda: users.select(fn("cast", col("a"))).build(), "cast"),
        (lambda: users.select(fn("extract", col("a"))).build(), "date_part"),
        (lambda: users.select(cast("a", "intger")).build(), "did you mean 'integer'"),
        (lambda: case(), "at least one condition"),
        (lambda: json_path("a"), "a key or a position"),
        (lambda: json_path("a", -1), "neither a key nor a position"),
        (lambda: json_path("a", True), "neither a key nor a position"),
        (lambda: count().over(rows=(0, 1), range_=(0, 1)), "one frame"),
        (lambda: count().over(rows=5), "two whole numbers"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        make()


@pytest.mark.parametrize(
    ("query", "kinds", "message"),
    [
        (users.distinct_on("a"), ("mysql", "mariadb", "sqlite"), "DISTINCT ON"),
        (users.full_join("p", "p.id", "=", "users.id"), ("mysql", "mariadb"), "FULL JOIN"),
        (users.join(users.limit(1), alias="x", lateral=True), ("mariadb", "sqlite"), "LATERAL"),
        (users.for_update(), ("sqlite",), "locks no rows"),
        (users.for_update(of="users"), ("mariadb", "sqlite"), "`of`|no rows"),
        (users.intersect(users, all=True), ("sqlite",), "INTERSECT ALL"),
        (users.except_(users, all=True), ("sqlite",), "EXCEPT ALL"),
        (users.insert({"a": 1}).returning("a"), ("mysql",), "RETURNING"),
        (users.update({"a": 1}, everything=True).returning("a"), ("mysql", "mariadb"), "RETURNING"),
        (users.delete(everything=True).with_("x", users), ("mariadb",), "no WITH before DELETE"),
        (
            users.with_("x", users.insert({"a": 1}).returning("*")),
            ("mysql", "mariadb", "sqlite"),
            "in a WITH|RETURNING",
        ),
        (users.with_("x", users, materialized=True), ("mysql", "mariadb"), "materialized"),
        (users.select(count().over(groups=(0, 0))), ("mysql", "mariadb"), "groups"),
        (users.select(cast("a", "uuid")), ("mysql", "mariadb", "sqlite"), "cast to 'uuid'"),
        (users.select(cast("a", "timestamp")), ("sqlite",), "as text"),
        (users.select(json_path("a", 'b"')), ("sqlite",), "quote or backslash"),
    ],
)
def test_what_a_database_does_not_have(query: QueryBuilder, kinds: tuple[str, ...], message: str) -> None:
    for kind in KINDS:
        if kind in kinds:
            with pytest.raises(NotSupported, match=message):
                query.build(kind)
        else:
            assert query.build(kind).sql


def test_a_table_that_is_not_in_the_query() -> None:
    query = users.join("posts", "posts.user_id", "=", "users.id")
    with pytest.raises(FieldError, match="no table 'pots'; did you mean 'posts'"):
        query.where("pots.id", "=", 1).build()
    with pytest.raises(FieldError, match="did you mean 'users'"):
        query.select("user.*").build()
    with pytest.raises(FieldError, match="no table 'users'; there are u"):
        QueryBuilder("users", alias="u").where("users.id", "=", 1).build()
    # A subquery sees the tables around it, one to select from does not, nor does what stands beside it.
    assert users.where_exists(QueryBuilder("posts").where_column("posts.user_id", "=", "users.id")).build()
    with pytest.raises(FieldError):
        users.cross_join(QueryBuilder("posts").where_column("posts.user_id", "=", "users.id"), alias="p").build()
    with pytest.raises(FieldError):
        users.where_exists(QueryBuilder("posts")).where("posts.id", "=", 1).build()
    assert sql(QueryBuilder("s.users").select("s.users.id", "users.name", "users.*")).startswith(
        'SELECT "s"."users"."id", "users"."name", "users".*'
    )


def test_names_are_those_of_the_database() -> None:
    long = "é" * 40
    assert QueryBuilder(long).build("mysql")
    with pytest.raises(InvalidIdentifier, match="has 80 bytes"):
        QueryBuilder(long).build("postgresql")


@pytest.mark.parametrize("name", ["lower(", "a;b", "", "é", "a b", "a.b.c", "1a", "pg_sleep(9);--", 5, None])
def test_a_function_has_a_plain_name(name: Any) -> None:
    with pytest.raises(InvalidIdentifier):
        users.select(fn(name)).build()


def test_functions() -> None:
    assert sql(QueryBuilder().select(x=fn("app.twice", 3))) == 'SELECT app.twice($1) AS "x"'
    assert sql(users.select(x=count("id", distinct=True))) == 'SELECT count(DISTINCT "id") AS "x" FROM "users"'


class Level(enum.IntEnum):
    """A number with a name."""

    HIGH = 3


class Tone(enum.Enum):
    """A text with a name."""

    LOUD = "loud"


class Number(int):
    """Not quite int."""


class Real(float):
    """Not quite float."""


class Bytes(bytes):
    """Not quite bytes."""


AWARE = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=1)))
TOKEN = uuid.UUID(int=7)
ADDRESS = ipaddress.ip_address("10.0.0.1")


@pytest.mark.parametrize(
    ("given_value", "postgresql", "mysql", "sqlite"),
    [
        (True, True, True, True),
        (Level.HIGH, 3, 3, 3),
        (Tone.LOUD, "loud", "loud", "loud"),
        (Decimal("1.50"), Decimal("1.50"), Decimal("1.50"), 1.5),
        (bytearray(b"x"), b"x", b"x", b"x"),
        (memoryview(b"x"), b"x", b"x", b"x"),
        (AWARE, AWARE, dt.datetime(2026, 1, 2, 2, 4, 5), "2026-01-02 02:04:05.000000+00:00"),
        (dt.date(2026, 1, 2), dt.date(2026, 1, 2), dt.date(2026, 1, 2), "2026-01-02"),
        (dt.time(1, 2), dt.time(1, 2), dt.time(1, 2), "01:02:00"),
        (dt.timedelta(seconds=2), dt.timedelta(seconds=2), dt.timedelta(seconds=2), 2_000_000),
        (TOKEN, TOKEN, str(TOKEN), str(TOKEN)),
        (Number(4), 4, 4, 4),
        (Real(4.5), 4.5, 4.5, 4.5),
        (Bytes(b"x"), b"x", b"x", b"x"),
        (10**30, 10**30, 10**30, DataError),
        (2**63 - 1, 2**63 - 1, 2**63 - 1, 2**63 - 1),
        (Decimal("1234567890.1234567"), Decimal("1234567890.1234567"), Decimal("1234567890.1234567"), DataError),
        (float("inf"), float("inf"), DataError, DataError),
        (Decimal("NaN"), None, DataError, DataError),
        ([1, None], [1, None], DataError, DataError),
        ((1,), [1], DataError, DataError),
        ({"a": 1}, DataError, DataError, DataError),
        ({1}, DataError, DataError, DataError),
        (ADDRESS, ADDRESS, DataError, DataError),
        ("a\0b", DataError, DataError, DataError),
        ("\udfff", DataError, DataError, DataError),
        (json_value({"é": [1.5, None]}), '{"é":[1.5,null]}', '{"é":[1.5,null]}', '{"é":[1.5,null]}'),
        (json_value(float("nan")), DataError, DataError, DataError),
        (json_value(object()), DataError, DataError, DataError),
    ],
)
def test_what_a_driver_gets(given_value: Any, postgresql: Any, mysql: Any, sqlite: Any) -> None:
    for kind, expected in (("postgresql", postgresql), ("mysql", mysql), ("mariadb", mysql), ("sqlite", sqlite)):
        query = users.where("x", "=", given_value)
        if expected is DataError:
            with pytest.raises(DataError):
                query.build(kind)
        else:
            (param,) = query.build(kind).params
            if expected is not None:
                assert (type(param), param) == (type(expected), expected)


def test_more_parameters_than_the_driver_takes() -> None:
    rows = [{"a": number, "b": number} for number in range(16_384)]
    assert users.insert(*rows[:-1]).build("postgresql")
    with pytest.raises(QueryError, match="32,768 parameters, and asyncpg takes 32,767"):
        users.insert(*rows).build("postgresql")


def test_what_it_says_of_itself() -> None:
    assert repr(users.select("id")).startswith('<QueryBuilder SELECT "id"')
    assert "cannot be built" in repr(QueryBuilder(""))


def test_the_operators_are_a_closed_list() -> None:
    assert set(OPERATORS) == {
        "=", "!=", "<>", "<", "<=", ">", ">=", "like", "not like", "ilike", "not ilike", "is distinct from",
        "is not distinct from", "regexp", "not regexp", "contains", "startswith", "endswith", "in", "not in", "between",
        "not between", "is", "is not",
    }  # fmt: skip
