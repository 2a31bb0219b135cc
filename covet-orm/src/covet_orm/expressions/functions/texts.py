"""Functions of text. Positions and lengths are characters, positions count from 1."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy
from sqlalchemy import ColumnElement, func
from sqlalchemy.dialects.mysql import CHAR

from covet_orm.exceptions import QueryError
from covet_orm.expressions.base import Value, as_expression
from covet_orm.expressions.functions.base import Func
from covet_orm.fields.inference import INTEGER, TEXT, family

if TYPE_CHECKING:
    from covet_orm.queries.scope import Scope

__all__ = [
    "Chr",
    "Collate",
    "Concat",
    "LPad",
    "LTrim",
    "Left",
    "Length",
    "Lower",
    "Ord",
    "RPad",
    "RTrim",
    "Repeat",
    "Replace",
    "Reverse",
    "Right",
    "StrIndex",
    "Substr",
    "Trim",
    "Upper",
]


class TextFunc(Func[str]):
    """A function whose first argument and result are text."""

    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    output_field = TEXT

    def texts(self, scope: Scope, arguments: tuple[ColumnElement[Any], ...]) -> list[ColumnElement[Any]]:
        """The arguments, those of other types as text."""
        return [
            built if family(argument.output(scope)) == "text" else scope.dialect.as_text(built)
            for argument, built in zip(self.arguments, arguments, strict=True)
        ]


class Lower(TextFunc):
    """A text in lower case."""

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.covet_lower(*arguments) if scope.kind == "sqlite" else func.lower(*arguments)


class Upper(TextFunc):
    """A text in upper case."""

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.covet_upper(*arguments) if scope.kind == "sqlite" else func.upper(*arguments)


class Length(Func[int]):
    """How many characters a text has."""

    arity = (1, 1)
    output_field = INTEGER

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.char_length(*arguments) if scope.kind in ("mysql", "mariadb") else func.length(*arguments)


class Concat(TextFunc):
    """Texts one after the other, values of other types as text; NULL is an empty one."""

    arity = (1, None)

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        nothing = sqlalchemy.literal_column("''", sqlalchemy.Text())
        texts = [func.coalesce(text, nothing, type_=sqlalchemy.Text()) for text in self.texts(scope, arguments)]
        if scope.kind in ("mysql", "mariadb"):
            return func.concat(*texts)
        found: ColumnElement[Any] = texts[0]
        for text in texts[1:]:
            found = found.concat(text)
        return found


class Substr(TextFunc):
    """A part of a text.

    Args:
        expression: the text.
        position: of its first character, from 1.
        length: how many characters; all the others by default.
    """

    arity = (2, 3)

    def __init__(self, expression: Any, position: Any, length: Any = None) -> None:
        if isinstance(position, int) and position < 1:
            raise QueryError(f"Substr(..., {position}): positions count from 1")
        if isinstance(length, int) and length < 0:
            raise QueryError(f"Substr(..., length={length}): no text has less than 0 characters")
        super().__init__(*((expression, position) if length is None else (expression, position, length)))

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.substr(arguments[0], *(_integer(scope, number) for number in arguments[1:]))


class Left(TextFunc):
    """The first characters of a text.

    Args:
        expression: the text.
        length: how many.
    """

    arity = (2, 2)

    def __init__(self, expression: Any, length: Any) -> None:
        if isinstance(length, int) and length < 0:
            raise QueryError(f"{type(self).__name__}(..., {length}): no text has less than 0 characters")
        super().__init__(expression, as_expression(length))

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "sqlite":
            return func.substr(arguments[0], sqlalchemy.literal_column("1"), arguments[1])
        return func.left(*_with_integer(scope, arguments))


class Right(Left):
    """The last characters of a text.

    Args:
        expression: the text.
        length: how many.
    """

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "sqlite":
            nothing = sqlalchemy.literal_column("''", sqlalchemy.Text())
            cut = sqlalchemy.case((arguments[1] == sqlalchemy.literal_column("0"), nothing))
            return func.coalesce(cut, func.substr(arguments[0], -arguments[1]))
        return func.right(*_with_integer(scope, arguments))


class Trim(TextFunc):
    """A text without the blanks before and behind it."""

    function = "trim"


class LTrim(TextFunc):
    """A text without the blanks before it."""

    function = "ltrim"


class RTrim(TextFunc):
    """A text without the blanks behind it."""

    function = "rtrim"


class Replace(TextFunc):
    """A text in which one text stands instead of another.

    Args:
        expression: the text.
        old: what is replaced: an expression; `Value("a")` for a text.
        new: what stands there instead; nothing by default.
    """

    function = "replace"
    arity = (3, 3)

    def __init__(self, expression: Any, old: Any, new: Any = None) -> None:
        super().__init__(expression, old, Value("") if new is None else new)


class Repeat(TextFunc):
    """A text, several times.

    Args:
        expression: the text.
        number: how often; an empty text for 0 and less.
    """

    arity = (2, 2)

    def __init__(self, expression: Any, number: Any) -> None:
        super().__init__(expression, as_expression(number))

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "sqlite":
            return func.covet_repeat(*arguments)
        return func.repeat(*_with_integer(scope, arguments))


class Reverse(TextFunc):
    """A text from its end to its beginning."""

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.covet_reverse(*arguments) if scope.kind == "sqlite" else func.reverse(*arguments)


class StrIndex(Func[int]):
    """Where a text first occurs in another one, from 1; 0 where it does not.

    Args:
        expression: the text that is looked through.
        part: what is looked for: an expression; `Value("a")` for a text.
    """

    arity = (2, 2)
    output_field = INTEGER

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            return func.strpos(*arguments)
        if scope.kind == "sqlite":
            return func.instr(*arguments)
        text, part = arguments
        return func.instr(text, sqlalchemy.cast(part, CHAR(charset="utf8mb4")).collate("utf8mb4_bin"))


class LPad(TextFunc):
    """A text with so many characters: filled up at its beginning, or cut at its end.

    Args:
        expression: the text.
        length: how many characters.
        fill: what it is filled up with: an expression; blanks by default.
    """

    arity = (3, 3)

    def __init__(self, expression: Any, length: Any, fill: Any = None) -> None:
        super().__init__(expression, as_expression(length), Value(" ") if fill is None else fill)

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return self._padded(scope, "lpad", arguments)

    def _padded(self, scope: Scope, name: str, arguments: tuple[ColumnElement[Any], ...]) -> ColumnElement[Any]:
        if scope.kind == "sqlite":
            return func.covet_pad(*arguments, sqlalchemy.literal_column("1" if name == "lpad" else "0"))
        text, length, fill = arguments
        padded: ColumnElement[Any] = getattr(func, name)(text, _integer(scope, length), fill)
        return padded


class RPad(LPad):
    """A text with so many characters: filled up, or cut, at its end.

    Args:
        expression: the text.
        length: how many characters.
        fill: what it is filled up with: an expression; blanks by default.
    """

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return self._padded(scope, "rpad", arguments)


class Chr(TextFunc):
    """The character of a number of Unicode."""

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            return func.chr(*_with_integer(scope, arguments))
        if scope.kind == "sqlite":
            return func.char(*arguments)
        code = func.hex(*arguments)
        # As four bytes, which is what UTF-32 is.
        return func.convert(
            func.unhex(func.lpad(code, sqlalchemy.literal_column("8"), sqlalchemy.literal_column("'0'"))).op("USING")(
                sqlalchemy.literal_column("utf32")
            )
        )


class Ord(Func[int]):
    """The number in Unicode of the first character of a text."""

    arity = (1, 1)
    output_field = INTEGER

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        if scope.kind == "postgresql":
            return func.ascii(*arguments)
        if scope.kind == "sqlite":
            return func.unicode(*arguments)
        utf32 = func.convert(
            func.left(*arguments, sqlalchemy.literal_column("1")).op("USING")(sqlalchemy.literal_column("utf32"))
        )
        return func.conv(func.hex(utf32), sqlalchemy.literal_column("16"), sqlalchemy.literal_column("10"))


class Collate(TextFunc):
    """A text with the order and the equality of a collation of the database.

    Args:
        expression: the text.
        collation: its name; quoted as an identifier.
    """

    __slots__ = ("collation",)

    def __init__(self, expression: Any, collation: str) -> None:
        if not isinstance(collation, str) or not collation.replace("_", "").replace("-", "").replace(".", "").isalnum():
            raise QueryError(f"{collation!r} is no name of a collation: letters, digits, and _ - . between")
        super().__init__(expression)
        self.collation = collation

    def options(self) -> Hashable:
        return self.collation

    def sql(self, scope: Scope, *arguments: ColumnElement[Any]) -> ColumnElement[Any]:
        return arguments[0].collate(self.collation)


def _integer(scope: Scope, number: ColumnElement[Any]) -> ColumnElement[Any]:
    """A number of 32 bits, which PostgreSQL wants there."""
    return sqlalchemy.cast(number, sqlalchemy.Integer()) if scope.kind == "postgresql" else number


def _with_integer(scope: Scope, arguments: tuple[ColumnElement[Any], ...]) -> list[ColumnElement[Any]]:
    return [*arguments[:-1], _integer(scope, arguments[-1])]
