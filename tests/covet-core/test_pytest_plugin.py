"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

pytest_plugins = ["pytester"]

APPLICATION = """
from covet import Covet

app = Covet({}, installed_plugins=False)
log = []

@app.lifespan
async def lifespan(app):
    log.append("started")
    yield
    log.append("stopped")

@app.get("/")
async def index() -> str:
    return "hello"
"""


@pytest.fixture(autouse=True)
def project(pytester: pytest.Pytester) -> Iterator[pytest.Pytester]:
    """A project whose tests can import what lies beside them."""
    pytester.makeini("[pytest]\npythonpath = .\nfilterwarnings = error\n")
    before = set(sys.modules)
    yield pytester
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(pytester.path)):
            del sys.modules[name]


def test_the_client_tests_the_application_of_app_py(project: pytest.Pytester) -> None:
    project.makepyfile(
        app=APPLICATION,
        test_it="""
        import pytest
        from app import app, log

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return request.param

        @pytest.mark.anyio
        async def test_hello(covet_client, covet_app):
            assert covet_app is app
            assert log[-1] == "started"
            assert (await covet_client.get("/")).text == "hello"

        def test_afterwards():
            assert log == ["started", "stopped"] * 2
        """,
    )
    project.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


def test_another_application_can_be_named_and_the_fixture_overridden(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\npythonpath = .\ncovet_app = service.main:make.app\n")
    project.mkpydir("service").joinpath("main.py").write_text(
        APPLICATION + "\nclass make:\n    pass\n\nmake.app = app\n", encoding="utf-8"
    )
    project.makepyfile(
        test_it="""
        import pytest
        from covet import Covet

        pytestmark = pytest.mark.anyio

        async def test_named(covet_client):
            assert (await covet_client.get("/")).text == "hello"

        class TestOverridden:
            @pytest.fixture
            def covet_app(self):
                app = Covet({}, installed_plugins=False)

                @app.get("/")
                async def index() -> str:
                    return "overridden"

                return app

            async def test_overridden(self, covet_client):
                assert (await covet_client.get("/")).text == "overridden"
        """
    )
    result = project.runpytest_inprocess("-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] >= 2
    assert "failed" not in outcomes
    assert "errors" not in outcomes


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nowhere:app", "No module named 'nowhere'"),
        ("app:other", "has no attribute 'other'"),
        ("app", "there is no such application"),
        ("", "there is no such application"),
    ],
)
def test_an_application_that_is_not_there_is_an_error_that_says_what_to_write(
    project: pytest.Pytester, target: str, told: str
) -> None:
    project.makeini(f"[pytest]\npythonpath = .\ncovet_app = {target}\n")
    project.makepyfile(app=APPLICATION, test_it="def test_it(covet_app): ...")
    result = project.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    assert told in text
    assert "write `covet_app = module:name` under [tool.pytest.ini_options], or override the fixture covet_app" in text


def test_what_the_named_thing_is_has_to_be_an_application(project: pytest.Pytester) -> None:
    project.makepyfile(app="app = 'a string'", test_it="def test_it(covet_app): ...")
    result = project.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the ini option covet_app is 'app:app', and that is 'a string', no application*"])


def test_the_sandbox_has_exactly_the_plugins_it_is_given(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import pytest
        from covet import Route, hookimpl

        class Greeting:
            @hookimpl
            def covet_routes(self, app):
                async def greet() -> str:
                    return "good day"
                return [Route("/greet", greet)]

        @pytest.mark.anyio
        async def test_it(plugin_sandbox):
            from covet.testing import TestClient

            app = plugin_sandbox("request_id", greeting=Greeting())
            async with TestClient(app) as client:
                assert (await client.get("/greet")).text == "good day"
            assert sorted(app.plugins.records) == ["greeting", "request_id"]

        def test_an_unknown_plugin_is_named(plugin_sandbox):
            with pytest.raises(Exception, match="is called 'request_ids'; did you mean 'request_id'"):
                plugin_sandbox("request_ids")

        def test_two_of_one_name(plugin_sandbox):
            with pytest.raises(Exception, match="two plugins of this sandbox are called 'Greeting'"):
                plugin_sandbox(Greeting(), Greeting())
        """
    )
    result = project.runpytest_inprocess("-p", "no:cacheprovider")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] >= 3
    assert "failed" not in outcomes
    assert "errors" not in outcomes


def test_the_sandbox_reads_neither_environment_nor_file(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVET_APP__DEBUG", "true")
    project.path.joinpath("covet.toml").write_text("[app]\ndebug = true\n", encoding="utf-8")
    project.makepyfile(
        test_it="""
        def test_it(plugin_sandbox):
            given = {"limits": {"max_headers": 7}}
            app = plugin_sandbox(settings=given)
            assert not app.debug
            assert app.settings.limits.max_headers == 7
            assert given == {"limits": {"max_headers": 7}}
        """
    )
    project.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_a_run_that_asks_for_no_fixture_imports_no_httpx(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_it="""
        import sys

        def test_it():
            assert "covet.testing.pytest_plugin" in sys.modules
            assert "httpx" not in sys.modules
            assert "covet.applications" not in sys.modules
        """
    )
    # schemathesis and others bring httpx along.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        project.runpytest_subprocess("-p", "covet.testing.pytest_plugin", "-p", "no:cacheprovider").assert_outcomes(
            passed=1
        )
