"""Secrets: references, what resolves them, and that nothing shows them."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import covet
from covet import ConfigurationError, Covet, PluginError, Secret, Settings, SettingsError
from covet.secrets import BUILTIN_PROVIDERS, SecretError, application_key, derive_key
from covet.testing import plugin_sandbox

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
# Long enough that it cannot stand in an output by chance.
hidden = st.text(st.characters(categories=["L", "N"]), min_size=12).map(lambda text: f"s3-{text}-cret")


class Vault:
    """A plugin that resolves `vault:`."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    @covet.hookimpl
    def covet_secret_providers(self) -> dict[str, Any]:
        return {"vault": self.values.__getitem__}


class Nested(msgspec.Struct, frozen=True):
    password: Secret | None = None


class Config(msgspec.Struct, frozen=True):
    token: Secret | None = None
    keys: list[Secret] = []
    pair: tuple[Secret, ...] = ()
    named: dict[str, Secret] = {}
    nested: Nested = Nested()
    rows: list[Nested] = []
    text: str = ""


class Configured(Vault):
    @covet.hookimpl
    def covet_settings(self) -> type:
        return Config


def built(tables: dict[str, Any], **values: Any) -> Covet:
    app = plugin_sandbox(it=Configured(**values), settings=tables)
    app.build()
    return app


# Nothing shows one


@given(hidden)
def test_nothing_shows_a_secret(text: str) -> None:
    secret = Secret(text)
    config = Config(token=secret, keys=[secret], named={"a": secret}, nested=Nested(secret))
    shown = [
        repr(secret), str(secret), f"{secret}", f"{secret!r}", f"{secret!s:>40}", f"{secret:x}", format(secret, ""),
        "%s" % secret,  # noqa: UP031
        "{}".format(secret),  # noqa: UP032
        repr([secret]), repr({"a": secret}), pprint.pformat(secret), repr(secret.resolve(BUILTIN_PROVIDERS)),
        repr(config), str(config),
    ]  # fmt: skip
    assert [one for one in shown if text in one] == []
    assert repr(secret) == "Secret('********')"
    for write in (json.dumps, pickle.dumps, msgspec.json.encode, msgspec.msgpack.encode):
        for value in (secret, [secret], config):
            with pytest.raises(TypeError) as raised:
                write(value)  # type: ignore[operator]
            assert text not in str(raised.value)
    assert text not in repr(secret.__class__.__slots__)
    assert not hasattr(secret, "__dict__")
    assert copy.copy(secret) is secret
    assert copy.deepcopy(config).token is secret


@given(hidden)
def test_neither_log_nor_traceback_shows_one(text: str) -> None:
    records: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(self.format(record))

    def handle(secret: Secret) -> None:
        inner = {"password": secret}
        raise RuntimeError(f"with {inner} and {secret}")

    logger = logging.Logger("test")
    logger.addHandler(Handler())
    try:
        handle(Secret(text))
    except RuntimeError as error:
        logger.exception("it failed: %s", Secret(text))
        # The innermost frame alone: this test's own knows the text.
        records.append(
            "".join(traceback.TracebackException.from_exception(error, limit=-1, capture_locals=True).format())
        )
    assert len(records) == 2
    assert [record for record in records if text in record] == []
    assert "secret = Secret('********')" in records[1]


def test_the_text_itself() -> None:
    secret = Secret("here")
    assert secret.reveal() == "here"
    assert secret == Secret("here")
    assert secret != Secret("there")
    assert secret != "here"
    assert {secret: 1}[Secret("here")] == 1
    assert bool(secret)
    assert not Secret("")
    assert Secret("\ud800") != Secret("\ud801")


def test_the_settings_as_they_may_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "the token itself")
    tables = {
        "app": {"secret_key": "a literal that stands in the file"},
        "plugins": {"it": {"token": "env:SHOP_TOKEN", "keys": ["vault:one", "plain"], "named": {"a": "hidden text"}}},
    }
    app = built(tables, one="the value of one")
    rows = {row.key: row.value for row in app.settings.rows()}
    assert rows["app.secret_key"] == "********"
    assert rows["plugins.it.token"] == "env:SHOP_TOKEN"
    assert rows["plugins.it.keys"] == "[vault:one, ********]"
    assert "hidden text" not in rows["plugins.it.named"]
    before = {row.key: row.value for row in Settings.load_only({"app": {"secret_key": "vault:one"}}).rows()}
    assert before["app.secret_key"] == "********", "nobody knows yet whether that is a reference"


