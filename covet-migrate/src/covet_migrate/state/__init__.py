"""What migrations make of a schema: the models as they are after each of them."""

from covet_migrate.state.declarations import Declaration, declaration_of
from covet_migrate.state.models import ModelState, State

__all__ = ["Declaration", "ModelState", "State", "declaration_of"]
