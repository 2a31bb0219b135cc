"""Accept-Encoding: what a client gets, against a naive reading of the same rules, and hostile headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet.negotiation import MAX_CODINGS, MAX_LENGTH, accepted_coding

OURS = ("zstd", "gzip")


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=0.9, zstd;q=0.8", "gzip"),
        ("gzip;q=0.8, zstd;q=0.8", "zstd"),
        ("gzip; Q=0.5", "gzip"),
        ("gzip\t;\tq=0.5", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("gzip;q=0.001", "gzip"),
        ("*", "zstd"),
        ("zstd;q=0, *", "gzip"),
        ("*;q=0", None),
        ("*;q=0, gzip", "gzip"),
        ("identity", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        # Nothing fits: the plain content, and not no content.
        ("identity;q=0", None),
        ("identity;q=0, br", None),
        # The lower weight of a coding that stands twice.
        ("gzip, gzip;q=0", None),
        ("gzip;q=0, x-gzip", None),
        # No weight of RFC 9110 section 12.4.2: passed over.
        ("gzip;q=2", None),
        ("gzip;q=-1", None),
        ("gzip;q=0.1234, zstd;q=0.1", "zstd"),
        ("gzip;q=.5", None),
        ("gzip;q=1.001", None),
        ("gzip;q=nan", None),
        ("gzip;q= 1", None),
        ("gzip;level=9", None),
        ("gzip q=1", None),
        (", ,gzip,,", "gzip"),
        ("gzip\x00", None),
        ("gz\xefp", None),
    ],
)
def test_what_a_client_gets(header: str | None, coding: str | None) -> None:
    assert accepted_coding(header, OURS) == coding


def test_nothing_is_offered() -> None:
    assert accepted_coding("gzip, *", ()) is None
    assert accepted_coding("gzip, br", ("br",)) == "br"


def test_of_a_header_that_is_too_long_nothing_is_read() -> None:
    assert accepted_coding("gzip," + " " * (MAX_LENGTH - 5), OURS) == "gzip"
    assert accepted_coding("gzip," + " " * (MAX_LENGTH - 4), OURS) is None
    assert accepted_coding(",".join(["gzip"] * MAX_CODINGS), OURS) == "gzip"
    assert accepted_coding(",".join(["gzip"] * (MAX_CODINGS + 1)), OURS) is None


def naive(elements: list[tuple[str, int | None]], available: list[str]) -> str | None:
    """Section 12.5.3 word for word, one question after the other."""

    def weight_of(coding: str) -> int | None:
        stated = [1000 if weight is None else weight for name, weight in elements if name == coding]
        return min(stated) if stated else None

    wildcard = weight_of("*") or 0
    ranked = []
    for position, coding in enumerate(available):
        stated = weight_of(coding)
        weight = wildcard if stated is None else stated
        if weight:
            ranked.append((-weight, position, coding))
    if not ranked:
        return None
    best = min(ranked)
    return None if (weight_of("identity") or 0) > -best[0] else best[2]


NAMES = st.sampled_from(["gzip", "zstd", "br", "identity", "*", "deflate"])
ELEMENTS = st.lists(st.tuples(NAMES, st.none() | st.integers(0, 1000)), max_size=8)
SPACE = st.sampled_from(["", " ", "\t", "  "])


@given(st.data())
def test_it_agrees_with_a_naive_reading(data: st.DataObject) -> None:
    elements = data.draw(ELEMENTS)
    available = data.draw(st.permutations(["gzip", "zstd", "br"]))
    parts = []
    for name, weight in elements:
        text = name
        if weight is not None:
            text += f"{data.draw(SPACE)};{data.draw(SPACE)}q={weight // 1000}.{weight % 1000:03}"
        parts.append(data.draw(SPACE) + text + data.draw(SPACE))
    assert accepted_coding(",".join(parts), available) == naive(elements, available)


@given(st.text(st.characters(max_codepoint=255), max_size=2000) | st.text(' ,;q=.01*"gzipstdx-\t', max_size=1500))
def test_any_header_gives_one_of_what_there_is_or_nothing(header: str) -> None:
    assert accepted_coding(header, OURS) in (None, *OURS)
