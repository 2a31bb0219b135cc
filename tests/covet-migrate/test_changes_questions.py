"""Questions, and those who answer them."""

from __future__ import annotations

import datetime as dt
import os
import pty
import select
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import click
import pytest
from click.testing import CliRunner
from tests.migrations.model_classes import declare

import covet_orm as orm
from covet.exceptions import CovetError
from covet_migrate.changes import Changes, Interactive, detect
from covet_migrate.changes.questions import Fill, Given, Rename, Unattended, value_of
from covet_migrate.exceptions import MigrationError, QuestionUnanswered
from covet_migrate.state import State
from covet_migrate.state.from_models import state_of
from covet_orm import Field, Registry


def one_model(**body: Any) -> State:
    registry = Registry()
    declare(registry, "blog", "Post", body)
    return state_of(registry)


def asked(before: State, after: State, answers: str) -> tuple[Changes | None, str, int]:
    """What is detected when a person types answers; what that one sees; the exit code."""
    found: list[Changes] = []

    @click.command()
    def command() -> None:
        try:
            found.append(detect(before, after, Interactive()))
        except CovetError as error:
            raise click.ClickException(str(error)) from error

    result = CliRunner().invoke(command, input=answers)
    return (found[0] if found else None), result.output, result.exit_code


FAX: Callable[[], State] = lambda: one_model(fax=orm.CharField(max_length=5, null=True))  # noqa: E731
PHONE: Callable[[], State] = lambda: one_model(phone=orm.CharField(max_length=5, null=True))  # noqa: E731


def test_enter_is_no() -> None:
    changes, output, _ = asked(FAX(), PHONE(), "\n")
    assert changes is not None
    assert [one.operation.describe() for one in changes.detected] == [
        "Remove field fax from Post",
        "Add field phone to Post",
    ]
    assert "Was the field fax of blog.Post renamed to phone?" in output
    assert "[y/N]" in output


def test_yes_renames() -> None:
    changes, _, _ = asked(FAX(), PHONE(), "y\n")
    assert changes is not None
    assert [one.operation.describe() for one in changes.detected] == ["Rename field fax of Post to phone"]


def test_each_pair_is_asked_once_and_one_field_is_renamed_once() -> None:
    """aerich 395 renames several columns to one."""
    before = one_model(one=orm.IntegerField(null=True), two=orm.IntegerField(null=True))
    after = one_model(three=orm.IntegerField(null=True))
    changes, output, _ = asked(before, after, "y\n")
    assert changes is not None
    assert [one.operation.describe() for one in changes.detected] == [
        "Rename field one of Post to three",
        "Remove field two from Post",
    ]
    assert output.count("renamed to") == 1


def test_fields_of_two_kinds_are_not_asked_about() -> None:
    changes, output, _ = asked(one_model(one=orm.IntegerField()), one_model(two=orm.TextField(null=True)), "")
    assert changes is not None
    assert output == ""


def test_a_model_is_asked_about_when_it_is_like_another() -> None:
    registry = Registry()
    declare(registry, "blog", "Article", {"title": orm.TextField(), "text": orm.TextField()})
    before = one_model(title=orm.TextField(), text=orm.TextField())
    changes, output, _ = asked(before, state_of(registry), "y\n")
    assert changes is not None
    assert [one.operation.describe() for one in changes.detected] == ["Rename model Post to Article"]
    assert "Was the model blog.Post renamed to Article?" in output


def test_a_value_is_asked_for_until_there_is_one() -> None:
    changes, output, _ = asked(one_model(), one_model(age=orm.IntegerField()), "old\n7\n")
    assert changes is not None
    assert changes.detected[0].operation.declared.options == {"fill": 7}
    assert "'old': it is no value of a IntegerField" in output


def test_enter_is_now_for_a_time() -> None:
    changes, _, _ = asked(one_model(), one_model(made=orm.DateTimeField(auto_now_add=True)), "\n")
    assert changes is not None
    assert isinstance(changes.detected[0].operation.declared.options["fill"], dt.datetime)


def test_whoever_leaves_gets_told_how_to_come_back() -> None:
    _, output, code = asked(one_model(), one_model(age=orm.IntegerField()), "q\n")
    assert code == 1
    assert "--default blog.Post.age=VALUE" in output


