"""Positions, tokens and lag: what needs no server."""

from __future__ import annotations

import time
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet.exceptions import ConfigurationError
from covet_orm.databases import Database
from covet_orm.exceptions import OrmError
from covet_orm.replicas import InvalidToken, read_session
from covet_orm.replicas.positions import GtidPosition, LogPosition, parse_position
from covet_orm.replicas.read_sessions import ReadSession, ReadSessions
from covet_orm.replicas.watching import LagHistory
from covet_orm.settings import MySQLSettings, PostgreSQLSettings, SQLiteSettings, options_of

LOGS = st.builds(
    LogPosition, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
)  # fmt: skip
NEAR = st.builds(LogPosition, st.just(7), st.integers(1, 3), st.integers(0, 5))
GTIDS = st.builds(
    GtidPosition,
    st.dictionaries(st.integers(0, 3), st.tuples(st.integers(1, 2**32 - 1), st.integers(0, 5)), min_size=1, max_size=4),
)


@given(st.one_of(LOGS, GTIDS))
def test_a_position_is_read_back_from_its_text(position: LogPosition | GtidPosition) -> None:
    assert parse_position(str(position)) == position


@given(GTIDS, GTIDS)
def test_a_merged_position_of_gtids_covers_both(one: GtidPosition, other: GtidPosition) -> None:
    merged = one.merged(other)
    assert merged.covers(one)
    assert merged.covers(other)
    assert one.covers(other) == (one.merged(other).gtids.count(",") == one.gtids.count(",") and all(
        one.domains[domain][1] >= number for domain, (_, number) in other.domains.items()
    ))  # fmt: skip


@given(NEAR, NEAR)
def test_of_two_positions_in_the_log_the_one_on_the_later_timeline_counts(one: LogPosition, other: LogPosition) -> None:
    merged = one.merged(other)
    assert merged in (one, other)
    assert merged.timeline == max(one.timeline, other.timeline)
    if one.timeline == other.timeline:
        assert merged.covers(one)
        assert merged.covers(other)


def test_a_position_of_another_cluster_or_of_an_older_timeline_covers_nothing() -> None:
    here = LogPosition(7, 2, 100)
    assert here.covers(LogPosition(7, 2, 100))
    assert here.covers(LogPosition(7, 1, 99))
    assert not here.covers(LogPosition(7, 2, 101))
    assert not LogPosition(7, 1, 500).covers(here)
    assert not LogPosition(8, 2, 500).covers(here)
    assert not here.covers(GtidPosition({}))
    assert not GtidPosition({0: (1, 5)}).covers(here)
    assert LogPosition(8, 1, 5).merged(here) == here


def test_gtids_of_one_domain_are_the_last_of_them() -> None:
    assert GtidPosition.parse("0-1-5,0-2-9,1-1-3").domains == {0: (2, 9), 1: (1, 3)}
    assert GtidPosition.parse("0-2-9,0-1-5").gtids == "0-2-9"


@given(st.text(max_size=60))
def test_any_text_is_a_token_or_is_refused(text: str) -> None:
    session = ReadSession(30.0)
    with suppress(InvalidToken):
        session.read_after(text)
    assert issubclass(InvalidToken, OrmError)


@pytest.mark.parametrize(
    "text",
    [
        "x", ":", "1:", ":primary", "g:primary", "1" * 17 + ":primary", "1f:postgresql:1:1:0/", "1f:postgresql:1:1:1",
        "1f:postgresql:1:1:0/1 ", "1f:mariadb:", "1f:mariadb:0-1", "1f:mariadb:0-1-1,", "1f:mariadb:0-1-1;DO 1",
        "1f:mariadb:" + ",".join(f"{domain}-1-1" for domain in range(33)), "1f:mysql:0-1-1", "-1f:primary",
        "1f:postgresql:\u0661:1:0/1", "1f:mariadb:0-1-" + "9" * 21, "1f:mariadb:" + "0-1-1," * 400,
    ],
)  # fmt: skip
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        ReadSession(30.0).read_after(text)


def test_a_token_carries_a_position_to_another_session_and_no_longer_than_it_lasts() -> None:
    one, other, late = ReadSession(30.0), ReadSession(10.0), ReadSession(30.0)
    assert one.token() == ""
    one.writing()
    one.wrote(LogPosition(7, 1, 100))
    other.read_after(one.token())
    assert other.position == LogPosition(7, 1, 100)
    assert not other.needs_primary
    ends, _, position = one.token().partition(":")
    assert time.time() + 29 < int(ends, 16) / 1000 < time.time() + 31
    # One from the far future, as a client may send it, lasts as long as one that is made here.
    other.read_after(f"{2**60:x}:{position}")
    assert int(other.token().partition(":")[0], 16) / 1000 < time.time() + 11
    late.read_after(f"{int(time.time() * 1000) - 1:x}:{position}")
    assert late.position is None
    one.read_after("")
    assert one.position == LogPosition(7, 1, 100)


