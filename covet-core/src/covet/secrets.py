"""Secrets: values that are named in the settings and never shown.

A settings value that is a secret is written as a reference: `env:NAME` for an environment variable, `file:PATH` for the
contents of a file, and whatever else plugins bring through the hook `covet_secret_providers`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from covet.exceptions import ConfigurationError

if TYPE_CHECKING:
    from covet.settings import Settings

__all__ = ["Provider", "Secret", "SecretError", "SecretValue", "application_key", "derive_key", "previous_keys"]

logger = logging.getLogger("covet.secrets")

MINIMUM_KEY = 16
MAX_FILE = 1_000_000
REFERENCE = re.compile(r"([a-z][a-z0-9_-]+):(?!//)(.*)", re.DOTALL)


# How many former values of a secret are kept, so that what was signed with them is still accepted.
MAX_FORMER = 3


class SecretError(ConfigurationError):
    """A reference to a secret cannot be resolved. The message names the reference, never a value."""


class SecretValue:
    """What a provider gives for a secret that does not stay as it is.

    While the application runs, the provider is asked again before the value expires, for `Secret.reveal()` to give.

    Args:
        text: the secret.
        expires_in: seconds for which it is valid; the provider is asked again after about two thirds of them.
        renew_in: seconds after which the provider is asked again, where that is to be another time; without
            `expires_in`, for a value that may change and does not expire.

    Raises:
        ValueError: neither is given, or one is not above 0.
    """

    __slots__ = ("expires_in", "renew_in", "text")

    def __init__(self, text: str, *, expires_in: float | None = None, renew_in: float | None = None) -> None:
        given = [seconds for seconds in (expires_in, renew_in) if seconds is not None]
        if not given or not all(0 < seconds < math.inf for seconds in given):
            raise ValueError(f"expires_in and renew_in are seconds above 0, not {expires_in} and {renew_in}")
        self.text = text
        self.expires_in = expires_in
        self.renew_in = renew_in

    def __repr__(self) -> str:
        return f"SecretValue('********', expires_in={self.expires_in}, renew_in={self.renew_in})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretValue cannot be pickled: it would be written down")


Provider = Callable[[str], "str | SecretValue"]
"""What resolves references of a kind: a plain function from what stands behind the colon to the secret. It is called in
a worker thread, at start-up and again where a value has to be renewed."""


class Secret:
    """A secret value. It shows as `********` everywhere; `reveal()` gives the text.

    A secret that its provider renews changes while the application runs: ask for the text when you need it, do not keep
    it. Its hash changes with it.

    Args:
        text: the value, or a reference such as `env:NAME` that `resolve` replaces at start-up.
        source: the reference that the value was resolved from; empty for a value that only looks like a reference.

    Attributes:
        lease: what its provider said of how long the value stays, for the renewal; None for ever.
        acquired: when that was, on the clock of `time.monotonic`.
    """

    __slots__ = ("_former", "_listeners", "_source", "_text", "acquired", "lease")

    def __init__(self, text: str, *, source: str | None = None) -> None:
        self._text = text
        self._source = source
        self._former: tuple[str, ...] = ()
        self._listeners: list[Callable[[], object]] = []
        self.lease: SecretValue | None = None
        self.acquired = 0.0

    def reveal(self) -> str:
        """The text itself, as it is now. Do not log it."""
        return self._text

    @property
    def former(self) -> tuple[str, ...]:
        """The texts that it had before, in this process, the latest first; at most three."""
        return self._former

    def on_change(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Have a function called whenever the secret has changed, until the function that this returns is called.

        Args:
            listener: takes nothing, and asks `reveal()`; plain or `async def`. It is called in the event loop, so it
                does not block. What it raises is logged, without its text.
        """
        self._listeners.append(listener)

        def forget() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return forget

    @property
    def listeners(self) -> tuple[Callable[[], object], ...]:
        """What is called when it has changed."""
        return tuple(self._listeners)

    def renew(self, value: str | SecretValue) -> bool:
        """Take over what the provider gives now; whether the text is another one."""
        text = value if isinstance(value, str) else value.text
        self.lease = None if isinstance(value, str) else value
        self.acquired = time.monotonic()
        if text == self._text:
            return False
        self._former = (self._text, *self._former)[:MAX_FORMER]
        self._text = text
        return True

    @property
    def unresolved(self) -> bool:
        """Whether it is still a reference."""
        return self._source is None and REFERENCE.fullmatch(self._text) is not None

    @property
    def reference(self) -> str | None:
        """What may be shown in place of the secret: the reference that it is or came from; None for a plain value."""
        if self._source is not None:
            return self._source or None
        # Of other kinds, only what resolves them tells whether this is a reference or a value that looks like one.
        return self._text if self._text.startswith(("env:", "file:")) else None

    def resolve(self, providers: Mapping[str, Provider]) -> Secret:
        """The secret that a reference stands for; a value that is no reference stays as it is.

        A reference is a word of lower-case letters and a colon with something behind it that does not begin with two
        slashes, so that a URL is none.

        Raises:
            SecretError: the environment variable or file does not exist, the provider failed, or there is none.
        """
        match = REFERENCE.fullmatch(self._text) if self._source is None else None
        if match is None:
            return self
        scheme, rest = match.groups()
        provider = providers.get(scheme)
        if provider is None:
            from covet.settings_schema import nearest

            raise SecretError(
                f"nothing resolves the references of the kind {scheme!r}{nearest(scheme, providers)}; a secret that "
                "only looks like a reference is put into the environment, and referred to with `env:NAME`"
            )
        value = ask(provider, scheme, rest)
        found = Secret(value if isinstance(value, str) else value.text, source=self._text)
        found.renew(value)
        return found

    def __repr__(self) -> str:
        return "Secret('********')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(_bytes(self._text), _bytes(other._text))

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: it would be written down")


