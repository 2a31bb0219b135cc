"""Which field makes a column of a type."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import covet_orm as orm
from covet_migrate.exceptions import MigrationError
from covet_migrate.extensions import load_extensions
from covet_orm import Field

__all__ = ["FieldType", "counting_type", "field_type", "register_type"]


class FieldType(NamedTuple):
    """A class of fields, and the arguments that the type needs.

    Attributes:
        declares: the class.
        args: positional arguments.
        options: others.
        exact: whether the field makes a column of just that type; False where it is only the nearest.
    """

    declares: type[Field[Any]]
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = {}
    exact: bool = True

    def made(self, **options: Any) -> Field[Any]:
        """A field."""
        declares: Any = self.declares
        found: Field[Any] = declares(*self.args, **self.options, **options)
        return found


Made = Callable[[re.Match[str]], FieldType]


def _plain(declares: Any, exact: bool = True, **options: Any) -> Made:
    return lambda found: FieldType(declares, (), options, exact)


def _text(found: re.Match[str]) -> FieldType:
    return FieldType(orm.CharField, (), {"max_length": int(found[1])})


def _fixed_text(found: re.Match[str]) -> FieldType:
    return FieldType(orm.CharField, (), {"max_length": int(found[1] or 1)}, False)


def _decimal(found: re.Match[str]) -> FieldType:
    return FieldType(orm.DecimalField, (), {"max_digits": int(found[1]), "decimal_places": int(found[2] or 0)})


def _bytes(found: re.Match[str]) -> FieldType:
    return FieldType(orm.BinaryField, (), {"max_length": int(found[1])})


POSTGRESQL: dict[str, Made] = {
    r"character varying\((\d+)\)": _text,
    r"text": _plain(orm.TextField),
    r"smallint": _plain(orm.SmallIntegerField),
    r"integer": _plain(orm.IntegerField),
    r"bigint": _plain(orm.BigIntegerField),
    r"boolean": _plain(orm.BooleanField),
    r"double precision": _plain(orm.FloatField),
    r"numeric\((\d+),(\d+)\)": _decimal,
    r"date": _plain(orm.DateField),
    r"timestamp with time zone": _plain(orm.DateTimeField),
    r"timestamp without time zone": _plain(orm.DateTimeField, timezone=False),
    r"time without time zone": _plain(orm.TimeField),
    r"interval": _plain(orm.DurationField),
    r"uuid": _plain(orm.UUIDField),
    r"jsonb": _plain(orm.JSONField),
    r"bytea": _plain(orm.BinaryField),
    r"inet": _plain(orm.IPAddressField),
    r"(?:\w+\.)?hstore": _plain(orm.HStoreField),
    r"int4range": _plain(orm.IntegerRangeField),
    r"int8range": _plain(orm.BigIntegerRangeField),
    r"numrange": _plain(orm.DecimalRangeField),
    r"daterange": _plain(orm.DateRangeField),
    r"tstzrange": _plain(orm.DateTimeRangeField),
    r"real": _plain(orm.FloatField, False),
    r"json": _plain(orm.JSONField, False),
    r"character varying|xml|citext|money|\"char\"|name": _plain(orm.TextField, False),
    r"(?:character|bpchar)(?:\((\d+)\))?": _fixed_text,
    r"timestamp\(\d\) with time zone": _plain(orm.DateTimeField, False),
    r"timestamp\(\d\) without time zone": _plain(orm.DateTimeField, False, timezone=False),
    r"time(?:\(\d\))? (?:with|without) time zone": _plain(orm.TimeField, False),
    r"cidr": _plain(orm.IPAddressField, False),
}
MYSQL: dict[str, Made] = {
    r"varchar\((\d+)\)": _text,
    r"longtext": _plain(orm.TextField),
    r"smallint(?:\(6\))?": _plain(orm.SmallIntegerField),
    r"int(?:\(11\))?": _plain(orm.IntegerField),
    r"bigint(?:\(20\))?": _plain(orm.BigIntegerField),
    r"tinyint\(1\)": _plain(orm.BooleanField),
    r"double": _plain(orm.FloatField),
    r"decimal\((\d+),(\d+)\)": _decimal,
    r"date": _plain(orm.DateField),
    r"datetime\(6\)": _plain(orm.DateTimeField),
    r"time\(6\)": _plain(orm.TimeField),
    r"binary\(16\)": _plain(orm.UUIDField),
    r"longblob": _plain(orm.BinaryField),
    r"varbinary\((\d+)\)": _bytes,
    r"json": _plain(orm.JSONField),
    r"inet6|inet4": _plain(orm.IPAddressField, False),
    r"uuid": _plain(orm.UUIDField, False),
    r"(?:tiny|medium)?text|enum\(.*\)|set\(.*\)": _plain(orm.TextField, False),
    r"char\((\d+)\)": _fixed_text,
    r"tinyint.*|year.*": _plain(orm.SmallIntegerField, False),
    r"bigint.*|int.*unsigned.*": _plain(orm.BigIntegerField, False),
    r"smallint.*|mediumint.*|int.*": _plain(orm.IntegerField, False),
    r"float.*|double.*": _plain(orm.FloatField, False),
    r"datetime.*|timestamp.*": _plain(orm.DateTimeField, False),
    r"time.*": _plain(orm.TimeField, False),
    r"(?:tiny|medium)?blob|binary.*|bit.*|geometry|point": _plain(orm.BinaryField, False),
}
SQLITE: dict[str, Made] = {
    r"VARCHAR\((\d+)\)": _text,
    r"TEXT": _plain(orm.TextField),
    r"SMALLINT": _plain(orm.SmallIntegerField),
    r"INTEGER": _plain(orm.IntegerField),
    r"BIGINT": _plain(orm.BigIntegerField),
    r"BOOLEAN": _plain(orm.BooleanField),
    r"DOUBLE": _plain(orm.FloatField),
    r"NUMERIC\((\d+), ?(\d+)\)": _decimal,
    r"BLOB": _plain(orm.BinaryField),
    r"DECIMAL(?:\((\d+)(?:, ?(\d+))?\))?|NUMERIC": lambda found: FieldType(
        orm.DecimalField, (), {"max_digits": min(int(found[1] or 15), 15), "decimal_places": int(found[2] or 0)}, False
    ),
    r"BOOL": _plain(orm.BooleanField, False),
    r"DATETIME|TIMESTAMP": _plain(orm.DateTimeField, False),
    r"DATE": _plain(orm.DateField, False),
    r"TIME": _plain(orm.TimeField, False),
    r"REAL|FLOAT|DOUBLE.*": _plain(orm.FloatField, False),
    # The rules by which SQLite itself takes types (https://sqlite.org/datatype3.html, section 3.1).
    r".*INT.*": _plain(orm.BigIntegerField, False),
    r".*(?:CHAR|CLOB|TEXT).*": _plain(orm.TextField, False),
}
KINDS = {"postgresql": POSTGRESQL, "mysql": MYSQL, "mariadb": MYSQL, "sqlite": SQLITE}
COUNTING = {
    "smallint": orm.SmallAutoField,
    "integer": orm.AutoField,
    "bigint": orm.BigAutoField,
    "smallint(6)": orm.SmallAutoField,
    "int": orm.AutoField,
    "int(11)": orm.AutoField,
    "bigint(20)": orm.BigAutoField,
    # SQLite counts in 64 bits whatever the field is.
    "INTEGER": orm.BigAutoField,
}


_registered: dict[str, dict[str, Made]] = {}


def register_type(kind: str, pattern: str, made: Made) -> None:
    """Say which field makes a column of a type, for `inspectdb`; before those that Covet knows.

        register_type("postgresql", "citext", lambda found: FieldType(AnyCaseField))

    Args:
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        pattern: a regular expression of the whole type, in the words of the database.
        made: gives the field, of what the expression found.

    Raises:
        MigrationError: there is no such database, or the pattern is no regular expression.
    """
    if kind not in KINDS:
        raise MigrationError(f"no database is called {kind!r}; there are {', '.join(KINDS)}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise MigrationError(f"register_type({kind!r}, {pattern!r}): it is no regular expression: {error}") from error
    _registered.setdefault(kind, {})[pattern] = made


def field_type(kind: str, type: str) -> FieldType:
    """The field for a type, in the words of a database; the nearest where none makes just that type.

    Args:
        kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        type: the type.

    Raises:
        MigrationError: an extension cannot be imported.
    """
    load_extensions()
    for pattern, made in _registered.get(kind, {}).items():
        found = re.fullmatch(pattern, type)
        if found is not None:
            return made(found)
    if kind == "postgresql" and type.endswith("[]"):
        inner = field_type(kind, type.removesuffix("[]"))
        return FieldType(orm.ArrayField, (inner.made(),), {}, inner.exact)
    for pattern, made in KINDS[kind].items():
        found = re.fullmatch(pattern, type)
        if found is not None:
            return made(found)
    return FieldType(orm.TextField, (), {}, False)


def counting_type(type: str) -> FieldType | None:
    """The field for a key of a type that the database counts; None where there is none."""
    declares = COUNTING.get(type)
    return None if declares is None else FieldType(declares)
