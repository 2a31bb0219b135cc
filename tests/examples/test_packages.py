"""The application of `examples/packages`, as a user would test it; and its demo, as `nox -s demo` runs it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from covet.testing import TestClient

FOLDER = Path(__file__).parent.parent.parent / "examples" / "packages"
MODULES = ("app", "catalogue", "pages")


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """The example's module `app`; its folder is the working directory, as it is for `covet run`."""
    before, path = os.getcwd(), list(sys.path)
    os.chdir(FOLDER)
    sys.path.insert(0, str(FOLDER))
    yield import_module("app")
    os.chdir(before)
    sys.path[:] = path
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def catalogue(example: ModuleType) -> ModuleType:
    return sys.modules["catalogue"]


@pytest.fixture
async def client(example: ModuleType, anyio_backend: str) -> AsyncIterator[TestClient]:
    async with TestClient(example.app) as client:
        yield client


def write_metadata(folder: Path, name: str, *lines: str, version: str = "1.0", description: str = "") -> None:
    """Write what an installer leaves of a distribution."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]
    (info / "METADATA").write_text("\n".join(head) + f"\n\n{description}", encoding="utf-8")


@pytest.fixture
def shelf(tmp_path: Path, catalogue: ModuleType) -> Any:
    """Six distributions that know each other."""
    write_metadata(
        tmp_path, "Web.Shop", "Summary: Sells things", "Requires-Dist: Ledger[sql] >=1,<2", "Requires-Dist: gone"
    )
    write_metadata(
        tmp_path,
        "ledger",
        "Summary: Keeps accounts for a web shop",
        "Keywords: money,accounts",
        "Requires-Dist: numbers",
        'Requires-Dist: sql-things ; extra == "sql"',
        'Requires-Dist: slow-things ; extra == "slow"',
        'Requires-Dist: win-things ; sys_platform == "no-such-system"',
        "Provides-Extra: sql",
        "Provides-Extra: slow",
    )
    write_metadata(tmp_path, "numbers", "Requires-Dist: ledger", "Summary: Counts")
    write_metadata(tmp_path, "sql-things")
    write_metadata(tmp_path, "slow-things")
    write_metadata(
        tmp_path,
        "evil",
        "Summary: <script>alert(1)</script>",
        "Home-page: javascript:alert(2)",
        "Project-URL: Docs, https://example.com/docs",
        'Author: "><img src=x>',
        "Requires-Dist: what is <b>this</b>",
        description="</pre><script>alert(3)</script>",
    )
    return catalogue.read([str(tmp_path)])


# The catalogue


def test_everything_in_this_environment_is_read(catalogue: ModuleType) -> None:
    everything = catalogue.read()
    kernel = everything.get("covet_core")
    assert (kernel.name, kernel.canonical, kernel.commands) == ("covet-core", "covet-core", ["covet"])
    assert "covet-timing" in kernel.required_by
    assert {"anyio", "msgspec"} <= set(kernel.needs)
    assert everything.descriptions["covet-core"].startswith("# covet-core")
    assert everything.unreadable == ()


def test_requirements_are_linked_both_ways(shelf: Any) -> None:
    shop, ledger = shelf.get("web-shop"), shelf.get("ledger")
    assert [(each.name, each.version, each.extras, each.installed) for each in shop.requires] == [
        ("Ledger", ">=1,<2", ["sql"], True),
        ("gone", "", [], False),
    ]
    assert ledger.required_by == ["numbers", "web-shop"]
    assert shelf.get("sql-things").required_by == []
    assert shelf.get("sql-things").optional_for == ["ledger"]
    assert [(each.name, each.extra, each.applies) for each in ledger.requires] == [
        ("numbers", "", True),
        ("sql-things", "sql", True),
        ("slow-things", "slow", True),
        ("win-things", "", False),
    ]


def test_what_a_package_needs_includes_the_extras_on_the_way(shelf: Any) -> None:
    """Also where two require each other."""
    assert shelf.get("web-shop").needs == ["ledger", "numbers", "sql-things"]
    assert shelf.get("ledger").needs == ["numbers"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["evil", "ledger", "numbers", "slow-things", "sql-things", "Web.Shop"]),
        ("ledger", ["ledger"]),
        ("LEDGER", ["ledger"]),
        ("web_shop", ["Web.Shop"]),
        ("shop", ["Web.Shop", "ledger"]),
        ("things", ["slow-things", "sql-things", "Web.Shop"]),
        ("things sql", ["sql-things"]),
        ("money", ["ledger"]),
        ("count", ["ledger", "numbers"]),
        ("ledger nowhere", []),
        (". ( [ \\ *", []),
    ],
)
def test_search(shelf: Any, query: str, names: list[str]) -> None:
    assert [package.name for package in shelf.search(query)] == names


@given(st.text(max_size=30))
def test_no_query_breaks_the_search(query: str) -> None:
    found = EVERYTHING.search(query)
    assert len(found) <= len(EVERYTHING)


@given(st.text(max_size=30))
def test_every_name_is_known_or_unknown(name: str) -> None:
    if canonicalize_name(name) in EVERYTHING:
        assert EVERYTHING.get(name).canonical == canonicalize_name(name)
    else:
        with pytest.raises(LookupError) as raised:
            EVERYTHING.get(name)
        assert set(raised.value.near) <= set(EVERYTHING.packages)  # type: ignore[attr-defined]


@pytest.fixture(scope="module", autouse=True)
def everything(catalogue: ModuleType) -> None:
    """For hypothesis, which runs a test many times."""
    global EVERYTHING
    EVERYTHING = catalogue.read()


EVERYTHING: Any = None


def test_the_first_of_two_of_one_name_counts(tmp_path: Path, catalogue: ModuleType) -> None:
    write_metadata(tmp_path / "first", "thing", version="2.0")
    write_metadata(tmp_path / "second", "Thing", version="1.0")
    assert catalogue.read([str(tmp_path / "first"), str(tmp_path / "second")]).get("thing").version == "2.0"


def test_metadata_that_cannot_be_read_is_told_of(tmp_path: Path, catalogue: ModuleType) -> None:
    write_metadata(tmp_path, "good")
    for name, content in {"empty": b"", "nameless": b"Version: 1.0\n\n", "binary": b"Name: \xff\xfe\n\n"}.items():
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / f"{name}-1.0.dist-info" / "METADATA").write_bytes(content)
    shelf = catalogue.read([str(tmp_path)])
    assert list(shelf.packages) == ["good"]
    assert sorted(Path(line.partition(":")[0]).name for line in shelf.unreadable) == [
        "binary-1.0.dist-info",
        "empty-1.0.dist-info",
        "nameless-1.0.dist-info",
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["License-Expression: MIT", "License: something else"], "MIT"),
        (["License: BSD"], "BSD"),
        (["License: " + "long " * 50, "Classifier: License :: OSI Approved :: MIT License"], "MIT License"),
        (["License: UNKNOWN"], ""),
        ([], ""),
    ],
)
def test_license(tmp_path: Path, catalogue: ModuleType, lines: list[str], expected: str) -> None:
    write_metadata(tmp_path, "thing", *lines)
    assert catalogue.read([str(tmp_path)]).get("thing").license == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Author: Ada Lovelace, Countess"], ["Ada Lovelace, Countess"]),
        (["Author-email: Ada <ada@example.com>, grace@example.com"], ["Ada", "grace@example.com"]),
        (["Author: Ada", "Author-email: Ada <ada@example.com>"], ["Ada"]),
        (["Author: UNKNOWN"], []),
    ],
)
def test_authors(tmp_path: Path, catalogue: ModuleType, lines: list[str], expected: list[str]) -> None:
    write_metadata(tmp_path, "thing", *lines)
    assert catalogue.read([str(tmp_path)]).get("thing").authors == expected


# The pages


@pytest.fixture
async def shop(example: ModuleType, catalogue: ModuleType, shelf: Any, anyio_backend: str) -> AsyncIterator[TestClient]:
    """The application with the six distributions in place of what is installed."""
    async with TestClient(example.app, overrides={catalogue.Catalogue: lambda: shelf}) as client:
        yield client


@pytest.mark.anyio
async def test_the_home_page_searches(client: TestClient) -> None:
    page = (await client.get("/")).text
    assert "packages in this environment" in page
    assert 'href="/packages/' in page
    page = (await client.get("/", params={"query": "covet core"})).text
    assert '<a href="/packages/covet-core">covet-core</a>' in page
    page = (await client.get("/", params={"query": "nothing-of-this-name"})).text
    assert "0 packages" in page


@pytest.mark.anyio
async def test_the_home_page_has_pages(shop: TestClient, example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, "PAGE_SIZE", 2)
    seen = []
    path: str | None = "/?query=s&page=1"
    while path:
        page = (await shop.get(path)).text
        seen += [line.split('"')[1] for line in page.splitlines() if line.strip().startswith("<h2><a")]
        following = [line for line in page.splitlines() if 'rel="next"' in line]
        path = following[0].split('href="')[1].split('"')[0].replace("&amp;", "&") if following else None
    assert len(seen) == len(set(seen)) == 6
    assert "there are" not in page
    assert "There are 3 pages" in (await shop.get("/?query=s&page=9")).text


@pytest.mark.anyio
async def test_only_what_is_installed_is_a_link(shop: TestClient) -> None:
    page = (await shop.get("/packages/web-shop")).text
    assert '<a href="/packages/ledger">Ledger</a>' in page
    assert '<span class="absent">gone</span>' in page
    assert "/packages/gone" not in page
    page = (await shop.get("/packages/ledger")).text
    assert '<a href="/packages/web-shop">Web.Shop</a>' in page


@pytest.mark.anyio
async def test_every_link_of_every_page_leads_somewhere(client: TestClient) -> None:
    seen, ahead = set(), ["/"]
    while ahead:
        path = ahead.pop()
        response = await client.get(path)
        assert response.status_code == 200, path
        if "text/html" in response.headers["content-type"]:
            found = {part.partition('"')[0].replace("&amp;", "&") for part in response.text.split('href="')[1:]}
            new = {link for link in found if link.startswith("/")} - seen
            seen |= new
            ahead += new
    assert {"/packages/covet-core", "/api/packages/covet-core", "/docs", "/timing", "/static/style.css"} <= seen


@pytest.mark.anyio
async def test_other_spellings_are_redirected(client: TestClient) -> None:
    response = await client.get("/packages/Covet_Core")
    assert (response.status_code, response.headers["location"]) == (308, "/packages/covet-core")
    assert (await client.get("/packages/covet..core", follow_redirects=True)).status_code == 200


@pytest.mark.anyio
async def test_an_unknown_package_is_a_page_with_those_that_are_near(client: TestClient) -> None:
    response = await client.get("/packages/covet-cor")
    assert response.status_code == 404
    assert '<a href="/packages/covet-core">covet-core</a>' in response.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    ["/packages/evil", "/?query=evil", "/packages/<img src=x onerror=alert(4)>", "/?query=<script>alert(5)</script>"],
)
async def test_nothing_that_was_written_elsewhere_becomes_markup(shop: TestClient, path: str) -> None:
    response = await shop.get(path)
    page = response.text
    assert response.headers["content-type"].startswith("text/html")
    assert "alert(" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>" not in page
    assert "javascript:" not in page


@pytest.mark.anyio
async def test_links_that_a_package_names_are_shown(shop: TestClient) -> None:
    assert '<a href="https://example.com/docs" rel="noreferrer">Docs</a>' in (await shop.get("/packages/evil")).text


@pytest.mark.anyio
async def test_the_style_sheet_is_served_from_here(client: TestClient) -> None:
    response = await client.get("/static/style.css")
    assert response.headers["content-type"].startswith("text/css")
    assert response.content == (FOLDER / "static" / "style.css").read_bytes()
    again = await client.get("/static/style.css", headers={"if-none-match": response.headers["etag"]})
    assert again.status_code == 304


# The JSON API


@pytest.mark.anyio
async def test_the_listing_goes_page_by_page(shop: TestClient) -> None:
    seen, path = [], "/api/packages?limit=4"
    while path:
        listing = (await shop.get(path)).json()
        assert listing["total"] == 6
        seen += [item["name"] for item in listing["items"]]
        path = listing["next"]
    assert seen == ["evil", "ledger", "numbers", "slow-things", "sql-things", "Web.Shop"]


@pytest.mark.anyio
async def test_the_next_page_keeps_the_query(shop: TestClient) -> None:
    listing = (await shop.get("/api/packages", params={"query": "things s&l", "limit": 1})).json()
    assert (listing["total"], listing["items"], listing["next"]) == (0, [], None)
    listing = (await shop.get("/api/packages", params={"query": "things", "limit": 1})).json()
    assert listing["next"] == "/api/packages?query=things&limit=1&offset=1"


@pytest.mark.anyio
async def test_a_package_as_json(shop: TestClient) -> None:
    response = await shop.get("/api/packages/WEB_SHOP")
    package = response.json()
    assert response.headers["content-type"] == "application/json"
    assert (package["name"], package["canonical"], package["version"]) == ("Web.Shop", "web-shop", "1.0")
    assert package["requires"][0]["canonical"] == "ledger"


@pytest.mark.anyio
async def test_an_unknown_package_is_a_problem_document(client: TestClient) -> None:
    response = await client.get("/api/packages/covet-cor")
    problem = response.json()
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert (problem["title"], problem["near"][0]) == ("Unknown package", "covet-core")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("limit=0", ["/limit"]),
        ("limit=101", ["/limit"]),
        ("limit=many&offset=-1", ["/limit", "/offset"]),
        (f"query={'x' * 201}", ["/query"]),
        (f"offset={'9' * 30}", ["/offset"]),
    ],
)
async def test_parameters_out_of_bounds_are_refused(client: TestClient, query: str, pointers: list[str]) -> None:
    response = await client.get(f"/api/packages?{query}")
    assert response.status_code == 422
    assert [fault["pointer"] for fault in response.json()["errors"]] == pointers


# Put together


@pytest.mark.anyio
async def test_the_plugin_takes_part(client: TestClient) -> None:
    await client.get("/packages/covet-core")
    routes = {times["route"]: times["count"] for times in (await client.get("/timing")).json()["routes"]}
    assert routes["/packages/{name}"] >= 1


@pytest.mark.anyio
async def test_the_api_is_documented(client: TestClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert {"/api/packages", "/api/packages/{name}"} <= set(document["paths"])
    assert "/" not in document["paths"]
    listing = document["paths"]["/api/packages"]["get"]
    assert {parameter["name"] for parameter in listing["parameters"]} == {"query", "limit", "offset"}
    assert "404" in document["paths"]["/api/packages/{name}"]["get"]["responses"]
    assert (await client.get("/docs")).status_code == 200


def run_demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "demo.py")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_the_demo_shows_the_application_and_ends() -> None:
    done = run_demo(FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in (
        "$ covet plugins list",
        "covet-timing",
        "GET /packages/Covet_Core",
        "application/problem+json",
        '"near": [',
        "/api/packages/{name}",
        "server-timing: app;dur=",
        "Everything answered as it should.",
    ):
        assert part in done.stdout
    assert "\x1b[" not in done.stdout


@pytest.mark.parametrize(
    ("added", "complaint"),
    [
        ("raise RuntimeError('no shelf')", "no shelf"),
        ("\n@api.get('/packages')\nasync def again() -> None: ...\napp.include(api)\n", "can never be reached"),
        ("\nSTYLE = STYLE.with_name('gone.css')\n", "GET /static/style.css was answered with 404, not 200"),
    ],
)
def test_the_demo_fails_when_the_application_does(tmp_path: Path, added: str, complaint: str) -> None:
    folder = tmp_path / "packages"
    shutil.copytree(FOLDER, folder)
    with (folder / "app.py").open("a", encoding="utf-8") as file:
        file.write(added)
    done = run_demo(folder)
    assert done.returncode == 1
    assert "The demo failed: " in done.stderr
    assert complaint in done.stderr
    assert "Everything answered" not in done.stdout
    for host, port in re.findall(r"http://([\d.]+):(\d+)", done.stdout):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), 5)
