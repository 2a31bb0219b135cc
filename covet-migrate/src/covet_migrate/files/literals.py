"""Literals of Python: texts, bytes and numbers as `ruff format` writes them."""

from __future__ import annotations

import math

__all__ = ["bytes_literal", "documentation", "number_literal", "text_literal"]


def text_literal(text: str) -> str:
    """A text in quotes: in double ones unless single ones need fewer backslashes, in three where it has several
    lines."""
    if "\n" in text and _reads_well(text):
        return f'"""{_without_end(text)}"""'
    return _quoted(repr(text))


def bytes_literal(value: bytes) -> str:
    """Bytes in quotes."""
    return "b" + _quoted(repr(value)[1:])


def number_literal(value: float | complex) -> str:
    """A number; what has no literal, as what makes it."""
    if isinstance(value, complex):
        return f"complex({number_literal(value.real)}, {number_literal(value.imag)})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    # As formatters write it: 1e16, and not 1e+16.
    return repr(value).replace("e+", "e")


def documentation(text: str) -> str:
    """A text as the documentation of a module."""
    text = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if text.endswith('"'):
        text = text[:-1] + '\\"'
    return f'"""{text}"""'


def _reads_well(text: str) -> bool:
    """Whether every letter of a text of several lines may stand for itself between triple quotes."""
    if '"""' in text or "\\" in text:
        return False
    lines = text.split("\n")
    # Editors take blanks away at the ends of lines, and with them a part of the text.
    return all(line.isprintable() and line == line.rstrip() for line in lines)


def _without_end(text: str) -> str:
    """A text whose last letter is no quote that would be one of the three."""
    return text[:-1] + '\\"' if text.endswith('"') else text


def _quoted(literal: str) -> str:
    """A literal of Python's `repr`, in double quotes where that costs no backslash."""
    quote, inside = literal[0], literal[1:-1]
    if quote == '"':
        # There is a single quote in it, and no double one.
        return literal
    if "\\'" in inside:
        # Both quotes are in it: as many backslashes as there are of the rarer one.
        plain = inside.replace("\\'", "'")
        if plain.count('"') <= plain.count("'"):
            return '"' + plain.replace('"', '\\"') + '"'
        return literal
    return literal if '"' in inside else f'"{inside}"'
