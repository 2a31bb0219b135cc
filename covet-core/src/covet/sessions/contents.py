"""What a session holds, as a mapping."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, overload

from covet.sessions.encoding import TYPED, key_name
from covet.sessions.errors import SessionKeyError, SessionNotLoadedError
from covet.sessions.values import MISSING, Values

__all__ = ["Contents"]

T = TypeVar("T")
D = TypeVar("D")

logger = logging.getLogger("covet.sessions")


class Contents:
    """A mapping from text to values, and from a type to a value of that type.

    Iterating over it, its length and its views have the keys that are text.
    """

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: Values | None = None

    def _loaded(self) -> Values:
        if self._values is None:
            raise SessionNotLoadedError()
        return self._values

    def _writable(self) -> Values:
        return self._loaded()

    # Reading

    @overload
    def __getitem__(self, key: str) -> Any: ...
    @overload
    def __getitem__(self, key: type[T]) -> T: ...
    def __getitem__(self, key: Any) -> Any:
        found = self.get(key, MISSING)
        if found is MISSING:
            raise SessionKeyError(f"the session has no {_shown(key)}; ask with `session.get(…)` where it may lack it")
        return found

    @overload
    def get(self, key: str, default: Any = None) -> Any: ...
    @overload
    def get(self, key: type[T]) -> T | None: ...
    @overload
    def get(self, key: type[T], default: T | D) -> T | D: ...
    def get(self, key: Any, default: Any = None) -> Any:
        """The value under a key, or `default`. One that is changed in place is saved, too.

        A value under a type that was stored in an earlier shape, which does not fit the type of today, is logged and
        counts as none.

        Raises:
            SessionNotLoadedError: the session is not loaded.
        """
        values = self._values
        if values is None:
            raise SessionNotLoadedError()
        try:
            found = values.get(key, key if key.__class__ is str else key_name(key))
        except ValueError as error:
            logger.warning("%s; it counts as missing", error)
            return default
        return default if found is MISSING else found

    def __contains__(self, key: object) -> bool:
        return key_name(key) in self._loaded()

    def __iter__(self) -> Iterator[str]:
        return (name for name in list(self._loaded().names()) if not name.startswith(TYPED))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def keys(self) -> list[str]:
        """The keys that are text."""
        return list(self)

    def values(self) -> list[Any]:
        """The values of the keys that are text."""
        return [self[key] for key in self]

    def items(self) -> list[tuple[str, Any]]:
        """The keys that are text, with their values."""
        return [(key, self[key]) for key in self]

    # Writing

    @overload
    def __setitem__(self, key: str, value: Any) -> None: ...
    @overload
    def __setitem__(self, key: type[T], value: T) -> None: ...
    def __setitem__(self, key: Any, value: Any) -> None:
        """Assign a value.

        Raises:
            SessionValueError: it cannot be encoded; the message names its key and type.
            SessionError: nothing would save it: see `saving`.
        """
        self._writable().set(key, key_name(key), value)

    def __delitem__(self, key: str | type[Any]) -> None:
        if key not in self:
            raise SessionKeyError(f"the session has no {_shown(key)} to delete")
        self._writable().delete(key_name(key))

    @overload
    def pop(self, key: str, default: Any = MISSING) -> Any: ...
    @overload
    def pop(self, key: type[T]) -> T: ...
    @overload
    def pop(self, key: type[T], default: T | D) -> T | D: ...
    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """The value under a key, which is removed.

        Raises:
            SessionKeyError: there is none, and no default.
        """
        found = self.get(key, MISSING)
        if found is not MISSING:
            del self[key]
            return found
        if default is MISSING:
            raise SessionKeyError(f"the session has no {_shown(key)}")
        return default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value under a key, which is `default` from now on if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, values: Mapping[str, Any] | None = None, **named: Any) -> None:
        """Assign many values."""
        for key, value in {**(values or {}), **named}.items():
            self[key] = value

    def clear(self) -> None:
        """Remove the values that are there, those under types too. The session goes on; see `destroy`."""
        values = self._writable()
        for name in list(values.names()):
            values.delete(name)

    @overload
    def transform(self, key: str, function: Callable[[Any], Any], default: Any = None) -> Any: ...
    @overload
    def transform(self, key: type[T], function: Callable[[T], T], default: T) -> T: ...
    def transform(self, key: Any, function: Callable[[Any], Any], default: Any = None) -> Any:
        """Put `function(value)` in place of a value, `default` standing for one that is not there; returns it.

        Where another request has changed the value meanwhile, the function is called again over what that one stored,
        so that counters lose nothing: `session.transform("visits", lambda n: n + 1, 0)`. It should do nothing else, and
        return a new value instead of changing the one it is given.

        Raises: as `session[key] = value`.
        """
        return self._writable().transform(key, key_name(key), function, default)


def _shown(key: object) -> str:
    return getattr(key, "__qualname__", None) or repr(key)
