"""What is detected between two sets of models: that, and nothing else."""

from __future__ import annotations

import enum
import math
import uuid
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Union

import pytest
from tests.migrations.model_classes import declare

import covet_orm as orm
from covet_migrate.changes import Changes, Given, Unattended, detect
from covet_migrate.exceptions import MigrationError, QuestionUnanswered
from covet_migrate.operations import CreateModel, Operation
from covet_migrate.state import ModelState, State
from covet_migrate.state.from_models import state_of
from covet_orm import F, Field, Q, Registry
from covet_orm.fields.related import ParentLink

Body = dict[str, Any]


def one_model(body: Body, **meta: Any) -> State:
    """The state of one model, `blog.Post`, beside `blog.Author` and `blog.Tag`."""
    return models({"Post": body}, {"Post": meta})


def models(bodies: dict[str, Body], metas: dict[str, dict[str, Any]] | None = None) -> State:
    registry = Registry()
    for name, body in {"Author": {}, "Tag": {}, **bodies}.items():
        declare(registry, "blog", name, body, **(metas or {}).get(name, {}))
    return state_of(registry)


def told(changes: Changes) -> list[str]:
    return [one.operation.describe() for one in changes.detected]


def changed(before: State, after: State, questions: Any = None) -> list[str]:
    """What is detected; it has to make one of the other, and leave nothing."""
    changes = detect(before, after, questions or Unattended())
    made = changes.apply(before)
    assert detect(made, after, Unattended()).detected == []
    return told(changes)


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class MoreColours(enum.Enum):
    RED = "red"
    GREEN = "green"
    BLUE = "blue"


class LongColours(enum.Enum):
    RED = "red"
    LONG = "a colour with a long name"


# One type, in two ways of writing it.
BEFORE: Any = Union[dict, list]  # noqa: UP007
AFTER: Any = dict | list


def first() -> str:
    return ""


