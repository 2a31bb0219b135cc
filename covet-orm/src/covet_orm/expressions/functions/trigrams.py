"""How alike texts are, by the groups of three letters that they have in common (PostgreSQL, extension pg_trgm), and
texts without accents.

An index with the operator class `gist_trgm_ops` serves an ORDER BY of a distance:
`Index("name", method="gist", opclasses="gist_trgm_ops")`. Source: PostgreSQL documentation, F.35 (pg_trgm).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy
from sqlalchemy import ColumnElement, func

from covet_orm.expressions.base import as_expression
from covet_orm.expressions.functions.base import Func
from covet_orm.expressions.functions.texts import TextFunc
from covet_orm.fields.inference import FLOAT
from covet_orm.queries.text_search import require_extension

if TYPE_CHECKING:
    from covet_orm.queries.scope import Scope

__all__ = [
    "TrigramDistance",
    "TrigramSimilarity",
    "TrigramStrictWordDistance",
    "TrigramStrictWordSimilarity",
    "TrigramWordDistance",
    "TrigramWordSimilarity",
    "Unaccent",
]


class TrigramSimilarity(Func[float]):
    """How alike a text is to another one: from 0, nothing in common, to 1, the same groups of three letters.

    Args:
        expression: the text: an expression, or the name of a field.
        string: the other one: an expression, or a text.

    Raises:
        NotSupported: when it is compiled: the database is not PostgreSQL.
    """

    arity = (2, 2)
    output_field = FLOAT
    function = "similarity"

    def __init__(self, expression: Any, string: Any) -> None:
        super().__init__(expression, as_expression(string))

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        require_extension(scope, type(self).__name__, "pg_trgm")
        return super().sql(scope, *arguments)


class TrigramDistance(TrigramSimilarity):
    """How far a text is from another one: 1 less their similarity."""

    operator: ClassVar[str] = "<->"

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        require_extension(scope, type(self).__name__, "pg_trgm")
        distance: ColumnElement[Any] = arguments[0].op(self.operator, return_type=sqlalchemy.REAL())(arguments[1])
        return distance


class TrigramWordSimilarity(TrigramSimilarity):
    """How alike a text is to the part of another one that is most like it.

    Args:
        string: the text that is looked for: an expression, or a text.
        expression: the longer one: an expression, or the name of a field.
    """

    function = "word_similarity"

    def __init__(self, string: Any, expression: Any) -> None:
        Func.__init__(self, as_expression(string), expression)


class TrigramWordDistance(TrigramDistance):
    """How far a text is from the part of another one that is most like it: 1 less that similarity.

    Args:
        string: the text that is looked for: an expression, or a text.
        expression: the longer one: an expression, or the name of a field.
    """

    operator = "<<->"

    def __init__(self, string: Any, expression: Any) -> None:
        Func.__init__(self, as_expression(string), expression)


class TrigramStrictWordSimilarity(TrigramWordSimilarity):
    """How alike a text is to the whole words of another one that are most like it. See `TrigramWordSimilarity`."""

    function = "strict_word_similarity"


class TrigramStrictWordDistance(TrigramWordDistance):
    """How far a text is from the whole words of another one that are most like it. See `TrigramWordDistance`."""

    operator = "<<<->"


class Unaccent(TextFunc):
    """A text without accents (PostgreSQL, extension unaccent).

    Raises:
        NotSupported: when it is compiled: the database is not PostgreSQL.
    """

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        require_extension(scope, "Unaccent", "unaccent")
        return func.unaccent(*arguments)
