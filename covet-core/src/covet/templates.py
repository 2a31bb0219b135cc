"""The templates of paths: literal text with parameters in braces, `/users/{id:int}/posts/{slug}`.

The part behind the colon names a converter, which recognises the text and makes a value of it; without one it is `str`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from covet.exceptions import RouteError

__all__ = ["CONVERTERS", "AnyConverter", "Converter", "Segment", "Template"]


class Converter:
    """How a path parameter is recognised, turned into a value, and turned back into text.

    Args:
        pattern: a regular expression that the text must match as a whole, without groups.
        convert: text to value; a `ValueError` means that the path does not match.
        format: value to text, for `url_for`.
        rank: which of several routes alike but for their converters is tried first: the lowest. The converters that
            accept the least have the lowest rank; `str` has 100.
        type: the type of the value, for the OpenAPI document.
        spans: whether the value may hold slashes: such a parameter takes the rest of the path and comes last.
    """

    __slots__ = ("convert", "format", "pattern", "rank", "spans", "type")

    def __init__(
        self,
        pattern: str,
        convert: Callable[[str], Any],
        *,
        format: Callable[[Any], str] = str,
        rank: int = 50,
        type: Any = str,
        spans: bool = False,
    ) -> None:
        self.pattern = pattern
        self.convert = convert
        self.format = format
        self.rank = rank
        self.type = type
        self.spans = spans


def _str(text: str) -> str:
    if not text:
        raise ValueError("an empty segment is no value")
    if not text.isascii():
        # Bytes that are no UTF-8 stand in the path as this, whichever they were, so that two paths become one; or as
        # lone surrogates, which nothing can encode again: which of the two is up to the server.
        if "\ufffd" in text:
            raise ValueError("the path is no UTF-8")
        text.encode()
    if "\0" in text:
        raise ValueError("a path holds no NUL: many databases and file systems choke on it")
    return text


def _rest(text: str) -> str:
    return _str(text) if text else ""


def _float(text: str) -> float:
    value = float(text)
    if value == float("inf"):
        raise ValueError("too large for a float")
    return value


def _int(text: str) -> int:
    # int() alone takes signs, spaces, underscores and the digits of every script.
    if not (text.isascii() and text.isdecimal()):
        raise ValueError("not a decimal number")
    return int(text)


def _matching(pattern: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    fullmatch = re.compile(pattern).fullmatch

    def check(text: str) -> Any:
        if fullmatch(text) is None:
            raise ValueError(f"does not match {pattern}")
        return convert(text)

    return check


_FLOAT = r"[0-9]+(?:\.[0-9]+)?"
_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_SLUG = r"[a-zA-Z0-9_-]+"

CONVERTERS: Mapping[str, Converter] = {
    "str": Converter(r"[^/\0\ufffd]+", _str, rank=100),
    "int": Converter(r"[0-9]+", _int, rank=20, type=int),
    "float": Converter(_FLOAT, _matching(_FLOAT, _float), rank=30, type=float),
    "uuid": Converter(_UUID, _matching(_UUID, UUID), rank=10, type=UUID),
    "date": Converter(_DATE, _matching(_DATE, date.fromisoformat), rank=10, format=date.isoformat, type=date),
    "slug": Converter(_SLUG, _matching(_SLUG, str), rank=60),
    "path": Converter(r"[^\0\ufffd]+", _str, rank=200, spans=True),
    "rest": Converter(r"[^\0\ufffd]*", _rest, rank=210, spans=True),
}
"""The converters every application knows; `Covet(converters={...})` adds others."""


class Template:
    """A parsed path template.

    Attributes:
        path: the text as declared.
        names: the parameters' names, in order.
        converters: their converters, in order.
        segments: the path cut at its slashes; each is literal text, or a `Segment` with parameters.
        tail: whether the last parameter takes the rest of the path, slashes included.

    Raises:
        RouteError: the template is malformed or names an unknown converter.
    """

    __slots__ = ("converter_names", "converters", "names", "path", "segments", "tail")

    _PARAMETER = re.compile(r"\{([^{}]*)\}")

    def __init__(self, path: str, converters: Mapping[str, Converter] = CONVERTERS) -> None:
        if not path.startswith("/"):
            raise RouteError(f"route {path!r}: a path begins with a slash; did you mean {'/' + path!r}?")
        if "?" in path or "#" in path:
            raise RouteError(
                f"route {path!r}: a path holds no query or fragment; declare query parameters by signature"
            )
        self.path = path
        self.names: list[str] = []
        self.converters: list[Converter] = []
        self.converter_names: list[str] = []
        self.segments: list[str | Segment] = []
        self.tail = False
        for text in path.split("/"):
            self.segments.append(self._segment(text, converters))
        for position, segment in enumerate(self.segments):
            if isinstance(segment, Segment) and segment.tail:
                if position != len(self.segments) - 1:
                    raise RouteError(f"route {path!r}: a {{name:path}} parameter takes the rest, so it comes last")
                self.tail = True

    def _segment(self, text: str, converters: Mapping[str, Converter]) -> str | Segment:
        pieces = self._PARAMETER.split(text)
        if any("{" in piece or "}" in piece for piece in pieces[::2]):
            raise RouteError(f"route {self.path!r}: unbalanced braces in {text!r}")
        if len(pieces) == 1:
            return text
        chosen = []
        for piece in pieces[1::2]:
            name, _, kind = piece.partition(":")
            kind = kind or "str"
            if not name.isidentifier():
                raise RouteError(f"route {self.path!r}: {name!r} is no parameter name; use a Python identifier")
            if name in self.names:
                raise RouteError(f"route {self.path!r}: the parameter {name!r} stands twice")
            if kind not in converters:
                known = ", ".join(sorted(converters))
                raise RouteError(f"route {self.path!r}: unknown converter {kind!r}; there are {known}")
            self.names.append(name)
            self.converters.append(converters[kind])
            self.converter_names.append(kind)
            chosen.append(converters[kind])
        return Segment(pieces[::2], chosen, tail=any(converter.spans for converter in chosen))

    def format(self, values: Mapping[str, Any]) -> str:
        """The path with `values` in place of the parameters, percent-encoded.

        Raises:
            RouteError: a parameter is missing, unknown, or its text does not match its converter.
        """
        from urllib.parse import quote

        missing = [name for name in self.names if name not in values]
        unknown = [name for name in values if name not in self.names]
        if missing or unknown:
            told = [f"missing {name!r}" for name in missing] + [f"unknown {name!r}" for name in unknown]
            raise RouteError(f"route {self.path!r}: {', '.join(told)}; its parameters are {self.names}")
        texts = {}
        for name, converter in zip(self.names, self.converters, strict=True):
            try:
                text = converter.format(values[name])
                if re.fullmatch(converter.pattern, text) is None:
                    raise ValueError(f"the text {text[:80]!r} does not match")
                texts[name] = quote(text, safe="/" if converter.spans else "")
            except (TypeError, ValueError) as error:
                kind = type(values[name]).__name__
                raise RouteError(
                    f"route {self.path!r}: a value of type {kind} does not fit the parameter {name!r}: {error}"
                ) from error
        return self._PARAMETER.sub(lambda match: texts[match[1].partition(":")[0]], self.path)

    def shape(self) -> tuple[Any, ...]:
        """What two templates have in common when no path can tell them apart."""
        return tuple(s if isinstance(s, str) else (tuple(s.literals), tuple(s.converters)) for s in self.segments)

    @property
    def display(self) -> str:
        """The path with bare parameter names, as OpenAPI writes it."""
        return self._PARAMETER.sub(lambda match: "{" + match[1].partition(":")[0] + "}", self.path)


class Segment:
    """A segment of a template that holds parameters: literal text around converters."""

    __slots__ = ("converters", "literals", "tail")

    def __init__(self, literals: Sequence[str], converters: Sequence[Converter], *, tail: bool) -> None:
        self.literals = tuple(literals)
        self.converters = tuple(converters)
        self.tail = tail

    @property
    def whole(self) -> bool:
        """Whether the segment is one parameter and nothing else."""
        return self.literals == ("", "")

    def pattern(self) -> re.Pattern[str]:
        """A regular expression with one group per parameter."""
        parts = [re.escape(self.literals[0])]
        for converter, literal in zip(self.converters, self.literals[1:], strict=True):
            parts += ["(", converter.pattern, ")", re.escape(literal)]
        return re.compile("".join(parts), re.DOTALL)


class AnyConverter(dict[str, Converter]):
    """Stands in until the application's own converters are known: routes are declared before it is built."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Converter:
        return CONVERTERS.get(name, CONVERTERS["str"])
