"""The fields of models."""

from __future__ import annotations

from covet_orm.fields.arrays import ArrayField
from covet_orm.fields.base import DB_DEFAULT, UNSET, DatabaseDefault, Field
from covet_orm.fields.binary import BinaryField
from covet_orm.fields.dates import DateField, DateTimeField, DurationField, TimeField
from covet_orm.fields.enums import EnumField
from covet_orm.fields.files import FileField, StoredFile
from covet_orm.fields.generated import GeneratedField
from covet_orm.fields.hstores import HStoreField
from covet_orm.fields.json import JSONField
from covet_orm.fields.networks import IPAddressField
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
from covet_orm.fields.range_values import Range
from covet_orm.fields.ranges import (
    BigIntegerRangeField,
    DateRangeField,
    DateTimeRangeField,
    DecimalRangeField,
    IntegerRangeField,
    RangeField,
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
from covet_orm.fields.text import CharField, EmailField, SlugField, TextField, URLField
from covet_orm.fields.uuids import UUIDField
from covet_orm.fields.versions import VersionField

__all__ = [
    "CASCADE",
    "DB_DEFAULT",
    "DO_NOTHING",
    "PROTECT",
    "RESTRICT",
    "SET_DEFAULT",
    "SET_NULL",
    "UNSET",
    "ArrayField",
    "AutoField",
    "BigAutoField",
    "BigIntegerField",
    "BigIntegerRangeField",
    "BinaryField",
    "BooleanField",
    "CharField",
    "DatabaseDefault",
    "DateField",
    "DateRangeField",
    "DateTimeField",
    "DateTimeRangeField",
    "DecimalField",
    "DecimalRangeField",
    "DurationField",
    "EmailField",
    "EnumField",
    "Field",
    "FileField",
    "FloatField",
    "ForeignKey",
    "GeneratedField",
    "HStoreField",
    "IPAddressField",
    "IntegerField",
    "IntegerRangeField",
    "JSONField",
    "ManyToManyField",
    "OneToOneField",
    "PositiveBigIntegerField",
    "PositiveIntegerField",
    "PositiveSmallIntegerField",
    "Range",
    "RangeField",
    "SlugField",
    "SmallAutoField",
    "SmallIntegerField",
    "StoredFile",
    "TextField",
    "TimeField",
    "URLField",
    "UUIDField",
    "VersionField",
]