def test_the_end_of_the_input_is_no_answer() -> None:
    for after in (PHONE(), one_model(age=orm.IntegerField())):
        changes, output, code = asked(FAX(), after, "")
        assert changes is None
        assert code == 1
        assert "Aborted" in output


def test_nobody_agrees_to_a_loss_by_enter() -> None:
    before, after = one_model(field=orm.IntegerField()), one_model(field=orm.ManyToManyField("self"))
    changes, output, code = asked(before, after, "\n")
    assert changes is None
    assert code == 1
    assert "the values of its column are lost" in output
    changes, _, _ = asked(before, after, "y\n")
    assert changes is not None


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        (orm.IntegerField(), "-3", -3),
        (orm.CharField(max_length=9), "3", "3"),
        (orm.CharField(max_length=9), "", ""),
        (orm.BooleanField(), "True", True),
        (orm.DecimalField(max_digits=5, decimal_places=2), "1.50", Decimal("1.50")),
        (orm.DateField(), "2026-11-26", dt.date(2026, 11, 26)),
        (orm.UUIDField(), str(uuid.UUID(int=7)), uuid.UUID(int=7)),
        (orm.JSONField(), '{"a": [1]}', {"a": [1]}),
        (orm.JSONField(), '"text"', "text"),
        (orm.IntegerField(null=True), "NULL", None),
        (orm.ForeignKey("blog.Post"), "12", 12),
        (orm.ForeignKey("blog.Post"), "code", "code"),
    ],
)
def test_what_people_type_is_a_value(field: Field[Any], text: str, value: Any) -> None:
    found = value_of(field, text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (orm.IntegerField(), "three"),
        (orm.IntegerField(), "NULL"),
        (orm.BooleanField(), "perhaps"),
        (orm.DateField(), "yesterday"),
        (orm.JSONField(), "{"),
    ],
)
def test_what_is_no_value_is_an_error(field: Field[Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        value_of(field, text)


def test_a_default_that_is_no_value_names_the_option() -> None:
    with pytest.raises(MigrationError, match=r"--default blog\.Post\.age=old"):
        detect(one_model(), one_model(age=orm.IntegerField()), Given(defaults={"blog.Post.age": "old"}))


def test_what_was_not_given_is_for_somebody_else() -> None:
    state = one_model(age=orm.IntegerField())
    question = Fill(state["blog.Post"], "age", state["blog.Post"].fields["age"], "added")
    assert Given(defaults={"blog.Post.age": 1}).fill(question) == 1
    with pytest.raises(QuestionUnanswered):
        Given(defaults={"blog.Post.other": 1}).fill(question)
    inner = Given(renames=["a.B:C"], replace=["blog.Post.age"])
    outer = Given(renames=["a.D.e:f"], otherwise=inner)
    assert outer.renames() == (Rename("a.D.e", "f"), Rename("a.B", "C"))
    outer.replace(state["blog.Post"], "age", "")
    assert not outer.is_model_renamed(state["blog.Post"], state["blog.Post"])
    assert not outer.is_field_renamed(state["blog.Post"], "age", "year")
    assert not Unattended().is_field_renamed(state["blog.Post"], "age", "year")


@pytest.mark.parametrize("text", ["", "a.B", "a.B:", ":C", "a..b:c"])
def test_a_rename_that_is_not_understood(text: str) -> None:
    with pytest.raises(MigrationError, match=r"it is app\.Old:New"):
        Rename.parse(text)


def test_at_a_terminal() -> None:
    """A process of its own at a pseudo terminal: the question is seen, and the answer counts."""
    program = textwrap.dedent(
        """
        from covet_migrate.changes import Interactive
        from covet_migrate.state.models import ModelState
        model = ModelState("blog", "Post", {})
        print("answer:", Interactive().is_field_renamed(model, "fax", "phone"))
        """
    )
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=follower, stdout=follower, stderr=follower, close_fds=True
    )
    os.close(follower)
    seen = b""
    answered = False
    while process.poll() is None or select.select([leader], [], [], 0)[0]:
        if not select.select([leader], [], [], 60)[0]:
            break
        try:
            seen += os.read(leader, 4096)
        except OSError:
            # The other end is closed.
            break
        if b"[y/N]" in seen and not answered:
            os.write(leader, b"y\n")
            answered = True
    process.wait(60)
    os.close(leader)
    assert b"answer: True" in seen
