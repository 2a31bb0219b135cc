"""The value of a range field: what lies between two ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

__all__ = ["Bounds", "Range"]

T = TypeVar("T")

Bounds = Literal["[)", "[]", "(]", "()"]
"""Which ends belong to a range: a square bracket stands at one that does, a round one at one that does not."""

BOUNDS = ("[)", "[]", "(]", "()")


@dataclass(frozen=True, slots=True)
class Range(Generic[T]):
    """What lies between two ends: `Range(1, 5)` is 1, 2, 3 and 4.

    Ranges of the same ends and bounds are equal. One that nothing lies in, such as `Range(3, 3)`, is the empty one. A
    field of whole numbers or days keeps every range as one with the bounds `[)`: `Range(1, 4, "[]")` comes back from
    the database as `Range(1, 5)`.

    Args:
        lower: where it begins; None for no beginning.
        upper: where it ends; None for no end.
        bounds: which of the ends belong to it.
        isempty: whether nothing lies in it, whatever the ends.

    Raises:
        ValueError: it ends before it begins, the ends cannot be compared, or there are no such bounds.
    """

    lower: T | None = None
    upper: T | None = None
    bounds: Bounds = "[)"
    isempty: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.bounds not in BOUNDS:
            raise ValueError(f"{self.bounds!r} are no bounds of a range; they are one of {', '.join(BOUNDS)}")
        lower: Any = self.lower
        upper: Any = self.upper
        # Texts are what a field makes its values of; how they compare says nothing.
        if lower is not None and upper is not None and not isinstance(lower, str) and not self.isempty:
            try:
                ends_before, is_point = upper < lower, upper == lower
            except TypeError as error:
                raise ValueError(f"{lower!r} and {upper!r} are no two ends of a range: {error}") from None
            if ends_before:
                raise ValueError(f"a range that begins at {lower!r} cannot end at {upper!r}")
            if is_point and self.bounds != "[]":
                object.__setattr__(self, "isempty", True)
        if self.isempty:
            object.__setattr__(self, "lower", None)
            object.__setattr__(self, "upper", None)
            object.__setattr__(self, "bounds", "()")
            return
        # An end that is not there belongs to nothing.
        begins = "(" if lower is None else self.bounds[0]
        ends = ")" if upper is None else self.bounds[1]
        object.__setattr__(self, "bounds", begins + ends)

    @property
    def lower_inc(self) -> bool:
        """Whether the lower end belongs to it."""
        return self.bounds[0] == "["

    @property
    def upper_inc(self) -> bool:
        """Whether the upper end belongs to it."""
        return self.bounds[1] == "]"

    @property
    def lower_inf(self) -> bool:
        """Whether it has no beginning."""
        return self.lower is None and not self.isempty

    @property
    def upper_inf(self) -> bool:
        """Whether it has no end."""
        return self.upper is None and not self.isempty

    def __contains__(self, value: T) -> bool:
        """Whether a value lies in it."""
        other: Any = value
        if self.isempty:
            return False
        if self.lower is not None and (other < self.lower or (other == self.lower and not self.lower_inc)):
            return False
        return self.upper is None or other < self.upper or (other == self.upper and self.upper_inc)

    def __str__(self) -> str:
        if self.isempty:
            return "empty"
        lower, upper = ("" if end is None else str(end) for end in (self.lower, self.upper))
        return f"{self.bounds[0]}{lower},{upper}{self.bounds[1]}"
