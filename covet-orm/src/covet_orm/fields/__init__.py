"""The fields of models."""

from __future__ import annotations

from covet_orm.fields.base import DB_DEFAULT, UNSET, DatabaseDefault, Field
from covet_orm.fields.dates import DateTimeField
from covet_orm.fields.numbers import (
    AutoField,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    DecimalField,
    FloatField,
    IntegerField,
    PositiveBigIntegerField,
    PositiveIntegerField,
    PositiveSmallIntegerField,
    SmallAutoField,
    SmallIntegerField,
)
from covet_orm.fields.related import (
    CASCADE,
    DO_NOTHING,
    PROTECT,
    RESTRICT,
    SET_DEFAULT,
    SET_NULL,
    ForeignKey,
    ManyToManyField,
    OneToOneField,
)
from covet_orm.fields.text import CharField, TextField

__all__ = [
    "CASCADE",
    "DB_DEFAULT",
    "DO_NOTHING",
    "PROTECT",
    "RESTRICT",
    "SET_DEFAULT",
    "SET_NULL",
    "UNSET",
    "AutoField",
    "BigAutoField",
    "BigIntegerField",
    "BooleanField",
    "CharField",
    "DatabaseDefault",
    "DateTimeField",
    "DecimalField",
    "Field",
    "FloatField",
    "ForeignKey",
    "IntegerField",
    "ManyToManyField",
    "OneToOneField",
    "PositiveBigIntegerField",
    "PositiveIntegerField",
    "PositiveSmallIntegerField",
    "SmallAutoField",
    "SmallIntegerField",
    "TextField",
]
