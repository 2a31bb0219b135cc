"""What managers and querysets give."""

from __future__ import annotations

from typing import Any, assert_type

from declarations import AdultManager, Team, User

from covet_orm.expressions import F, Q
from covet_orm.models import Manager
from covet_orm.queries.querysets import QuerySet
from covet_orm.relations.managers import RelatedManager


async def asked() -> None:
    assert_type(User.objects, Manager[User])
    assert_type(User.objects.all(), QuerySet[User])
    assert_type(User.objects.filter(age__gt=3), QuerySet[User])
    assert_type(User.objects.filter(User.age > 3, Q(nick="x") | Q(age=F("score")), age__lt=9), QuerySet[User])
    assert_type(User.objects.exclude(User.age > 3).order_by("-age", User.age.desc()), QuerySet[User])
    assert_type(User.objects.filter(age=3)[:10], QuerySet[User])
    assert_type(User.objects.select_related("team").only("age"), QuerySet[User])
    assert_type(await User.objects.all(), list[User])
    assert_type(await User.objects.filter(age=3), list[User])
    assert_type(await User.objects.get(age=3), User)
    assert_type(await User.objects.create(username="ada"), User)
    assert_type(await User.objects.filter(age=3).first(), User | None)
    assert_type(await User.objects.filter(age=3).last(), User | None)
    assert_type(await User.objects.filter(age=3).count(), int)
    assert_type(await User.objects.filter(age=3).exists(), bool)
    assert_type(await User.objects.filter(age=3).update(age=4), int)
    assert_type(await User.objects.filter(age=3).update_returning(age=4), list[User])
    assert_type(await User.objects.delete_returning(), list[User])
    assert_type(await User.objects.bulk_create([User(username="eve")]), list[User])
    assert_type(await User.objects.get_or_create(username="eve"), tuple[User, bool])
    assert_type(User.objects.select_subclasses(), QuerySet[User])
    assert_type(User.objects.all().select_subclasses().filter(age=3), QuerySet[User])
    async for user in User.objects.filter(age__gt=3):
        assert_type(user, User)
        assert_type(user.age, int)


async def of_ones_own() -> None:
    assert_type(User.adults, AdultManager)
    assert_type(User.adults.named("ada"), QuerySet[User])
    assert_type(await User.adults.named("ada").first(), User | None)


async def of_instances() -> None:
    user = User(username="ada", team=Team(name="red"))
    assert_type(user, User)
    await user.save(update_fields=["age"])
    assert_type(await user.refresh_from_db(), User)
    assert_type(await user.delete(), int)
    try:
        await User.objects.get(pk=1)
    except User.DoesNotExist as error:
        assert_type(error.args, tuple[object, ...])  # E: it is tuple[Any, ...]


async def mistaken() -> None:
    User.objects.filter(User.age)  # E: a number is no condition
    User.objects.filter("age")  # E: a name is no condition
    await User.objects.filter(age=3).first().age  # E: a coroutine, and None perhaps
    User.objects.filtre(age=3)  # E: no such method
    user = User(username="ada")
    # What annotate() computed, and reverse relations that nobody declared, are attributes that a checker cannot know.
    assert_type(user.posts_written, Any)
    user.team_id = "x"  # E: no such attribute is declared
    user.save("x")  # E: its arguments have names


async def of_relations(team: Team, user: User) -> None:
    assert_type(team.members, RelatedManager[User])
    assert_type(await team.members.all(), list[User])
    assert_type(await team.members.filter(User.age > 3).first(), User | None)
    assert_type(user.teams, RelatedManager[Team])
    assert_type(await user.teams.all(), list[Team])
    user.teams.filter("x")  # E: a name is no condition
