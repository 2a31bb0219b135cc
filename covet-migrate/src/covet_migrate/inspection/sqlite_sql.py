"""The SQL that SQLite keeps of tables and indexes, taken apart.

SQLite's catalogue has the text that somebody wrote, and its pragmas tell only a part of it: neither names of
constraints, nor checks, nor what a partial index holds. The text is one that SQLite took, so it is well-formed, and
only its beginning and its commas have to be found. (https://sqlite.org/lang_createtable.html)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from covet_orm.dialects import dialect_of

__all__ = ["CreatedColumn", "CreatedTable", "Token", "created_table", "index_condition", "index_parts", "one_form"]

TOKEN = re.compile(
    r"""
    (?P<blank>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<string>[xX]?'(?:[^']|'')*')
    |(?P<quoted>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    |(?P<number>0[xX][0-9a-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)
    |(?P<word>[^\W\d][\w$]*)
    |(?P<sign>->>|->|\|\||<<|>>|<=|>=|<>|!=|==|.)
    """,
    re.VERBOSE | re.DOTALL,
)
CLAUSES = frozenset(
    (
        "AND", "OR", "NOT", "IN", "LIKE", "GLOB", "REGEXP", "MATCH", "BETWEEN", "WHEN", "THEN", "ELSE", "CASE", "END",
        "IS", "ISNULL", "NOTNULL", "AS", "ON", "CHECK", "SELECT", "FROM", "WHERE", "EXISTS", "COLLATE", "ESCAPE",
        "DISTINCT", "FILTER", "OVER", "NULL",
    )
)  # fmt: skip
"""Words that a parenthesis stands apart from, as they are no functions."""
OF_TABLES = frozenset(("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"))
OF_COLUMNS = frozenset(
    (
        "CONSTRAINT", "PRIMARY", "NOT", "NULL", "UNIQUE", "CHECK", "DEFAULT", "COLLATE", "REFERENCES", "GENERATED",
        "AS",
    )
)  # fmt: skip


class Token(NamedTuple):
    """A piece of SQL: its kind (`word`, `quoted`, `string`, `number`, `sign`) and its text; of a quoted name that
    name."""

    kind: str
    text: str

    def __str__(self) -> str:
        return str(_preparer().quote(self.text)) if self.kind == "quoted" else self.text

    def says(self, *words: str) -> bool:
        """Whether it is one of some words, which are upper case."""
        text = self.text.upper() if self.kind == "word" else self.text
        return self.kind in ("word", "sign") and text in words


@cache
def _preparer() -> Any:
    """Quotes what has to be quoted."""
    return dialect_of("sqlite").identifier_preparer


def tokens(sql: str) -> Iterator[Token]:
    """The pieces of a text, without blanks and comments."""
    for found in TOKEN.finditer(sql):
        kind = str(found.lastgroup)
        text = found.group()
        if kind == "quoted":
            end = "]" if text[0] == "[" else text[0]
            text = text[1:-1].replace(end * 2, end)
        if kind != "blank":
            yield Token(kind, text)


def joined(parts: Sequence[Token]) -> str:
    """Pieces as SQL, in one form."""
    parts = without_parentheses(parts)
    written: list[str] = []
    before: Token | None = None
    for part in parts:
        text = str(part)
        if part.kind == "word" and part.text.upper() in CLAUSES:
            text = part.text.upper()
        apart = before is not None and not _belong_together(before, part)
        written.append(f" {text}" if apart else text)
        before = part
    return "".join(written)


def _belong_together(one: Token, other: Token) -> bool:
    """Whether no blank stands between two pieces."""
    if other.kind == "sign" and other.text in (")", ",", "."):
        return True
    if one.kind == "sign" and one.text in ("(", "."):
        return True
    return other.says("(") and one.kind in ("word", "quoted") and one.text.upper() not in CLAUSES


def one_form(sql: str) -> str:
    """An expression in one form: without comments and needless parentheses around all of it, with names quoted where
    they have to be."""
    return joined(list(tokens(sql)))


def without_parentheses(parts: Sequence[Token]) -> Sequence[Token]:
    """Pieces without the parentheses that stand around all of them."""
    while len(parts) > 1 and parts[0].says("(") and _end(parts, 0) == len(parts) - 1:
        parts = parts[1:-1]
    return parts


def _end(parts: Sequence[Token], begin: int) -> int:
    """Where the parenthesis ends that begins somewhere."""
    depth = 0
    for position in range(begin, len(parts)):
        depth += parts[position].says("(") - parts[position].says(")")
        if depth == 0:
            return position
    return len(parts)


def split(parts: Sequence[Token]) -> list[list[Token]]:
    """Pieces between the commas that stand in no parentheses."""
    found: list[list[Token]] = [[]]
    depth = 0
    for part in parts:
        depth += part.says("(") - part.says(")")
        if depth == 0 and part.says(","):
            found.append([])
        else:
            found[-1].append(part)
    return found


@dataclass
class Reference:
    """A foreign key as it was written."""

    name: str | None
    columns: tuple[str, ...]
    table: str
    referred: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    deferrable: str | None = None


@dataclass
class CreatedColumn:
    """What the text says of a column, beyond what the pragmas tell."""

    name: str
    generated: str | None = None
    collation: str | None = None
    counts: bool = False


@dataclass
class CreatedTable:
    """What the text says of a table."""

    columns: dict[str, CreatedColumn] = field(default_factory=dict)
    primary_key: str | None = None
    uniques: list[tuple[str | None, tuple[str, ...]]] = field(default_factory=list)
    checks: list[tuple[str | None, str]] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)


def created_table(sql: str) -> CreatedTable:
    """Take a `CREATE TABLE` apart."""
    parts = list(tokens(sql))
    begin = next((position for position, part in enumerate(parts) if part.says("(")), len(parts))
    made = CreatedTable()
    for item in split(parts[begin + 1 : _end(parts, begin)]):
        if not item:
            continue
        if item[0].kind == "word" and item[0].text.upper() in OF_TABLES:
            _constraints(_Reader(item), made, None)
            continue
        column = CreatedColumn(item[0].text)
        made.columns[column.name.lower()] = column
        reader = _Reader(item[1:])
        # The type: words and a size, up to the first word of a constraint.
        while reader.more and not reader.at(*OF_COLUMNS):
            reader.group() if reader.at("(") else reader.take()
        _constraints(reader, made, column)
    return made


class _Reader:
    """Reads pieces from left to right."""

    def __init__(self, parts: Sequence[Token]) -> None:
        self.parts = parts
        self.position = 0

    @property
    def more(self) -> bool:
        return self.position < len(self.parts)

    def at(self, *words: str) -> bool:
        return self.more and self.parts[self.position].says(*words)

    def take(self) -> Token:
        self.position += 1
        return self.parts[self.position - 1]

    def skip(self, *words: str) -> bool:
        """Pass one of some words, if it stands here."""
        if not self.at(*words):
            return False
        self.position += 1
        return True

    def group(self) -> Sequence[Token]:
        """What stands in the parentheses here."""
        end = _end(self.parts, self.position)
        inside = self.parts[self.position + 1 : end]
        self.position = end + 1
        return inside

    def names(self) -> tuple[str, ...]:
        return tuple(item[0].text for item in split(self.group()) if item)


def _constraints(reader: _Reader, made: CreatedTable, column: CreatedColumn | None) -> None:
    """Constraints of a table (`column` is None) or of a column."""
    name: str | None = None
    while reader.more:
        if reader.skip("CONSTRAINT"):
            name = reader.take().text
            continue
        _constraint(reader, made, column, name)
        name = None


def _constraint(reader: _Reader, made: CreatedTable, column: CreatedColumn | None, name: str | None) -> None:
    own = (column.name,) if column is not None else ()
    if reader.skip("PRIMARY"):
        reader.skip("KEY")
        if column is None:
            reader.names()
        made.primary_key = name
    elif reader.skip("AUTOINCREMENT") and column is not None:
        column.counts = True
    elif reader.skip("UNIQUE"):
        made.uniques.append((name, own or reader.names()))
    elif reader.skip("CHECK"):
        made.checks.append((name, joined(reader.group())))
    elif reader.skip("FOREIGN"):
        reader.skip("KEY")
        columns = reader.names()
        reader.skip("REFERENCES")
        made.references.append(_reference(reader, name, columns))
    elif reader.skip("REFERENCES"):
        made.references.append(_reference(reader, name, own))
    elif reader.skip("COLLATE") and column is not None:
        column.collation = reader.take().text.upper()
    elif reader.skip("AS") and column is not None:
        column.generated = joined(reader.group())
    elif reader.skip("DEFAULT") and reader.at("("):
        reader.group()
    else:
        # NOT, NULL, ASC, STORED, ON CONFLICT and a plain default: the pragmas tell of what matters.
        reader.take()


def _reference(reader: _Reader, name: str | None, columns: Iterable[str]) -> Reference:
    found = Reference(name, tuple(columns), reader.take().text, ())
    if reader.at("("):
        found.referred = reader.names()
    while reader.more:
        if reader.skip("ON"):
            deletes = reader.skip("DELETE") or not reader.skip("UPDATE")
            action = reader.take().text.upper()
            if action in ("SET", "NO"):
                action += f" {reader.take().text.upper()}"
            if deletes:
                found.on_delete = action
            else:
                found.on_update = action
        elif reader.skip("MATCH"):
            reader.take()
        elif reader.skip("DEFERRABLE"):
            found.deferrable = "immediate"
        elif (
            reader.at("NOT")
            and reader.parts[reader.position + 1 :][:1]
            and reader.parts[reader.position + 1].says("DEFERRABLE")
        ):
            reader.take()
            reader.take()
        elif reader.skip("INITIALLY"):
            word = reader.take().text.lower()
            found.deferrable = word if found.deferrable is not None else None
        else:
            break
    return found


def index_parts(sql: str) -> list[str]:
    """What a `CREATE INDEX` is of, in one form: columns and expressions, without direction and collation."""
    inside, _ = _index(sql)
    found: list[str] = []
    for item in split(inside):
        while item and item[-1].says("ASC", "DESC"):
            item = item[:-1]
        if len(item) > 2 and item[-2].says("COLLATE"):
            item = item[:-2]
        found.append(joined(item))
    return found


def index_condition(sql: str) -> str | None:
    """The condition of a partial index, in one form; None for one of all rows."""
    _, rest = _index(sql)
    return joined(rest[1:]) if rest and rest[0].says("WHERE") else None


def _index(sql: str) -> tuple[Sequence[Token], Sequence[Token]]:
    parts = list(tokens(sql))
    on = next(position for position, part in enumerate(parts) if part.says("ON"))
    end = _end(parts, on + 2)
    return parts[on + 3 : end], parts[end + 1 :]
