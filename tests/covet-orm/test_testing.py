"""What covet-orm gives to the tests of others: fixtures, factories, counting queries; in test runs of their own."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from tests.services.databases import Database as Server
from tests.services.databases import ask

from covet.exceptions import ConfigurationError
from covet_orm.databases import Database
from covet_orm.exceptions import PoolTimeout, TransactionError, UniqueViolation
from covet_orm.fields import CASCADE, CharField, ForeignKey
from covet_orm.models import Model
from covet_orm.models.registry import Registry
from covet_orm.testing import Derived, Factory, Sequence, SubFactory, TestingDatabase, assert_num_queries
from covet_orm.testing.databases import url_for_tests
from covet_orm.transactions.options import begin_statement

pytest_plugins = ["pytester"]

known = Registry()


class Team(Model):
    name = CharField(max_length=50, unique=True)

    class Meta:
        registry = known
        db_table = "team"


class Player(Model):
    name = CharField(max_length=50, unique=True)
    email = CharField(max_length=100)
    team = ForeignKey(Team, on_delete=CASCADE, related_name="players")

    class Meta:
        registry = known
        db_table = "player"


class TeamFactory(Factory[Team]):
    name = Sequence(lambda n: f"team {n}")


class PlayerFactory(Factory[Player]):
    name = Sequence(lambda n: f"player{n}")
    email = Derived(lambda values: f"{values['name']}@example.com")
    team = SubFactory(TeamFactory)


@pytest.fixture
def testing(url: str) -> TestingDatabase:
    """An empty database for tests."""
    made = TestingDatabase(url, registry=known)
    made.create()
    return made


PROJECT = {
    "app.py": """
        from covet import Covet
        from models import Author

        app = Covet({"storage": {"default": {"url": "URL"}}})

        @app.post("/authors/{name}")
        async def add(name: str) -> int:
            async with app.storage["default"].transaction():
                await Author.objects.create(name=name)
            return await Author.objects.count()
        """,
    "models.py": """
        from covet_orm.fields import CharField
        from covet_orm.models import Model

        class Author(Model):
            name = CharField(max_length=50, unique=True)
        """,
    "conftest.py": """
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"
        """,
    "test_it.py": """
        import asyncio
        import pytest
        from covet_orm.ambient import find_database
        from covet_orm.exceptions import UniqueViolation
        from covet_orm.testing import Factory, Sequence, assert_num_queries
        from models import Author

        pytestmark = pytest.mark.anyio

        class AuthorFactory(Factory[Author]):
            name = Sequence(lambda n: f"author {n}")

        @pytest.mark.parametrize("turn", range(3))
        async def test_the_application_works_in_the_transaction_of_the_test(turn, db, covet_client):
            assert await Author.objects.count() == 0
            await AuthorFactory.create_batch(2)
            assert (await covet_client.post("/authors/jane")).json() == 3
            assert await Author.objects.filter(name="jane").exists()
            answers = await asyncio.gather(*[covet_client.post(f"/authors/{n}") for n in range(5)])
            assert sorted(answer.json() for answer in answers)[-1] == 8

        @pytest.mark.parametrize("turn", range(2))
        async def test_the_fixtures_may_be_asked_for_in_either_order(turn, covet_client, db):
            assert (await covet_client.post("/authors/jane")).json() == 1
            assert await Author.objects.count() == 1

        async def test_an_error_spoils_nothing(db):
            await Author.objects.create(name="jane")
            for _ in range(2):
                with pytest.raises(UniqueViolation):
                    await Author.objects.create(name="jane")
            assert await Author.objects.count() == 1

        @pytest.mark.parametrize("turn", range(2))
        async def test_what_is_committed_is_removed(turn, db_committed):
            assert await Author.objects.count() == 0
            async with db_committed.transaction():
                await Author.objects.create(name="jane")
            other = asyncio.create_task(Author.objects.count())
            assert await other == 1

        async def test_queries_are_counted(db):
            with assert_num_queries(2) as queries:
                await Author.objects.create(name="a")
                await Author.objects.count()
            assert len(queries) == 2

        async def test_counting_fails(db):
            with assert_num_queries(1):
                pass
        """,
}


def write(pytester: pytest.Pytester, url: str, **more: str) -> None:
    """The files of a small project."""
    for name, text in {**PROJECT, **more}.items():
        lines = text.replace("URL", url).splitlines()
        pytester.path.joinpath(name).write_text("\n".join(line[8:] for line in lines) + "\n", encoding="utf-8")
    pytester.makeini("[pytest]\npythonpath = .\nfilterwarnings = error\n")


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the tests of the project in a process of their own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_a_project_is_tested(pytester: pytest.Pytester, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(pytester, url)
    monkeypatch.setenv("COVET_TEST_DATABASE", url)
    result = run(pytester)
    result.assert_outcomes(passed=9, failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: 0 queries instead of 1*"])


async def databases_of(server: Server) -> list[str]:
    """The names of the databases of a server that tests have made."""
    if server.kind == "sqlite":
        return []
    statement = {
        "postgresql": "SELECT datname FROM pg_database WHERE datname LIKE 'test_test%'",
        "mariadb": "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE 'test_test%'",
    }[server.kind]
    return [str(row[0]) for row in await ask(server.url("test"), statement)]


def test_the_database_itself_is_left_alone_and_that_of_the_worker_dropped(
    pytester: pytest.Pytester, url: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(ask(url, "CREATE TABLE mine (a integer)", "INSERT INTO mine VALUES (1)"))
    write(pytester, url)
    (pytester.path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.anyio\nasync def test_it(db, covet_database):\n"
        "    assert 'gw3' in covet_database.url\n"
        "    assert 'test_test_gw3' in covet_database.url\n"
    )
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw3")
    pytester.makeini(f"[pytest]\npythonpath = .\nfilterwarnings = error\ncovet_database = {url}\n")
    run(pytester).assert_outcomes(passed=1)
    assert asyncio.run(ask(url, "SELECT * FROM mine")) == [(1,)]
    assert asyncio.run(databases_of(server)) == []


def test_mistakes_are_told(pytester: pytest.Pytester) -> None:
    write(pytester, "sqlite://")
    (pytester.path / "test_it.py").write_text("import pytest\n@pytest.mark.anyio\nasync def test_it(db): pass\n")
    pytester.makeini("[pytest]\npythonpath = .\ncovet_database = postgresql://127.0.0.1:1/nothing\n")
    told = run(pytester).stdout.str()
    assert re.search("UsageError: the database for the tests cannot be made: .*127.0.0.1:1.*; name another one", told)
    pytester.makeini("[pytest]\npythonpath = .\n")
    (pytester.path / "conftest.py").write_text("import pytest\n@pytest.fixture\ndef anyio_backend(): return 'trio'\n")
    assert "the drivers of databases need asyncio, and this test runs on trio" in run(pytester).stdout.str()


def test_the_settings_of_the_project_name_the_database(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    write(pytester, f"sqlite:///{pytester.path}/shop.db")
    pytester.path.joinpath("covet.toml").write_text(f'[storage.default]\nurl = "sqlite:///{pytester.path}/shop.db"\n')
    (pytester.path / "test_it.py").write_text(
        "import pytest\n@pytest.mark.anyio\nasync def test_it(db): assert 'test_shop.db' in db.url\n"
    )
    run(pytester).assert_outcomes(passed=1)
    assert not (pytester.path / "shop.db").exists()


def test_the_plugin_costs_a_test_run_without_databases_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\ndef test_it(): assert 'sqlalchemy' not in sys.modules\n")
    run(pytester).assert_outcomes(passed=1)


async def together(database: Database, *names: str, fails: bool = False) -> None:
    """Create teams, all or none."""
    async with database.transaction():
        for name in names:
            await Team.objects.create(name=name)
        if fails:
            raise ZeroDivisionError


@pytest.mark.anyio
async def test_savepoints_and_transactions_of_the_code_under_test(testing: TestingDatabase) -> None:
    for _ in range(2):
        async with testing.rolled_back() as database:
            assert await Team.objects.count() == 0
            async with database.transaction():
                await Team.objects.create(name="red")
                with pytest.raises(UniqueViolation):
                    await together(database, "blue", "red")
            with pytest.raises(ZeroDivisionError):
                await together(database, "green", fails=True)
            assert await Team.objects.values_list("name", flat=True) == ["red"]
            assert [team.name async for team in Team.objects.all().iterator()] == ["red"]
            await Team.objects.bulk_create([Team(name="white"), Team(name="black")])
            assert await Team.objects.count() == 3


@pytest.mark.anyio
async def test_tasks_take_turns(testing: TestingDatabase) -> None:
    async with testing.rolled_back() as database:
        inside = 0

        async def work(number: int) -> None:
            nonlocal inside
            async with database.transaction():
                # It has the connection from its first statement on.
                await Team.objects.create(name=f"team {number}")
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                assert await Team.objects.count() == number + 1
                inside -= 1

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(work(number))
        assert await Team.objects.count() == 20


@pytest.mark.anyio
async def test_a_cancelled_task_leaves_the_transaction_of_the_test(testing: TestingDatabase, server: Server) -> None:
    slow = {
        "postgresql": "SELECT pg_sleep(0.2)",
        "mariadb": "SELECT sleep(0.2)",
        "sqlite": (
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 3000000) SELECT count(*) FROM n"
        ),
    }[server.kind]
    async with testing.rolled_back() as database:
        await Team.objects.create(name="red")

        begun = asyncio.Event()

        async def work() -> None:
            async with database.transaction():
                await Team.objects.create(name="blue")
                begun.set()
                await database.query(slow)

        task = asyncio.create_task(work())
        await begun.wait()
        await asyncio.sleep(0.01)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await Team.objects.values_list("name", flat=True) == ["red"]
    async with testing.rolled_back():
        assert await Team.objects.count() == 0


@pytest.mark.anyio
async def test_who_holds_the_connection_is_told_and_a_second_one_is_to_be_had(url: str) -> None:
    testing = TestingDatabase(f"{url}?acquire_timeout=0.1", registry=known)
    testing.create()
    async with testing.rolled_back() as database:
        async with database.connection():
            with pytest.raises(PoolTimeout, match="of at most 1 are in use"):
                await asyncio.create_task(Team.objects.count())
            apart = await database.pool_apart()
            connection = await apart.acquire()
            await connection.fetch("SELECT 1")
            apart.release(connection)
        assert await Team.objects.count() == 0


@pytest.mark.anyio
async def test_what_ends_the_transaction_of_the_test_is_told(testing: TestingDatabase, server: Server) -> None:
    async with testing.rolled_back() as database:
        await Team.objects.create(name="red")
        if server.kind == "mariadb":
            with pytest.raises(TransactionError, match=r"ended by 'CREATE TABLE more.*db_committed"):
                await database.script("CREATE TABLE more (a integer)")
        else:
            await database.script("CREATE TABLE more (a integer)")
            assert await Team.objects.count() == 1
    if server.kind != "mariadb":
        async with testing.rolled_back() as database:
            with pytest.raises(Exception, match="more"):
                await database.query("SELECT * FROM more")


@pytest.mark.anyio
async def test_a_connection_that_was_left_in_a_transaction_is_cleaned(testing: TestingDatabase) -> None:
    async with testing.rolled_back() as database:
        async with database.connection() as connection:
            await connection.script(begin_statement(database.kind))
            await connection.execute("INSERT INTO team (name) VALUES ('left open')")
        assert await Team.objects.count() == 0
        pool = await database.pool_for(reads=False)
        connection = await pool.acquire()
        await connection.script(begin_statement(database.kind))
        await connection.execute("INSERT INTO team (name) VALUES ('left open')")
        pool.discard(connection)
        assert await Team.objects.count() == 0


@pytest.mark.anyio
async def test_factories(testing: TestingDatabase) -> None:
    async with testing.rolled_back() as database:
        first, second = await PlayerFactory.create_batch(2)
        assert first.name != second.name
        assert first.email == f"{first.name}@example.com"
        assert await Team.objects.count() == 2
        red = await PlayerFactory.create(name="ada", team__name="red")
        assert (red.email, red.team.name) == ("ada@example.com", "red")
        other = await PlayerFactory.build(team=red.team, using=database)
        assert not other.saved
        assert other.team is red.team
        with pytest.raises(TypeError, match="PlayerFactory: 'club__name' is for the object 'club'"):
            await PlayerFactory.create(club__name="x")

        class CaptainFactory(PlayerFactory):
            name = Sequence(lambda n: f"captain {n}")

        captain = await CaptainFactory.create()
        assert (captain.name, captain.email) == ("captain 1", "captain 1@example.com")
        assert isinstance(captain, Player)


async def two_queries(database: Database) -> None:
    """Where one was wanted."""
    with assert_num_queries(1, database):
        await Team.objects.count()
        await Team.objects.filter(name="red").exists()


@pytest.mark.anyio
async def test_too_many_queries_are_listed(testing: TestingDatabase) -> None:
    async with testing.rolled_back() as database:
        with pytest.raises(AssertionError, match=r"2 queries instead of 1\n  1. SELECT count.*\n  2. SELECT"):
            await two_queries(database)
        with pytest.raises(ZeroDivisionError), assert_num_queries(1):
            raise ZeroDivisionError
        assert database.watchers == ()


def test_the_name_of_the_database(tmp_path: Path) -> None:
    assert (
        url_for_tests("postgresql://a:b@h:1/shop?max_size=3", tmp_path) == "postgresql://a:b@h:1/test_shop?max_size=3"
    )
    assert url_for_tests("mariadb://h/a%2Fb", tmp_path, "gw1") == "mariadb://h/test_a%2Fb_gw1"
    assert url_for_tests("sqlite://", tmp_path) == f"sqlite:///{tmp_path}/test_memory.db"
    assert url_for_tests("sqlite:///x/shop.db", tmp_path, "gw0") == f"sqlite:///{tmp_path}/test_shop_gw0.db"
    with pytest.raises(ConfigurationError, match="names no database"):
        url_for_tests("postgresql://h", tmp_path)
