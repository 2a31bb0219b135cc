"""The query builder: SQL in the words of SQL, for a program that has no model of a table."""

from __future__ import annotations

from covet_orm.querybuilder.builders import Built, Executor, QueryBuilder
from covet_orm.querybuilder.conditions import Conditions
from covet_orm.querybuilder.expressions import Expression, case, cast, col, excluded, json_value, value
from covet_orm.querybuilder.fragments import raw
from covet_orm.querybuilder.functions import avg, count, fn, max_, min_, sum_
from covet_orm.querybuilder.json_paths import json_path

__all__ = [
    "Built",
    "Conditions",
    "Executor",
    "Expression",
    "QueryBuilder",
    "avg",
    "case",
    "cast",
    "col",
    "count",
    "excluded",
    "fn",
    "json_path",
    "json_value",
    "max_",
    "min_",
    "raw",
    "sum_",
    "value",
]
