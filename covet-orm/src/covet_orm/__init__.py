"""covet-orm: an asynchronous ORM with the vocabulary of Django and the speed of the drivers.

Every public name of everyday use is here. Each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "covet_orm.constraints": (
        "CheckConstraint",
        "ExclusionConstraint",
        "UniqueConstraint",
    ),
    "covet_orm.ambient": ("NoDatabase",),
    "covet_orm.databases": ("Database",),
    "covet_orm.exceptions": (
        "CheckViolation",
        "CommitHookFailed",
        "CommitIncomplete",
        "CommitUncertain",
        "ConnectionLost",
        "DataError",
        "DatabaseError",
        "DatabaseUnavailable",
        "DeadlockDetected",
        "ExclusionViolation",
        "FieldError",
        "FieldNotLoaded",
        "ForeignKeyViolation",
        "HeuristicOutcome",
        "IntegrityError",
        "InvalidIdentifier",
        "LockTimeout",
        "ModelError",
        "MultipleObjectsReturned",
        "NotNullViolation",
        "NotSupported",
        "ObjectDoesNotExist",
        "OrmError",
        "PoolClosed",
        "PoolTimeout",
        "ProgrammingError",
        "QueryError",
        "ReadOnlyDatabase",
        "RelationNotLoaded",
        "SerializationFailure",
        "StaleObject",
        "StatementTimeout",
        "TransactionError",
        "TransactionTimeout",
        "UniqueViolation",
        "ValidationError",
    ),
    "covet_orm.expressions": (
        "Aggregate",
        "AnyValue",
        "ArrayAgg",
        "Avg",
        "BoolAnd",
        "BoolOr",
        "Case",
        "Cast",
        "ColumnReference",
        "Condition",
        "Count",
        "CumeDist",
        "DenseRank",
        "Exists",
        "Expression",
        "ExpressionWrapper",
        "F",
        "FirstValue",
        "Func",
        "GroupRange",
        "JSONArrayAgg",
        "Lag",
        "LastValue",
        "Lead",
        "Max",
        "Min",
        "NthValue",
        "Ntile",
        "Ordering",
        "OuterRef",
        "PercentRank",
        "Q",
        "Rank",
        "RawSQL",
        "RowNumber",
        "RowRange",
        "StdDev",
        "StringAgg",
        "Subquery",
        "Sum",
        "Value",
        "ValueRange",
        "Variance",
        "When",
        "Window",
    ),
    "covet_orm.fields": (
        "ArrayField",
        "AutoField",
        "BigAutoField",
        "BigIntegerField",
        "BigIntegerRangeField",
        "BinaryField",
        "BooleanField",
        "CASCADE",
        "CharField",
        "DB_DEFAULT",
        "DO_NOTHING",
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
        "PROTECT",
        "PositiveBigIntegerField",
        "PositiveIntegerField",
        "PositiveSmallIntegerField",
        "RESTRICT",
        "Range",
        "RangeField",
        "SET_DEFAULT",
        "SET_NULL",
        "SlugField",
        "SmallAutoField",
        "SmallIntegerField",
        "StoredFile",
        "TextField",
        "TimeField",
        "UNSET",
        "URLField",
        "UUIDField",
        "VersionField",
    ),
    "covet_orm.indexes": ("Index",),
    "covet_orm.models": (
        "Manager",
        "Model",
        "Registry",
    ),
    "covet_orm.queries.querysets": ("QuerySet",),
    "covet_orm.querybuilder": ("QueryBuilder",),
    "covet_orm.transactions.blocks": ("Transaction",),
    "covet_orm.transactions.manager": ("transaction_manager",),
    "covet_orm.transactions.retrying": ("exponential",),
    "covet_orm.queries.ctes": ("CTE",),
    "covet_orm.queries.filtered": ("FilteredRelation",),
    "covet_orm.queries.pagination": ("Page",),
    "covet_orm.queries.lookup_names": (
        "register_lookup",
        "register_transform",
    ),
    "covet_orm.queries.lookups": (
        "Lookup",
        "Transform",
    ),
    "covet_orm.relations.prefetching": ("Prefetch",),
    "covet_orm.replicas": ("read_session",),
    "covet_orm.routers": (
        "Router",
        "routing",
    ),
    "covet_orm.signals": (
        "m2m_changed",
        "post_delete",
        "post_save",
        "pre_delete",
        "pre_save",
        "receiver",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]

if TYPE_CHECKING:
    from covet_orm.ambient import NoDatabase as NoDatabase
    from covet_orm.constraints import CheckConstraint as CheckConstraint
    from covet_orm.constraints import ExclusionConstraint as ExclusionConstraint
    from covet_orm.constraints import UniqueConstraint as UniqueConstraint
    from covet_orm.databases import Database as Database
    from covet_orm.exceptions import CheckViolation as CheckViolation
    from covet_orm.exceptions import CommitHookFailed as CommitHookFailed
    from covet_orm.exceptions import CommitIncomplete as CommitIncomplete
    from covet_orm.exceptions import CommitUncertain as CommitUncertain
    from covet_orm.exceptions import ConnectionLost as ConnectionLost
    from covet_orm.exceptions import DatabaseError as DatabaseError
    from covet_orm.exceptions import DatabaseUnavailable as DatabaseUnavailable
    from covet_orm.exceptions import DataError as DataError
    from covet_orm.exceptions import DeadlockDetected as DeadlockDetected
    from covet_orm.exceptions import ExclusionViolation as ExclusionViolation
    from covet_orm.exceptions import FieldError as FieldError
    from covet_orm.exceptions import FieldNotLoaded as FieldNotLoaded
    from covet_orm.exceptions import ForeignKeyViolation as ForeignKeyViolation
    from covet_orm.exceptions import HeuristicOutcome as HeuristicOutcome
    from covet_orm.exceptions import IntegrityError as IntegrityError
    from covet_orm.exceptions import InvalidIdentifier as InvalidIdentifier
    from covet_orm.exceptions import LockTimeout as LockTimeout
    from covet_orm.exceptions import ModelError as ModelError
    from covet_orm.exceptions import MultipleObjectsReturned as MultipleObjectsReturned
    from covet_orm.exceptions import NotNullViolation as NotNullViolation
    from covet_orm.exceptions import NotSupported as NotSupported
    from covet_orm.exceptions import ObjectDoesNotExist as ObjectDoesNotExist
    from covet_orm.exceptions import OrmError as OrmError
    from covet_orm.exceptions import PoolClosed as PoolClosed
    from covet_orm.exceptions import PoolTimeout as PoolTimeout
    from covet_orm.exceptions import ProgrammingError as ProgrammingError
    from covet_orm.exceptions import QueryError as QueryError
    from covet_orm.exceptions import ReadOnlyDatabase as ReadOnlyDatabase
    from covet_orm.exceptions import RelationNotLoaded as RelationNotLoaded
    from covet_orm.exceptions import SerializationFailure as SerializationFailure
    from covet_orm.exceptions import StaleObject as StaleObject
    from covet_orm.exceptions import StatementTimeout as StatementTimeout
    from covet_orm.exceptions import TransactionError as TransactionError
    from covet_orm.exceptions import TransactionTimeout as TransactionTimeout
    from covet_orm.exceptions import UniqueViolation as UniqueViolation
    from covet_orm.exceptions import ValidationError as ValidationError
    from covet_orm.expressions import Aggregate as Aggregate
    from covet_orm.expressions import AnyValue as AnyValue
    from covet_orm.expressions import ArrayAgg as ArrayAgg
    from covet_orm.expressions import Avg as Avg
    from covet_orm.expressions import BoolAnd as BoolAnd
    from covet_orm.expressions import BoolOr as BoolOr
    from covet_orm.expressions import Case as Case
    from covet_orm.expressions import Cast as Cast
    from covet_orm.expressions import ColumnReference as ColumnReference
    from covet_orm.expressions import Condition as Condition
    from covet_orm.expressions import Count as Count
    from covet_orm.expressions import CumeDist as CumeDist
    from covet_orm.expressions import DenseRank as DenseRank
    from covet_orm.expressions import Exists as Exists
    from covet_orm.expressions import Expression as Expression
    from covet_orm.expressions import ExpressionWrapper as ExpressionWrapper
    from covet_orm.expressions import F as F
    from covet_orm.expressions import FirstValue as FirstValue
    from covet_orm.expressions import Func as Func
    from covet_orm.expressions import GroupRange as GroupRange
    from covet_orm.expressions import JSONArrayAgg as JSONArrayAgg
    from covet_orm.expressions import Lag as Lag
    from covet_orm.expressions import LastValue as LastValue
    from covet_orm.expressions import Lead as Lead
    from covet_orm.expressions import Max as Max
    from covet_orm.expressions import Min as Min
    from covet_orm.expressions import NthValue as NthValue
    from covet_orm.expressions import Ntile as Ntile
    from covet_orm.expressions import Ordering as Ordering
    from covet_orm.expressions import OuterRef as OuterRef
    from covet_orm.expressions import PercentRank as PercentRank
    from covet_orm.expressions import Q as Q
    from covet_orm.expressions import Rank as Rank
    from covet_orm.expressions import RawSQL as RawSQL
    from covet_orm.expressions import RowNumber as RowNumber
    from covet_orm.expressions import RowRange as RowRange
    from covet_orm.expressions import StdDev as StdDev
    from covet_orm.expressions import StringAgg as StringAgg
    from covet_orm.expressions import Subquery as Subquery
    from covet_orm.expressions import Sum as Sum
    from covet_orm.expressions import Value as Value
    from covet_orm.expressions import ValueRange as ValueRange
    from covet_orm.expressions import Variance as Variance
    from covet_orm.expressions import When as When
    from covet_orm.expressions import Window as Window
    from covet_orm.fields import CASCADE as CASCADE
    from covet_orm.fields import DB_DEFAULT as DB_DEFAULT
    from covet_orm.fields import DO_NOTHING as DO_NOTHING
    from covet_orm.fields import PROTECT as PROTECT
    from covet_orm.fields import RESTRICT as RESTRICT
    from covet_orm.fields import SET_DEFAULT as SET_DEFAULT
    from covet_orm.fields import SET_NULL as SET_NULL
    from covet_orm.fields import UNSET as UNSET
    from covet_orm.fields import ArrayField as ArrayField
    from covet_orm.fields import AutoField as AutoField
    from covet_orm.fields import BigAutoField as BigAutoField
    from covet_orm.fields import BigIntegerField as BigIntegerField
    from covet_orm.fields import BigIntegerRangeField as BigIntegerRangeField
    from covet_orm.fields import BinaryField as BinaryField
    from covet_orm.fields import BooleanField as BooleanField
    from covet_orm.fields import CharField as CharField
    from covet_orm.fields import DatabaseDefault as DatabaseDefault
    from covet_orm.fields import DateField as DateField
    from covet_orm.fields import DateRangeField as DateRangeField
    from covet_orm.fields import DateTimeField as DateTimeField
    from covet_orm.fields import DateTimeRangeField as DateTimeRangeField
    from covet_orm.fields import DecimalField as DecimalField
    from covet_orm.fields import DecimalRangeField as DecimalRangeField
    from covet_orm.fields import DurationField as DurationField
    from covet_orm.fields import EmailField as EmailField
    from covet_orm.fields import EnumField as EnumField
    from covet_orm.fields import Field as Field
    from covet_orm.fields import FileField as FileField
    from covet_orm.fields import FloatField as FloatField
    from covet_orm.fields import ForeignKey as ForeignKey
    from covet_orm.fields import GeneratedField as GeneratedField
    from covet_orm.fields import HStoreField as HStoreField
    from covet_orm.fields import IntegerField as IntegerField
    from covet_orm.fields import IntegerRangeField as IntegerRangeField
    from covet_orm.fields import IPAddressField as IPAddressField
    from covet_orm.fields import JSONField as JSONField
    from covet_orm.fields import ManyToManyField as ManyToManyField
    from covet_orm.fields import OneToOneField as OneToOneField
    from covet_orm.fields import PositiveBigIntegerField as PositiveBigIntegerField
    from covet_orm.fields import PositiveIntegerField as PositiveIntegerField
    from covet_orm.fields import PositiveSmallIntegerField as PositiveSmallIntegerField
    from covet_orm.fields import Range as Range
    from covet_orm.fields import RangeField as RangeField
    from covet_orm.fields import SlugField as SlugField
    from covet_orm.fields import SmallAutoField as SmallAutoField
    from covet_orm.fields import SmallIntegerField as SmallIntegerField
    from covet_orm.fields import StoredFile as StoredFile
    from covet_orm.fields import TextField as TextField
    from covet_orm.fields import TimeField as TimeField
    from covet_orm.fields import URLField as URLField
    from covet_orm.fields import UUIDField as UUIDField
    from covet_orm.fields import VersionField as VersionField
    from covet_orm.indexes import Index as Index
    from covet_orm.models import Manager as Manager
    from covet_orm.models import Model as Model
    from covet_orm.models import Registry as Registry
    from covet_orm.queries.ctes import CTE as CTE
    from covet_orm.queries.filtered import FilteredRelation as FilteredRelation
    from covet_orm.queries.lookup_names import register_lookup as register_lookup
    from covet_orm.queries.lookup_names import register_transform as register_transform
    from covet_orm.queries.lookups import Lookup as Lookup
    from covet_orm.queries.lookups import Transform as Transform
    from covet_orm.queries.pagination import Page as Page
    from covet_orm.queries.querysets import QuerySet as QuerySet
    from covet_orm.querybuilder import QueryBuilder as QueryBuilder
    from covet_orm.relations.prefetching import Prefetch as Prefetch
    from covet_orm.replicas import read_session as read_session
    from covet_orm.routers import Router as Router
    from covet_orm.routers import routing as routing
    from covet_orm.signals import m2m_changed as m2m_changed
    from covet_orm.signals import post_delete as post_delete
    from covet_orm.signals import post_save as post_save
    from covet_orm.signals import pre_delete as pre_delete
    from covet_orm.signals import pre_save as pre_save
    from covet_orm.signals import receiver as receiver
    from covet_orm.transactions.blocks import Transaction as Transaction
    from covet_orm.transactions.manager import transaction_manager as transaction_manager
    from covet_orm.transactions.retrying import exponential as exponential


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'covet_orm' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
