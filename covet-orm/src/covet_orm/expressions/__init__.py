"""Expressions: what stands in a query where SQL has an expression.

Functions are in `covet_orm.expressions.functions`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from covet_orm.expressions.base import Expression, Ordering, Value
from covet_orm.expressions.conditions import Condition, Q
from covet_orm.expressions.references import ColumnReference, F, OuterRef

if TYPE_CHECKING:
    from covet_orm.expressions.aggregates import (
        Aggregate,
        AnyValue,
        Avg,
        BoolAnd,
        BoolOr,
        Count,
        Max,
        Min,
        StdDev,
        Sum,
        Variance,
    )
    from covet_orm.expressions.casts import Cast, ExpressionWrapper
    from covet_orm.expressions.collecting import ArrayAgg, JSONArrayAgg, StringAgg
    from covet_orm.expressions.conditionals import Case, When
    from covet_orm.expressions.functions.base import Func
    from covet_orm.expressions.raw import RawSQL
    from covet_orm.expressions.subqueries import Exists, Subquery
    from covet_orm.expressions.windows import (
        CumeDist,
        DenseRank,
        FirstValue,
        GroupRange,
        Lag,
        LastValue,
        Lead,
        NthValue,
        Ntile,
        PercentRank,
        Rank,
        RowNumber,
        RowRange,
        ValueRange,
        Window,
    )
    from covet_orm.queries.ctes import CTE
    from covet_orm.queries.filtered import FilteredRelation

# These need the fields, which need the expressions above.
LATER = {
    "CTE": "covet_orm.queries.ctes",
    "FilteredRelation": "covet_orm.queries.filtered",
    "Aggregate": "covet_orm.expressions.aggregates",
    "AnyValue": "covet_orm.expressions.aggregates",
    "ArrayAgg": "covet_orm.expressions.collecting",
    "Avg": "covet_orm.expressions.aggregates",
    "BoolAnd": "covet_orm.expressions.aggregates",
    "BoolOr": "covet_orm.expressions.aggregates",
    "Case": "covet_orm.expressions.conditionals",
    "Cast": "covet_orm.expressions.casts",
    "Count": "covet_orm.expressions.aggregates",
    "CumeDist": "covet_orm.expressions.windows",
    "DenseRank": "covet_orm.expressions.windows",
    "Exists": "covet_orm.expressions.subqueries",
    "ExpressionWrapper": "covet_orm.expressions.casts",
    "FirstValue": "covet_orm.expressions.windows",
    "Func": "covet_orm.expressions.functions.base",
    "GroupRange": "covet_orm.expressions.windows",
    "JSONArrayAgg": "covet_orm.expressions.collecting",
    "Lag": "covet_orm.expressions.windows",
    "LastValue": "covet_orm.expressions.windows",
    "Lead": "covet_orm.expressions.windows",
    "Max": "covet_orm.expressions.aggregates",
    "Min": "covet_orm.expressions.aggregates",
    "NthValue": "covet_orm.expressions.windows",
    "Ntile": "covet_orm.expressions.windows",
    "PercentRank": "covet_orm.expressions.windows",
    "Rank": "covet_orm.expressions.windows",
    "RawSQL": "covet_orm.expressions.raw",
    "RowNumber": "covet_orm.expressions.windows",
    "RowRange": "covet_orm.expressions.windows",
    "StdDev": "covet_orm.expressions.aggregates",
    "StringAgg": "covet_orm.expressions.collecting",
    "Subquery": "covet_orm.expressions.subqueries",
    "Sum": "covet_orm.expressions.aggregates",
    "ValueRange": "covet_orm.expressions.windows",
    "Variance": "covet_orm.expressions.aggregates",
    "When": "covet_orm.expressions.conditionals",
    "Window": "covet_orm.expressions.windows",
}

__all__ = [
    "CTE",
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
    "FilteredRelation",
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
]


def __getattr__(name: str) -> Any:
    """Called by Python for what was not imported yet."""
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(LATER[name]), name)
    return found
