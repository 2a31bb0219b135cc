"""Secrets that expire: renewed while the application runs, the last good value kept, and shown nowhere."""

from __future__ import annotations

import io
import json
import logging
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

import covet
from covet import Covet, Request, Secret, SettingsError
from covet.logging import JSONFormatter
from covet.rotation import SecretRotated
from covet.secrets import SecretValue
from covet.testing import TestClient, plugin_sandbox

pytestmark = pytest.mark.anyio

CANARY = "canary-5f1d9a7c-never-shown"


class Config(msgspec.Struct, frozen=True):
    token: Secret | None = None
    again: Secret | None = None
    other: Secret | None = None
    stays: Secret | None = None


class Vault:
    """A provider whose values are numbered, and which notes where it was called."""

    def __init__(self, **how: Any) -> None:
        self.how = how or {"renew_in": 0.01}
        self.calls: list[str] = []
        self.threads: set[int] = set()
        self.error: Exception | None = None
        self.numbered = True
        self.forever = False

    def resolve(self, path: str) -> str | SecretValue:
        self.threads.add(threading.get_ident())
        self.calls.append(path)
        if self.error is not None:
            raise self.error
        text = f"{path} {self.calls.count(path) if self.numbered else 1}"
        return text if self.forever else SecretValue(text, **self.how)

    @covet.hookimpl
    def covet_secret_providers(self) -> dict[str, Any]:
        return {"vault": self.resolve}

    @covet.hookimpl
    def covet_settings(self) -> type:
        return Config


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covet.rotation.RETRY", 0.01)


def app_with(vault: Vault, *more: Any, **table: str) -> Covet:
    return plugin_sandbox(*more, it=vault, settings={"plugins": {"it": table or {"token": "vault:t"}}})


async def changed(secret: Secret | None) -> None:
    """Wait until a secret has changed."""
    assert secret is not None
    event = anyio.Event()
    forget = secret.on_change(event.set)
    with anyio.fail_after(20):
        await event.wait()
    forget()


# Renewal


async def test_a_value_is_renewed_while_the_application_runs() -> None:
    vault = Vault()
    app = app_with(vault)
    app.build()
    token = app.settings[Config].token
    assert token is not None
    assert token.reveal() == "t 1"
    async with app.running():
        for _ in range(3):
            before = token.reveal()
            await changed(token)
            assert token.reveal() != before
            assert token.former[0] == before
            assert len(token.former) <= 3
    assert threading.get_ident() not in vault.threads or len(vault.threads) > 1
    count = len(vault.calls)
    await anyio.sleep(0.05)
    assert len(vault.calls) == count, "not when it does not run"
    assert token.reference == "vault:t"
    assert not token.unresolved


async def test_one_call_renews_all_of_a_reference() -> None:
    vault = Vault()
    app = app_with(vault, token="vault:t", again="vault:t", other="vault:o", stays="plain")
    app.build()
    config = app.settings[Config]
    assert vault.calls == ["t", "t", "o"]
    async with app.running():
        await changed(config.token)
        assert config.token == config.again
        await changed(config.other)
        assert config.other is not None
        assert config.other.reveal().startswith("o ")
    assert config.stays == Secret("plain")


async def test_the_last_good_value_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "covet.secrets")
    vault = Vault(expires_in=0.05)
    app = app_with(vault)
    app.build()
    token = app.settings[Config].token
    assert token is not None
    vault.error = RuntimeError(f"the value is {CANARY}")
    async with app.running():
        with anyio.fail_after(20):
            while caplog.text.count("cannot be resolved") < 4:  # noqa: ASYNC110
                await anyio.sleep(0.005)
        assert token.reveal() == "t 1"
        vault.error = None
        await changed(token)
    assert "the secret vault:t cannot be resolved: RuntimeError; the value at hand is kept" in caplog.text
    assert "though it expired" in caplog.text
    assert "the secret vault:t could be renewed again, after" in caplog.text
    assert "the secret vault:t has a new value" in caplog.text
    assert CANARY not in caplog.text
    assert "t 1" not in caplog.text


