"""The source of models, as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from covet_migrate.files.layout import Bracket, Source, Text, lines_of
from covet_migrate.files.literals import text_literal
from covet_migrate.files.values import Values
from covet_migrate.inspection.models import Inspected
from covet_migrate.state.models import OPTIONS, ModelState
from covet_orm import BigAutoField, Field
from covet_orm.fields.related import RelatedField

__all__ = ["models_source"]

ON_DELETE = {
    "SET NULL": "SET_NULL",
    "SET DEFAULT": "SET_DEFAULT",
    "RESTRICT": "RESTRICT",
    "NO ACTION": "DO_NOTHING",
}
"""What people write for what becomes of a row."""


def models_source(inspected: Inspected, *, base: str = "orm.Model") -> str:
    """The text of a module with the models of a schema: the same every time, and as `ruff format` leaves it.

    Args:
        inspected: the models, from `inspected_models`.
        base: what they derive from.

    Raises:
        NotSerializable: something in them cannot be written.
    """
    values = Values()
    values.imports.module("covet_orm", "orm")
    classes = [_class(values, inspected, model, base) for model in inspected.state]
    imports = "\n".join(values.imports.lines()).rstrip("\n")
    return f'"""Models of the tables that are there."""\n\nfrom __future__ import annotations\n\n{imports}\n' + "".join(
        f"\n\n{text}" for text in classes
    )


def _class(values: Values, inspected: Inspected, model: ModelState, base: str) -> str:
    notes: dict[str | None, list[str]] = {}
    for note in inspected.notes:
        if note.model == model.label:
            notes.setdefault(note.field, []).append(note.text)
    lines = [f"class {model.name}({base}):\n"]
    for text in notes.get(None, ()):
        lines.append(f"    # {_one_line(text)}\n")
    body = 0
    for name, field in model.fields.items():
        if _comes_by_itself(name, field):
            continue
        body += 1
        for text in notes.get(name, ()):
            lines.append(f"    # {_one_line(text)}\n")
        lines.append(f"    {name} = {lines_of(_field(values, model, name, field), '    ', f'{name} = ', '')}\n")
    options = {name: model.options[name] for name in OPTIONS if name in model.options}
    if options:
        lines.append("\n    class Meta:\n" if body else "    class Meta:\n")
        for name, value in options.items():
            source = _option(values, value, f"{model.label}.Meta.{name}")
            lines.append(f"        {name} = {lines_of(source, '        ', f'{name} = ', '')}\n")
    elif not body:
        lines.append("    pass\n")
    return "".join(lines)


def _comes_by_itself(name: str, field: Field[Any]) -> bool:
    return name == "id" and type(field) is BigAutoField and not field.comment and field.db_column is None


def _field(values: Values, model: ModelState, name: str, field: Field[Any]) -> Source:
    """A field; what is in the same application is named without it."""
    if isinstance(field, RelatedField) and isinstance(field.to, str):
        args, options = field.declared
        to = field.to.removeprefix(f"{model.app}.") if model.app else field.to
        items: list[tuple[str, Source]] = [("", values.source(one, f"{model.label}.{name}")) for one in (to, *args[1:])]
        written = {key: values.source(one, f"{model.label}.{name}, {key}") for key, one in options.items()}
        if options.get("on_delete") in ON_DELETE:
            written["on_delete"] = Text(f"orm.{ON_DELETE[options['on_delete']]}")
        return Bracket(f"{values.imports.path(type(field), name)}(", [*items, *values.keywords(written)], ")")
    return values.source(field, f"{model.label}.{name}")


def _option(values: Values, value: Any, where: str) -> Source:
    if isinstance(value, (list, tuple)):
        items = [("", values.source(one, f"{where}[{position}]")) for position, one in enumerate(value)]
        return Bracket("[", items, "]", one_a_line=len(items) > 1)
    if isinstance(value, Mapping):
        return Bracket("{", [(f"{text_literal(key)}: ", values.source(one, where)) for key, one in value.items()], "}")
    return values.source(value, where)


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
