"""Expressions: what stands in a query where SQL has an expression."""

from __future__ import annotations

from covet_orm.expressions.base import Expression, Ordering, Value
from covet_orm.expressions.conditions import Condition, Q
from covet_orm.expressions.references import ColumnReference, F, OuterRef

__all__ = ["ColumnReference", "Condition", "Expression", "F", "Ordering", "OuterRef", "Q", "Value"]
