"""Writing `[plugins] enable` into a settings file that people keep: nothing else in it changes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from covet.cli.reporting import Failure

__all__ = ["write_allow_list"]

HEADER = re.compile(r"^\s*\[")


def write_allow_list(path: Path, names: Sequence[str]) -> None:
    """Set `enable` under [plugins] (under [tool.covet.plugins] in a pyproject.toml), in place.

    TOML has many ways to say the same. The ordinary ones are edited; what came out is read again and compared, and
    when anything but that one key would differ, the file is left as it is.

    Raises:
        Failure: the file cannot be read, edited or written; the message has the line to write by hand.
    """
    line = f"enable = [{', '.join(_quoted(name) for name in names)}]"
    table = ("tool", "covet", "plugins") if path.name == "pyproject.toml" else ("plugins",)
    by_hand = f"write it by hand, under [{'.'.join(table)}]:\n  {line}"
    try:
        # Bytes, so that line endings stay as they are.
        before = path.read_bytes().decode("utf-8") if path.exists() else ""
        expected = tomllib.loads(before)
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Failure(f"{path} is not TOML: {error}") from error
    after = _edited(before, ".".join(table), line)
    try:
        _set(expected, (*table, "enable"), list(names))
        if tomllib.loads(after) != expected:
            raise ValueError("more than the one key would change")
    except (ValueError, TypeError) as error:
        raise Failure(f"{path} is written in a way that cannot be edited here ({error}); {by_hand}") from error
    try:
        path.write_bytes(after.encode("utf-8"))
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}; {by_hand}") from error


def _edited(text: str, table: str, line: str) -> str:
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    header = re.compile(rf"^\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?$")
    start = next((index for index, found in enumerate(lines) if header.match(found.strip("\r\n"))), None)
    if start is None:
        gap = "" if not text else end if text.endswith("\n") else end + end
        return f"{text}{gap}[{table}]{end}{line}{end}"
    stop = next((i for i in range(start + 1, len(lines)) if HEADER.match(lines[i])), len(lines))
    for first in range(start + 1, stop):
        if re.match(r"^\s*enable\s*=", lines[first]):
            last = _last_of_value(lines, first, stop)
            comment = _comment(lines[last]) if first == last else ""
            return "".join([*lines[:first], f"{line}{comment}{end}", *lines[last + 1 :]])
    if not lines[start].endswith("\n"):
        lines[start] += end
    return "".join([*lines[: start + 1], line + end, *lines[start + 1 :]])


def _last_of_value(lines: Sequence[str], first: int, stop: int) -> int:
    """The line with which a value ends that begins on line `first`: the shortest piece that is TOML."""
    for last in range(first, stop):
        try:
            tomllib.loads("".join(lines[first : last + 1]))
        except tomllib.TOMLDecodeError:
            continue
        return last
    return first


def _comment(line: str) -> str:
    found = re.search(r"\]\s*(#.*?)\s*$", line)
    return f"  {found[1]}" if found else ""


def _quoted(name: str) -> str:
    import json

    return json.dumps(name, ensure_ascii=False)


def _set(tables: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        tables = tables.setdefault(key, {})
    tables[keys[-1]] = value