async def test_the_same_value_again_is_no_change() -> None:
    vault = Vault()
    vault.numbered = False
    app = app_with(vault)
    told: list[str] = []
    async with app.running():
        token = app.settings[Config].token
        assert token is not None
        token.on_change(lambda: told.append("changed"))
        with anyio.fail_after(20):
            while len(vault.calls) < 5:  # noqa: ASYNC110
                await anyio.sleep(0.005)
        assert (told, token.former) == ([], ())


async def test_a_value_that_stays_from_now_on() -> None:
    vault = Vault()
    app = app_with(vault)
    async with app.running():
        token = app.settings[Config].token
        vault.forever = True
        await changed(token)
        count = len(vault.calls)
        await anyio.sleep(0.05)
        assert len(vault.calls) == count


async def test_without_a_lease_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    vault = Vault()
    vault.forever = True
    app = app_with(vault)

    def never(app: Covet) -> None:
        raise AssertionError("unreachable: nothing has to be renewed")

    monkeypatch.setattr("covet.rotation.rotation", never)
    async with app.running():
        assert len(vault.calls) == 1


@pytest.mark.parametrize(("how", "least", "most"), [
    ({"expires_in": 100.0}, 60, 70), ({"renew_in": 5.0}, 5, 5), ({"expires_in": 100.0, "renew_in": 90.0}, 90, 90),
])  # fmt: skip
def test_when_a_value_is_renewed(how: dict[str, float], least: float, most: float) -> None:
    from covet.rotation import _lifetime

    found = {_lifetime(SecretValue("x", **how)) for _ in range(50)}
    assert least <= min(found) <= max(found) <= most
    assert (len(found) > 1) == (least != most), "drawn anew, so that processes do not all ask at once"


@pytest.mark.parametrize(
    "how", [{}, {"expires_in": 0}, {"renew_in": -1}, {"expires_in": float("inf")}, {"expires_in": float("nan")}]
)
def test_what_is_no_lease(how: Any) -> None:
    with pytest.raises(ValueError, match="seconds above 0") as raised:
        SecretValue(CANARY, **how)
    assert CANARY not in str(raised.value)


def test_a_provider_that_gives_nonsense() -> None:
    vault = Vault()
    vault.resolve = lambda path: SecretValue(b"bytes", renew_in=1)  # type: ignore[arg-type,method-assign]
    with pytest.raises(
        SettingsError, match="the secret vault:t cannot be resolved: its provider gave a SecretValue of"
    ):
        app_with(vault).build()


# Who is told


async def test_listeners_and_the_event(caplog: pytest.LogCaptureFixture) -> None:
    events: list[object] = []
    told: list[str] = []

    class Listener:
        @covet.hookimpl
        def covet_event(self, event: object) -> None:
            if isinstance(event, SecretRotated):
                events.append(event)

    async def later() -> None:
        await anyio.lowlevel.checkpoint()
        told.append("later")

    def fails() -> None:
        raise ValueError(CANARY)

    vault = Vault()
    app = app_with(vault, Listener())
    async with app.running():
        token = app.settings[Config].token
        assert token is not None
        forgets = [token.on_change(each) for each in (fails, later, lambda: told.append(token.reveal()))]
        await changed(token)
        await anyio.lowlevel.checkpoint()
        assert told[:2] == ["later", "t 2"]
        for forget in forgets:
            forget()
            forget()
        assert token.listeners == ()
    assert events[0] == SecretRotated("vault:t")
    assert "fails failed when it was told that the secret vault:t has changed: ValueError" in caplog.text
    assert CANARY not in caplog.text


# Files, and the application's key


async def test_files_are_read_again_where_the_settings_say_so(tmp_path: Path) -> None:
    """Kubernetes replaces the files of a mounted secret."""
    (tmp_path / "key").write_text("first secret key of many bytes\n")
    key = {"secret_key": f"file:{tmp_path}/key"}
    app = plugin_sandbox(settings={"app": {**key, "reread_secret_files": 0.01}})
    async with app.running():
        secret = app.settings.app.secret_key
        assert secret is not None
        before = app.signing_key("cookies")
        (tmp_path / "key").unlink()
        await anyio.sleep(0.05)
        assert secret.reveal() == "first secret key of many bytes", "a file that is gone for a moment changes nothing"
        (tmp_path / "new").write_text("second secret key of many bytes\n")
        (tmp_path / "new").rename(tmp_path / "key")
        await changed(secret)
        assert secret.reveal() == "second secret key of many bytes"
        assert app.signing_key("cookies") != before
        assert app.signing_keys("cookies") == (app.signing_key("cookies"), before), "what was signed is accepted still"
    (tmp_path / "key").write_text("third secret key of many bytes")
    app = plugin_sandbox(settings={"app": key})
    async with app.running():
        (tmp_path / "key").write_text("fourth secret key of many bytes")
        await anyio.sleep(0.05)
        assert app.settings.app.secret_key == Secret("third secret key of many bytes")


