"""The layout of source text: parts of an expression of Python, and the lines that they become.

What fits into a line of 120 columns is one line; what does not stands one part a line, with a comma behind the last:
that is what `ruff format` and `black` leave as it is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["WIDTH", "Bracket", "Chain", "Group", "Prefixed", "Source", "Suffixed", "Text", "lines_of"]

WIDTH = 120
"""Columns of a line."""


class Source:
    """A part of an expression of Python: a text that is what it is, such as a name, a number, a string.

    Args:
        flat: it as one line.
        forced: whether it stands in several lines even if one would do.
        is_compound: whether an operator is in it that stands in no brackets.
    """

    def __init__(self, flat: str, *, forced: bool = False, is_compound: bool = False) -> None:
        self.flat = flat
        self.forced = forced
        self.is_compound = is_compound

    def broken(self, indent: str, used: int, behind: int) -> str:
        """It in several lines, of which the first is begun already.

        Args:
            indent: the blanks that the line begins with.
            used: how many columns behind them are taken.
            behind: how many columns have to be free at the end of the last line.
        """
        return self.flat


class Text(Source):
    """A text that is what it is. One of several lines stays that, and what is around it is several lines as well."""

    def __init__(self, text: str) -> None:
        super().__init__(text, forced="\n" in text)


class Bracket(Source):
    """Parts in brackets, each perhaps behind its name: a call, a list, a dictionary.

    Args:
        open: what stands before the parts: `orm.CharField(`.
        items: the parts, each with what stands before it: `max_length=`, `"name": `, or nothing.
        close: the bracket behind them.
        one_a_line: whether every part stands in a line of its own even if one line would do.
    """

    def __init__(self, open: str, items: Sequence[tuple[str, Source]], close: str, *, one_a_line: bool = False) -> None:
        inside = ", ".join(prefix + item.flat for prefix, item in items)
        # A tuple of one has its comma.
        comma = "," if open == "(" and len(items) == 1 else ""
        super().__init__(
            f"{open}{inside}{comma}{close}",
            forced=bool(items) and (one_a_line or any(item.forced for _, item in items)),
        )
        self.open = open
        self.items = items
        self.close = close

    def broken(self, indent: str, used: int, behind: int) -> str:
        if not self.items:
            return self.flat
        inner = indent + "    "
        lines = [f"{inner}{prefix}{_lines(item, inner, _width(prefix))},\n" for prefix, item in self.items]
        return f"{self.open}\n{''.join(lines)}{indent}{self.close}"


class Chain(Source):
    """Parts with operators between them: `a | b | c`.

    Args:
        parts: the parts.
        operator: the operator.
    """

    def __init__(self, parts: Sequence[Source], operator: str) -> None:
        self.parts = [Group(part) if part.is_compound else part for part in parts]
        self.operator = operator
        super().__init__(
            f" {operator} ".join(part.flat for part in self.parts),
            forced=any(part.forced for part in self.parts),
            is_compound=True,
        )

    def broken(self, indent: str, used: int, behind: int) -> str:
        first, *others = self.parts
        prefix = f"{self.operator} "
        lines = [_lines(first, indent, used, 0)]
        # Nothing stands behind a part but the next one, in a line of its own.
        ends = [0] * (len(others) - 1) + [behind]
        lines += [
            f"{indent}{prefix}{_lines(part, indent, len(prefix), end)}" for part, end in zip(others, ends, strict=True)
        ]
        return "\n".join(lines)


class Group(Source):
    """A part in parentheses."""

    def __init__(self, inner: Source) -> None:
        super().__init__(f"({inner.flat})", forced=inner.forced)
        self.inner = inner

    def broken(self, indent: str, used: int, behind: int) -> str:
        inside = indent + "    "
        return f"(\n{inside}{_lines(self.inner, inside, 0, 0)}\n{indent})"


class Prefixed(Source):
    """A part behind an operator: `~orm.Q(age=3)`."""

    def __init__(self, operator: str, inner: Source) -> None:
        self.operator = operator
        self.inner = Group(inner) if inner.is_compound else inner
        super().__init__(operator + self.inner.flat, forced=inner.forced)

    def broken(self, indent: str, used: int, behind: int) -> str:
        return self.operator + self.inner.broken(indent, used + len(self.operator), behind)


class Suffixed(Source):
    """A part, and behind it a call of one of its methods: `orm.F("name").desc()`.

    Args:
        base: the part.
        call: what stands behind it.
    """

    def __init__(self, base: Source, call: Bracket) -> None:
        # A method binds tighter than any operator.
        self.base = Group(base) if base.is_compound or isinstance(base, Prefixed) else base
        self.call = call
        super().__init__(self.base.flat + call.flat, forced=self.base.forced or call.forced)

    def broken(self, indent: str, used: int, behind: int) -> str:
        # The last line of what is before the call is as long as its bracket.
        base, taken = self.base.broken(indent, used, 0), 1
        if not self.base.forced and len(indent) + used + _width(self.base.flat) + len(self.call.open) <= WIDTH:
            base, taken = self.base.flat, used + _width(self.base.flat)
        return base + _lines(self.call, indent, taken, behind)


def lines_of(source: Source, indent: str, prefix: str, suffix: str) -> str:
    """The text of a part at a place: one line if it fits, else several.

    Args:
        source: the part.
        indent: the blanks that the line begins with.
        prefix: what stands between these and the part.
        suffix: what has to fit behind it.
    """
    return _lines(source, indent, _width(prefix), len(suffix))


def _lines(source: Source, indent: str, used: int, behind: int = 1) -> str:
    """As `lines_of`, by widths. A part in brackets has a comma behind it."""
    if not source.forced and len(indent) + used + _width(source.flat) + behind <= WIDTH:
        return source.flat
    return source.broken(indent, used, behind)


def _width(text: str) -> int:
    """How many columns a text takes: letters of East Asia take two, and an accent none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )
