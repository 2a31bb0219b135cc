"""The values of one session during one request: what was read, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

from msgspec import Raw, Struct

from covet.sessions.encoding import PLAIN, SCALARS, Encoded, decode, encode

__all__ = ["MISSING", "Values"]

Key = str | type[Any]
Operation = tuple[Callable[[Any], Any], Any]

MISSING: Any = object()
"""Stands for no value."""

# What most sessions have of changes, which are only read. It cannot be written to, so that no forgotten `_track` is
# silent.
NOTHING: Any = MappingProxyType({})


# A Struct, which takes less than half as long to make: every request that looks at its session makes one.
class Values(Struct, eq=False):
    """Values over those that were stored.

    Each is decoded when it is asked for: those that take longer to decode than to look up once, and what can be changed
    in place, which is looked at again in the end.

    Args:
        stored: the values as they were stored.
    """

    _stored: Encoded
    # What was assigned, and what was decoded if that is kept.
    _live: dict[str, Any] = NOTHING
    # What was assigned, encoded, or None for what was deleted.
    _changed: dict[str, bytes | None] = NOTHING
    # Of what can be changed in place: its key, and how it was encoded when somebody got hold of it.
    _watched: dict[str, tuple[Key, bytes]] = NOTHING
    # What was transformed: its key, and how.
    _operations: dict[str, tuple[Key, list[Operation]]] = NOTHING

    def __contains__(self, name: str) -> bool:
        if name in self._changed:
            return self._changed[name] is not None
        return name in self._stored

    def _track(self) -> None:
        """Be ready to note changes."""
        if self._live is NOTHING:
            self._live, self._changed, self._watched, self._operations = {}, {}, {}, {}

    @property
    def touched(self) -> bool:
        """Whether anything may differ from what is stored."""
        return bool(self._changed or self._watched)

    def names(self) -> Iterator[str]:
        """The names of all values, those stored first."""
        for name in dict.fromkeys((*self._stored, *self._changed)):
            if name in self:
                yield name

    def get(self, key: Key, name: str) -> Any:
        """The value of a key, or MISSING.

        Raises:
            SessionValueError: what is stored does not fit the type that is the key.
        """
        if self._live is not NOTHING:
            if name in self._live:
                return self._live[name]
            if name in self._changed:
                # What was assigned is live, so this one was deleted.
                return MISSING
        if name not in self._stored:
            return MISSING
        data = self._stored[name]
        value = decode(key, data)
        if value.__class__ not in PLAIN:
            self._keep(key, name, value, data)
        return value

    def set(self, key: Key, name: str, value: Any) -> None:
        """Assign a value.

        Raises:
            SessionValueError: it cannot be encoded.
        """
        data = encode(key, value)
        self._track()
        self._operations.pop(name, None)
        self._put(key, name, value, data)

    def _put(self, key: Key, name: str, value: Any, data: bytes) -> None:
        self._live[name] = value
        self._changed[name] = data
        self._watched.pop(name, None)
        if value.__class__ not in SCALARS:
            self._watched[name] = key, data

    def _keep(self, key: Key, name: str, value: Any, data: Raw | bytes) -> None:
        self._track()
        self._live[name] = value
        if value.__class__ not in SCALARS:
            # A type may have got a field with a default since this was stored, which is no change of the session.
            self._watched[name] = key, encode(key, value) if isinstance(key, type) else bytes(data)

    def delete(self, name: str) -> None:
        """Remove a value."""
        self._track()
        for part in (self._live, self._watched, self._operations):
            part.pop(name, None)
        self._changed[name] = None

    def transform(self, key: Key, name: str, function: Callable[[Any], Any], default: Any) -> Any:
        """Put `function(value)` in place of a value, and note that it is to be done again over another one."""
        before = self.get(key, name)
        value = function(default if before is MISSING else before)
        data = encode(key, value)
        self._track()
        if name in self._operations or name not in self._changed:
            self._operations.setdefault(name, (key, []))[1].append((function, default))
        self._put(key, name, value, data)
        return value

    def changes(self) -> dict[str, bytes | None]:
        """What differs from what is stored: each value encoded, or None for what was deleted.

        Raises:
            SessionValueError: a value was changed in place to something that cannot be encoded.
        """
        for name, (key, before) in self._watched.items():
            now = encode(key, self._live[name])
            if now != before:
                self._watched[name] = key, now
                self._changed[name] = now
                # It was changed beside the operations, so they do not tell the whole any more.
                self._operations.pop(name, None)
        return {
            name: data
            for name, data in self._changed.items()
            if name in self._operations or data != (bytes(self._stored[name]) if name in self._stored else None)
        }

    def merged(self, changes: dict[str, bytes | None]) -> dict[str, Raw | bytes]:
        """What is stored, with changes made to it."""
        merged: dict[str, Raw | bytes] = {**self._stored}
        for name, data in changes.items():
            if data is None:
                merged.pop(name, None)
            else:
                merged[name] = data
        return merged

    def rebase(self, stored: Encoded) -> dict[str, bytes | None]:
        """Take over what somebody else has stored meanwhile, and make this request's changes to that.

        A key that was assigned or deleted here stays so; one that was transformed is transformed again, over the value
        that is there now; all others are as they were stored.

        Returns:
            The changes, as `changes` does.

        Raises:
            SessionValueError: a transformed value cannot be encoded.
        """
        ours = self.changes()
        self._stored = stored
        for name in [name for name in {*self._live, *self._changed} if name not in ours]:
            for part in (self._live, self._watched, self._changed):
                part.pop(name, None)
        for name, (key, operations) in self._operations.items():
            value = decode(key, stored[name]) if name in stored else MISSING
            for function, default in operations:
                value = function(default if value is MISSING else value)
            self._put(key, name, value, encode(key, value))
        return self.changes()

    def forget_stored(self) -> None:
        """Keep what was assigned here, and nothing else."""
        self._track()
        self._changed = self.changes()
        self._operations.clear()
        self._stored = {}
        for name in [name for name in self._live if self._changed.get(name) is None]:
            for part in (self._live, self._watched):
                part.pop(name, None)
        self._changed = {name: data for name, data in self._changed.items() if data is not None}

    def settle(self, stored: Encoded) -> None:
        """Note that everything is stored now."""
        self._track()
        self._stored = stored
        self._changed.clear()
        self._operations.clear()

    def revert(self) -> None:
        """Give up all changes since the last `settle`."""
        self._track()
        for part in (self._live, self._changed, self._watched, self._operations):
            part.clear()
