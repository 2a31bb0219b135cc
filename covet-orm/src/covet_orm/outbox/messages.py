"""What a message of the outbox is, and how its payload is kept: JSON as text, which a person can read, or bytes."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from covet_orm.exceptions import OrmError

__all__ = ["Key", "Message", "OutboxError", "checked_key", "checked_topic", "kept_payload"]

T = TypeVar("T")

Key = str | int | UUID
"""What messages may have in common that are delivered in their order."""

TOPIC_BYTES = 255
KEY_BYTES = 500


class OutboxError(OrmError, ValueError):
    """A message, or what is to be done with messages, is not as it can be; the message says what was expected."""


class Message(NamedTuple):
    """A message that is delivered.

    Attributes:
        id: its number, by which whoever gets it twice can tell; within a key it grows.
        topic: what it is about.
        key: what it is in order with, as a text; None for nothing.
        payload: what was enqueued, as JSON gives it back, or bytes.
        attempt: which one this is, from 1 on; those count whose worker died.
        created: when it was enqueued, in seconds since the epoch, by the clock of the database.
    """

    id: int
    topic: str
    key: str | None
    payload: Any
    attempt: int
    created: float

    def payload_as(self, kind: type[T]) -> T:
        """The payload as a value of a type: a dataclass, a struct, a list of UUIDs.

        Raises:
            OutboxError: it is none.
        """
        try:
            return msgspec.convert(self.payload, kind)
        except (msgspec.ValidationError, TypeError) as error:
            raise OutboxError(f"the payload of message {self.id} to {self.topic!r}: {error}") from error


def checked_topic(topic: str) -> str:
    """A topic that can be kept.

    Raises:
        OutboxError: it is none.
    """
    if not isinstance(topic, str) or not topic:
        raise OutboxError(f"a topic is a text that is not empty, not {topic!r}")
    return _checked_text(topic, "topic", TOPIC_BYTES)


def checked_key(key: Key | None) -> str | None:
    """A key as the text that is kept.

    Raises:
        OutboxError: it is none.
    """
    if key is None:
        return None
    if isinstance(key, bool) or not isinstance(key, str | int | UUID):
        raise OutboxError(f"a key is a text, an integer or a UUID, not a {type(key).__name__}")
    return _checked_text(str(key), "key", KEY_BYTES)


def kept_payload(payload: Any) -> tuple[str | None, bytes | None]:
    """A payload as JSON text, or as bytes where it is such.

    Raises:
        OutboxError: JSON cannot have it.
    """
    if isinstance(payload, bytes | bytearray | memoryview):
        return None, bytes(payload)
    try:
        return msgspec.json.encode(payload).decode(), None
    except (TypeError, ValueError, RecursionError) as error:
        raise OutboxError(f"the payload cannot be JSON: {type(error).__name__}: {error}") from error


def _checked_text(text: str, what: str, most: int) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise OutboxError(f"the {what} {text!r} cannot be UTF-8: {error.reason}") from None
    if size > most or "\0" in text:
        raise OutboxError(f"a {what} has at most {most} bytes of UTF-8 and no NUL character; this one has {size} bytes")
    return text
