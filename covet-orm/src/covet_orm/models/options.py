"""What a model is: its table, fields, relations, indexes and constraints; `Model._meta`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from covet.settings_schema import nearest
from covet_orm.exceptions import FieldError, ModelError
from covet_orm.models.names import shortened
from covet_orm.models.registry import Registry, registry

if TYPE_CHECKING:
    from covet_orm.fields.base import Field
    from covet_orm.fields.related import ForeignKey
    from covet_orm.models.instances import Model
    from covet_orm.models.relations import Relation

__all__ = ["Options", "Path", "usual_table"]

KNOWN = {
    "abstract",
    "app_label",
    "comment",
    "constraints",
    "database",
    "db_table",
    "default_manager",
    "indexes",
    "managed",
    "ordering",
    "proxy",
    "registry",
    "unique_together",
}

OF_A_CLASS = ("abstract", "proxy", "db_table")
OF_A_TABLE = ("constraints", "indexes", "unique_together")


class Path(NamedTuple):
    """A name such as `author__team__name__icontains`, taken apart.

    Attributes:
        relations: the steps to other models.
        field: the field at the end; the key of what a relation to many leads to, where the path ends with that.
        rest: what follows: transforms and a lookup.
    """

    relations: tuple[Relation, ...]
    field: Field[Any]
    rest: tuple[str, ...]


class Options:
    """The options of a model, of its `class Meta` and of its fields.

    Attributes:
        model: the model.
        app_label: the application it belongs to: the package of its module, unless `Meta` says otherwise.
        db_table: the name of its table.
        fields: its fields with a column, in order, those it inherits first.
        many_to_many: its fields without one.
        primary_key: the fields of its key.
        has_composite_key: whether these are several.
        abstract: it has no table, and hands its fields on.
        proxy: it has the table of its parent.
        managed: whether its table is made by us.
        concrete: the model whose table it has: itself, or the parent of a proxy.
        parent_link: the one-to-one field to the parent whose table holds the inherited fields; None for all others.
        version_field: the field that counts how often a row was written; None without one.
        ordering: how its objects are ordered when a query says nothing.
        database: the alias of the database it lives in; None for the default one.
        link_of: the model whose many-to-many field it was made for, as the table between; None for all others.
    """

    def __init__(self, model: type[Model], meta: type[Any] | None, parents: Sequence[Options]) -> None:
        given = _declared(meta)
        for name in given:
            if name not in KNOWN:
                raise ModelError(f"{model.__qualname__}.Meta has no option {name!r}{nearest(name, KNOWN)}")

        def inherited(name: str, default: Any) -> Any:
            if name in given:
                return given[name]
            for parent in parents:
                # An index stands on a table, and that of a parent has its own.
                if name in parent.given and (parent.abstract or name not in OF_A_TABLE):
                    return parent.given[name]
            return default

        self.given: dict[str, Any] = {
            name: value
            for parent in reversed(parents)
            for name, value in parent.given.items()
            if name not in ("comment", "managed") and (parent.abstract or name not in OF_A_TABLE)
        } | {name: value for name, value in given.items() if name not in ("abstract", "proxy", "db_table")}
        self.model = model
        self.abstract: bool = given.get("abstract", False)
        self.proxy: bool = given.get("proxy", False)
        self.registry: Registry = inherited("registry", registry)
        self.app_label: str = inherited("app_label", _app_label(model.__module__))
        self.db_table: str = given.get("db_table") or usual_table(self.app_label, model.__name__)
        self.managed: bool = given.get("managed", True)
        self.ordering: tuple[Any, ...] = _as_tuple(inherited("ordering", ()))
        self.indexes: tuple[Any, ...] = tuple(inherited("indexes", ()))
        self.constraints: tuple[Any, ...] = tuple(inherited("constraints", ()))
        self.unique_together: tuple[tuple[str, ...], ...] = _together(inherited("unique_together", ()))
        self.default_manager: str = inherited("default_manager", "objects")
        self.database: str | None = inherited("database", None)
        self.comment: str | None = given.get("comment")
        self.fields: list[Field[Any]] = []
        self.many_to_many: list[Any] = []
        self.relations: dict[str, Relation] = {}
        self.primary_key: tuple[Field[Any], ...] = ()
        self.has_composite_key = False
        self.parent_link: ForeignKey[Any] | None = None
        self.link_of: type[Model] | None = None
        self.version_field: Field[Any] | None = None
        self.concrete: type[Model] = model
        # The one whose fields this model has, and those that have this one's: proxies, and tables beside a parent's.
        self.parent: Options | None = None
        self.heirs: list[Options] = []
        self.by_name: dict[str, Field[Any]] = {}
        # What paths were taken apart, and lookups found; keyed by what the caller wrote.
        self.paths: dict[str, Path] = {}
        self.lookups: dict[str, Any] = {}
        self._given_away: list[tuple[type[Model], str]] = []

    @property
    def label(self) -> str:
        """The name in the registry: `app_label.Name`."""
        return f"{self.app_label}.{self.model.__name__}" if self.app_label else self.model.__name__

    def add(self, field: Field[Any]) -> None:
        """Take a field with a column."""
        field.position = len(self.fields)
        self.fields.append(field)
        self.by_name[field.name] = field
        self.by_name[field.attribute] = field
        if field.primary_key:
            self.primary_key = (*self.primary_key, field)
            self.has_composite_key = len(self.primary_key) > 1
        if field.counts_versions:
            if self.version_field is not None:
                raise ModelError(
                    f"{self.model.__qualname__} has two version fields: {self.version_field.name}, {field.name}"
                )
            self.version_field = field

    def relate(self, relation: Relation) -> None:
        """Take a relation; `relation.name` is a step of paths from now on.

        Raises:
            ModelError: the name is that of a field or of another relation.
        """
        name = relation.name
        taken: Any = self.relations.get(name)
        if taken is None and name in self.by_name and self.by_name[name] is not relation.field:
            taken = self.by_name[name]
        if taken is not None and getattr(taken, "field", taken) is not relation.field:
            raise ModelError(
                f"{relation.field!r} would be called {name!r} on {self.model.__qualname__}, where there is something "
                "of that name already; give it another related_name"
            )
        self.relations[name] = relation
        self.paths.clear()
        self.lookups.clear()
        if relation.source is not relation.field.model:
            relation.field.model._meta._given_away.append((self.model, name))
        for heir in self.heirs:
            heir.inherit_relation(relation)

    def inherit_relation(self, relation: Relation) -> None:
        """Take a relation of a parent, unless there is something of that name already."""
        if relation.name not in self.relations and self.by_name.get(relation.name) in (None, relation.field):
            self.relations[relation.name] = relation if self.proxy else relation._replace(source=self.model)
            self.paths.clear()
            self.lookups.clear()
            for heir in self.heirs:
                heir.inherit_relation(relation)

    def forget_relations(self) -> None:
        """Take back what this model added to others: it was declared anew."""
        for model, name in self._given_away:
            model._meta.forget_relation(name)
        self._given_away.clear()
        if self.parent is not None and self in self.parent.heirs:
            self.parent.heirs.remove(self)

    def forget_relation(self, name: str) -> None:
        """Have a relation no more, nor those who inherited it."""
        self.relations.pop(name, None)
        self.paths.clear()
        self.lookups.clear()
        for heir in self.heirs:
            heir.forget_relation(name)

    def field(self, name: str) -> Field[Any]:
        """The field of that name, or of that attribute; `pk` is the primary key.

        Raises:
            FieldError: there is none.
        """
        found = self.by_name.get(name)
        if found is not None:
            return found
        if name == "pk" and len(self.primary_key) == 1:
            return self.primary_key[0]
        raise FieldError(self.unknown(name))

    def unknown(self, name: str, more: Iterable[str] = ()) -> str:
        """The message for a name that is no field of this model."""
        known = {*self.by_name, *self.relations, *more}
        return f"{self.model.__name__} has no field {name!r}{nearest(name, known)}"

    def path(self, name: str) -> Path:
        """A path, taken apart as far as fields and relations go.

        Raises:
            FieldError: it begins with no field or relation of this model.
        """
        found = self.paths.get(name)
        if found is None:
            found = self.paths[name] = self._take_apart(name)
        return found

    def _take_apart(self, name: str) -> Path:
        options = self
        relations: list[Relation] = []
        names = name.split("__")
        while True:
            part, *names = names
            relation = options.relations.get(part)
            if relation is not None and names and _leads_on(relation, names[0]):
                if _is_its_key(relation, names[0]):
                    # The key of what a foreign key refers to is the foreign key itself: no join is needed.
                    return Path(tuple(relations), relation.field, tuple(names[1:]))
                relations.append(relation)
                options = relation.target._meta
                continue
            field = options.by_name.get(part)
            if field is None and part == "pk" and len(options.primary_key) == 1:
                field = options.primary_key[0]
            if field is None and relation is not None:
                # A relation by itself stands for the keys of its objects.
                relations.append(relation)
                field = relation.target._meta.primary_key[0]
            if field is None:
                told = options.unknown(part)
                raise FieldError(f"{name!r}: {told}" if part != name else told)
            return Path(tuple(relations), field, tuple(names))


def _declared(meta: type[Any] | None) -> dict[str, Any]:
    """What a `class Meta` says, and what the classes say that it derives from, such as the Meta of an abstract
    model."""
    given: dict[str, Any] = {}
    for part in reversed(meta.__mro__[:-1] if meta is not None else ()):
        own = {name: value for name, value in vars(part).items() if not name.startswith("__")}
        given |= own if part is meta else {name: value for name, value in own.items() if name not in OF_A_CLASS}
    return given


def _leads_on(relation: Relation, name: str) -> bool:
    target = relation.target._meta
    return name in target.by_name or name in target.relations or name == "pk"


def _is_its_key(relation: Relation, name: str) -> bool:
    if relation.many or len(relation.hops) != 1 or relation.hops[0].local[0] is not relation.field:
        return False
    remote = relation.hops[0].remote
    if len(remote) != 1:
        return False
    return name in (remote[0].name, remote[0].attribute) or (name == "pk" and remote[0].primary_key)


def _app_label(module: str) -> str:
    """The application that a module belongs to: `blog` for `blog.models`, `blog.models.posts` and `blog.tables`."""
    packages = module.split(".")
    packages = packages[: packages.index("models")] if "models" in packages else packages[:-1]
    return packages[-1] if packages else ""


@lru_cache(maxsize=4096)
def usual_table(app_label: str, name: str) -> str:
    """The name of the table of a model that gives it none: `blog_blog_post` for `BlogPost` of `blog`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return shortened(f"{app_label}_{snake}" if app_label else snake)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _together(value: Any) -> tuple[tuple[str, ...], ...]:
    """`unique_together`, which may be one list of names, as a tuple of tuples."""
    value = tuple(value)
    if value and all(isinstance(name, str) for name in value):
        return (value,)
    return tuple(tuple(names) for names in value)
