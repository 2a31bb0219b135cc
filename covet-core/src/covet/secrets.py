"""Secrets: values that are named in the settings and never shown.

A settings value that is a secret is written as a reference: `env:NAME` for an environment variable, `file:PATH` for the
contents of a file, and whatever else plugins bring through the hook `covet_secret_providers`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from covet.exceptions import ConfigurationError

if TYPE_CHECKING:
    from covet.settings import Settings

__all__ = ["Secret", "SecretError", "application_key", "derive_key"]

logger = logging.getLogger("covet.secrets")

MINIMUM_KEY = 16


class SecretError(ConfigurationError):
    """A reference to a secret cannot be resolved. The message names the reference, never a value."""


class Secret:
    """A secret value. It shows as `********` everywhere; `reveal()` gives the text.

    Args:
        text: the value, or a reference such as `env:NAME` that `resolve` replaces at start-up.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself. Do not log it."""
        return self._text

    def resolve(self, providers: Mapping[str, Callable[[str], str]]) -> Secret:
        """The secret that a reference stands for; a value that is no reference stays as it is.

        Raises:
            SecretError: the environment variable or file does not exist, or the provider failed.
        """
        scheme, found, rest = self._text.partition(":")
        provider = providers.get(scheme)
        if not found or provider is None:
            return self
        try:
            return Secret(provider(rest))
        except SecretError:
            raise
        except Exception as error:
            # The provider's own message may quote the secret.
            raise SecretError(f"the secret {scheme}:{rest} cannot be resolved: {type(error).__name__}") from error

    def __repr__(self) -> str:
        return "Secret('********')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: it would be written down")


def from_environment(name: str) -> str:
    """The provider of `env:NAME`."""
    try:
        return os.environ[name]
    except KeyError:
        raise SecretError(f"the environment variable {name} is not set, and the settings refer to it") from None


def from_file(path: str) -> str:
    """The provider of `file:PATH`; one line break at the end of the file is not part of the secret."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SecretError(f"the file {path} cannot be read, and the settings refer to it: {reason}") from None
    return text.removesuffix("\n").removesuffix("\r")


BUILTIN_PROVIDERS: Mapping[str, Callable[[str], str]] = {"env": from_environment, "file": from_file}


def application_key(settings: Settings) -> bytes:
    """The application's secret key.

    Raises:
        ConfigurationError: there is none and the application is not in debug mode, or it is too short.
    """
    secret = settings.app.secret_key
    if secret:
        text = secret.reveal()
        if len(text) < MINIMUM_KEY:
            raise ConfigurationError(
                f"[app] secret_key has fewer than {MINIMUM_KEY} characters; make one with "
                "`python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
            )
        return text.encode()
    if not settings.app.debug:
        raise ConfigurationError(
            "no secret key is set, and something has to be signed: put one into the environment and write "
            '`secret_key = "env:COVET_SECRET_KEY"` under [app]'
        )
    if settings.development_key is None:
        logger.warning("no [app] secret_key is set: signing with a key of this process, which debug mode permits")
        settings.development_key = os.urandom(32)
    return settings.development_key


def derive_key(key: bytes, purpose: str, *context: str) -> bytes:
    """A 32-byte key for one purpose (HMAC-SHA-256 as a pseudo-random function, as in HKDF-Expand, RFC 5869).

    Each part is framed by its length, so that no two lists of parts give one message (CVE-2026-6873).
    """
    message = b"".join(len(part).to_bytes(8, "big") + part for part in (text.encode() for text in (purpose, *context)))
    return hmac.new(key, b"covet key\x01" + message, hashlib.sha256).digest()
