"""The session store `cookie`: every session in its own cookie, encrypted and authenticated."""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence

import msgspec

from covet.exceptions import ConfigurationError
from covet.sessions import StoredSession

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ModuleNotFoundError as error:
    raise ConfigurationError(
        "the session store 'cookie' needs the package cryptography, to seal cookies; type: "
        'pip install "covet-core[cookies]"'
    ) from error

__all__ = ["CookieSessions"]

NONCE = 12
MAX_COOKIE = 4096
# What a sealed text begins with; another way of sealing will begin otherwise.
MARK = "1."

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, StoredSession]).decode


class CookieSessions:
    """Seals sessions with AES-256-GCM (NIST SP 800-38D), each with a random nonce of 96 bits.

    The name of the cookie is authenticated along, so that the text of one cookie is worthless as another. With random
    nonces, one key may seal 2**32 cookies; that takes more than four years at 30 a second, and a new secret key begins
    anew.

    Args:
        keys: of 32 bytes each. The first one seals; all of them open.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = [AESGCM(key) for key in keys]

    def __repr__(self) -> str:
        return "<CookieSessions>"

    def seal(self, cookie: str, key: bytes, session: StoredSession) -> str:
        """The text of the cookie called `cookie`, for a session and its key."""
        nonce = os.urandom(NONCE)
        sealed = self._ciphers[0].encrypt(nonce, _encode((key, session)), _purpose(cookie))
        return MARK + urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode("ascii")

    def open(self, cookie: str, text: str) -> tuple[bytes, StoredSession] | None:
        """The key and session that were sealed for the cookie of that name; None for anything else."""
        # Beyond that no browser sends it, and nobody else shall have it decrypted.
        if len(text) > MAX_COOKIE or not text.startswith(MARK):
            return None
        encoded = text.removeprefix(MARK)
        try:
            data = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        except (Base64Error, ValueError):
            return None
        for cipher in self._ciphers:
            try:
                return _decode(cipher.decrypt(data[:NONCE], data[NONCE:], _purpose(cookie)))
            except (InvalidTag, ValueError, msgspec.DecodeError):
                continue
        return None


def _purpose(cookie: str) -> bytes:
    return b"covet session\0" + cookie.encode()
