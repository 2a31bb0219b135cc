"""Values as source of Python: what stands in a migration file.

Another kind of value is written after somebody said how:

    from covet_migrate.files import values
    from covet_migrate.state import Declaration

    values.register(Money, lambda money: Declaration(Money, (money.amount, money.currency), {}))

Whatever has an attribute `declared` (see `covet_orm.fields.base.Declared`) needs no such thing, nor does a dataclass.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import inspect
import ipaddress
import keyword
import pathlib
import re
import types
import uuid
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum, Flag
from typing import Any

from covet_migrate.exceptions import NotSerializable
from covet_migrate.extensions import load_extensions
from covet_migrate.files.expressions import expression_source
from covet_migrate.files.imports import Imports
from covet_migrate.files.layout import Bracket, Chain, Source, Text
from covet_migrate.files.literals import bytes_literal, number_literal, text_literal
from covet_migrate.operations.base import Operation
from covet_migrate.state.declarations import Declaration, declaration_of, same
from covet_orm import DB_DEFAULT, UNSET, Expression, Field, Ordering
from covet_orm.deferred import is_clause, sqlalchemy
from covet_orm.indexes import Definition

__all__ = ["Values", "register"]

DEEPEST = 60
"""How deep values may be nested; one that is in itself is nested without end."""

_registered: dict[type[Any], Callable[[Any], Declaration]] = {}


def register(kind: type[Any], declare: Callable[[Any], Declaration]) -> None:
    """Say how values of a type are written into migration files; those of types that derive from it as well.

    To be called where the type is defined, so that it is known wherever there are such values.

    Args:
        kind: the type.
        declare: gives what is to be called, and with which arguments, to make a value that is equal to the one that it
            gets. What is called is a class or a function at the top of a module.
    """
    _registered[kind] = declare


class Values:
    """Writes values for one file, whose imports it gathers.

    Attributes:
        imports: the imports that what it wrote needs.

    Raises:
        MigrationError: an extension cannot be imported.
    """

    def __init__(self) -> None:
        load_extensions()
        self.imports = Imports()
        self._depth = 0

    def source(self, value: Any, where: str) -> Source:
        """The source of a value.

        Args:
            value: the value.
            where: what it is for, in a message.

        Raises:
            NotSerializable: it cannot be written; the message says what to do.
        """
        self._depth += 1
        try:
            if self._depth > DEEPEST:
                raise NotSerializable(f"{where}: a value is nested too deep to be written, or is in itself")
            return self._source(value, where)
        finally:
            self._depth -= 1

    def call(
        self, declares: Any, args: Sequence[Any], options: Mapping[str, Any], where: str, *, one_a_line: bool = False
    ) -> Bracket:
        """The source of a call of a class or function."""
        items = [("", self.source(value, f"{where}, argument {index}")) for index, value in enumerate(args, 1)]
        items += self.keywords({name: self.source(value, f"{where}, {name}") for name, value in options.items()})
        return Bracket(f"{self.imports.path(declares, where)}(", items, ")", one_a_line=one_a_line)

    def keywords(self, options: Mapping[str, Source]) -> list[tuple[str, Source]]:
        """Arguments by keyword; those whose names are none that a call can have, in a dictionary."""
        plain = [(f"{name}=", source) for name, source in options.items() if _is_keyword(name)]
        others = [(f"{text_literal(name)}: ", source) for name, source in options.items() if not _is_keyword(name)]
        return [*plain, ("**", Bracket("{", others, "}"))] if others else plain

    def _source(self, value: Any, where: str) -> Source:
        if _registered:
            declare = next((_registered[kind] for kind in type(value).__mro__ if kind in _registered), None)
            if declare is not None:
                return self.call(*declare(value), where)
        written = _WRITTEN.get(type(value))
        if written is not None:
            return written(self, value, where)
        if isinstance(value, Enum):
            return self._member(value, where)
        if isinstance(value, (Expression, Ordering)):
            return expression_source(self, value, where)
        if isinstance(value, (Field, Definition)):
            return self.call(*declaration_of(value), where)
        if isinstance(value, Operation):
            return self._operation(value)
        if is_clause(value) and isinstance(value, sqlalchemy.TextClause):
            return Bracket(f"{self.imports.module('sqlalchemy')}.text(", [("", Text(text_literal(value.text)))], ")")
        if isinstance(value, pathlib.PurePath):
            return self._called(
                "pathlib", type(value).__name__ if type(value).__module__ == "pathlib" else "Path", value
            )
        return self._other(value, where)

    def _other(self, value: Any, where: str) -> Source:
        names = getattr(value, "_fields", None)
        if isinstance(value, tuple) and names is not None:
            return self.call(type(value), (), dict(zip(names, value, strict=True)), where)
        declared = getattr(value, "declared", None)
        if isinstance(declared, tuple) and len(declared) == 2 and not isinstance(value, type):
            return self.call(type(value), *declared, where)
        if isinstance(value, type) or inspect.isroutine(value):
            return Text(self.imports.path(value, where))
        if dataclasses.is_dataclass(value):
            return self.call(type(value), (), _of_dataclass(value), where)
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise NotSerializable(
            f"{where}: {value!r:.200} of the type {kind} cannot be written into a migration; use a value of Python's "
            "own types, give the class an attribute `declared` with the arguments that it was made with, or say how it "
            "is written by covet_migrate.files.values.register()"
        )

    def _member(self, value: Enum, where: str) -> Source:
        path = self.imports.path(type(value), where)
        if value.name is not None and "|" not in value.name:
            return Text(f"{path}.{value.name}")
        members: list[Source] = [Text(f"{path}.{one.name}") for one in value] if isinstance(value, Flag) else []
        if not members:
            return Text(f"{path}({value.value!r})")
        return members[0] if len(members) == 1 else Chain(members, "|")

    def _operation(self, operation: Operation) -> Source:
        """An operation; dictionaries stand behind their names, and fields each in a line."""
        kind: Any = type(operation)
        args, options = operation.declared
        parameters = _parameters(kind)
        told = ", ".join(repr(one) for one in args if isinstance(one, str))
        where = f"{kind.__name__}({told})"
        defaults = {one.name: one.default for one in parameters}
        items: list[tuple[str, Source]] = []
        named: dict[str, Source] = {}
        for position, value in enumerate(args):
            parameter = parameters[position] if position < len(parameters) else None
            by_name = parameter is not None and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            if parameter is not None and by_name and (named or isinstance(value, Mapping)):
                named[parameter.name] = self._argument(value, f"{where}, {parameter.name}")
            else:
                items.append(("", self._argument(value, f"{where}, argument {position + 1}")))
        for name, value in options.items():
            if value is not defaults.get(name, inspect.Parameter.empty):
                named[name] = self._argument(value, f"{where}, {name}")
        return Bracket(f"{self.imports.path(kind, where)}(", [*items, *self.keywords(named)], ")")

    def _argument(self, value: Any, where: str) -> Source:
        if isinstance(value, Mapping) and value and all(isinstance(one, Field) for one in value.values()):
            items = [(f"{text_literal(name)}: ", self.source(one, f"{where}[{name!r}]")) for name, one in value.items()]
            return Bracket("{", items, "}", one_a_line=True)
        if isinstance(value, (list, tuple)) and value and all(isinstance(one, Operation) for one in value):
            return Bracket("[", [("", self.source(one, where)) for one in value], "]", one_a_line=True)
        return self.source(value, where)

    def _items(self, values: Any, where: str) -> list[tuple[str, Source]]:
        return [("", self.source(value, f"{where}[{index}]")) for index, value in enumerate(values)]

    def _list(self, value: list[Any], where: str) -> Source:
        return Bracket("[", self._items(value, where), "]")

    def _tuple(self, value: tuple[Any, ...], where: str) -> Source:
        return Bracket("(", self._items(value, where), ")")

    def _set(self, value: set[Any], where: str) -> Source:
        # A set has no order, and a file that is written twice is to be the same.
        items = sorted(self._items(value, where), key=lambda item: item[1].flat)
        return Bracket("{", items, "}") if items else Text("set()")

    def _frozenset(self, value: frozenset[Any], where: str) -> Source:
        return Bracket("frozenset(", [("", self._set(set(value), where))] if value else [], ")")

    def _dict(self, value: dict[Any, Any], where: str) -> Source:
        items = [
            (f"{self.source(key, f'{where}, a key').flat}: ", self.source(one, f"{where}[{key!r}]"))
            for key, one in value.items()
        ]
        return Bracket("{", items, "}")

    def _called(self, module: str, name: str, text: object) -> Source:
        """A class that makes its value of a text."""
        imported = self.imports
        path = (
            imported.name(module, name)
            if name in ("Decimal", "Path", "UUID", "ZoneInfo")
            else f"{imported.module(module)}.{name}"
        )
        return Bracket(f"{path}(", [("", Text(text_literal(str(text))))], ")")

    def _partial(self, value: functools.partial[Any], where: str) -> Source:
        return self.call(functools.partial, (value.func, *value.args), value.keywords, where)

    def _pattern(self, value: re.Pattern[Any], where: str) -> Source:
        flags = value.flags & ~re.compile(value.pattern).flags
        args: tuple[Any, ...] = (value.pattern, re.RegexFlag(flags)) if flags else (value.pattern,)
        return self.call(re.compile, args, {}, where)

    def _datetime(self, value: dt.datetime, where: str) -> Source:
        return self._moment("datetime", [value.year, value.month, value.day], _clock(value), value, where)

    def _time(self, value: dt.time, where: str) -> Source:
        return self._moment("time", [], _clock(value), value, where)

    def _moment(self, name: str, args: list[int], clock: list[int], value: Any, where: str) -> Source:
        items: list[tuple[str, Source]] = [("", Text(str(part))) for part in (*args, *clock)]
        if value.tzinfo is not None:
            items.append(("tzinfo=", self.source(value.tzinfo, f"{where}, its time zone")))
        if value.fold:
            items.append(("fold=", Text("1")))
        return Bracket(f"{self.imports.module('datetime', 'dt')}.{name}(", items, ")")

    def _date(self, value: dt.date, where: str) -> Source:
        return Text(f"{self.imports.module('datetime', 'dt')}.date({value.year}, {value.month}, {value.day})")

    def _timedelta(self, value: dt.timedelta, where: str) -> Source:
        minutes, seconds = divmod(value.seconds, 60)
        hours, minutes = divmod(minutes, 60)
        parts = {"days": value.days, "hours": hours, "minutes": minutes, "seconds": seconds}
        told = [f"{name}={part}" for name, part in {**parts, "microseconds": value.microseconds}.items() if part]
        return Text(f"{self.imports.module('datetime', 'dt')}.timedelta({', '.join(told)})")

    def _timezone(self, value: dt.timezone, where: str) -> Source:
        if value is dt.UTC:
            return Text(f"{self.imports.module('datetime', 'dt')}.UTC")
        name = value.tzname(None)
        args = (
            (value.utcoffset(None),)
            if dt.timezone(value.utcoffset(None)).tzname(None) == name
            else (value.utcoffset(None), name)
        )
        return self.call(dt.timezone, args, {}, where)

    def _zone(self, value: zoneinfo.ZoneInfo, where: str) -> Source:
        if value.key is None:
            raise NotSerializable(f"{where}: a time zone without a key cannot be written; use zoneinfo.ZoneInfo('...')")
        return self._called("zoneinfo", "ZoneInfo", value.key)


@functools.cache
def _parameters(kind: Any) -> tuple[inspect.Parameter, ...]:
    """The parameters that instances of a class are made with."""
    return tuple(inspect.signature(kind.__init__).parameters.values())[1:]


def _clock(value: dt.datetime | dt.time) -> list[int]:
    """Hour, minute, second and microsecond, as far as they are not 0."""
    parts = [value.hour, value.minute, value.second, value.microsecond]
    while parts and not parts[-1]:
        parts.pop()
    return parts


def _of_dataclass(value: Any) -> dict[str, Any]:
    """The arguments that make a dataclass, without those that are as they would be."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        if field.init:
            given = getattr(value, field.name)
            if field.default is dataclasses.MISSING or not same(given, field.default):
                found[field.name] = given
    return found


