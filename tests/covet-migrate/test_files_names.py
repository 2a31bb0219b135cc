"""Names of new migrations."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import covet_orm as orm
from covet_migrate import operations
from covet_migrate.exceptions import MigrationError
from covet_migrate.files.names import LONGEST, name_of, next_number, number_of
from covet_migrate.operations import Operation


def create(name: str) -> Operation:
    return operations.CreateModel(name, {"id": orm.BigAutoField(primary_key=True)})


def add(name: str) -> Operation:
    return operations.AddField("User", name, orm.TextField())


@pytest.mark.parametrize(
    ("made", "before", "name"),
    [
        ([add("email")], ["0001_initial", "0002_more"], "0003_user_email"),
        ([add("email"), add("email")], ["0001_initial"], "0002_user_email"),
        ([add("email"), operations.RemoveField("User", "fax")], ["0009_x"], "0010_user_email_remove_user_fax"),
        ([create("Post")], ["0001_initial", "0001_other"], "0002_post"),
        ([], ["0001_initial"], "0002_empty"),
        ([add("email")], ["9999_x"], "10000_user_email"),
        ([add("größe")], ["no_number"], "0001_user_groe"),
        (
            [add(f"field_number_{number}") for number in range(9)],
            ["0001_initial"],
            "0002_user_field_number_0_user_field_number_1_and_7_more",
        ),
        ([add("x" * 100)], [], f"0001_user_{'x' * (LONGEST - 5)}"),
    ],
)
def test_names_of_operations(made: list[Operation], before: list[str], name: str) -> None:
    assert name_of(made, before) == name


def test_the_first_one_is_called_initial() -> None:
    assert name_of([create("Post"), create("Tag")], [], initial=True) == "0001_initial"
    assert name_of([operations.RunSQL("SELECT 1")], [], initial=True) == "0001_run_sql"


def test_a_name_that_was_given() -> None:
    assert name_of([create("Post")], [], given="first", initial=True) == "0001_first"
    with pytest.raises(MigrationError, match=re.escape("such as add_the_e_mail")):
        name_of([], [], given="add the e-mail!")
    for given_name in ("", "../x", "x" * 200, "a.b", "ü"):
        with pytest.raises(MigrationError, match="is no name of a migration"):
            name_of([], [], given=given_name)


def test_numbers() -> None:
    assert number_of("0012_x") == 12
    assert number_of("x_12") is None
    assert next_number(["0001_a", "0003_b", "x"]) == "0004"
    assert next_number([]) == "0001"


@given(st.lists(st.text(min_size=1), max_size=6))
def test_every_name_is_that_of_a_file(fields: list[str]) -> None:
    name = name_of([add(one) for one in fields], ["0001_initial"])
    assert re.fullmatch(r"0002_[a-z0-9_]+", name)
    assert len(name) <= 5 + LONGEST