def test_what_was_written_without_a_known_position_is_read_from_the_primary() -> None:
    one, other = ReadSession(30.0), ReadSession(30.0)
    one.writing()
    assert one.needs_primary
    other.read_after(one.token())
    assert other.needs_primary
    one.wrote(None)
    assert not one.needs_primary
    assert one.token() == ""
    # Two at once, of which one is never told of.
    one.writing()
    one.writing()
    one.lost_track()
    one.wrote(LogPosition(7, 1, 1))
    assert one.needs_primary
    third = ReadSession(30.0)
    third.read_after(one.token())
    assert third.needs_primary


def test_a_position_ends_with_its_time_and_not_before() -> None:
    session = ReadSession(30.0)
    session.require(LogPosition(7, 1, 1), monotonic() + 30)
    session.require(LogPosition(7, 1, 0), monotonic() + 1)
    assert session.position == LogPosition(7, 1, 1)
    ended = ReadSession(30.0)
    ended.require(LogPosition(7, 1, 1), monotonic() - 1)
    assert ended.position is None
    assert ended.token() == ""


def test_a_block_has_a_session_of_its_own() -> None:
    class Key:
        pass

    key = Key()
    outside = ReadSessions.current().of(key, 1.0)
    assert ReadSessions.current().of(key, 1.0) is outside
    with read_session():
        inside = ReadSessions.current().of(key, 1.0)
        assert inside is not outside
        assert ReadSessions.current().of(key, 1.0) is inside
    assert ReadSessions.current().of(key, 1.0) is outside


def test_lag_is_counted_from_when_the_primary_was_where_the_replica_is_not() -> None:
    history = LagHistory()
    assert history.lag(LogPosition(7, 1, 0), 100.0) == 0.0
    for second, lsn in enumerate((10, 10, 10, 20, 30)):
        history.note(LogPosition(7, 1, lsn), float(second))
    assert history.lag(LogPosition(7, 1, 30), 10.0) == 0.0
    assert history.lag(LogPosition(7, 1, 25), 10.0) == 6.0
    assert history.lag(LogPosition(7, 1, 10), 10.0) == 7.0
    # An idle primary makes nobody late.
    history.note(LogPosition(7, 1, 30), 1000.0)
    assert history.lag(LogPosition(7, 1, 30), 2000.0) == 0.0
    # A restored primary begins anew.
    history.note(LogPosition(7, 1, 5), 1001.0)
    assert history.latest == LogPosition(7, 1, 5)
    assert history.lag(LogPosition(7, 1, 5), 1002.0) == 0.0


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("sqlite://", {"read_replicas": ["sqlite:///x.db"]}, "SQLite has no replicas"),
        ("postgresql://a/b", {"read_replicas": ["mariadb://a/b"]}, "another kind"),
        ("postgresql://a/b", {"read_replicas": "postgresql://a/b"}, "list of URLs"),
        ("postgresql://a/b", {"read_replicas": ["postgresql://a/b"], "replica_weights": [1, 2]}, "replica_weights"),
        ("postgresql://a/b", {"read_replicas": ["postgresql://a/b"], "max_lag": 0}, "max_lag"),
        ("postgresql://a/b", {"read_replicas": ["postgresql://a/b?max_size=0"]}, "max_size"),
        ("postgresql://a/b", {"read_replicas": ["postgresql://a/b?nothing=1"]}, "nothing"),
    ],
)
def test_replicas_that_cannot_be_are_refused_at_once(url: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Database(url, **options)


def test_the_settings_of_replicas_stand_in_the_table_of_the_database() -> None:
    for struct in (PostgreSQLSettings, MySQLSettings):
        settings = struct(url="postgresql://a/b", read_replicas=("postgresql://c/b",), max_lag=3.0)
        assert options_of(settings) == {"read_replicas": ("postgresql://c/b",), "max_lag": 3.0}
    with pytest.raises(TypeError):
        SQLiteSettings(url="sqlite://", max_lag=3.0)
    # Without replicas their other settings are of no effect, and no error.
    Database("postgresql://a/b", max_lag=3.0, read_replicas=())
