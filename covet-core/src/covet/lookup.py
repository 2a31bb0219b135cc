"""How a path finds its route, at a cost that does not grow with the number of routes.

Paths without parameters are one dictionary. The others are grouped by *shape*: how many segments they have, and which
of these are literal. Within a shape the literal segments together are a dictionary key, so a lookup tries the few
shapes that have the path's number of segments, whatever the number of routes. For `/users/{id}/posts/{slug}` the shape
is "four segments, the first and third literal" and the key is `("users", "posts")`.

When several routes fit, literal text goes before parameters, from left to right; among routes alike but for their
converters, the stricter converter goes first (`Converter.rank`); a parameter that takes the rest of the path is weaker
than any other in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Generic, TypeVar

from covet.exceptions import RouteError
from covet.templates import Segment, Template

__all__ = ["RouteTable"]

T = TypeVar("T")
Match = Callable[[Sequence[str]], tuple[Any, ...]]
# What picks the literal segments out of a path's, and the routes by these.
Shape = tuple[Callable[[Sequence[str]], Any], dict[Any, tuple[tuple[Match, T], ...]]]


class RouteTable(Generic[T]):
    """The routes of one method, compiled. `find` gives a path's target and the values of its parameters.

    Attributes:
        static: target by path, for templates without parameters.
        shapes: by number of segments, the shapes to try in order.
        deep: the shapes to try for a path with more segments than any template: those that take the rest.
    """

    __slots__ = ("_candidates", "deep", "shapes", "static")

    def __init__(self) -> None:
        self.static: dict[str, T] = {}
        self.shapes: dict[int, tuple[Shape[T], ...]] = {}
        self.deep: tuple[Shape[T], ...] = ()
        self._candidates: dict[tuple[Any, ...], tuple[Template, T]] = {}

    def add(self, template: Template, target: T) -> None:
        """Take in a route. `freeze` makes it findable.

        Raises:
            RouteError: another route answers exactly the same paths.
        """
        _, taken = self._candidates.setdefault(template.shape(), (template, target))
        if taken is not target:
            raise RouteError(f"{target!r} can never be reached: {taken!r} answers the same paths")

    def add_fallback(self, template: Template, target: T) -> None:
        """Take in a route that gives way to one that answers the same paths."""
        self._candidates.setdefault(template.shape(), (template, target))

    def freeze(self) -> None:
        """Build the dictionaries from what was added."""
        groups: dict[tuple[int, bool, tuple[int, ...]], dict[Any, list[tuple[Any, Match, T]]]] = {}
        for template, target in self._candidates.values():
            if not template.names:
                self.static[template.path] = target
                continue
            literal = tuple(i for i, segment in enumerate(template.segments) if isinstance(segment, str))
            bucket = groups.setdefault((len(template.segments), template.tail, literal), {})
            strictness = [
                (-sum(map(len, segment.literals)), [converter.rank for converter in segment.converters])
                for segment in template.segments
                if isinstance(segment, Segment)
            ]
            key = itemgetter(*literal)(template.segments)
            bucket.setdefault(key, []).append((strictness, _matcher(template), target))

        ordered: dict[tuple[int, bool, tuple[int, ...]], Shape[T]] = {
            (length, tail, literal): (
                itemgetter(*literal),
                {key: tuple(row[1:] for row in sorted(rows, key=itemgetter(0))) for key, rows in bucket.items()},
            )
            for (length, tail, literal), bucket in groups.items()
        }
        longest = max((length for length, _, _ in ordered), default=0)
        for length in range(1, longest + 1):
            self.shapes[length] = _in_order(ordered, length)
        self.deep = _in_order(ordered, longest + 1)

    def find(self, path: str) -> tuple[T, tuple[Any, ...]] | None:
        """The target of `path` and the converted values of its parameters, or None."""
        target = self.static.get(path)
        if target is not None:
            return target, ()
        segments = path.split("/")
        for pick, bucket in self.shapes.get(len(segments), self.deep):
            for match, target in bucket.get(pick(segments), ()):
                try:
                    return target, match(segments)
                except ValueError:
                    continue
        return None


def _in_order(shapes: dict[tuple[int, bool, tuple[int, ...]], Shape[T]], length: int) -> tuple[Shape[T], ...]:
    """The shapes that a path of `length` segments can have, in the order in which they are tried."""

    def weakness(shape: tuple[int, bool, tuple[int, ...]]) -> list[int]:
        count, tail, literal = shape
        return [0 if i in literal else 2 if tail and i >= count - 1 else 1 for i in range(length)]

    fitting = [key for key in shapes if key[0] == length or (key[1] and key[0] < length)]
    return tuple(shapes[key] for key in sorted(fitting, key=weakness))


def _matcher(template: Template) -> Match:
    """A function from a path's segments to the parameters' values; it raises ValueError where the path does not fit.

    The source is written out, because a loop over the parameters costs as much as all the rest of a lookup.
    """
    names: dict[str, Any] = {}
    steps, values = [], []
    for position, segment in enumerate(template.segments):
        if isinstance(segment, str):
            continue
        text = f"'/'.join(segments[{position}:])" if segment.tail else f"segments[{position}]"
        if not segment.whole:
            names[f"pattern{position}"] = _full(segment.pattern().fullmatch)
            steps.append(f"    groups{position} = pattern{position}({text})")
        for index, converter in enumerate(segment.converters):
            convert = f"convert{position}_{index}"
            names[convert] = converter.convert
            values.append(f"{convert}({text if segment.whole else f'groups{position}[{index}]'})")
    source = "\n".join(["def match(segments):", *steps, f"    return ({', '.join(values)},)"])
    exec(compile(source, f"<match of {template.path}>", "exec"), names)
    match: Match = names["match"]
    return match


def _full(fullmatch: Callable[[str], Any]) -> Callable[[str], tuple[str, ...]]:
    def groups(text: str) -> tuple[str, ...]:
        found = fullmatch(text)
        if found is None:
            raise ValueError("does not match")
        result: tuple[str, ...] = found.groups()
        return result

    return groups
