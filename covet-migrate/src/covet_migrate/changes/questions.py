"""What is asked while changes are detected, and who answers.

Nothing is guessed: that a model or a field got another name, and what the rows get that are there, is said by somebody.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from covet_migrate.exceptions import MigrationError, QuestionUnanswered
from covet_migrate.state.models import ModelState
from covet_orm import Field, JSONField
from covet_orm.fields.related import RelatedField

__all__ = ["Fill", "Given", "Questions", "Reason", "Rename", "Unattended", "value_of"]

Reason = Literal["added", "altered", "now", "unique"]
"""Why rows need a value: a column is added that may not be NULL; one that could be NULL may no longer be; the field
takes the time of the first save, which of rows that are there nobody knows; no two rows may have the same value."""


class Rename(NamedTuple):
    """A rename that somebody said.

    Attributes:
        old: `app.Model` or `app.Model.field`, as it is in the migrations.
        new: the new name, of the model or of the field alone.
    """

    old: str
    new: str

    @classmethod
    def parse(cls, text: str) -> Rename:
        """Of `app.Old:New` or `app.Model.old:new`.

        Raises:
            MigrationError: the text is neither.
        """
        old, separator, new = text.partition(":")
        new = new.rpartition(".")[2]
        if not separator or not new or not all(old.split(".")):
            raise MigrationError(
                f"--rename {text!r}: it is app.Old:New for a model, and app.Model.old:new for a field, such as "
                "--rename blog.Post.title:headline"
            )
        return cls(old, new)


class Fill(NamedTuple):
    """What is asked about a field.

    Attributes:
        model: the model, as it is to be.
        name: the name of the field.
        field: the field as it is to be.
        reason: why rows need a value.
    """

    model: ModelState
    name: str
    field: Field[Any]
    reason: Reason

    @property
    def option(self) -> str:
        """The option that answers."""
        return f"--default {self.model.label}.{self.name}={'now' if self.reason == 'now' else 'VALUE'}"

    def explain(self) -> str:
        """What is the matter, as a sentence without its end."""
        where = f"{self.model.label}.{self.name}"
        if self.reason == "altered":
            return f"{where} may not be NULL any longer, and rows that have NULL there need a value"
        if self.reason == "now":
            return f"{where} is the time of the first save, which nobody knows of the rows that are there"
        if self.reason == "unique":
            return (
                f"{where} is unique, and each row that is there would get the same value, which works for one row "
                "alone. For more, do it in three migrations: add the field with null=True and without a default; give "
                "each row its value (RunPython); take null=True away"
            )
        return f"{where} may not be NULL and has no default, and the rows that are there need a value"


class Questions(Protocol):
    """Answers what is asked while changes are detected."""

    def renames(self) -> Collection[Rename]:
        """Those that somebody said before being asked."""
        ...

    def is_model_renamed(self, old: ModelState, new: ModelState) -> bool:
        """Whether a model that is gone and one that has come are one under two names."""
        ...

    def is_field_renamed(self, model: ModelState, old: str, new: str) -> bool:
        """Whether a field that is gone and one that has come are one under two names.

        Args:
            model: the model as it is to be.
            old: the name of the field that is gone.
            new: the name of the one that has come.
        """
        ...

    def fill(self, asked: Fill) -> Any:
        """What the rows get that are there.

        Raises:
            QuestionUnanswered: nobody says.
        """
        ...

    def replace(self, model: ModelState, name: str, loss: str) -> None:
        """Return when a field may be removed and added anew, as it cannot be changed into what it is to be.

        Args:
            model: the model as it is to be.
            name: the name of the field.
            loss: what is lost by it.

        Raises:
            QuestionUnanswered: nobody says so.
        """
        ...


class Unattended:
    """Where there is nobody to ask.

    Nothing is renamed, and what needs an answer is an error that says how to give it.

    Attributes:
        denied: what was asked about renames, and answered with No: the options that would say yes.
    """

    def __init__(self) -> None:
        self.denied: list[str] = []

    def renames(self) -> Collection[Rename]:
        """None."""
        return ()

    def is_model_renamed(self, old: ModelState, new: ModelState) -> bool:
        """No."""
        self.denied.append(f"--rename {old.label}:{new.name}")
        return False

    def is_field_renamed(self, model: ModelState, old: str, new: str) -> bool:
        """No."""
        self.denied.append(f"--rename {model.label}.{old}:{new}")
        return False

    def fill(self, asked: Fill) -> Any:
        """Raises QuestionUnanswered."""
        end = f":{asked.name}"
        renames = [one for one in self.denied if one.endswith(end) and f" {asked.model.label}." in one]
        renamed = f"; if it only has another name now: {' or '.join(renames)}" if renames else ""
        raise QuestionUnanswered(
            f"{asked.explain()}. Say what they get with {asked.option}, or give the field a default, a db_default or "
            f"null=True{renamed}"
        )

    def replace(self, model: ModelState, name: str, loss: str) -> None:
        """Raises QuestionUnanswered."""
        raise QuestionUnanswered(
            f"{model.label}.{name} cannot be changed into what it is to be: it is removed and added anew, and {loss}. "
            f"Agree with --replace {model.label}.{name}, or write a migration that keeps them: makemigrations "
            f"{model.app} --empty"
        )


class Given:
    """Answers that were given as options, and somebody else for the rest.

    Args:
        renames: `--rename`.
        defaults: `--default`: values, or texts of them, by `app.Model.field`.
        replace: `--replace`: the fields, as `app.Model.field`, that may be removed and added anew.
        otherwise: who answers the rest.
    """

    def __init__(
        self,
        *,
        renames: Iterable[Rename | str] = (),
        defaults: Mapping[str, Any] | None = None,
        replace: Iterable[str] = (),
        otherwise: Questions | None = None,
    ) -> None:
        self._renames = tuple(Rename.parse(one) if isinstance(one, str) else one for one in renames)
        self._defaults = dict(defaults or {})
        self._replace = frozenset(replace)
        self._otherwise: Questions = otherwise or Unattended()

    def renames(self) -> Collection[Rename]:
        """Those that were given, and those of the other."""
        return (*self._renames, *self._otherwise.renames())

    def is_model_renamed(self, old: ModelState, new: ModelState) -> bool:
        """As the other says."""
        return self._otherwise.is_model_renamed(old, new)

    def is_field_renamed(self, model: ModelState, old: str, new: str) -> bool:
        """As the other says."""
        return self._otherwise.is_field_renamed(model, old, new)

    def fill(self, asked: Fill) -> Any:
        """The value that was given, or what the other says.

        Raises:
            MigrationError: a text was given that is no value of the field.
            QuestionUnanswered: as of the other.
        """
        label = f"{asked.model.label}.{asked.name}"
        if label not in self._defaults:
            return self._otherwise.fill(asked)
        given = self._defaults[label]
        if not isinstance(given, str):
            return given
        try:
            return value_of(asked.field, given)
        except ValueError as error:
            raise MigrationError(f"--default {label}={given}: {error}") from None

    def replace(self, model: ModelState, name: str, loss: str) -> None:
        """Return when it was agreed to.

        Raises:
            QuestionUnanswered: as of the other.
        """
        if f"{model.label}.{name}" not in self._replace:
            self._otherwise.replace(model, name, loss)


def value_of(field: Field[Any], text: str) -> Any:
    """The value of a field that a person typed: a literal of Python, or the text of one that the field takes.

    `now` is the present time where the field is one of time.

    Raises:
        ValueError: it is none; the message says why.
    """
    now = getattr(field, "now", None)
    if now is not None and text.strip() == "now":
        return now()
    if text.strip() in ("None", "NULL"):
        if field.null:
            return None
        raise ValueError("the column may not be NULL")
    if isinstance(field, RelatedField):
        # Of which type its key is, the other model knows.
        return _literal(text)
    if isinstance(field, JSONField):
        # Every text would be a value: that text.
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise ValueError(f"it is no JSON ({error}); a text stands in double quotes") from None
    try:
        return field.to_python(text)
    except ValueError as error:
        value = _literal(text)
        if value == text:
            raise ValueError(f"it is no value of a {type(field).__name__}: {error}") from None
        return field.to_python(value)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
