"""What differs between two states, as migrations: detecting, asking, ordering, optimizing."""

from covet_migrate.changes.detector import Changes, detect
from covet_migrate.changes.interactive import Interactive
from covet_migrate.changes.optimizer import optimize
from covet_migrate.changes.ordering import arrange
from covet_migrate.changes.questions import Given, Questions, Unattended

__all__ = ["Changes", "Given", "Interactive", "Questions", "Unattended", "arrange", "detect", "optimize"]
