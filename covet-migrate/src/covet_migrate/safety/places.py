"""Where in a migration's file its operations stand."""

from __future__ import annotations

import ast

__all__ = ["operation_lines"]


def operation_lines(content: bytes) -> list[int]:
    """The lines at which the operations of a migration begin, from 1, in their order.

    Empty where they do not stand one by one in the file's `migration = Migration(operations=[...])`, as where code
    makes them.

    Args:
        content: the file.
    """
    try:
        module = ast.parse(content)
    except SyntaxError:
        # It was loaded; whoever changed it since does not get a line.
        return []
    for statement in module.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        named = any(isinstance(one, ast.Name) and one.id == "migration" for one in targets)
        call = getattr(statement, "value", None)
        if named and isinstance(call, ast.Call):
            given = [one.value for one in call.keywords if one.arg == "operations"] or call.args[:1]
            if given and isinstance(given[0], (ast.List, ast.Tuple)):
                parts = given[0].elts
                return [] if any(isinstance(one, ast.Starred) for one in parts) else [one.lineno for one in parts]
    return []
