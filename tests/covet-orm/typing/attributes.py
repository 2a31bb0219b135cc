"""What attributes of instances and of models are."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Any, assert_type
from uuid import UUID

from declarations import Address, Annotations, Colour, Everything, Profile, Team, User

from covet_orm.expressions import ColumnReference, Condition, Ordering
from covet_orm.fields import Range, StoredFile


def of_an_instance(user: User, profile: Profile) -> None:
    assert_type(user.username, str)
    assert_type(user.nick, str | None)
    assert_type(user.email, str)
    assert_type(user.age, int)
    assert_type(user.score, float | None)
    assert_type(user.created, dt.datetime)
    assert_type(user.team, Team)
    assert_type(user.team.name, str)
    assert_type(user.boss, Team | None)
    assert_type(user.colour, Colour)
    assert_type(user.second_colour, Colour | None)
    assert_type(profile.user, User)
    assert_type(profile.user.team.name, str)


def of_every_kind(it: Everything) -> None:
    assert_type(it.key, UUID)
    assert_type(it.key_or_none, UUID | None)
    assert_type(it.text, str)
    assert_type(it.text_or_none, str | None)
    assert_type(it.url, str | None)
    assert_type(it.slug, str)
    assert_type(it.small, int)
    assert_type(it.big, int | None)
    assert_type(it.positive, int)
    assert_type(it.price, Decimal)
    assert_type(it.price_or_none, Decimal | None)
    assert_type(it.active, bool)
    assert_type(it.active_or_none, bool | None)
    assert_type(it.day, dt.date)
    assert_type(it.hour, dt.time | None)
    assert_type(it.at, dt.datetime)
    assert_type(it.took, dt.timedelta)
    assert_type(it.raw, bytes)
    assert_type(it.anything, Any)
    assert_type(it.address, Address)
    assert_type(it.address.street, str)
    assert_type(it.address_or_none, Address | None)
    assert_type(it.scores, list[int])
    assert_type(it.scores_or_none, list[int | None] | None)
    assert_type(it.span, Range[int])
    assert_type(it.span.lower, int | None)
    assert_type(it.price_span, Range[Decimal] | None)
    assert_type(it.during, Range[dt.datetime])
    assert_type(it.nights, Range[dt.date] | None)
    assert_type(it.labels, dict[str, str | None])
    assert_type(it.ip, IPv4Address | IPv6Address)
    assert_type(it.photo, StoredFile | None)
    assert_type(it.total, int)


def of_annotations(it: Annotations) -> None:
    assert_type(it.count, int)
    assert_type(it.maybe, str | None)
    it.count = "3"  # E: another type


def of_a_model() -> None:
    assert_type(User.age, ColumnReference[int])
    assert_type(User.nick, ColumnReference[str | None])
    assert_type(User.age > 3, Condition)
    assert_type(User.age == 3, Condition)
    assert_type((User.age > 3) & (User.nick == None), Condition)  # noqa: E711
    assert_type(~(User.age > 3), Condition)
    assert_type(User.age.desc(nulls="last"), Ordering)
    assert_type(User.username.startswith("a"), Condition)
    assert_type(User.colour == Colour.RED, Condition)


def assigned(user: User, team: Team) -> None:
    user.username = "ada"
    user.nick = None
    user.team = team
    user.boss = None
    user.colour = Colour.GREEN
    user.username = None  # E: not null
    user.age = "3"  # E: another type
    user.team = None  # E: not null
    user.team = user  # E: another model
    user.colour = "red"  # E: its value is not the member
    user.second_colour = None
    user.surname = "x"  # E: no such field


def compared() -> None:
    _ = User.age > "3"  # E: another type
    _ = User.username < 5  # E: another type
    _ = User.created >= dt.datetime.now(dt.UTC)
    User.age.asc(nulls="middle")  # E: first or last
