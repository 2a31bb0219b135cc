"""Database URLs and the drivers' settings."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covet.exceptions import ConfigurationError
from covet_orm.drivers.options import MySQLOptions, PostgreSQLOptions, SQLiteOptions
from covet_orm.drivers.tls import tls_context
from covet_orm.urls import MEMORY, Host, Target, driver_options, parse_url


@pytest.mark.parametrize(
    ("url", "kind", "user", "password", "hosts", "database"),
    [
        ("postgresql://a:b@h:1/d", "postgresql", "a", "b", ["h:1"], "d"),
        ("postgres://h/d", "postgresql", "", None, ["h:5432"], "d"),
        ("POSTGRESQL://a@h", "postgresql", "a", None, ["h:5432"], ""),
        ("postgresql://", "postgresql", "", None, ["localhost:5432"], ""),
        ("postgresql:///d", "postgresql", "", None, ["localhost:5432"], "d"),
        ("postgresql://a:@h/d", "postgresql", "a", "", ["h:5432"], "d"),
        ("postgresql://h1,h2:2,[::1]:3/d", "postgresql", "", None, ["h1:5432", "h2:2", "[::1]:3"], "d"),
        ("postgresql://[fe80::1%25eth0]/d", "postgresql", "", None, ["[fe80::1%eth0]:5432"], "d"),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql/d", "postgresql", "", None, ["/var/run/postgresql"], "d"),
        ("postgresql://%2Frun:6432/d", "postgresql", "", None, ["/run"], "d"),
        ("postgresql:///d?socket=/run/postgresql", "postgresql", "", None, ["/run/postgresql"], "d"),
        ("postgresql://a%40b:p%3Aq%2Fr%23%25@h/d%2Fe", "postgresql", "a@b", "p:q/r#%", ["h:5432"], "d/e"),
        ("postgresql://a:p@q@h/d", "postgresql", "a", "p@q", ["h:5432"], "d"),
        ("postgresql://%C3%A9:%E8%AA%A0@h/d", "postgresql", "é", "誠", ["h:5432"], "d"),
        ("mysql://a:b@h/d", "mysql", "a", "b", ["h:3306"], "d"),
        ("mariadb://a@[2001:db8::1]:3307/d", "mysql", "a", None, ["[2001:db8::1]:3307"], "d"),
        ("mysql://a@/d?socket=/run/mysqld.sock", "mysql", "a", None, ["/run/mysqld.sock"], "d"),
        ("sqlite://", "sqlite", "", None, [], MEMORY),
        ("sqlite:///:memory:", "sqlite", "", None, [], MEMORY),
        ("sqlite:///app.db", "sqlite", "", None, [], "app.db"),
        ("sqlite:///data/app.db", "sqlite", "", None, [], "data/app.db"),
        ("sqlite:////srv/app.db", "sqlite", "", None, [], "/srv/app.db"),
        ("sqlite:///a%20b%3F.db?busy_timeout=1", "sqlite", "", None, [], "a b?.db"),
    ],
)
def test_what_a_url_names(
    url: str, kind: str, user: str, password: str | None, hosts: list[str], database: str
) -> None:
    target = parse_url(url)
    assert (target.kind, target.user, target.password, target.database) == (kind, user, password, database)
    assert [str(host) for host in target.hosts] == hosts
    again = parse_url(target.redacted)
    assert (again.kind, again.user, again.hosts, again.database) == (kind, user, target.hosts, database)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "begins with"),
        ("app.db", "begins with"),
        ("oracle://h/d", "begins with"),
        ("postgress://h/d", "did you mean 'postgres"),
        ("postgresql+asyncpg://h/d", "leave out the driver and write postgresql://"),
        ("sqlite+aiosqlite:///d", "write sqlite://"),
        ("sqlite:/app.db", "begins with"),
        ("sqlite://app.db", "three slashes"),
        ("sqlite://localhost/app.db", "three slashes"),
        ("postgresql://h:0/d", "1 to 65535"),
        ("postgresql://h:65536/d", "1 to 65535"),
        ("postgresql://h:x/d", "the host"),
        ("postgresql://h:1:2/d", "the host"),
        ("postgresql://::1/d", "the host"),
        ("postgresql://[h]/d", "IPv6"),
        ("postgresql://[::1/d", "the host"),
        ("postgresql://h1,,h2/d", "host is missing"),
        ("postgresql://a:p/q@h/d", "%2F"),
        ("postgresql://a:p#q@h/d", "%23"),
        ("postgresql://a:p%q@h/d", "%25"),
        ("postgresql://a:%ff@h/d", "UTF-8"),
        ("postgresql://h/d%00", "NUL"),
        ("postgresql://h/a b", "%20"),
        ("postgresql://h/a\nb", "control"),
        ("postgresql://h/d?nothing=1", "no option 'nothing'"),
        ("postgresql://h/d?statment_timeout=1", "did you mean 'statement_timeout'"),
        ("postgresql://h/d?tls", "has no value"),
        ("postgresql://h/d?tls=require&sslmode=require", "stands twice"),
        ("postgresql://h/d?server_settings=a", "no option"),
        ("postgresql://h/d?socket=/run", "not both"),
        ("postgresql:///d?socket=run", "absolute"),
        ("postgresql://run%2Fx/d", "neither a name nor"),
        ("mysql://h1,h2/d", "one host"),
        ("mysql://h/d?statement_cache_size=1", "no option"),
        ("sqlite:///d?tls=require", "no option"),
    ],
)
def test_a_url_that_names_none(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert words in str(caught.value)
    assert "p/q" not in str(caught.value)


def test_a_url_that_is_no_text() -> None:
    with pytest.raises(ConfigurationError, match="is text, not bytes"):
        parse_url(b"sqlite://")  # type: ignore[arg-type]


def test_the_password_is_not_shown() -> None:
    target = parse_url("postgresql://ann:s3cret%20word@h/d?application_name=shop")
    assert target.redacted == "postgresql://ann:********@h:5432/d?application_name=shop"
    for shown in (str(target), repr(target), f"{target!r}", target.where, repr([target])):
        assert "s3cret" not in shown
    assert parse_url("postgresql://ann:********@h/d").password == "********"
    assert "the SQLite database in memory" in parse_url("sqlite://").where


def test_options_of_others() -> None:
    target = parse_url("sqlite:///a.db?max_size=3&busy_timeout=2", others={"max_size"})
    assert dict(target.query) == {"max_size": "3", "busy_timeout": "2"}
    made = driver_options(target)
    assert isinstance(made, SQLiteOptions)
    assert made.busy_timeout == 2.0


name = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(user=name, password=st.none() | name, database=name)
def test_whatever_is_percent_encoded_comes_back(user: str, password: str | None, database: str) -> None:
    def encoded(text: str) -> str:
        return quote(text, safe="")

    login = encoded(user) + ("" if password is None else f":{encoded(password)}")
    target = parse_url(f"postgresql://{login}@h/{encoded(database)}")
    assert (target.user, target.password, target.database) == (user, password, database)
    if password and len(password) > 3 and set(password) != {"*"} and password not in f"{user}{database}postgresql://h":
        assert f":{encoded(password)}@" not in target.redacted


@given(
    text=st.text(max_size=60) | st.from_regex(r"(postgresql|mysql|sqlite)://[\w:@/?=&%#\[\],.-]{0,40}", fullmatch=True)
)
def test_no_text_breaks_it(text: str) -> None:
    try:
        target = parse_url(text)
    except ConfigurationError:
        return
    assert isinstance(target, Target)
    assert parse_url(target.redacted).hosts == target.hosts


def test_settings_of_a_url_and_beside_it() -> None:
    target = parse_url("postgresql://h/d?statement_timeout=1.5&pgbouncer=yes&sslmode=require")
    made = driver_options(target, {"statement_timeout": 3, "server_settings": {"jit": "off"}})
    assert isinstance(made, PostgreSQLOptions)
    assert (made.statement_timeout, made.pgbouncer, made.tls) == (3.0, True, "require")
    assert made.server_settings == {"jit": "off"}
    assert isinstance(driver_options(parse_url("mariadb://h/d")), MySQLOptions)


@pytest.mark.parametrize(
    ("url", "overrides", "words"),
    [
        ("postgresql://h/d?statement_timeout=soon", {}, "statement_timeout"),
        ("postgresql://h/d?statement_timeout=nan", {}, "statement_timeout"),
        ("postgresql://h/d?pgbouncer=perhaps", {}, "true or false"),
        ("postgresql://h/d?tls=always", {}, "tls"),
        ("postgresql://h/d?connect_timeout=0", {}, "above 0"),
        ("postgresql://h/d?lock_timeout=-1", {}, "from 0"),
        ("postgresql://h/d?lock_timeout=1e9", {}, "2000000"),
        ("postgresql://h/d?tls_key=/k", {}, "tls_certificate"),
        ("postgresql://h/d?tls=disable&tls_ca=/k", {}, "verify-full"),
        ("postgresql://h/d?tls=require&tls_ca=/k", {}, "verify-full"),
        ("mysql://h/d?tls_certificate=/k", {}, "require"),
        ("postgresql://h/d?pgbouncer=1&lock_timeout=1", {}, "ALTER ROLE"),
        ("postgresql://h/d?pgbouncer=1&read_only=1", {}, "ALTER ROLE"),
        ("postgresql://h/d", {"statement_cache": 3}, "did you mean 'statement_cache_size'"),
        ("postgresql://h/d", {"statement_cache_size": -3}, "from 0"),
        ("postgresql://h/d", {"statement_cache_size": "many"}, "statement_cache_size"),
        ("mysql://h/d", {"sql_mode": "A'; DROP TABLE t"}, "sql_mode"),
        ("mysql://h/d", {"charset": "latin1"}, "charset"),
        ("mysql://h/d", {"max_packet": 10}, "max_packet"),
        ("sqlite:///d", {"journal_mode": "wal; x"}, "journal_mode"),
        ("sqlite:///d", {"cache_size": 0}, "cache_size"),
        ("sqlite:///d", {"busy_timeout": -1}, "busy_timeout"),
    ],
)
def test_settings_that_do_not_fit(url: str, overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        driver_options(parse_url(url), overrides)
    assert words in str(caught.value)


def test_a_struct_made_by_hand_is_checked_as_well() -> None:
    with pytest.raises(ConfigurationError):
        SQLiteOptions(journal_mode="wal; DROP TABLE a")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        SQLiteOptions(synchronous="full; DROP TABLE a")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        MySQLOptions(charset="latin1' --")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        MySQLOptions(tls="always")  # type: ignore[arg-type]


def test_files_for_tls_that_cannot_be_used(tmp_path: Any) -> None:
    (tmp_path / "wrong").write_text("no certificate")
    wrong: list[dict[str, Any]] = [{"tls_ca": f"{tmp_path}/nowhere"}, {"tls_certificate": f"{tmp_path}/wrong"}]
    for options in wrong:
        with pytest.raises(ConfigurationError, match="files for TLS"):
            tls_context(PostgreSQLOptions(tls="verify-ca", **options))
    assert tls_context(PostgreSQLOptions(tls="disable")) is None


def test_a_host_is_a_socket_or_not() -> None:
    assert Host("/run", 1).is_socket
    assert not Host("run", 1).is_socket
