"""Declarations that a type checker refuses."""

from __future__ import annotations

import enum

from covet_orm.fields import CharField, EnumField, ForeignKey, IntegerField, JSONField
from covet_orm.models import Model


class Plain(enum.Enum):
    A = 1


class Wrong(Model):
    without_length = CharField()  # E: max_length is needed
    misspelt = IntegerField(defualt=3)  # E: no such option
    no_enum = EnumField(int)  # E: int is no enumeration
    no_model = ForeignKey(Plain)  # E: an enumeration is no model
    right = JSONField(schema=dict[str, int])