# References


def test_they_are_resolved_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "from the environment")
    (tmp_path / "secret").write_text("from a file\n")
    table = {
        "token": "env:TOKEN",
        "keys": [f"file:{tmp_path}/secret", "a plain one", "vault:one"],
        "pair": ["env:TOKEN"],
        "named": {"first": "vault:one", "second": "plain"},
        "nested": {"password": "vault:two"},
        "rows": [{"password": "vault:one"}, {}],
        "text": "env:TOKEN",
    }
    app = built({"plugins": {"it": table}, "app": {"secret_key": "vault:two"}}, one="1", two="2")
    config = app.settings[Config]
    assert config.token == Secret("from the environment")
    assert [key.reveal() for key in config.keys] == ["from a file", "a plain one", "1"]
    assert [key.reveal() for key in config.pair] == ["from the environment"]
    assert {name: key.reveal() for name, key in config.named.items()} == {"first": "1", "second": "plain"}
    assert config.nested.password == Secret("2")
    assert config.rows == [Nested(Secret("1")), Nested()]
    assert config.text == "env:TOKEN", "only a Secret is one"
    assert app.settings.app.secret_key == Secret("2")
    assert (config.token.reference, config.token.unresolved) == ("env:TOKEN", False)


def test_all_that_cannot_be_resolved_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text("x" * 1_000_001)
    table = {
        "token": "env:COVET_NOT_SET",
        "keys": [f"file:{tmp_path}/none", f"file:{tmp_path}/binary", f"file:{tmp_path}", f"file:{tmp_path}/large"],
        "nested": {"password": "vault:missing"},
        "rows": [{}, {"password": "vualt:one"}],
        "named": {"a": "vault:number"},
        "pair": ["file:a\0b"],
    }
    with pytest.raises(SettingsError) as raised:
        built({"plugins": {"it": table}}, number=5)
    lines = str(raised.value).splitlines()
    assert lines[0] == "9 settings are wrong:"
    assert (
        "plugins.it.token: the environment variable COVET_NOT_SET is not set, and the settings refer to it" in lines[1]
    )
    told = "\n".join(lines)
    for expected in (
        f"plugins.it.keys[0]: the file {tmp_path}/none cannot be read, and the settings refer to it: No such file",
        f"plugins.it.keys[1]: the file {tmp_path}/binary cannot be read, and the settings refer to it: it is not UTF-8",
        f"plugins.it.keys[2]: the file {tmp_path} cannot be read, and the settings refer to it: Is a directory",
        f"plugins.it.keys[3]: the file {tmp_path}/large has more than 1000000 characters",
        "plugins.it.nested.password: the secret vault:missing cannot be resolved: KeyError",
        "plugins.it.rows[1].password: nothing resolves the references of the kind 'vualt'; did you mean 'vault'?",
        "plugins.it.named.a: the secret vault:number cannot be resolved: its provider gave int",
        "plugins.it.pair[0]: the file a\0b cannot be read",
    ):
        assert expected in told


def test_a_providers_own_message_is_not_told() -> None:
    def provider(path: str) -> str:
        raise RuntimeError("the value is hunter2")

    with pytest.raises(SecretError) as raised:
        Secret("vault:x").resolve({"vault": provider})
    assert str(raised.value) == "the secret vault:x cannot be resolved: RuntimeError"
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_an_environment_variable_that_is_not_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYTES", "a\udcffb")
    with pytest.raises(SecretError, match="BYTES is not UTF-8"):
        Secret("env:BYTES").resolve(BUILTIN_PROVIDERS)


@pytest.mark.parametrize(("content", "expected"), [
    ("text\n", "text"), ("text\r\n", "text"), ("text\n\n", "text\n"), (" text ", " text "), ("", ""), ("\n", ""),
])  # fmt: skip
def test_one_line_break_at_the_end_of_a_file(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "secret").write_bytes(content.encode())
    secret = Secret(f"file:{tmp_path / 'secret'}").resolve(BUILTIN_PROVIDERS)
    assert secret.reveal() == expected.replace("\r", "")


@pytest.mark.parametrize(
    "text", ["plain", "https://user:pw@host", "postgresql://h", "Upper:case", "9:x", "x:y", ":x", "a b:c", ""]
)
def test_what_is_no_reference_stays(text: str) -> None:
    secret = Secret(text)
    assert secret.resolve(BUILTIN_PROVIDERS) is secret
    assert not secret.unresolved