SAME: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "a default that is spelled out": (
        lambda: orm.CharField(max_length=5),
        lambda: orm.CharField(max_length=5, null=False, unique=False, db_index=False, comment=None),
    ),
    "what is in Python alone": (
        lambda: orm.CharField(max_length=5, choices=["a"], validators=[print]),
        lambda: orm.CharField(max_length=5, choices=["b", "c"]),
    ),
    "on_delete that is spelled out": (
        lambda: orm.ForeignKey("Author"),
        lambda: orm.ForeignKey("blog.Author", on_delete=orm.CASCADE, db_index=True, unique=False),
    ),
    "a model by keyword": (lambda: orm.ForeignKey("Author"), lambda: orm.ForeignKey(to="blog.Author")),
    "two words for one thing": (
        lambda: orm.ForeignKey("Author", on_delete=orm.PROTECT),
        lambda: orm.ForeignKey("Author", on_delete=orm.RESTRICT),
    ),
    "a reference to itself": (
        lambda: orm.ForeignKey("self", null=True),
        lambda: orm.ForeignKey("blog.Post", null=True),
    ),
    "one function as default": (lambda: orm.TextField(default=first), lambda: orm.TextField(default=first)),
    "two partial functions that do the same": (
        lambda: orm.TextField(default=partial(str, 1)),
        lambda: orm.TextField(default=partial(str, 1)),
    ),
    "a db_default": (lambda: orm.IntegerField(db_default=3), lambda: orm.IntegerField(db_default=3)),
    "an expression as db_default": (
        lambda: orm.IntegerField(db_default=F("id") + 1),
        lambda: orm.IntegerField(db_default=F("id") + 1),
    ),
    "NaN, which is equal to nothing": (
        lambda: orm.FloatField(default=math.nan),
        lambda: orm.FloatField(default=float("nan")),
    ),
    "a schema of JSON (aerich 556)": (
        lambda: orm.JSONField(schema=BEFORE),
        lambda: orm.JSONField(schema=AFTER),
    ),
    "one more member of an enumeration (alembic-postgresql-enum 133)": (
        lambda: orm.EnumField(Colour),
        lambda: orm.EnumField(MoreColours),
    ),
    "a generated column": (
        lambda: orm.GeneratedField(F("id") * 2, orm.BigIntegerField()),
        lambda: orm.GeneratedField(expression=F("id") * 2, output=orm.BigIntegerField(null=False)),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_what_says_the_same_is_no_change(case: str) -> None:
    one, other = SAME[case]
    assert changed(one_model({"field": one()}), one_model({"field": other()})) == []
    assert changed(one_model({"field": other()}), one_model({"field": one()})) == []


DIFFERENT: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "on_delete (aerich 298)": (
        lambda: orm.ForeignKey("Author", null=True),
        lambda: orm.ForeignKey("Author", null=True, on_delete=orm.SET_NULL),
    ),
    "unique of a field with an index (aerich 404)": (
        lambda: orm.CharField(max_length=5, db_index=True),
        lambda: orm.CharField(max_length=5, db_index=True, unique=True),
    ),
    "no index of a foreign key": (lambda: orm.ForeignKey("Author"), lambda: orm.ForeignKey("Author", db_index=False)),
    "not unique, of a one-to-one field": (
        lambda: orm.OneToOneField("Author"),
        lambda: orm.OneToOneField("Author", unique=False),
    ),
    "the length": (lambda: orm.CharField(max_length=5), lambda: orm.CharField(max_length=6)),
    "the type": (lambda: orm.IntegerField(), lambda: orm.TextField()),
    "a longer member of an enumeration (alembic 1745)": (
        lambda: orm.EnumField(Colour),
        lambda: orm.EnumField(LongColours),
    ),
    "NULL": (lambda: orm.IntegerField(), lambda: orm.IntegerField(null=True)),
    "a db_default": (lambda: orm.IntegerField(db_default=3), lambda: orm.IntegerField(db_default=4)),
    "a default": (lambda: orm.BooleanField(default=True), lambda: orm.BooleanField(default=False)),
    "true and one are two defaults": (lambda: orm.JSONField(default=True), lambda: orm.JSONField(default=1)),
    "the column": (lambda: orm.IntegerField(), lambda: orm.IntegerField(db_column="other")),
    "a comment": (lambda: orm.IntegerField(), lambda: orm.IntegerField(comment="n")),
    "the model that it leads to": (lambda: orm.ForeignKey("Author"), lambda: orm.ForeignKey("Tag")),
    "the name of a table between": (
        lambda: orm.ManyToManyField("Tag"),
        lambda: orm.ManyToManyField("Tag", db_table="post_tags"),
    ),
    "the index of a generated column": (
        lambda: orm.GeneratedField(F("id") * 2, orm.BigIntegerField()),
        lambda: orm.GeneratedField(F("id") * 2, orm.BigIntegerField(), db_index=True),
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_says_something_else_is_an_altered_field(case: str) -> None:
    one, other = DIFFERENT[case]
    assert changed(one_model({"field": one()}), one_model({"field": other()})) == ["Alter field field of Post"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (orm.IntegerField(primary_key=True), orm.BigIntegerField(primary_key=True)),
        (orm.AutoField(), orm.BigAutoField()),
        (orm.IntegerField(primary_key=True), orm.AutoField()),
        (orm.BigAutoField(), orm.UUIDField(primary_key=True, default=uuid.uuid4)),
    ],
)
def test_a_key_of_another_type_is_an_altered_key(old: Field[Any], new: Field[Any]) -> None:
    """Tortoise removes it and adds it anew; alembic (1224) does not see that a key counts or not."""
    assert changed(one_model({"id": old}), one_model({"id": new})) == ["Alter field id of Post"]


def test_a_field_that_is_gone_and_one_like_it_are_no_rename() -> None:
    """Tortoise renames silently; aerich (116, 134) has Yes as its answer."""
    before = one_model({"fax": orm.CharField(max_length=20, null=True)})
    after = one_model({"phone": orm.CharField(max_length=20, null=True)})
    changes = detect(before, after, Unattended())
    assert told(changes) == ["Remove field fax from Post", "Add field phone to Post"]
    assert changes.losses == ["the values of blog.Post.fax"]


def test_a_model_that_is_gone_and_one_like_it_are_no_rename() -> None:
    body: Callable[[], Body] = lambda: {"name": orm.CharField(max_length=20)}  # noqa: E731
    changes = detect(models({"User": body()}), models({"Account": body()}), Unattended())
    assert told(changes) == ["Create model Account", "Delete model User"]
    assert changes.losses == ["the rows of blog.User"]


def test_a_rename_that_was_said_is_one() -> None:
    before = one_model({"fax": orm.CharField(max_length=20)})
    after = one_model({"phone": orm.CharField(max_length=20)})
    assert changed(before, after, Given(renames=["blog.Post.fax:phone"])) == ["Rename field fax of Post to phone"]


def test_a_field_is_renamed_and_altered_at_once() -> None:
    before = one_model({"fax": orm.CharField(max_length=20)}, indexes=[orm.Index("fax", "id")])
    after = one_model({"phone": orm.TextField()}, indexes=[orm.Index("phone", "id")])
    assert changed(before, after, Given(renames=["blog.Post.fax:phone"])) == [
        "Rename field fax of Post to phone",
        "Alter field phone of Post",
    ]


def test_a_renamed_field_that_keeps_its_column_changes_nothing_in_between() -> None:
    """Django's ticket 29245: told the column first, the field is renamed and the column is not."""
    before = one_model({"author": orm.ForeignKey("Author")})
    after = one_model({"writer": orm.ForeignKey("Author", db_column="author_id")})
    assert changed(before, after, Given(renames=["blog.Post.author:writer"])) == [
        "Alter field author of Post",
        "Rename field author of Post to writer",
    ]


def test_a_key_is_renamed_and_altered_at_once() -> None:
    """Django's ticket 37006."""
    before = one_model({"code": orm.IntegerField(primary_key=True)})
    after = one_model({"number": orm.BigIntegerField(primary_key=True)})
    assert changed(before, after, Given(renames=["blog.Post.code:number"])) == [
        "Rename field code of Post to number",
        "Alter field number of Post",
    ]


def test_a_model_and_its_field_are_renamed_at_once() -> None:
    before = models(
        {
            "User": {"fax": orm.CharField(max_length=20)},
            "Note": {"user": orm.ForeignKey("User"), "other": orm.ManyToManyField("User", related_name="+")},
        }
    )
    after = models(
        {
            "Account": {"phone": orm.CharField(max_length=20)},
            "Note": {"user": orm.ForeignKey("Account"), "other": orm.ManyToManyField("Account", related_name="+")},
        }
    )
    for field in ("blog.User.fax:phone", "blog.Account.fax:phone"):
        assert changed(before, after, Given(renames=["blog.User:Account", field])) == [
            "Rename model User to Account",
            "Rename field fax of Account to phone",
        ]


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ("blog.Post.fxa:phone", "know neither model nor field 'blog.Post.fxa'"),
        ("blog.Post.fax:phnoe", "has no new field 'phnoe'.*phone"),
        ("blog.Post.id:phone", "still has a field 'id'"),
        ("blog.Author:Writer", "the model blog.Author is still there"),
        ("blog.Post.fax", "it is app.Old:New"),
    ],
)
def test_a_rename_that_is_none_is_an_error(rename: str, message: str) -> None:
    before = one_model({"fax": orm.CharField(max_length=20, null=True)})
    after = one_model({"phone": orm.CharField(max_length=20, null=True)})
    with pytest.raises(MigrationError, match=message):
        detect(before, after, Given(renames=[rename]))