def _is_keyword(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


def _number(values: Values, value: Any, where: str) -> Source:
    return Text(number_literal(value))


def _named(values: Values, value: Any, where: str) -> Source:
    return Text(f"{values.imports.module('covet_orm', 'orm')}.{value!r}")


_WRITTEN: dict[type[Any], Callable[[Values, Any, str], Source]] = {
    str: lambda values, value, where: Text(text_literal(value)),
    bytes: lambda values, value, where: Text(bytes_literal(value)),
    bytearray: lambda values, value, where: Text(f"bytearray({bytes_literal(bytes(value))})"),
    bool: lambda values, value, where: Text(repr(value)),
    type(None): lambda values, value, where: Text("None"),
    type(...): lambda values, value, where: Text("..."),
    range: lambda values, value, where: Text(repr(value)),
    int: _number,
    float: _number,
    complex: _number,
    list: Values._list,
    tuple: Values._tuple,
    set: Values._set,
    frozenset: Values._frozenset,
    dict: Values._dict,
    Decimal: lambda values, value, where: values._called("decimal", "Decimal", value),
    uuid.UUID: lambda values, value, where: values._called("uuid", "UUID", value),
    zoneinfo.ZoneInfo: Values._zone,
    dt.datetime: Values._datetime,
    dt.date: Values._date,
    dt.time: Values._time,
    dt.timedelta: Values._timedelta,
    dt.timezone: Values._timezone,
    functools.partial: Values._partial,
    re.Pattern: Values._pattern,
    type(UNSET): _named,
    type(DB_DEFAULT): _named,
    type(type(None)): lambda values, value, where: (
        Text("type(None)") if value is type(None) else Text(values.imports.path(value, where))
    ),
    **{
        kind: lambda values, value, where: values._called("ipaddress", type(value).__name__, value)
        for kind in (
            ipaddress.IPv4Address,
            ipaddress.IPv6Address,
            ipaddress.IPv4Network,
            ipaddress.IPv6Network,
            ipaddress.IPv4Interface,
            ipaddress.IPv6Interface,
        )
    },
    types.FunctionType: lambda values, value, where: Text(values.imports.path(value, where)),
}