def ask(provider: Provider, scheme: str, rest: str) -> str | SecretValue:
    """Call a provider.

    Raises:
        SecretError: it failed; the message says nothing that the provider's own error may quote.
    """
    try:
        value = provider(rest)
    except SecretError:
        raise
    except Exception as error:  # noqa: BLE001 -- the provider's own message may quote the secret
        raise SecretError(f"the secret {scheme}:{rest} cannot be resolved: {type(error).__name__}") from None
    if not isinstance(value.text if isinstance(value, SecretValue) else value, str):
        told = "a SecretValue of another type" if isinstance(value, SecretValue) else type(value).__name__
        raise SecretError(f"the secret {scheme}:{rest} cannot be resolved: its provider gave {told}")
    return value


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def from_environment(name: str) -> str:
    """The provider of `env:NAME`."""
    text = os.environ.get(name)
    if text is None:
        raise SecretError(f"the environment variable {name} is not set, and the settings refer to it")
    # Bytes that are no UTF-8 come as lone surrogates.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise SecretError(f"the environment variable {name} is not UTF-8, and the settings refer to it")
    return text


def from_file(path: str) -> str:
    """The provider of `file:PATH`; one line break at the end of the file is not part of the secret."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SecretError(f"the file {path} cannot be read, and the settings refer to it: {reason}") from None
    if len(text) > MAX_FILE:
        raise SecretError(f"the file {path} has more than {MAX_FILE} characters; is it the secret that is meant?")
    return text.removesuffix("\n").removesuffix("\r")


def watched_file(seconds: float) -> Provider:
    """The provider of `file:PATH` where files are read again every so many seconds."""
    return lambda path: SecretValue(from_file(path), renew_in=seconds)


BUILTIN_PROVIDERS: Mapping[str, Provider] = {"env": from_environment, "file": from_file}


def application_key(settings: Settings) -> bytes:
    """The application's secret key.

    Raises:
        ConfigurationError: there is none and the application is not in debug mode, it is too short, or still a
            reference, because the application is not built.
    """
    secret = settings.app.secret_key
    if secret:
        return _key(secret, "secret_key")
    if not settings.app.debug:
        raise ConfigurationError(
            "no secret key is set, and something has to be signed: put one into the environment and write "
            '`secret_key = "env:COVET_SECRET_KEY"` under [app]'
        )
    if settings.development_key is None:
        logger.warning("no [app] secret_key is set: signing with a key of this process, which debug mode permits")
        settings.development_key = os.urandom(32)
    return settings.development_key


def previous_keys(settings: Settings) -> list[bytes]:
    """The application's former secret keys, the latest first: those of this process, then those of the settings.

    Raises:
        ConfigurationError: one is too short, or still a reference, because the application is not built.
    """
    current = settings.app.secret_key
    former = [text.encode() for text in (current.former if current else ()) if len(text) >= MINIMUM_KEY]
    return former + [_key(secret, "previous_secret_keys") for secret in settings.app.previous_secret_keys]


def _key(secret: Secret, name: str) -> bytes:
    if secret.unresolved:
        raise ConfigurationError(
            f"[app] {name} is not resolved yet ({secret.reference or 'a reference'}): sign in a handler, a "
            "lifespan or covet_setup, when the application is built"
        )
    text = secret.reveal()
    if len(text) < MINIMUM_KEY:
        raise ConfigurationError(
            f"[app] {name} has fewer than {MINIMUM_KEY} characters; make one with "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
        )
    return text.encode()


def derive_key(key: bytes, purpose: str, *context: str) -> bytes:
    """A 32-byte key for one purpose (HMAC-SHA-256 as a pseudo-random function, as in HKDF-Expand, RFC 5869).

    Each part is framed by its length, so that no two lists of parts give one message (CVE-2026-6873).
    """
    message = b"".join(len(part).to_bytes(8, "big") + part for part in (text.encode() for text in (purpose, *context)))
    return hmac.new(key, b"covet key\x01" + message, hashlib.sha256).digest()
