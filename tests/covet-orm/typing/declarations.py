"""Models whose types the other files of this directory ask about."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Annotated

import msgspec

from covet_orm.constraints import CheckConstraint, UniqueConstraint
from covet_orm.expressions import F, Q
from covet_orm.fields import (
    SET_NULL,
    ArrayField,
    BigIntegerField,
    BinaryField,
    BooleanField,
    CharField,
    DateField,
    DateRangeField,
    DateTimeField,
    DateTimeRangeField,
    DecimalField,
    DecimalRangeField,
    DurationField,
    EmailField,
    EnumField,
    FileField,
    FloatField,
    ForeignKey,
    GeneratedField,
    HStoreField,
    IntegerField,
    IntegerRangeField,
    IPAddressField,
    JSONField,
    ManyToManyField,
    OneToOneField,
    PositiveIntegerField,
    SlugField,
    SmallIntegerField,
    TextField,
    TimeField,
    URLField,
    UUIDField,
)
from covet_orm.indexes import Index
from covet_orm.models import Manager, Model
from covet_orm.queries.querysets import QuerySet
from covet_orm.relations.managers import RelatedManager


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Address(msgspec.Struct):
    street: str


class Timestamps(Model):
    created = DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True


class Team(Model):
    name = CharField(max_length=50)
    # Nothing at runtime: it tells a type checker what `related_name` makes.
    members: RelatedManager[User]


class AdultManager(Manager["User"]):
    def get_queryset(self) -> QuerySet[User]:
        return super().get_queryset().filter(age__gte=18)

    def named(self, name: str) -> QuerySet[User]:
        return self.filter(username=name)


class User(Timestamps):
    username = CharField(max_length=100, unique=True)
    nick = CharField(max_length=100, null=True)
    email = EmailField(unique=True)
    age = IntegerField(default=0)
    score = FloatField(null=True)
    team = ForeignKey(Team, related_name="members")
    mentor = ForeignKey("User", null=True, on_delete=SET_NULL)
    boss = ForeignKey(Team, null=True, related_name="+")
    colour = EnumField(Colour)
    second_colour = EnumField(Colour, null=True)
    teams = ManyToManyField(Team, related_name="guests")

    adults = AdultManager()

    class Meta(Timestamps.Meta):
        indexes = [Index("age", condition=Q(nick__isnull=False))]
        constraints = [UniqueConstraint("username", "team"), CheckConstraint(Q(age__gte=0))]


class Profile(Model):
    user = OneToOneField(User, related_name="profile")


class Everything(Model):
    key = UUIDField(primary_key=True, default=uuid.uuid4)
    key_or_none = UUIDField(null=True)
    text = TextField()
    text_or_none = TextField(null=True)
    url = URLField(null=True)
    slug = SlugField()
    small = SmallIntegerField()
    big = BigIntegerField(null=True)
    positive = PositiveIntegerField()
    price = DecimalField(max_digits=8, decimal_places=2, default=Decimal(0))
    price_or_none = DecimalField(max_digits=8, decimal_places=2, null=True)
    active = BooleanField(default=True)
    active_or_none = BooleanField(null=True)
    day = DateField()
    hour = TimeField(null=True)
    at = DateTimeField(default=lambda: dt.datetime.now(dt.UTC))
    took = DurationField()
    raw = BinaryField()
    anything = JSONField()
    address = JSONField(schema=Address)
    address_or_none = JSONField(schema=Address, null=True)
    scores = ArrayField(IntegerField())
    scores_or_none = ArrayField(IntegerField(null=True), null=True)
    ip = IPAddressField()
    span = IntegerRangeField()
    price_span = DecimalRangeField(null=True)
    during = DateTimeRangeField(timezone=False)
    nights = DateRangeField(null=True)
    labels = HStoreField()
    photo = FileField(null=True)
    total = GeneratedField(F("small") * F("positive"), IntegerField())


Count = Annotated[int, PositiveIntegerField()]


class Annotations(Model):
    """Declared by annotations: the types of instances are what they say."""

    count: Count
    maybe: Annotated[str | None, CharField(max_length=5)]
    with_default: Annotated[int, IntegerField()] = 3
