"""Containers of request parts: headers, query, cookies, hosts, URLs, state, trace context."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from covet.datastructures import (
    URL,
    Headers,
    MissingStateError,
    MultiMapping,
    QueryParams,
    State,
    parse_cookies,
    parse_fields,
    parse_host,
    percent_decoded,
)
from covet.exceptions import CovetError, HTTPError
from covet.tracing import TraceContext, new_request_id, valid_request_id


class Animal:
    pass


class Dog(Animal):
    pass


# Headers


def test_headers_are_found_in_any_case() -> None:
    headers = Headers([(b"content-type", b"text/plain"), (b"X-Mixed", b"1")])
    assert headers["Content-Type"] == headers.get("CONTENT-TYPE") == "text/plain"
    assert headers["x-mixed"] == "1"
    assert "content-TYPE" in headers
    assert "accept" not in headers
    assert 1 not in headers
    assert list(headers) == ["content-type", "x-mixed"]
    assert dict(headers) == {"content-type": "text/plain", "x-mixed": "1"}
    assert len(headers) == 2


def test_a_missing_header_is_a_key_error_or_the_default() -> None:
    headers = Headers()
    with pytest.raises(KeyError):
        headers["accept"]
    assert headers.get("accept") is None
    assert headers.get("accept", "*/*") == "*/*"
    assert headers.getlist("accept") == []
    assert headers.elements("accept") == []
    assert headers.get("naïve ☃") is None


def test_repeated_headers_are_joined_and_kept_apart() -> None:
    headers = Headers([(b"accept", b"a"), (b"host", b"h"), (b"accept", b"b"), (b"accept", b"c")])
    assert headers["accept"] == "a, b, c"
    assert headers.getlist("accept") == ["a", "b", "c"]
    assert headers.multi_items() == [("accept", "a"), ("host", "h"), ("accept", "b"), ("accept", "c")]
    assert len(headers) == 2


def test_repeated_headers_that_differ_in_case_are_one() -> None:
    headers = Headers([(b"authorization", b"Bearer a"), (b"Authorization", b"Bearer b")])
    assert headers["authorization"] == "Bearer a, Bearer b"


def test_cookie_lines_are_joined_as_cookies() -> None:
    assert Headers([(b"cookie", b"a=1"), (b"cookie", b"b=2")])["cookie"] == "a=1; b=2"


def test_names_with_an_underscore_are_dropped() -> None:
    headers = Headers([(b"x_user", b"root"), (b"x-user", b"me")])
    assert headers["x-user"] == "me"
    assert "x_user" not in headers
    assert headers.multi_items() == [("x-user", "me")]


def test_joining_many_headers_takes_linear_time() -> None:
    # Quadratic concatenation (CVE-2025-14550 of Django) would copy 30 GB here.
    lines = 60_000
    headers = Headers([(b"x-a", b"v" * 16)] * lines)
    assert len(headers["x-a"]) == lines * 18 - 2


def test_the_elements_of_a_list_valued_header() -> None:
    headers = Headers([(b"if-none-match", b'"a,b" , W/"c\\"d",,'), (b"if-none-match", b'"e"')])
    assert headers.elements("if-none-match") == ['"a,b"', 'W/"c\\"d"', '"e"']
    assert Headers([(b"accept", b"a, b,,c\t")]).elements("accept") == ["a", "b", "c"]


@pytest.mark.parametrize("value", [b"a," * 64 + b"b", b'"q",' * 64 + b"b"])
def test_a_list_valued_header_is_bounded(value: bytes) -> None:
    assert len(Headers([(b"accept", value)]).elements("accept", 65)) == 65
    with pytest.raises(HTTPError, match="more than 64") as refused:
        Headers([(b"accept", value)]).elements("accept")
    assert refused.value.status == 400


def test_a_quoted_string_that_does_not_end_is_refused() -> None:
    with pytest.raises(HTTPError, match="does not end"):
        Headers([(b"accept", b'a, "b')]).elements("accept")


def test_header_values_stay_out_of_the_repr() -> None:
    assert repr(Headers([(b"authorization", b"secret")])) == "<Headers authorization>"


raw_headers = st.lists(st.tuples(st.binary(), st.binary()))


@given(raw_headers, st.text())
@example([(b"a", b""), (b"A", b"")], "a")
def test_any_bytes_make_headers(raw: list[tuple[bytes, bytes]], name: str) -> None:
    headers = Headers(raw)
    assert headers.get(name) is None or name in headers
    for known in headers:
        assert headers.getlist(known)
        assert headers[known] == headers.get(known)
        try:
            elements = headers.elements(known)
        except HTTPError as refused:
            assert refused.status == 400  # noqa: PT017 - or nothing is refused
        else:
            assert len(elements) <= 64


# Query strings


@pytest.mark.parametrize(
    ("raw", "pairs"),
    [
        (b"", []),
        (b"a=1&b=2&a=3", [("a", "1"), ("a", "3"), ("b", "2")]),
        (b"a&b=&=c&&", [("a", ""), ("b", ""), ("", "c")]),
        (b"a=b=c;d", [("a", "b=c;d")]),
        (b"q=caf%C3%A9+au%20lait", [("q", "café au lait")]),
        (b"q=caf\xc3\xa9", [("q", "café")]),
        (b"a%26b=c%3Dd", [("a&b", "c=d")]),
        (b"q=100%&r=%zz%2", [("q", "100%"), ("r", "%zz%2")]),
        (b"q=%2525", [("q", "%25")]),
    ],
)
def test_query_strings(raw: bytes, pairs: list[tuple[str, str]]) -> None:
    assert QueryParams(raw).multi_items() == pairs


def test_the_first_value_counts_and_all_are_kept() -> None:
    query = QueryParams(b"a=1&a=2")
    assert query["a"] == query.get("a") == "1"
    assert query.getlist("a") == ["1", "2"]
    assert query.getlist("b") == []
    assert query.get("b") is None
    assert query.get("b", "x") == "x"
    assert "a" in query
    assert len(query) == 1
    assert dict(query) == {"a": "1"}
    assert query == QueryParams(b"a=1&a=2")
    assert query != QueryParams(b"a=1")
    assert query != 1
    assert repr(query) == "QueryParams({'a': ['1', '2']})"
    with pytest.raises(KeyError):
        query["b"]


def test_getlist_gives_a_list_of_its_own() -> None:
    query = QueryParams(b"a=1")
    query.getlist("a").append("2")
    assert query.getlist("a") == ["1"]


@pytest.mark.parametrize("raw", [b"a=%ff", b"a=\xff", b"%80=1", b"a=%C3", b"a=%ED%A0%80"])
def test_a_query_that_is_no_utf8_is_refused(raw: bytes) -> None:
    with pytest.raises(HTTPError, match="not UTF-8") as refused:
        QueryParams(raw)
    assert refused.value.status == 400


@pytest.mark.parametrize("raw", [b"a=%00", b"a=\0", b"%00"])
def test_a_query_with_nul_is_refused(raw: bytes) -> None:
    with pytest.raises(HTTPError, match="NUL") as refused:
        QueryParams(raw)
    assert refused.value.status == 400


def test_the_number_of_query_fields_is_bounded() -> None:
    assert len(QueryParams(b"a&b&c", max_fields=3)) == 3
    with pytest.raises(HTTPError, match="more than 2 fields") as refused:
        QueryParams(b"a&b&c", max_fields=2)
    assert refused.value.status == 400
    with pytest.raises(HTTPError):
        QueryParams(b"&" * 1000)


def test_the_size_of_a_form_field_is_bounded() -> None:
    assert parse_fields(b"a=23", "form", 10, 4) == {"a": ["23"]}
    with pytest.raises(HTTPError, match="larger than 3 bytes") as refused:
        parse_fields(b"a=23", "form", 10, 3)
    assert refused.value.status == 413


@given(st.binary())
def test_any_bytes_make_a_query_or_a_400(raw: bytes) -> None:
    try:
        query = QueryParams(raw)
    except HTTPError as refused:
        assert refused.status == 400  # noqa: PT017 - or nothing is refused
    else:
        assert all("\0" not in name + value for name, value in query.multi_items())


@given(st.lists(st.tuples(st.text(), st.text())))
def test_what_the_standard_library_encodes_is_read(pairs: list[tuple[str, str]]) -> None:
    from urllib.parse import urlencode

    pairs = [(name, value) for name, value in pairs if "\0" not in name + value and (name + value).isprintable()]
    query = QueryParams(urlencode(pairs).encode())
    for name, _ in pairs:
        assert query.getlist(name) == [value for other, value in pairs if other == name]


@given(st.binary())
def test_percent_decoding_agrees_with_the_standard_library(data: bytes) -> None:
    from urllib.parse import unquote_to_bytes

    assert percent_decoded(data) == unquote_to_bytes(data)


def test_a_multi_mapping_is_empty_by_default() -> None:
    assert len(MultiMapping[str]()) == 0
    assert QueryParams() == MultiMapping[str]()


# Cookies


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("", {}),
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2 ;\tc = 3", {"a": "1", "b": "2", "c": "3"}),
        ("a=1; a=2", {"a": "1"}),
        ('a="x y"; b=k=v', {"a": '"x y"', "b": "k=v"}),
        ("nameless; =no; ;", {}),
        ("=__Host-sid=evil", {}),
    ],
)
def test_cookies(header: str, cookies: dict[str, str]) -> None:
    assert parse_cookies(header) == cookies


@pytest.mark.parametrize("space", ["\u00a0", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_real_blanks_are_stripped_of_a_cookie_name(space: str) -> None:
    # A script can set a cookie named NBSP + "__Host-sid"; stripping would give it the prefix that it may not have.
    assert "__Host-sid" not in parse_cookies(f"{space}__Host-sid=evil")


@given(st.text())
def test_any_text_makes_cookies(header: str) -> None:
    for name, value in parse_cookies(header).items():
        assert name
        assert ";" not in name + value


# Hosts and URLs

GOOD_HOSTS = {
    "example.com": "example.com",
    "EXAMPLE.com:8000": "example.com:8000",
    "example.com.": "example.com.",
    "example.com:": "example.com",
    "localhost": "localhost",
    "my_service": "my_service",
    "127.0.0.1:80": "127.0.0.1:80",
    "[::1]": "[::1]",
    "[2001:DB8::1]:443": "[2001:db8::1]:443",
    "xn--caf-dma.example": "xn--caf-dma.example",
}
BAD_HOSTS = [
    "", " ", "a b", "a/b", "a?b", "a#b", "user@host", "evil.com@example.com", "a:b", "a:99999", "a:-1", "a:1:2", ":80",
    "a..b", ".a", "a\r\nx: y", "a\n", "a\0", "[", "[]", "[::1", "::1", "[::g]", "[::1]x", "[1]", "a%41", "a,b", "a, b",
    "café.example", "a" * 300, "\u0430.example", "a:٣", "http://a", "a\\b", "a;b", "a'b", "[:::::::::]",
]  # fmt: skip


@pytest.mark.parametrize(("text", "host"), GOOD_HOSTS.items())
def test_good_hosts(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize("text", BAD_HOSTS)
def test_bad_hosts(text: str) -> None:
    assert parse_host(text) is None


@given(st.text(alphabet="aZ0.-_:[]@/%?# \r\n\0é") | st.text())
def test_a_host_that_is_accepted_is_what_the_standard_library_takes_for_it(text: str) -> None:
    from urllib.parse import urlsplit

    host = parse_host(text)
    if host is not None:
        parts = urlsplit(f"http://{host}/path?query")
        assert parts.netloc == host
        assert (parts.path, parts.query) == ("/path", "query")
        assert parts.username is None
        assert parts.hostname


def test_urls_are_put_together_from_components() -> None:
    url = URL("https", "Example.com", "/a%20b", "q=1")
    assert str(url) == "https://example.com/a%20b?q=1"
    assert repr(url) == "URL('https://example.com/a%20b?q=1')"
    assert url == URL("https", "example.com", "/a%20b", "q=1")
    assert len({url, URL("https", "example.com", "/a%20b", "q=1"), URL("http", "example.com")}) == 2
    assert url != str(url)


def test_components_are_replaced() -> None:
    url = URL("http", "a.example", "/x", "q=1")
    assert str(url.replace(scheme="https", host="b.example:1", path="/y", query="")) == "https://b.example:1/y"
    assert str(url.replace(query={"page": 2, "tag": ["a b", "c"]})) == "http://a.example/x?page=2&tag=a+b&tag=c"
    assert url.replace() == url


@pytest.mark.parametrize(
    ("scheme", "host", "path", "query"),
    [
        ("", "a", "/", ""),
        ("java script", "a", "/", ""),
        ("http", "a@b", "/", ""),
        ("http", "a/b", "/", ""),
        ("http", "a", "@evil", ""),
        ("http", "a", "", ""),
        ("http", "a", "/a?b", ""),
        ("http", "a", "/a#b", ""),
        ("http", "a", "/a b", ""),
        ("http", "a", "/a\r\n", ""),
        ("http", "a", "/%zz", ""),
        ("http", "a", "/", "a#b"),
        ("http", "a", "/", "é"),
        ("http", "a", "/", "a\n"),
    ],
)
def test_a_component_that_is_none_is_an_error(scheme: str, host: str, path: str, query: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        URL(scheme, host, path, query)


# State


def test_state_is_keyed_by_type() -> None:
    state = State()
    dog = Dog()
    state[Animal] = dog
    state[int] = 7
    assert state[Animal] is dog
    assert state.get(int) == 7
    assert state.get(Dog) is None
    assert state.get(Dog, dog) is dog
    assert Animal in state
    assert Dog not in state
    assert list(state) == [Animal, int]
    assert len(state) == 2
    assert repr(state) == "<State Animal, int>"
    del state[int]
    assert repr(state) == "<State Animal>"


def test_what_is_missing_is_told_with_what_is_there() -> None:
    state = State()
    with pytest.raises(MissingStateError) as missing:
        state[Dog]
    assert str(missing.value).startswith("no Dog is attached here (nothing is)")
    state[int] = 1
    with pytest.raises(KeyError) as missing_key:
        del state[Dog]
    assert "(int is)" in str(missing_key.value)
    assert isinstance(missing_key.value, CovetError)


def test_state_takes_instances_of_its_key_only() -> None:
    state = State()
    with pytest.raises(TypeError, match=r"state\[Dog\] takes a Dog, not Animal"):
        state[Dog] = Animal()  # type: ignore[assignment]
    with pytest.raises(TypeError, match="keyed by class"):
        state["dog"] = Dog()  # type: ignore[index]
    assert len(state) == 0


# Request ids and trace context

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-ff", True),
        (f"cc-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", True),
    ],
)
def test_a_valid_traceparent_is_taken_over(header: str, sampled: bool) -> None:
    trace = TraceContext.of(header)
    assert (trace.trace_id, trace.parent_id, trace.sampled) == (TRACE, PARENT, sampled)
    assert trace.span_id != PARENT
    assert trace.traceparent == f"00-{TRACE}-{trace.span_id}-{'01' if sampled else '00'}"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01-",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0",
        f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        f" 00-{TRACE}-{PARENT}-01",
        f"00_{TRACE}_{PARENT}_01",
        "\u0660\u0660" + f"-{TRACE}-{PARENT}-01",
    ],
)
def test_any_other_traceparent_begins_a_new_trace(header: str | None) -> None:
    trace = TraceContext.of(header)
    assert trace.trace_id != TRACE
    assert trace.parent_id is None
    assert not trace.sampled
    assert TraceContext.of(trace.traceparent).trace_id == trace.trace_id


@given(st.text() | st.from_regex(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?\Z"))
def test_any_text_gives_a_valid_trace_context(header: str) -> None:
    trace = TraceContext.of(header)
    handed_on = TraceContext.of(trace.traceparent)
    assert (handed_on.trace_id, handed_on.parent_id) == (trace.trace_id, trace.span_id)


def test_request_ids() -> None:
    assert valid_request_id(new_request_id())
    assert new_request_id() != new_request_id()
    assert valid_request_id("Az09._-")
    assert valid_request_id("a" * 128)
    for bad in ("", "a" * 129, "a b", "a\n", "é", "a;b", "<a>", "٣"):
        assert not valid_request_id(bad)
