"""Asking a person at a terminal."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import click

from covet_migrate.changes.questions import Fill, Rename, value_of
from covet_migrate.exceptions import QuestionUnanswered
from covet_migrate.state.models import ModelState

__all__ = ["Interactive"]


class Interactive:
    """Asks at the terminal. What can be answered without thinking is No.

    Its questions go to standard error, so that what a command writes can be piped. Interrupted, or at the end of the
    input, they raise `click.Abort`.
    """

    def renames(self) -> Collection[Rename]:
        """None: it is asked for each."""
        return ()

    def is_model_renamed(self, old: ModelState, new: ModelState) -> bool:
        """Ask; No unless somebody says yes."""
        return click.confirm(
            f"Was the model {old.label} renamed to {new.name}? (No: its table is dropped with its rows)",
            default=False,
            err=True,
        )

    def is_field_renamed(self, model: ModelState, old: str, new: str) -> bool:
        """Ask; No unless somebody says yes."""
        return click.confirm(
            f"Was the field {old} of {model.label} renamed to {new}? (No: its column is dropped with its values)",
            default=False,
            err=True,
        )

    def fill(self, asked: Fill) -> Any:
        """Ask until there is a value, or somebody leaves.

        Raises:
            QuestionUnanswered: somebody leaves, to change the model.
        """
        click.echo(f"{asked.explain()}.", err=True)
        hint = "a value for them" + (" (Enter: now)" if asked.reason == "now" else "") + ", or q to leave"
        while True:
            text = click.prompt(
                hint, default="now" if asked.reason == "now" else None, show_default=False, err=True, type=str
            )
            if text == "q":
                raise QuestionUnanswered(
                    f"{asked.model.label}.{asked.name} was left without an answer: change the model, or say it with "
                    f"{asked.option}"
                )
            try:
                return value_of(asked.field, text)
            except ValueError as error:
                click.echo(f"{text!r}: {error}", err=True)

    def replace(self, model: ModelState, name: str, loss: str) -> None:
        """Ask; No unless somebody says yes.

        Raises:
            QuestionUnanswered: the answer is No.
        """
        text = f"{model.label}.{name} cannot be changed into what it is to be. Remove it and add it anew? ({loss})"
        if not click.confirm(text, default=False, err=True):
            raise QuestionUnanswered(
                f"{model.label}.{name} is not removed and added anew; write a migration that keeps what it has: "
                f"makemigrations {model.app} --empty"
            )