def test_a_column_that_may_not_be_null_needs_a_value_for_the_rows() -> None:
    """Tortoise adds it, and the migration fails where there are rows."""
    before, after = one_model({}), one_model({"age": orm.IntegerField()})
    with pytest.raises(QuestionUnanswered, match=r"--default blog\.Post\.age=VALUE"):
        detect(before, after, Unattended())
    changes = detect(before, after, Given(defaults={"blog.Post.age": "7"}))
    assert [getattr(one.operation, "fill", None) for one in changes.detected] == [7]


@pytest.mark.parametrize(
    "field",
    [
        orm.IntegerField(default=1),
        orm.IntegerField(null=True),
        orm.IntegerField(db_default=1),
        orm.ManyToManyField("Tag"),
        orm.UUIDField(default=uuid.uuid4),
        orm.GeneratedField(F("id") + 1, orm.BigIntegerField()),
    ],
)
def test_a_column_that_has_something_for_the_rows_needs_no_answer(field: Field[Any]) -> None:
    assert changed(one_model({}), one_model({"field": field})) == ["Add field field to Post"]


def test_null_that_is_forbidden_needs_a_value_for_the_rows_that_have_it() -> None:
    before, after = one_model({"age": orm.IntegerField(null=True)}), one_model({"age": orm.IntegerField()})
    with pytest.raises(QuestionUnanswered, match="rows that have NULL there"):
        detect(before, after, Unattended())
    assert changed(before, after, Given(defaults={"blog.Post.age": 0})) == ["Alter field age of Post"]


