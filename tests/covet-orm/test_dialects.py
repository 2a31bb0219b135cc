"""Statements of SQLAlchemy Core as the text and the parameters of a driver."""

from __future__ import annotations

import enum
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from covet_orm.databases import Database
from covet_orm.dialects import KINDS, compile_statement, dialect_of
from covet_orm.exceptions import NotSupported, QueryError


class Colour(enum.Enum):
    """A colour."""

    RED = "red"


PLACEHOLDERS = {"postgresql": "$1", "mysql": "%s", "mariadb": "%s", "sqlite": "?"}
users = sa.Table(
    "users",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(50)),
    sa.Column("colour", sa.Enum(Colour)),
    sa.Column("data", sa.JSON),
    sa.Column('Odd `name"', sa.Text),
)


def flat(sql: str) -> str:
    return " ".join(sql.split())


@pytest.mark.parametrize("kind", KINDS)
def test_the_placeholders_are_those_of_the_driver(kind: str) -> None:
    compiled = compile_statement(
        sa.select(sa.column("id")).where(sa.column("name") == sa.literal("x", sa.types.NullType())), kind
    )
    assert flat(compiled.sql).endswith(f"WHERE name = {PLACEHOLDERS[kind]}")
    assert compiled.parameters() == ("x",)
    assert dialect_of(kind).name == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_can_be_run_again_with_other_values(kind: str) -> None:
    statement = (
        sa.select(users.c.id)
        .where(users.c.name == sa.bindparam("name"), users.c.id > 5, users.c.name != sa.bindparam("name"))
        .limit(sa.bindparam("rows", 10))
    )
    compiled = compile_statement(statement, kind)
    assert set(compiled.names) >= {"name", "id_1", "rows"}
    assert "name" not in compiled.defaults
    with pytest.raises(QueryError, match="no value for its parameter 'name'"):
        compiled.parameters()
    given = dict(zip(compiled.names, compiled.parameters({"name": "ada", "rows": 3}), strict=True))
    assert (given["name"], given["id_1"], given["rows"]) == ("ada", 5, 3)
    assert dict(zip(compiled.names, compiled.parameters({"name": "bob"}), strict=True))["rows"] == 10
    # PostgreSQL takes a value that is there twice once.
    assert compiled.names.count("name") == (1 if kind == "postgresql" else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_elements_of_a_list_are_parameters_each(kind: str) -> None:
    statement = sa.select(users.c.id).where(
        users.c.colour.in_([Colour.RED, Colour.RED]), users.c.id.in_([4, 5]), users.c.id == 6
    )
    compiled = compile_statement(statement, kind)
    assert sorted(map(str, compiled.parameters())) == ["4", "5", "6", "RED", "RED"]
    empty = compile_statement(sa.select(users.c.id).where(users.c.id.in_([])), kind)
    assert empty.parameters() == ()
    positions = {name: index for index, name in enumerate(compiled.names)}
    changed = compiled.parameters({"id_2_1" if "id_2_1" in positions else "id_1_1": 77})
    assert 77 in changed


def test_a_known_type_is_cast_on_postgresql_and_an_unknown_one_is_not() -> None:
    known = compile_statement(sa.select(users.c.id).where(users.c.id == 1), "postgresql")
    assert "$1::INTEGER" in known.sql
    unknown = compile_statement(
        sa.select(sa.column("a")).where(sa.column("a") == sa.bindparam("x", 1, sa.types.NullType())), "postgresql"
    )
    assert flat(unknown.sql) == "SELECT a WHERE a = $1"


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_made_what_the_type_wants(kind: str) -> None:
    statement = sa.insert(users).values(colour=Colour.RED, data={"a": [1]}, id=3)
    compiled = compile_statement(statement, kind)
    assert set(compiled.parameters()) == {"RED", '{"a": [1]}', 3}
    assert set(compiled.parameters({"data": None})) == {"RED", "null", 3}


@pytest.mark.parametrize("kind", ["mysql", "mariadb"])
def test_percent_signs_are_doubled_with_and_without_parameters(kind: str) -> None:
    compiled = compile_statement(sa.select(sa.column("50%"), sa.literal_column("'%'")), kind)
    assert flat(compiled.sql) == "SELECT `50%%`, '%%'"
    assert compiled.sql % () == "SELECT `50%`, '%'"


def test_names_are_quoted_by_the_rules_of_each_database() -> None:
    odd = users.c['Odd `name"']
    for kind, quoted in {
        "postgresql": '"Odd `name"""', "mysql": '`Odd ``name"`', "mariadb": '`Odd ``name"`', "sqlite": '`Odd ``name"`',
    }.items():  # fmt: skip
        assert flat(compile_statement(sa.select(odd), kind).sql) == f"SELECT users.{quoted} FROM users"
    # Definitions keep the usual quotes, by which reflection finds its way.
    table = sa.Table("order", sa.MetaData(), sa.Column("select", sa.Integer))
    assert '"order"' in str(sa.schema.CreateTable(table).compile(dialect=dialect_of("sqlite")))


def test_what_came_with_mysql_8_is_not_left_out() -> None:
    locked = sa.select(users.c.id).with_for_update(of=users, skip_locked=True)
    assert compile_statement(locked, "mysql").sql.endswith("FOR UPDATE OF users SKIP LOCKED")
    shared = sa.select(users.c.id).with_for_update(read=True, nowait=True)
    assert compile_statement(shared, "mysql").sql.endswith("FOR SHARE NOWAIT")
    assert compile_statement(shared, "mariadb").sql.endswith("LOCK IN SHARE MODE NOWAIT")


def test_text_with_parameters() -> None:
    compiled = compile_statement(sa.text("SELECT :a, ':b', x::int").bindparams(a=3), "postgresql")
    assert compiled.names[0] == "a"
    assert "$1" in compiled.sql


def test_what_cannot_be_compiled() -> None:
    with pytest.raises(QueryError, match="did you mean 'sqlite'"):
        compile_statement(sa.select(sa.column("a")), "sqlit")
    with pytest.raises(QueryError, match="no database"):
        dialect_of("oracle")
    with pytest.raises(QueryError, match="no statement"):
        compile_statement(sa.schema.CreateTable(users), "sqlite")
    with pytest.raises(QueryError, match="cannot be compiled"):
        compile_statement(sa.insert(users).values(nothing=3), "sqlite")
    with pytest.raises(NotSupported, match="sqlite cannot express"):
        compile_statement(sa.select(sa.cast(sa.column("a"), postgresql.TSVECTOR)), "sqlite")
    with pytest.raises(QueryError, match="the list 'ids' is part of the text"):
        compile_statement(sa.select(users.c.id).where(users.c.id.in_(sa.bindparam("ids", expanding=True))), "sqlite")


def test_a_default_in_python_is_refused_as_nothing_would_run_it() -> None:
    table = sa.Table(
        "t", sa.MetaData(), sa.Column("a", sa.Integer), sa.Column("b", sa.Integer, default=lambda: 3, onupdate=4)
    )
    for statement in (sa.insert(table).values(a=1), sa.update(table).values(a=1)):
        with pytest.raises(QueryError, match=r"the column t\.b has a default in Python"):
            compile_statement(statement, "postgresql")
    assert compile_statement(sa.insert(table).values(a=1, b=2), "sqlite").parameters() == (1, 2)


def test_ranges_are_those_of_the_driver() -> None:
    column = sa.column("r", postgresql.INT4RANGE)
    compiled = compile_statement(sa.select(column).where(column == postgresql.Range(1, 5)), "postgresql")
    assert compiled.parameters() == (asyncpg.Range(1, 5),)


@pytest.mark.anyio
async def test_compiled_statements_run(url: str) -> None:
    table = sa.Table(
        "t", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column('50% `"', sa.String(50))
    )
    column: Any = table.c['50% `"']
    async with Database(url) as db:
        dialect = dialect_of(db.kind)
        await db.script(str(sa.schema.CreateTable(table).compile(dialect=dialect)).replace("%%", "%"))
        await db.execute(sa.insert(table).values([{"id": 1, column.key: "a%s"}, {"id": 2, column.key: "?$1"}]))
        found = await db.fetch_all(
            sa.select(table).where(column.in_(["a%s", "b"]), table.c.id < 5).order_by(table.c.id).limit(3)
        )
        assert found == [{"id": 1, column.name: "a%s"}]
        union = sa.union_all(sa.select(table.c.id).where(table.c.id == 2), sa.select(table.c.id).where(table.c.id == 1))
        assert [row["id"] for row in await db.fetch_all(union)] == [2, 1]
        cte = sa.select(table.c.id).where(table.c.id > 1).cte("c")
        query = sa.select(cte.c.id, sa.literal(7).label("seven")).where(cte.c.id < 10)
        assert await db.fetch_all(query) == [{"id": 2, "seven": 7}]
        assert await db.execute(sa.update(table).values({column: "z"}).where(table.c.id == 1)) == 1
        assert await db.execute(sa.delete(table).where(column == "z")) == 1