@pytest.mark.parametrize("text", ["evn:KEY", "vault:a/b#c", "keyring:x"])
def test_a_reference_that_nobody_resolves_is_never_taken_for_the_secret(text: str) -> None:
    """With a typo, or without the plugin, everybody would know the key."""
    with pytest.raises(SecretError, match=f"nothing resolves the references of the kind '{text.partition(':')[0]}'"):
        Secret(text).resolve(BUILTIN_PROVIDERS)


@given(texts)
def test_what_a_provider_gives_is_the_secret_whatever_it_looks_like(text: str) -> None:
    secret = Secret("vault:x").resolve({"vault": lambda path: text})
    assert secret.reveal() == text
    assert secret.resolve(BUILTIN_PROVIDERS) is secret
    assert not secret.unresolved
    assert secret.reference == "vault:x"


@given(texts)
def test_resolving_gives_a_secret_or_an_error_in_words(text: str) -> None:
    try:
        found = Secret(text).resolve({"env": lambda name: "x"}).reveal()
    except SecretError as error:
        found = str(error)
    assert found in (text, "x") or found.startswith("nothing resolves")


def test_a_provider_may_collide_with_the_kernels_own() -> None:
    class Other:
        @covet.hookimpl
        def covet_secret_providers(self) -> dict[str, Any]:
            return {"env": lambda name: "mine"}

    app = plugin_sandbox(other=Other(), settings={"app": {"secret_key": "env:COVET_NOT_SET"}})
    with pytest.raises(PluginError, match="the secret provider env is claimed by Covet itself and the plugin 'other'"):
        app.build()
    settings = {"app": {"secret_key": "env:COVET_NOT_SET"}, "plugins": {"prefer": ["other"]}}
    app = plugin_sandbox(other=Other(), settings=settings)
    app.build()
    assert app.settings.app.secret_key == Secret("mine")


# The application's key


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "covet.secrets"):
        yield caplog


def test_without_a_key_debug_mode_makes_one_and_warns_once(log: pytest.LogCaptureFixture) -> None:
    app = Covet({"app": {"debug": True}}, installed_plugins=False)
    app.build()
    assert app.signing_key("cookies") == app.signing_key("cookies")
    assert log.text.count("no [app] secret_key is set") == 1
    other = Covet({"app": {"debug": True}}, installed_plugins=False)
    assert other.signing_key("cookies") != app.signing_key("cookies")


@pytest.mark.parametrize("key", [None, ""])
def test_without_debug_mode_there_must_be_one(key: str | None) -> None:
    app = Covet({"app": {"secret_key": key}} if key is not None else {}, installed_plugins=False)
    app.build()
    with pytest.raises(
        ConfigurationError, match=r"no secret key is set.*`secret_key = \"env:COVET_SECRET_KEY\"` under"
    ):
        app.signing_key("cookies")


def test_a_key_that_is_too_short() -> None:
    app = Covet({"app": {"secret_key": "fifteen letters"}}, installed_plugins=False)
    app.build()
    with pytest.raises(ConfigurationError, match="has fewer than 16 characters") as raised:
        app.signing_key("cookies")
    assert "fifteen letters" not in str(raised.value)


def test_a_reference_is_never_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text is known to everybody who can read the settings."""
    monkeypatch.setenv("COVET_SECRET_KEY", "0123456789abcdef")
    app = Covet({"app": {"secret_key": "env:COVET_SECRET_KEY"}}, installed_plugins=False)
    with pytest.raises(ConfigurationError, match="secret_key is not resolved yet"):
        app.signing_key("cookies")
    app.build()
    assert app.signing_key("cookies") == derive_key(b"0123456789abcdef", "cookies")
    assert application_key(app.settings) == b"0123456789abcdef"


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), min_size=1, max_size=3),
                min_size=2, max_size=2, unique_by=tuple))  # fmt: skip
def test_purposes_have_unrelated_keys(purposes: list[list[str]]) -> None:
    """No two lists of parts are framed alike: `ab`, `c` is not `a`, `bc`."""
    first, second = (derive_key(b"key", *parts) for parts in purposes)
    assert first != second
    assert len(first) == 32
    assert first == derive_key(b"key", *purposes[0]) != derive_key(b"other", *purposes[0])
