"""Forms: what browsers send is read, what others may send is read or refused, and no file is left open."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from covet.datastructures import FormData, parse_fields
from covet.exceptions import ClientDisconnected, CovetError, HTTPError
from covet.forms import UploadFile
from covet.requests import Request
from covet.settings import Limits

pytestmark = pytest.mark.anyio

BOUNDARY = b"b"


class File(NamedTuple):
    """A file that is sent."""

    filename: bytes
    content: bytes
    content_type: bytes = b""


def encoded(*members: tuple[bytes, bytes | File], boundary: bytes = BOUNDARY) -> bytes:
    """The body of a form, as RFC 7578 and browsers write it."""
    out = []
    for name, value in members:
        head = b'Content-Disposition: form-data; name="' + name + b'"'
        if isinstance(value, File):
            head += b'; filename="' + value.filename + b'"'
            if value.content_type:
                head += b"\r\nContent-Type: " + value.content_type
            value = value.content
        out.append(b"--" + boundary + b"\r\n" + head + b"\r\n\r\n" + value + b"\r\n")
    return b"".join(out) + b"--" + boundary + b"--\r\n"


def raw_part(*headers: bytes, content: bytes = b"x") -> bytes:
    return b"\r\n".join([b"--b", *headers, b"", content, b"--b--", b""])


def make_request(
    body: bytes | Sequence[bytes] | Callable[[], Awaitable[Any]],
    content_type: bytes = b"multipart/form-data; boundary=b",
    limits: Limits | None = None,
) -> Request:
    pieces = [body] if isinstance(body, bytes) else [] if callable(body) else list(body) or [b""]

    async def receive() -> Any:
        if callable(body):
            return await body()
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", content_type)]}
    app = SimpleNamespace(settings=SimpleNamespace(limits=limits or Limits()))
    return Request(scope, receive, app)  # type: ignore[arg-type]


async def members(form: FormData) -> list[tuple[str, Any]]:
    """Names with texts, and with what is known of files."""
    found: list[tuple[str, Any]] = []
    for name, value in form.multi_items():
        if isinstance(value, str):
            found.append((name, value))
        else:
            content = await value.read()
            assert len(content) == value.size
            found.append((name, (value.filename, content, value.content_type)))
    return found


async def refused(status: int, body: Any, *args: Any, **kwargs: Any) -> HTTPError:
    request = make_request(body, *args, **kwargs)
    with pytest.raises(HTTPError) as caught:
        await request.form()
    assert caught.value.status == status, caught.value
    assert caught.value.detail
    with pytest.raises(CovetError):
        await request.form()
    return caught.value


# Multipart


async def test_fields_and_files_are_read() -> None:
    body = encoded(
        (b"a", b"1"),
        (b"f", File(b"x.txt", b"hello", b"Text/Plain; charset=utf-8")),
        (b"a", b""),
        (b"\xc3\xa9", b"\xe2\x82\xac"),
    )
    request = make_request(body)
    form = await request.form()
    assert await request.form() is form
    assert await members(form) == [("a", "1"), ("a", ""), ("f", ("x.txt", b"hello", "text/plain")), ("é", "€")]
    form.close()
    with pytest.raises(ValueError, match="closed"):
        form["f"].file.read()  # type: ignore[union-attr]


async def test_a_file_is_in_memory_or_on_disk_and_reads_the_same(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10
    for spool in (10_000, 2560, 2559, 100, 1):
        pieces = encoded((b"f", File(b"x", content)))
        parts = [pieces[start : start + 700] for start in range(0, len(pieces), 700)]
        form = await make_request(parts, limits=Limits(spool_bytes=spool)).form()
        file = form["f"]
        assert isinstance(file, UploadFile)
        assert file.file._rolled is (spool < 2560)  # type: ignore[attr-defined]
        assert await file.read(5) == content[:5]
        await file.save(tmp_path / "saved")
        assert (tmp_path / "saved").read_bytes() == content
        assert await file.read() == content[5:], "saving does not move the position"
        await file.seek(2)
        assert await file.read(2) == content[2:4]
        assert repr(file) == "<UploadFile 'x' 2560 bytes>"
        await file.close()
        await file.close()
        with pytest.raises(ValueError, match="closed"):
            await file.read()


async def test_an_uploaded_file_closes_with_its_last_reference() -> None:
    form = await make_request(encoded((b"f", File(b"x", b"y" * 100))), limits=Limits(spool_bytes=10)).form()
    file = form["f"].file  # type: ignore[union-attr]
    del form
    gc.collect()
    assert file.closed


async def test_a_file_input_without_a_choice_is_no_file() -> None:
    assert await members(await make_request(encoded((b"f", File(b"", b"")), (b"a", b"1"))).form()) == [("a", "1")]
    assert await members(await make_request(encoded((b"f", File(b"", b"x")))).form()) == [("f", ("", b"x", ""))]


@pytest.mark.parametrize(
    "content_type",
    [
        b'multipart/form-data; boundary="b"',
        b"Multipart/Form-Data;BOUNDARY=b",
        b"multipart/form-data; charset=utf-8; boundary=b",
        b"multipart/form-data ; boundary=b ;",
    ],
)
async def test_ways_to_write_the_boundary(content_type: bytes) -> None:
    assert (await make_request(encoded((b"a", b"1")), content_type).form())["a"] == "1"


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b"multipart/form-data;",
        b"multipart/form-data; boundary",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/form-data; boundary=" + b"b" * 71,
        b"multipart/form-data; boundary=" + b"b" * 300,
        b"multipart/form-data; boundary=\xff",
        b"multipart/form-data; boundary=b\0",
        b'multipart/form-data; boundary="b\r\n"',
        b'multipart/form-data; boundary="b "',
        b"multipart/form-data; boundary*=b",
        b"multipart/form-data; boundary=a; boundary=b",
        b"multipart/form-data; boundary=b; Boundary=b",
        b'multipart/form-data; boundary="a; boundary=b',
    ],
)
async def test_without_one_good_boundary_it_is_a_400(content_type: bytes) -> None:
    await refused(400, encoded((b"a", b"1")), content_type)


DISPOSITION = b'Content-Disposition: form-data; name="a"'

MALFORMED = {
    "nothing": b"",
    "no boundary": b"hello",
    "another boundary": encoded((b"a", b"1"), boundary=b"c"),
    "no end": encoded((b"a", b"1"))[:-6],
    "an end without its hyphens": encoded((b"a", b"1"))[:-4] + b"\r\n",
    "half an end": encoded((b"a", b"1"))[:-3],
    "cut within a header": raw_part(DISPOSITION)[:12],
    "cut within the content": raw_part(DISPOSITION, content=b"xyz")[:-10],
    "bare line feeds": raw_part(DISPOSITION).replace(b"\r\n", b"\n"),
    "bare carriage returns": raw_part(DISPOSITION).replace(b"\r\n", b"\r"),
    "no headers": raw_part(),
    "no disposition": raw_part(b"Content-Type: text/plain"),
    "an empty disposition": raw_part(b"Content-Disposition:"),
    "another disposition": raw_part(b'Content-Disposition: attachment; name="a"'),
    "no name": raw_part(b"Content-Disposition: form-data"),
    "a filename without a name": raw_part(b'Content-Disposition: form-data; filename="a"'),
    "an extended name alone": raw_part(b"Content-Disposition: form-data; name*=utf-8''a"),
    "two names": raw_part(b'Content-Disposition: form-data; name="a"; name="b"'),
    "two names in other cases": raw_part(b'Content-Disposition: form-data; name="a"; NAME ="b"'),
    "two filenames": raw_part(b'Content-Disposition: form-data; name="a"; filename="x"; filename="y"'),
    "two dispositions": raw_part(DISPOSITION, DISPOSITION),
    "two content types": raw_part(DISPOSITION, b"Content-Type: a/b", b"content-type: c/d"),
    "a folded header": raw_part(b"Content-Disposition: form-data;", b' name="a"'),
    "a header without a colon": raw_part(DISPOSITION, b"nonsense"),
    "a header without a name": raw_part(DISPOSITION, b": x"),
    "a space before the colon": raw_part(DISPOSITION.replace(b":", b" :")),
    "NUL in a header's name": raw_part(DISPOSITION, b"a\0: x"),
    "base64": raw_part(DISPOSITION, b"Content-Transfer-Encoding: base64"),
    "a header of 100 KB": raw_part(DISPOSITION, b"X-A: " + b"x" * 100_000),
    "a header's name of 100 KB": raw_part(DISPOSITION, b"x" * 100_000 + b": a"),
    "a name of 100 KB": raw_part(b'Content-Disposition: form-data; name="' + b"a" * 100_000 + b'"'),
    "a hundred headers": raw_part(DISPOSITION, *[b"X-%d: a" % n for n in range(100)]),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("size", [1, 7, 1_000_000])
async def test_a_malformed_form_is_a_400_however_it_arrives(body: bytes, size: int) -> None:
    await refused(400, [body[start : start + size] for start in range(0, len(body), size)])


async def test_escaped_quotes_are_looked_at_once() -> None:
    """Were each looked at from every one before it, this would not end within the time that a test has."""
    await refused(400, b"", b'multipart/form-data; x="' + b'\\"' * 200_000)


FILENAMES = {
    b"../../etc/passwd": "passwd",
    b"/etc/passwd": "passwd",
    b"C:\\Windows\\system.ini": "system.ini",
    b"\\\\host\\share\\x": "x",
    b"..\\..\\x": "x",
    b"..": "",
    b".": "",
    b"a/..": "",
    b"a/": "",
    b" . ": "",
    b".htaccess": ".htaccess",
    b"  a b  ": "a b",
    b"a\x01\x7f\x1b[31mb": "a[31mb",
    "a\u202egpj.exe".encode(): "agpj.exe",
    "a\u2028b\u0085c".encode(): "abc",
    "é€😀".encode(): "é€😀",
    b"%2e%2e%2fx": "%2e%2e%2fx",
    b"a;b": "a;b",
    b'a\\"b': 'a"b',
    b"a%22b": "a%22b",
    b"x" * 3000: "x" * 3000,
}


@pytest.mark.parametrize("sent", FILENAMES, ids=lambda name: ascii(name[:20]))
async def test_a_filename_has_no_folders_and_nothing_that_does_not_print(sent: bytes) -> None:
    form = await make_request(encoded((b"f", File(sent, b"x")))).form()
    file = form["f"]
    assert isinstance(file, UploadFile)
    assert file.filename == FILENAMES[sent]


async def test_an_extended_filename_is_ignored_as_rfc_7578_says() -> None:
    """What a filter in front sees as the filename is what the application sees."""
    for extended in (b"filename*=utf-8''evil.php", b"filename*0=evil; filename*1=.php", b"FileName*=x''evil.php"):
        body = raw_part(DISPOSITION + b'; filename="good.txt"; ' + extended)
        form = await make_request(body).form()
        assert form["a"].filename == "good.txt"  # type: ignore[union-attr]
        body = raw_part(DISPOSITION + b"; " + extended + b'; filename="good.txt"')
        assert (await make_request(body).form())["a"].filename == "good.txt"  # type: ignore[union-attr]
        assert (await make_request(raw_part(DISPOSITION + b"; " + extended)).form())["a"] == "x", "then it is no file"


@pytest.mark.parametrize(
    "sent", [b"", b"text", b"text/", b"/x", b"a/b/c", b"text/\xff", b"a/b\0", b"a b/c", b"text/html, a/b"]
)
async def test_a_content_type_that_is_none_is_empty(sent: bytes) -> None:
    form = await make_request(encoded((b"f", File(b"x", b"y", sent)))).form()
    assert form["f"].content_type == ""  # type: ignore[union-attr]


async def test_a_nested_multipart_is_content_like_any_other() -> None:
    inner = encoded((b"inner", b"1"), boundary=b"inner")
    body = raw_part(DISPOSITION + b'; filename="x"', b"Content-Type: multipart/mixed; boundary=inner", content=inner)
    assert await members(await make_request(body).form()) == [("a", ("x", inner, "multipart/mixed"))]
    body = raw_part(DISPOSITION, b"Content-Type: multipart/mixed; boundary=inner", content=inner)
    assert await members(await make_request(body).form()) == [("a", inner.decode())]


async def test_what_comes_after_the_end_counts_but_means_nothing() -> None:
    good = encoded((b"a", b"1"))
    for after in (b"", b"epilogue", encoded((b"b", b"2")), b"--b--", b"\0" * 100_000):
        assert await members(await make_request([good, after]).form()) == [("a", "1")]
    await refused(413, [good, b"x" * 1000], limits=Limits(max_form_bytes=500))


async def test_what_comes_before_the_first_boundary_is_refused_or_means_nothing() -> None:
    good = encoded((b"a", b"1"))
    assert await members(await make_request(b"\r\n" + good).form()) == [("a", "1")]
    for before in (b"preamble\r\n", b"--c\r\n", b"-" * 100_000 + b"\r\n", b"\r\n" * 50_000):
        try:
            form = await make_request(before + good).form()
        except HTTPError as error:
            assert error.status == 400  # noqa: PT017 - or it means nothing
        else:
            assert await members(form) == [("a", "1")]


async def test_content_that_looks_like_a_boundary() -> None:
    for content in (
        b"--b",
        b"\r\n--",
        b"\r\n--bb",
        b"\r\n-\r\n--",
        b"\r\n\r\n",
        b"\r",
        b"-" * 100,
        b"\r\n--a",
        b"--b--",
    ):
        body = encoded((b"a", content), (b"f", File(b"x", content)), boundary=b"bx")
        kind = b"multipart/form-data; boundary=bx"
        for size in (1, 2, 3, 1000):
            parts = [body[start : start + size] for start in range(0, len(body), size)]
            found = await members(await make_request(parts, kind).form())
            assert found == [("a", content.decode()), ("f", ("x", content, ""))]


# Limits


async def test_everything_has_a_limit() -> None:
    some = Limits(
        max_form_fields=3,
        max_files=2,
        max_field_bytes=10,
        max_file_bytes=20,
        max_form_bytes=2000,
        max_body=25,
        spool_bytes=5,
    )

    def text(size: int) -> tuple[bytes, bytes]:
        return b"a", b"x" * size

    def file(size: int) -> tuple[bytes, File]:
        return b"f", File(b"n", b"x" * size)

    good = await make_request(encoded(text(10), text(10), text(5), file(20), file(20)), limits=some).form()
    assert len(good.multi_items()) == 5
    for status, sent in (
        (400, [text(1)] * 4),
        (400, [file(1)] * 3),
        (400, [(b"f", File(b"", b""))] * 3),
        (413, [text(11)]),
        (413, [text(10), text(10), text(6)]),
        (413, [file(21)]),
        (413, [file(6), file(21)]),
    ):
        body = encoded(*sent)
        for pieces in ([body], [body[start : start + 9] for start in range(0, len(body), 9)]):
            await refused(status, pieces, limits=some)
    await refused(413, encoded(text(1)) + b"x" * 2000, limits=some)
    assert (await refused(413, encoded(text(10), text(10), text(6)), limits=some)).detail.endswith("25 bytes together")


async def test_ten_thousand_tiny_parts_are_a_400() -> None:
    error = await refused(400, encoded(*[(b"a", b"")] * 10_000))
    assert "1000 fields" in error.detail
    error = await refused(400, encoded(*[(b"f", File(b"x", b"y"))] * 10_000), limits=Limits(spool_bytes=1))
    assert "100 files" in error.detail


# Ends that come too early


@pytest.mark.parametrize("end", ["disconnect", "error", "cancel", "slow"])
@pytest.mark.parametrize("spool", [1, 10_000])
async def test_whatever_ends_a_form_early_leaves_no_file_open(end: str, spool: int) -> None:
    body = encoded((b"f", File(b"x", b"y" * 500)), (b"g", File(b"x", b"y" * 500)))
    for cut in range(0, len(body) - 10, 40):
        left = [body[:cut]]

        async def receive(left: list[bytes] = left) -> Any:
            await anyio.lowlevel.checkpoint()
            if left:
                return {"type": "http.request", "body": left.pop(), "more_body": True}
            if end == "disconnect":
                return {"type": "http.disconnect"}
            if end == "error":
                raise OSError("the connection broke")
            await anyio.sleep_forever()
            raise AssertionError("unreachable")

        request = make_request(receive, limits=Limits(spool_bytes=spool, body_timeout=0.01 if end == "slow" else 30))
        if end == "cancel":
            with anyio.move_on_after(0.005):
                await request.form()
        else:
            expected = {"disconnect": ClientDisconnected, "error": OSError, "slow": HTTPError}[end]
            with pytest.raises(expected):
                await request.form()
        with pytest.raises(CovetError):
            await request.form()
    gc.collect()  # an open file would be a ResourceWarning, which is an error


# hypothesis

boundaries = st.from_regex(rb"[0-9A-Za-z'()+_,./:=?-]{1,70}", fullmatch=True)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=8)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
contents = st.binary(max_size=60) | st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"b", b"--b", b"\r\n--b"]), max_size=8
).map(b"".join)
filenames = names.filter(
    lambda name: name.isprintable() and name == name.strip() and "/" not in name and name not in (".", "..")
)


@given(
    boundaries,
    st.lists(st.tuples(names, texts | st.tuples(filenames, contents)), min_size=1, max_size=5),
    st.lists(st.integers(1, 40), min_size=1, max_size=10),
    st.sampled_from([1, 20, 1000]),
    st.binary(max_size=20),
)
@example(b"b", [("a", "\r\n--"), ("a", ("x", b"\r\n--b"))], [1], 1, b"--b--")
def test_any_form_comes_back_as_it_was_sent(
    boundary: bytes, sent: list[tuple[str, Any]], sizes: list[int], spool: int, epilogue: bytes
) -> None:
    plain = [(n.encode(), v.encode() if isinstance(v, str) else File(v[0].encode(), v[1], b"a/b")) for n, v in sent]
    if any(boundary in (value if isinstance(value, bytes) else value.content) for _, value in plain):
        return
    body = encoded(*plain, boundary=boundary) + epilogue
    pieces, start = [], 0
    while start < len(body):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(body[start : start + size])
        start += size

    async def read() -> list[tuple[str, Any]]:
        kind = b'multipart/form-data; boundary="' + boundary + b'"'
        return await members(await make_request(pieces, kind, Limits(spool_bytes=spool)).form())

    expected: dict[str, list[Any]] = {}
    for name, value in sent:
        if value != ("", b""):
            expected.setdefault(name, []).append(value if isinstance(value, str) else (*value, "a/b"))
    assert anyio.run(read) == [(name, value) for name, values in expected.items() for value in values]


good_forms = st.sampled_from(
    [
        encoded((b"a", b"1"), (b"f", File(b"x.txt", b"hello", b"text/plain")), (b"b", b"2")),
        raw_part(DISPOSITION + b"; filename=\"a\"; filename*=utf-8''x", b"Content-Type: a/b", b"X-A: b"),
    ]
)
scraps = st.sampled_from(
    [b"--b", b"--b--", b"\r\n", b"\r", b"\n", b"\0", b"\xff", b'"', b"\\", b";", b":", b"=", b"-", b""]
)


@given(good_forms, st.lists(st.tuples(st.integers(0, 300), st.integers(0, 30), scraps | st.binary(max_size=4)), max_size=6), st.integers(1, 64))  # fmt: skip  # noqa: E501
def test_a_damaged_form_is_read_or_refused_and_leaves_no_file_open(
    body: bytes, damages: list[tuple[int, int, bytes]], size: int
) -> None:
    for start, length, scrap in damages:
        body = body[:start] + scrap + body[start + length :]

    async def read() -> None:
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        limits = Limits(spool_bytes=2, max_field_bytes=50, max_file_bytes=50)
        try:
            await members(await make_request(pieces, limits=limits).form())
        except HTTPError as error:
            assert error.status in (400, 413)  # noqa: PT017 - or nothing is refused

    anyio.run(read)
    # An open file would be a ResourceWarning, which is an error.


@given(st.binary(max_size=80), st.binary(max_size=40))
def test_any_bytes_are_a_form_or_refused(body: bytes, content_type: bytes) -> None:
    async def read(kind: bytes) -> None:
        try:
            await make_request(body, kind).form()
        except HTTPError as error:
            assert error.status in (400, 413, 415)  # noqa: PT017 - or nothing is refused

    anyio.run(read, content_type)
    anyio.run(read, b"multipart/form-data; boundary=" + content_type)
    anyio.run(read, b"application/x-www-form-urlencoded")


# Urlencoded


@given(
    st.lists(
        st.sampled_from(
            [b"&", b"=", b"+", b"%", b"%4", b"%41", b"%c3%a9", b"a", b"\xc3\xa9", b" ", b";", b"%26", b"%3d"]
        )
    )
)
def test_urlencoded_fields_are_what_the_standard_library_reads(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    expected: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        with pytest.raises(HTTPError, match="not UTF-8"):
            parse_fields(data, "form", 1000)
        return
    for name, value in pairs:
        expected.setdefault(name, []).append(value)
    assert parse_fields(data, "form", 1000) == expected


@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_urlencoded_forms_come_back_as_they_were_sent(pairs: list[tuple[str, str]]) -> None:
    async def read() -> list[tuple[str, Any]]:
        return await members(await make_request(urlencode(pairs).encode(), b"application/x-www-form-urlencoded").form())

    assert sorted(anyio.run(read)) == sorted(pairs)
