"""Names of tables, columns and aliases: what is one, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet_orm.dialects import KINDS
from covet_orm.exceptions import InvalidIdentifier
from covet_orm.identifiers import check_identifier, check_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["users", "Users", "order by", "naïve", "a'b\"c`d", "1", "a-b", "%", "?", "$1", ";--", "[x]"]
)
def test_a_name_stays_as_it_is(kind: str, name: str) -> None:
    assert check_identifier(name, kind) is name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a.b", "contains a dot"),
        ("a\0", "U\\+0000"),
        ("a\nb", "U\\+000A"),
        ("a\x7f", "U\\+007F"),
        ("a\x85", "U\\+0085"),
        ("a\u2028", "U\\+2028"),
        ("a\ud800", "surrogate"),
        ("%(id_1)s", "mark a parameter"),
        ("__[POSTCOMPILE_x]", "mark a parameter"),
    ],
)
def test_what_is_no_name(kind: str, name: str, reason: str) -> None:
    with pytest.raises(InvalidIdentifier, match=reason):
        check_identifier(name, kind)


@pytest.mark.parametrize("name", [None, 1, b"users", ["users"]])
def test_a_name_is_text(name: object) -> None:
    with pytest.raises(InvalidIdentifier, match="is text, not"):
        check_identifier(name, "sqlite", "table")  # type: ignore[arg-type]
    with pytest.raises(InvalidIdentifier, match="is text, not"):
        check_path(name, "sqlite", "table")  # type: ignore[arg-type]


def test_how_long_a_name_is_where_it_is_counted() -> None:
    assert check_identifier("é" * 31, "postgresql")
    with pytest.raises(InvalidIdentifier, match="has 64 bytes in UTF-8, and postgresql takes 63"):
        check_identifier("é" * 32, "postgresql")
    with pytest.raises(InvalidIdentifier, match="has 64 bytes"):
        check_identifier("a" * 64, "postgresql")
    for kind in ("mysql", "mariadb"):
        assert check_identifier("é" * 64, kind)
        with pytest.raises(InvalidIdentifier, match=f"has 65 characters, and {kind} takes 64"):
            check_identifier("é" * 65, kind)
    assert check_identifier("a" * 5000, "sqlite")


def test_what_mysql_alone_does_not_take() -> None:
    for kind in ("mysql", "mariadb"):
        with pytest.raises(InvalidIdentifier, match="ends with a space"):
            check_identifier("users ", kind)
        with pytest.raises(InvalidIdentifier, match="beyond U\\+FFFF"):
            check_identifier("a😀", kind)
    for kind in ("postgresql", "sqlite"):
        assert check_identifier("users ", kind)
        assert check_identifier("a😀", kind)


def test_paths() -> None:
    assert check_path("id", "sqlite") == ("id",)
    assert check_path("main.users.id", "sqlite") == ("main", "users", "id")
    with pytest.raises(InvalidIdentifier, match="has 4 parts; there are at most 3"):
        check_path("a.b.c.d", "sqlite")
    with pytest.raises(InvalidIdentifier, match="has 3 parts; there are at most 2"):
        check_path("a.b.c", "sqlite", "table", most=2)
    for path in (".", "a.", ".a", "a..b"):
        with pytest.raises(InvalidIdentifier, match="is empty"):
            check_path(path, "sqlite")


def test_a_message_holds_a_bounded_part_of_a_name() -> None:
    with pytest.raises(InvalidIdentifier) as caught:
        check_identifier("a" * 100_000, "postgresql")
    assert len(str(caught.value)) < 300


@given(st.text(), st.sampled_from(KINDS))
def test_a_name_is_taken_as_it_is_or_refused(name: str, kind: str) -> None:
    try:
        assert check_identifier(name, kind) == name
    except InvalidIdentifier:
        return
    assert name.strip()
    assert "." not in name
    name.encode()