# Shown nowhere


@pytest.fixture
def everything() -> Iterator[io.StringIO]:
    """All that is logged, by both formatters, down to debug."""
    output = io.StringIO()
    root = logging.getLogger()
    handlers = [logging.StreamHandler(output), logging.StreamHandler(output)]
    handlers[0].setFormatter(JSONFormatter())
    handlers[1].setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s %(args)s"))
    level = root.level
    root.setLevel(logging.DEBUG)
    for handler in handlers:
        root.addHandler(handler)
    yield output
    for handler in handlers:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize("debug", [False, True])
async def test_a_canary_is_seen_nowhere(debug: bool, everything: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """One secret in every place that there is for one, and everything that is printed, logged, sent or written."""
    monkeypatch.setenv("CANARY", CANARY)
    monkeypatch.setenv("COVET_PLUGINS__IT__OTHER", CANARY)
    shown: list[str] = []
    vault = Vault()
    vault.resolve = lambda path: SecretValue(CANARY, expires_in=50)  # type: ignore[method-assign]
    tables: dict[str, Any] = {
        "app": {"debug": debug, "secret_key": "env:CANARY", "previous_secret_keys": [CANARY]},
        "plugins": {"it": {"token": "vault:t", "again": "env:CANARY", "stays": CANARY, "other": "vault:t"}},
    }
    app = plugin_sandbox("health", "openapi", "request_id", it=vault, settings=tables)

    @app.get("/raise")
    async def fails(request: Request) -> None:
        config = request.app.settings[Config]
        raise RuntimeError(f"{config} {config.token} {config.token!r} {[config.stays]}")

    @app.get("/value")
    async def value(request: Request) -> Any:
        return request.app.settings[Config].token

    @app.get("/settings")
    async def settings(request: Request) -> Any:
        return {"settings": request.app.settings[Config]}

    async with TestClient(app, raise_errors=False) as client:
        for path in ("/raise", "/value", "/settings", "/openapi.json", "/docs", "/health/ready", "/nothing"):
            for accept in ("text/html", "application/json"):
                response = await client.get(path, headers={"accept": accept})
                shown += [response.text, str(response.headers)]
        config = app.settings[Config]
        logging.getLogger("app").error("with %s and %r, %s", config, config.token, vars(app))
        for secret in app.settings.secrets():
            lease = secret.lease or SecretValue(CANARY, renew_in=1)
            shown += [f"{secret} {secret!r} {secret:>50}", repr(lease), str(lease), repr([secret, {"a": lease}])]
            for write in (json.dumps, pickle.dumps, msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins):
                for each in (secret, lease, {"a": [secret]}, config):
                    try:
                        shown.append(repr(write(each)))  # type: ignore[operator]
                    except (TypeError, NotImplementedError) as error:
                        shown.append("".join(traceback.format_exception(error)[-1:]))
        shown += [repr(row) for row in app.settings.rows()]
    shown.append(everything.getvalue())
    text = "\n".join(shown)
    assert "Secret('********')" in text, "they were there to be seen"
    assert CANARY not in text
    assert len(shown) > 50


def test_the_command_line_shows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", CANARY)
    (tmp_path / "app.py").write_text("from covet import Covet\napp = Covet()\n")
    (tmp_path / "covet.toml").write_text(
        f'[app]\nsecret_key = "env:CANARY"\nprevious_secret_keys = ["{CANARY}"]\n'
        f'[cache.default]\npassword = "{CANARY}"\n[sessions]\nkye = "{CANARY}"\n'
    )
    for command in (["config", "show"], ["config", "show", "--json"], ["check"], ["plugins", "check"], ["routes"]):
        done = subprocess.run(
            [sys.executable, "-m", "covet", *command], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.stdout + done.stderr
        assert CANARY not in done.stdout + done.stderr, command
