"""Models: tables as classes, rows as objects."""

from __future__ import annotations

from covet_orm.models.instances import Model
from covet_orm.models.managers import Manager
from covet_orm.models.registry import Registry, registry

__all__ = ["Manager", "Model", "Registry", "registry"]
