"""How a path finds its route."""

from __future__ import annotations

import sys
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet.exceptions import RouteError
from covet.lookup import RouteTable
from covet.templates import Template


def table(*paths: str) -> RouteTable[str]:
    made: RouteTable[str] = RouteTable()
    for path in paths:
        made.add(Template(path), path)
    made.freeze()
    return made


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", ("/", ())),
        ("/users", ("/users", ())),
        ("/users/", None),
        ("/users/42", ("/users/{id:int}", (42,))),
        ("/users/me", ("/users/me", ())),
        ("/users/ada", ("/users/{name}", ("ada",))),
        ("/users//", None),
        ("/users/42/posts/hello", ("/users/{id:int}/posts/{slug}", (42, "hello"))),
        ("/users/x/posts/hello", None),
        ("/users/4_2/posts/hello", None),
        ("/users/٤٢/posts/hello", None),
        ("/users/-1/posts/hello", None),
        ("/files/a/b/c.txt", ("/files/{rest:path}", ("a/b/c.txt",))),
        ("/files/", None),
        ("/photo-7.png", ("/photo-{n:int}.{kind}", (7, "png"))),
        ("", None),
        ("users", None),
    ],
)
def test_a_path_finds_its_route(path: str, found: object) -> None:
    routes = table(
        "/", "/users", "/users/{id:int}", "/users/me", "/users/{name}", "/users/{id:int}/posts/{slug}",
        "/files/{rest:path}", "/photo-{n:int}.{kind}",
    )  # fmt: skip
    assert routes.find(path) == found


def test_literal_text_goes_before_parameters_from_left_to_right() -> None:
    routes = table("/{a}/b", "/a/{b}", "/a/{rest:path}", "/{a}/{b}", "/{rest:path}")
    assert routes.find("/a/b") == ("/a/{b}", ("b",))
    assert routes.find("/x/b") == ("/{a}/b", ("x",))
    assert routes.find("/a/b/c") == ("/a/{rest:path}", ("b/c",))
    assert routes.find("/x/y/z/w/v") == ("/{rest:path}", ("x/y/z/w/v",))


def test_the_stricter_converter_is_tried_first_whatever_the_order_of_declaration() -> None:
    for order in (("/{s}", "/{n:int}", "/{u:uuid}"), ("/{u:uuid}", "/{n:int}", "/{s}")):
        routes = table(*order)
        assert routes.find("/7") == ("/{n:int}", (7,))
        assert routes.find("/x") == ("/{s}", ("x",))
        text = "12345678-1234-1234-1234-123456789abc"
        assert routes.find("/" + text) == ("/{u:uuid}", (UUID(text),))


def test_a_number_too_long_to_convert_is_no_match_and_no_crash() -> None:
    assert table("/{n:int}").find("/" + "9" * 10_000) is None


def test_two_routes_for_the_same_paths_are_refused() -> None:
    made: RouteTable[str] = RouteTable()
    made.add(Template("/users/{id:int}"), "first")
    with pytest.raises(RouteError, match="'second' can never be reached: 'first'"):
        made.add(Template("/users/{other:int}"), "second")


def test_the_cost_of_a_lookup_does_not_grow_with_the_number_of_routes() -> None:
    """Counted, not timed: the lines of Python that a lookup runs."""

    def lines(routes: RouteTable[str], path: str) -> int:
        count = 0

        def trace(frame: object, event: str, arg: object) -> object:
            nonlocal count
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            assert routes.find(path) is not None
        finally:
            sys.settrace(before)
        return count

    few = table(*(f"/r{i}/users/{{id:int}}/posts/{{slug}}" for i in range(3)))
    many = table(*(f"/r{i}/users/{{id:int}}/posts/{{slug}}" for i in range(3000)))
    assert lines(few, "/r2/users/42/posts/x") == lines(many, "/r2999/users/42/posts/x")


SEGMENT = st.sampled_from(["a", "b", "{x}", "{n:int}", "c{y}"])


@given(st.lists(st.lists(SEGMENT, min_size=1, max_size=4), min_size=1, max_size=12), st.data())
def test_what_is_found_fits_and_what_fits_is_found(templates: list[list[str]], data: st.DataObject) -> None:
    """Against a plain reading of the rules: a route is found exactly when one of the templates matches."""
    paths = []
    for template in templates:
        named = zip(template, "pqrs", strict=False)
        paths.append("/" + "/".join(s.replace("x", n).replace("y", n) if "{" in s else s for s, n in named))
    made: RouteTable[str] = RouteTable()
    kept = []
    for path in paths:
        try:
            template = Template(_distinct(path))
            made.add(template, template.path)
            kept.append(template)
        except RouteError:
            continue
    made.freeze()
    path = "/" + "/".join(data.draw(st.lists(st.sampled_from(["a", "b", "7", "c1", "zz"]), min_size=1, max_size=4)))
    fitting = {template.path for template in kept if _fits(template, path)}
    found = made.find(path)
    assert (found is None) == (not fitting)
    if found is not None:
        assert found[0] in fitting
        assert len(found[1]) == len(Template(found[0]).names)


def _distinct(path: str) -> str:
    out = []
    for i, segment in enumerate(path.split("/")):
        out.append(segment.replace("{n:int}", f"{{n{i}:int}}") if "{n:int}" in segment else segment)
    return "/".join(out)


def _fits(template: Template, path: str) -> bool:
    segments = path.split("/")
    return len(segments) == len(template.segments) and all(
        text == segment if isinstance(segment, str) else segment.pattern().fullmatch(text) is not None
        for text, segment in zip(segments, template.segments, strict=True)
    )