def test_the_time_of_the_first_save_is_asked() -> None:
    before, after = one_model({}), one_model({"created": orm.DateTimeField(auto_now_add=True)})
    with pytest.raises(QuestionUnanswered, match=r"--default blog\.Post\.created=now"):
        detect(before, after, Unattended())
    (one,) = detect(before, after, Given(defaults={"blog.Post.created": "now"})).detected
    assert getattr(one.operation, "fill", None) is not None


def test_a_unique_column_with_a_default_is_explained() -> None:
    before, after = one_model({}), one_model({"token": orm.UUIDField(default=uuid.uuid4, unique=True)})
    with pytest.raises(QuestionUnanswered, match="in three migrations"):
        detect(before, after, Unattended())
    nullable = one_model({"token": orm.UUIDField(default=uuid.uuid4, unique=True, null=True)})
    (one,) = detect(before, nullable, Unattended()).detected
    # None, and not one value for all.
    assert one.operation.declared.options == {"fill": None}


def test_nothing_is_asked_about_tables_that_are_somebody_elses() -> None:
    before, after = one_model({}, managed=False), one_model({"age": orm.IntegerField()}, managed=False)
    assert changed(before, after) == ["Add field age to Post"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (orm.ManyToManyField("Tag"), orm.ManyToManyField("Author")),
        (orm.ManyToManyField("Tag"), orm.ForeignKey("Tag", null=True)),
        (orm.ForeignKey("Tag", null=True), orm.ManyToManyField("Tag")),
        (orm.ManyToManyField("Tag"), orm.ManyToManyField("Tag", through="Tagging")),
        (orm.BigIntegerField(null=True), orm.GeneratedField(F("id") + 1, orm.BigIntegerField())),
        (orm.GeneratedField(F("id") + 1, orm.BigIntegerField()), orm.BigIntegerField(null=True)),
    ],
)
def test_what_cannot_be_altered_is_replaced_when_somebody_agrees(old: Field[Any], new: Field[Any]) -> None:
    tagging: Callable[[], Body] = lambda: {"post": orm.ForeignKey("Post"), "tag": orm.ForeignKey("Tag")}  # noqa: E731
    before = models({"Post": {"field": old}, "Tagging": tagging()})
    after = models({"Post": {"field": new}, "Tagging": tagging()})
    with pytest.raises(QuestionUnanswered, match=r"--replace blog\.Post\.field"):
        detect(before, after, Unattended())
    assert changed(before, after, Given(replace=["blog.Post.field"])) == [
        "Remove field field from Post",
        "Add field field to Post",
    ]


def test_a_generated_column_is_computed_anew() -> None:
    body: Callable[[int], Body] = lambda by: {  # noqa: E731
        "price": orm.IntegerField(),
        "total": orm.GeneratedField(F("price") * by, orm.IntegerField()),
    }
    changes = detect(one_model(body(2)), one_model(body(3)), Unattended())
    assert told(changes) == ["Remove field total from Post", "Add field total to Post"]
    assert changes.losses == []


def test_what_is_computed_of_a_replaced_column_is_replaced_with_it() -> None:
    total: Callable[[], Field[Any]] = lambda: orm.GeneratedField(F("price") * 2, orm.IntegerField())  # noqa: E731
    before = one_model({"price": orm.IntegerField(), "total": total()})
    after = one_model({"price": orm.GeneratedField(F("id") + 1, orm.IntegerField()), "total": total()})
    assert changed(before, after, Given(replace=["blog.Post.price"])) == [
        "Remove field total from Post",
        "Remove field price from Post",
        "Add field price to Post",
        "Add field total to Post",
    ]


def test_an_index_that_got_another_name_is_renamed() -> None:
    before = one_model({"title": orm.TextField()}, indexes=[orm.Index("title", "id", name="first")])
    after = one_model({"title": orm.TextField()}, indexes=[orm.Index("title", "id", name="second")])
    assert changed(before, after) == ["Rename index first of Post to second"]


def test_an_index_without_a_name_gets_one() -> None:
    before = one_model({"title": orm.TextField()}, indexes=[orm.Index("title", "id")])
    after = one_model({"title": orm.TextField()}, indexes=[orm.Index("title", "id", name="named")])
    assert changed(before, after) == ["Rename index blog_post_title_id_idx of Post to named"]


