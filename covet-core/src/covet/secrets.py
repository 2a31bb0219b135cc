"""Secrets: values that are named in the settings and never shown.

A settings value that is a secret is written as a reference: `env:NAME` for an environment variable, `file:PATH` for the
contents of a file, and whatever else plugins bring through the hook `covet_secret_providers`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from covet.exceptions import ConfigurationError

if TYPE_CHECKING:
    from covet.settings import Settings

__all__ = ["Secret", "SecretError", "application_key", "derive_key", "previous_keys"]

logger = logging.getLogger("covet.secrets")

MINIMUM_KEY = 16
MAX_FILE = 1_000_000
REFERENCE = re.compile(r"([a-z][a-z0-9_-]+):(?!//)(.*)", re.DOTALL)


class SecretError(ConfigurationError):
    """A reference to a secret cannot be resolved. The message names the reference, never a value."""


class Secret:
    """A secret value. It shows as `********` everywhere; `reveal()` gives the text.

    Args:
        text: the value, or a reference such as `env:NAME` that `resolve` replaces at start-up.
        source: the reference that the value was resolved from; empty for a value that only looks like a reference.
    """

    __slots__ = ("_source", "_text")

    def __init__(self, text: str, *, source: str | None = None) -> None:
        self._text = text
        self._source = source

    def reveal(self) -> str:
        """The text itself. Do not log it."""
        return self._text

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

    def resolve(self, providers: Mapping[str, Callable[[str], str]]) -> Secret:
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
        try:
            text = provider(rest)
        except SecretError:
            raise
        except Exception as error:  # noqa: BLE001 -- the provider's own message may quote the secret
            raise SecretError(f"the secret {scheme}:{rest} cannot be resolved: {type(error).__name__}") from None
        if not isinstance(text, str):
            raise SecretError(f"the secret {scheme}:{rest} cannot be resolved: its provider gave {type(text).__name__}")
        return Secret(text, source=self._text)

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


BUILTIN_PROVIDERS: Mapping[str, Callable[[str], str]] = {"env": from_environment, "file": from_file}


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
    """The application's former secret keys, the latest first.

    Raises:
        ConfigurationError: one is too short, or still a reference, because the application is not built.
    """
    return [_key(secret, "previous_secret_keys") for secret in settings.app.previous_secret_keys]


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
