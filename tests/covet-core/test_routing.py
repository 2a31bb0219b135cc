"""Templates, routes and routers."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet.exceptions import RouteError
from covet.lookup import RouteTable
from covet.routing import Mount, Route, Router
from covet.templates import CONVERTERS, Template


async def handler() -> None:
    """Show it.

    At length.
    """


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("users", "begins with a slash; did you mean '/users'"),
        ("/users?x=1", "no query"),
        ("/users#top", "no query or fragment"),
        ("/{id", "unbalanced braces"),
        ("/id}", "unbalanced braces"),
        ("/{}", "'' is no parameter name"),
        ("/{1st}", "'1st' is no parameter name"),
        ("/{id}/{id}", "'id' stands twice"),
        ("/{id:integer}", "unknown converter 'integer'; there are"),
        ("/{rest:path}/more", "comes last"),
    ],
)
def test_a_malformed_template_is_refused_with_the_reason(path: str, message: str) -> None:
    with pytest.raises(RouteError, match=message.replace("?", r"\?")):
        Template(path)


@pytest.mark.parametrize(
    ("path", "values", "formatted"),
    [
        ("/users/{id:int}", {"id": 7}, "/users/7"),
        ("/{when:date}", {"when": date(2026, 11, 24)}, "/2026-11-24"),
        ("/{key:uuid}", {"key": UUID(int=1)}, "/00000000-0000-0000-0000-000000000001"),
        ("/{name}", {"name": "a b/ü?#%"}, None),
        ("/{name}", {"name": "a b?#%ü"}, "/a%20b%3F%23%25%C3%BC"),
        ("/files/{rest:path}", {"rest": "a/b c"}, "/files/a/b%20c"),
        ("/{x:float}", {"x": 1.5}, "/1.5"),
        ("/{s:slug}", {"s": "a-b_c"}, "/a-b_c"),
    ],
)
def test_a_template_is_filled_in(path: str, values: dict[str, object], formatted: str | None) -> None:
    if formatted is None:
        with pytest.raises(RouteError, match="does not fit"):
            Template(path).format(values)
    else:
        assert Template(path).format(values) == formatted


def test_filling_in_names_what_is_missing_and_what_is_unknown() -> None:
    with pytest.raises(RouteError, match="missing 'id', unknown 'name'"):
        Template("/{id}").format({"name": "x"})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/{v}", ""),
        ("/{v}", "a/b"),
        ("/{v}", "a\0"),
        ("/{v}", "a\udcff"),
        ("/{v}", "\ufffd"),
        ("/{v:path}", "a/\0"),
        ("/{v:int}", -1),
        ("/{v:int}", 10**5000),
        ("/{v:int}", "x"),
        ("/{v:float}", float("nan")),
        ("/{v:float}", 1e30),
        ("/{v:date}", "2026-01-01"),
        ("/{v:date}", None),
        ("/{v:uuid}", 5),
    ],
    ids=lambda value: ascii(value)[:20] if not isinstance(value, int) else "int",
)
def test_a_value_that_does_not_fit_is_named_in_the_error(path: str, value: object) -> None:
    with pytest.raises(RouteError, match="does not fit the parameter 'v'"):
        Template(path).format({"v": value})


@given(st.sampled_from(sorted(CONVERTERS)), st.data())
def test_what_is_formatted_is_found_again(kind: str, data: st.DataObject) -> None:
    values: dict[str, st.SearchStrategy[object]] = {
        "str": st.text(st.characters(codec="utf-8", exclude_characters="/\0\ufffd"), min_size=1),
        "int": st.integers(0, 10**30),
        "float": st.floats(0, 1e6).map(lambda x: round(x, 3)),
        "uuid": st.uuids(),
        "date": st.dates(),
        "slug": st.from_regex(r"[a-zA-Z0-9_-]+", fullmatch=True),
        "path": st.text(st.characters(codec="utf-8", exclude_characters="\0\ufffd"), min_size=1),
        "rest": st.text(st.characters(codec="utf-8", exclude_characters="\0\ufffd")),
    }
    value = data.draw(values[kind])
    template = Template(f"/x/{{v:{kind}}}")
    table: RouteTable[str] = RouteTable()
    table.add(template, "found")
    table.freeze()
    from urllib.parse import unquote

    assert table.find(unquote(template.format({"v": value}))) == ("found", (value,))


def test_a_router_gives_prefix_name_tags_and_middleware_to_its_routes() -> None:
    inner = Router("/posts", name="posts", tags=["posts"])
    inner.get("/")(handler)
    inner.get("/{slug}", name="show", tags=["one"])(handler)
    outer = Router("/blog", name="blog")
    outer.include(inner, prefix="/v1")
    index, show = outer.resolve()
    assert isinstance(index, Route)
    assert isinstance(show, Route)
    assert (index.path, index.name, index.tags) == ("/blog/v1/posts", "blog.posts.handler", ("posts",))
    assert (show.path, show.name, show.tags) == ("/blog/v1/posts/{slug}", "blog.posts.show", ("posts", "one"))
    assert show.param_names == ("slug",)


def test_including_a_router_twice_gives_separate_routes() -> None:
    router = Router()
    router.get("/x")(handler)
    outer = Router()
    outer.include(router, "/a")
    outer.include(router, "/b")
    assert [entry.path for entry in outer.resolve()] == ["/a/x", "/b/x"]


def test_summary_and_description_come_from_the_docstring() -> None:
    route = Route("/", handler)
    assert (route.summary, route.description) == ("Show it.", "At length.")


@pytest.mark.parametrize("prefix", ["users", "/users/", "/"])
def test_a_prefix_begins_with_a_slash_and_does_not_end_with_one(prefix: str) -> None:
    with pytest.raises(RouteError, match="a prefix begins with a slash"):
        Router(prefix)


def test_a_mount_has_a_plain_path_and_an_application() -> None:
    with pytest.raises(RouteError, match="plain path"):
        Mount("/{x}", handler)
    with pytest.raises(RouteError, match="did you mean '/static'"):
        Mount("static", handler)
    with pytest.raises(RouteError, match="no ASGI application"):
        Mount("/static", "app")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\nX", "é"])
def test_a_method_is_a_token(method: str) -> None:
    with pytest.raises(RouteError, match="no HTTP method"):
        Route("/", handler, [method])