def test_indexes_and_constraints_come_and_go() -> None:
    body: Callable[[], Body] = lambda: {"low": orm.IntegerField(), "high": orm.IntegerField()}  # noqa: E731
    before = one_model(body(), indexes=[orm.Index("low", "high")], unique_together=[("low", "high")])
    after = one_model(body(), constraints=[orm.CheckConstraint(Q(low__lt=F("high")), name="ordered")])
    assert changed(before, after) == [
        "Remove index blog_post_low_high_idx from Post",
        "Alter unique_together of Post",
        "Add constraint ordered to Post",
    ]
    assert changed(after, before)[0] == "Remove constraint ordered from Post"


def test_an_index_goes_before_its_field_and_comes_after_it() -> None:
    before = one_model({"old": orm.TextField(default="")}, indexes=[orm.Index("old", "id")])
    after = one_model({"new": orm.TextField(default="")}, indexes=[orm.Index("new", "id")])
    assert changed(before, after) == [
        "Remove index blog_post_old_id_idx from Post",
        "Remove field old from Post",
        "Add field new to Post",
        "Add index <Index new, id> to Post",
    ]


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"db_table": "posts"}, "Rename the table of Post to posts"),
        ({"comment": "what people wrote"}, "Alter comment of Post"),
        ({"managed": False}, "Alter managed of Post"),
        ({"database": "archive"}, "Alter database of Post"),
        ({"unique_together": ("one", "two")}, "Alter unique_together of Post"),
    ],
)
def test_an_option_is_detected_both_ways(meta: dict[str, Any], expected: str) -> None:
    body: Callable[[], Body] = lambda: {"one": orm.IntegerField(), "two": orm.IntegerField()}  # noqa: E731
    plain, other = one_model(body()), one_model(body(), **meta)
    assert changed(plain, other) == [expected]
    assert len(changed(other, plain)) == 1


def test_options_that_only_look_different_are_the_same() -> None:
    body: Callable[[], Body] = lambda: {"one": orm.IntegerField(), "two": orm.IntegerField()}  # noqa: E731
    model = one_model(body(), unique_together=("one", "two"), db_table="blog_post")["blog.Post"]
    written = CreateModel("Post", model.fields, {"unique_together": [["one", "two"]], "db_table": "blog_post"})
    other = State({label: one for label, one in one_model({}).models.items() if label != "blog.Post"})
    after = one_model(body(), unique_together=[["one", "two"]])
    assert detect(written.apply(other, "blog"), after, Unattended()).detected == []


def test_models_are_created_after_those_that_they_refer_to() -> None:
    """aerich 520 creates tables in an order that their foreign keys do not allow."""
    after = models(
        {
            "Aaa": {"zzz": orm.ForeignKey("Zzz"), "tags": orm.ManyToManyField("Tag")},
            "Zzz": {"author": orm.ForeignKey("Author")},
        }
    )
    assert changed(State(), after) == [f"Create model {name}" for name in ("Author", "Tag", "Zzz", "Aaa")]


def test_of_a_circle_one_model_is_created_without_what_closes_it() -> None:
    after = models(
        {
            "Team": {"captain": orm.ForeignKey("Player", null=True, related_name="+")},
            "Player": {"team": orm.ForeignKey("Team", related_name="+")},
        },
        {"Team": {"indexes": [orm.Index("captain", "id", name="by_captain")]}},
    )
    assert changed(State(), after) == [
        "Create model Author",
        "Create model Tag",
        "Create model Team",
        "Create model Player",
        "Add field captain to Team",
        "Add index by_captain to Team",
    ]
    assert changed(after, models({})) == [
        "Remove field team from Player",
        "Remove index by_captain from Team",
        "Remove field captain from Team",
        "Delete model Team",
        "Delete model Player",
    ]


def test_keys_that_refer_to_each_other_are_an_error() -> None:
    key: Callable[[str], Body] = lambda to: {  # noqa: E731
        "key": orm.OneToOneField(to, primary_key=True, related_name="+")
    }
    state = State(
        {
            "blog.A": ModelState("blog", "A", key("blog.B")),
            "blog.B": ModelState("blog", "B", key("blog.A")),
        }
    )
    with pytest.raises(MigrationError, match=r"keys of blog\.A, blog\.B refer to each other"):
        detect(State(), state, Unattended())


