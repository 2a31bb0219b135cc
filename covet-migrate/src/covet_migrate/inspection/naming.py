"""Names of models and fields for tables and columns that are there."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable

from covet_orm import Model

__all__ = ["class_name", "field_name", "free_name"]


def class_name(table: str, app: str) -> str:
    """What a model is called for a table: `BlogPost` for `blog_post`, and `Post` in an application `blog`.

    Args:
        table: the name of the table.
        app: the label of the application.
    """
    bare = table
    if app and table.lower().startswith(f"{app.lower()}_") and len(table) > len(app) + 1:
        bare = table[len(app) + 1 :]
    parts = [part for part in re.split(r"[\W_]+", unicodedata.normalize("NFKC", bare)) if part]
    name = "".join(part[0].upper() + part[1:] for part in parts)
    if not name or not name[0].isalpha() or not name.isidentifier():
        name = f"Table{name}"
    if not name.isidentifier():
        name = "Table" + "".join(letter for letter in name if f"a{letter}".isidentifier())
    return f"{name}Model" if keyword.iskeyword(name) or name == "Model" else name


def field_name(column: str) -> str:
    """What a field is called for a column: the column's name, if that can be the name of a field."""
    name = unicodedata.normalize("NFKC", column).lower()
    name = "".join(letter if f"a{letter}".isidentifier() else "_" for letter in unicodedata.normalize("NFKC", name))
    name = re.sub("_{2,}", "_", name).strip("_")
    if not name or not name.isidentifier():
        name = f"column_{name}".strip("_")
    if keyword.iskeyword(name) or name in ("pk", "self", "objects") or hasattr(Model, name):
        name = f"{name}_field"
    return name


def free_name(name: str, taken: Iterable[str]) -> str:
    """A name that is not taken: itself, or itself with a number."""
    there = set(taken)
    number = 2
    found = name
    while found in there:
        found = f"{name}{number}" if name[-1:].isalpha() else f"{name}_{number}"
        number += 1
    return found