def test_models_are_deleted_in_the_order_that_their_references_allow() -> None:
    before = models({"Aaa": {}, "Bbb": {"aaa": orm.ForeignKey("Aaa")}, "Ccc": {"bbb": orm.ManyToManyField("Bbb")}})
    assert changed(before, models({})) == [f"Delete model {name}" for name in ("Ccc", "Bbb", "Aaa")]


def test_a_reference_leads_elsewhere_before_the_model_goes() -> None:
    before = models({"Old": {}, "Note": {"to": orm.ForeignKey("Old", null=True)}})
    after = models({"Fresh": {}, "Note": {"to": orm.ForeignKey("Fresh", null=True)}})
    assert changed(before, after) == ["Create model Fresh", "Alter field to of Note", "Delete model Old"]


def test_a_model_that_gets_the_table_of_one_that_goes() -> None:
    before = models({"Old": {}}, {"Old": {"db_table": "things"}})
    after = models({"Fresh": {}}, {"Fresh": {"db_table": "things"}})
    assert changed(before, after) == ["Delete model Old", "Create model Fresh"]


def test_inheritance_of_every_kind() -> None:
    registry = Registry()
    stamped = declare(
        registry, "blog", "Stamped", {"at": orm.DateTimeField(auto_now_add=True)}, abstract=True,
        indexes=[orm.Index("at", "id", name="%(class)s_at")],
    )  # fmt: skip

    class Named:
        name: Annotated[str | None, orm.CharField(max_length=30)] = None
        slug = orm.SlugField(max_length=30)

    person = declare(registry, "people", "Person", {"nick": orm.TextField()}, stamped, Named)
    declare(registry, "staff", "Employee", {"badge": orm.IntegerField()}, person)
    declare(registry, "staff", "Contact", {}, person, proxy=True)
    declare(registry, "staff", "Call", {"to": orm.ForeignKey("staff.Contact"), "by": orm.ForeignKey("staff.Employee")})
    state = state_of(registry)
    assert set(state.models) == {"people.Person", "staff.Employee", "staff.Call"}
    assert changed(State(), state) == ["Create model Person", "Create model Employee", "Create model Call"]
    assert isinstance(state["staff.Employee"].fields["person_ptr"], ParentLink)
    # A proxy has no table: what refers to it refers to the model whose table it has.
    assert getattr(state["staff.Call"].fields["to"], "to", None) == "people.Person"


def test_annotated_fields_are_what_their_annotations_say() -> None:
    def annotated(hint: Any, **body: Any) -> State:
        return one_model({"__annotations__": {"age": Annotated[hint, orm.IntegerField()]}, **body})

    assert changed(annotated(int), annotated(int)) == []
    assert changed(annotated(int), annotated(int | None)) == ["Alter field age of Post"]
    assert changed(annotated(int, age=1), annotated(int, age=2)) == ["Alter field age of Post"]
    assert changed(annotated(int | None), one_model({"age": orm.IntegerField(null=True)})) == []


def test_some_applications_alone_and_what_they_need() -> None:
    def registered(**bodies: Body) -> State:
        registry = Registry()
        for name, body in bodies.items():
            app, _, model = name.partition("_")
            declare(registry, app, model, body)
        return state_of(registry)

    before = registered(blog_Post={}, shop_Item={}, users_User={})
    after = registered(
        blog_Post={"group": orm.ForeignKey("users.Group", null=True)},
        shop_Item={"price": orm.IntegerField()},
        users_User={},
        users_Group={},
    )
    changes = detect(before, after, Unattended(), apps=["blog"])
    assert [(one.app, one.operation.describe()) for one in changes.detected] == [
        ("users", "Create model Group"),
        ("blog", "Add field group to Post"),
    ]
    with pytest.raises(MigrationError, match=r"no application 'blgo'.*blog"):
        detect(before, after, Unattended(), apps=["blgo"])


def test_a_field_of_ones_own_is_told_from_its_parent() -> None:
    class Money(orm.DecimalField[Any]):
        def __init__(self, **options: Any) -> None:
            options.setdefault("max_digits", 12)
            options.setdefault("decimal_places", 2)
            super().__init__(**options)

    plain = one_model({"price": orm.DecimalField(max_digits=12, decimal_places=2)})
    own: Callable[[], State] = lambda: one_model({"price": Money()})  # noqa: E731
    assert changed(plain, own()) == ["Alter field price of Post"]
    assert changed(own(), own()) == []
    (operation,) = detect(plain, own(), Unattended()).operations()["blog"]
    assert isinstance(operation, Operation)
