"""What every field is: a column's declaration, its checks, and its conversions to and from a driver's values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, cast, overload

from covet.settings_schema import nearest
from covet_orm.deferred import sqlalchemy
from covet_orm.exceptions import ModelError

if TYPE_CHECKING:
    from covet_orm.expressions.base import Expression
    from covet_orm.expressions.references import ColumnReference
    from covet_orm.models.instances import Model
    from covet_orm.queries.lookups import Lookup, Transform

__all__ = ["DB_DEFAULT", "UNSET", "Convert", "DatabaseDefault", "Declared", "Field", "Unset", "Validator"]

T = TypeVar("T")

Convert = Callable[[Any], Any]
"""Takes a value, not None, and gives another. One that takes no such value raises ValueError with the reason."""

Validator = Callable[[Any], object]
"""Takes a value, raises ValueError with the reason when it is not acceptable."""


class Declared(NamedTuple):
    """The arguments that something was declared with."""

    args: tuple[Any, ...]
    options: dict[str, Any]


class Unset:
    """Stands for a value that was not given."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNSET"


class DatabaseDefault:
    """The value of a field that the database is to fill in: what a new object has where a field has a `db_default`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "DB_DEFAULT"


UNSET = Unset()
"""A value that was not given, where None may be one."""

DB_DEFAULT = DatabaseDefault()
"""The database fills the column in; the object knows the value after it was saved."""


class Field(Generic[T]):
    """A column of a model.

    On the class it is an expression (`User.age > 3` is a condition), on an instance a value.

    A field of one's own derives from this class, or from one that is near to it, and overrides

    - `column_type`: the SQL type, with variants where databases differ;
    - `to_python`: makes the value that an instance holds of one that a caller gave, or raises ValueError;
    - `binder`: where a driver takes something else than that value; it checks as `to_python` does, for it is all that a
      value in a filter goes through;
    - `loader`: where a driver gives something else;
    - `validate`: what is checked of a value that is saved, beyond its type; with `checks_values = True`;
    - `unsupported`: why a database cannot have the field, where one cannot;
    - `migrated`: which field stands in migrations for it, where that is another one.

    Args:
        null: whether the column may be NULL; its values are then `T | None`.
        default: the value of new objects, or a callable that gives it.
        db_default: an SQL expression, or a plain value, that the database fills in.
        unique: no two rows have the same value (NULL aside).
        db_index: whether the column gets an index.
        choices: the values to choose from: values, or pairs of a value and what people read.
        validators: called with every value that is saved; each raises ValueError with the reason.
        db_column: the name of the column; that of the attribute by default.
        primary_key: whether the column is the primary key, or a part of it when several are.
        comment: what the database says about the column.

    Raises:
        ModelError: the options contradict each other, or there is no such option.
    """

    checks_values: ClassVar[bool] = False
    """Whether `validate` checks more than choices and validators, such as a length."""
    kind: ClassVar[str] = "value"
    """What a value is called in messages."""
    counts_versions: ClassVar[bool] = False
    """Whether the field counts how often its row was written: optimistic locking."""

    name: str
    model: type[Model]
    declared: Declared
    """What it was declared with: by that it is written down, in migrations for instance."""

    if not TYPE_CHECKING:

        def __new__(cls, *args: Any, **options: Any) -> Self:
            field = super().__new__(cls)
            field.declared = Declared(args, options)
            return field

    def __init__(
        self,
        *,
        null: bool = False,
        default: Any = UNSET,
        db_default: Any = UNSET,
        unique: bool = False,
        db_index: bool = False,
        choices: Iterable[Any] | None = None,
        validators: Sequence[Validator] = (),
        db_column: str | None = None,
        primary_key: bool = False,
        comment: str | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise ModelError(self._no_option(next(iter(unknown))))
        if primary_key and null:
            raise ModelError("a primary key has null=True; the columns of a primary key cannot be NULL: leave it out")
        if default is None and not null:
            raise ModelError(f"{type(self).__name__}(default=None) needs null=True, or None is no value of the field")
        if isinstance(default, (list, dict, set, bytearray)):
            raise ModelError(
                f"{type(self).__name__}(default={default!r}) would be one object that all share; give a function that "
                f"makes one: default={type(default).__name__}, or default=lambda: {default!r}"
            )
        self.null = null
        self.default = default
        self.db_default = db_default
        self.unique = unique
        self.db_index = db_index
        self.choices = [choice if _is_pair(choice) else (choice, str(choice)) for choice in choices or ()]
        self.validators = tuple(validators)
        self.db_column = db_column
        self.primary_key = primary_key
        self.comment = comment
        self.position = -1

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type[Any]) -> ColumnReference[T]: ...
        @overload
        def __get__(self, instance: Model, owner: type[Any]) -> T: ...
        @overload
        def __get__(self, instance: object, owner: type[Any]) -> Self: ...
        def __get__(self, instance: object, owner: type[Any]) -> Any: ...
        def __set__(self, instance: Model, value: T | Expression[Any]) -> None: ...

    @property
    def column(self) -> str:
        """The name of the column."""
        return self.db_column or self.attribute

    @property
    def attribute(self) -> str:
        """The attribute of an instance that holds the column's value: `author_id` for a foreign key `author`."""
        return self.name

    @property
    def generated(self) -> bool:
        """Whether the database makes the value, and takes none: a generated column."""
        return False

    @property
    def filled_by_database(self) -> bool:
        """Whether a new object may leave the value to the database."""
        return self.db_default is not UNSET or self.generated

    @property
    def column_is_there(self) -> bool:
        """Whether the field has a column in its model's table; a many-to-many field has none."""
        return True

    def slots(self, name: str) -> list[str]:
        """The attributes that an instance keeps for a field called `name`."""
        return [name]

    def expressions(self) -> dict[str, Expression[Any]]:
        """What attributes of the class are expressions."""
        return {self.name: self.reference()}

    def descriptors(self) -> dict[str, Any]:
        """What attributes of an instance are computed."""
        return {}

    def transform(self, name: str) -> Transform | None:
        """The transform of that name that fields of this kind have, such as the keys of JSON."""
        return None

    def lookup(self, name: str) -> Lookup | None:
        """The lookup of that name that fields of this kind have."""
        return None

    def relate(self) -> None:
        """Tell other models of a relation to them; called when the model is complete."""

    def contribute(self, model: type[Model], name: str) -> None:
        """Belong to a model under a name. Called once for each model, by its metaclass."""
        self.name = name
        self.model = model

    def clone(self) -> Field[T]:
        """A field that is declared the same, for another model: what an abstract model hands on."""
        # Past the class's own way of making one, which notes arguments that are copied here.
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def migrated(self) -> Field[Any]:
        """The field that stands in migrations for this one: itself by default.

        A field of an application may name the one that makes the same column, such as a `CharField`: so its migrations
        go on to work when its class is changed, moved or gone.
        """
        return self

    def column_type(self) -> sqlalchemy.types.TypeEngine[Any]:
        """The SQL type, as SQLAlchemy names it."""
        raise ModelError(f"{type(self).__name__} does not say which type its column has: override column_type()")

    def to_python(self, value: Any) -> T:
        """The value as an instance holds it, of one that a caller gave.

        Raises:
            ValueError: it is none of this field's; the message says why.
        """
        return cast("T", value)

    def binder(self, kind: str) -> Convert:
        """What makes a parameter for a driver of a value that is not None; it checks the value as well.

        Args:
            kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        """
        return self.to_python

    def loader(self, kind: str) -> Convert | None:
        """What makes a value of what a driver gave, not None; None where it is the value already."""
        return None

    def writer(self, kind: str) -> Convert:
        """What makes a parameter for a driver of a value that is to be written: `binder`, and then `validate`.

        Raises, when it is called:
            ValueError: the value is none that the field takes.
        """
        bind = self.binder(kind)
        if not (self.checks_values or self.choices or self.validators):
            return bind

        def write(value: Any) -> Any:
            bound = bind(value)
            wrong = self.validate(value)
            if wrong:
                raise ValueError("; ".join(wrong))
            return bound

        return write

    def check(self, column: sqlalchemy.ColumnElement[Any]) -> sqlalchemy.ColumnElement[bool] | None:
        """What the database checks of every value of the column; None for nothing."""
        return None

    def unsupported(self, kind: str) -> str:
        """Why a database cannot have the field, and what can be done; empty when it can.

        Args:
            kind: `postgresql`, `mysql`, `mariadb` or `sqlite`.
        """
        return ""

    def validate(self, value: Any) -> list[str]:
        """What is wrong with a value beyond its type: choices and validators. Empty when nothing is."""
        if value is None:
            return [] if self.null or self.filled_by_database else ["it may not be None"]
        if self.choices and all(value != choice for choice, _ in self.choices):
            there = ", ".join(repr(choice) for choice, _ in self.choices)
            return [f"{value!r} is none of the choices: {there}"]
        wrong: list[str] = []
        for validator in self.validators:
            try:
                validator(value)
            except ValueError as error:
                wrong.append(str(error))
        return wrong

    def differs(self, before: Any, value: Any) -> bool:
        """Whether a value is another one than that of the row, so that `save` has to write it.

        True is equal to 1, and yet another value; a driver's UUID is a UUID.
        """
        try:
            if value != before:
                return True
        except ArithmeticError:
            # A signalling NaN is equal to nothing, and says so by an error.
            return True
        one, other = type(before), type(value)
        if one is bool or other is bool:
            return one is not other
        return not (issubclass(one, other) or issubclass(other, one))

    def initial(self) -> Any:
        """The value of the field of a new object that was given none; UNSET where there is none."""
        if self.default is not UNSET:
            return self.default() if callable(self.default) else self.default
        if self.filled_by_database:
            return DB_DEFAULT
        return None if self.null else UNSET

    @property
    def db_default_is_unset(self) -> bool:
        """Whether the column has no default of its own."""
        return self.db_default is UNSET

    def computed(self) -> sqlalchemy.Computed | None:
        """What makes a generated column one; None for every other."""
        return None

    def server_default(self) -> Any:
        """The SQL expression of `db_default`, for the table's definition; None without one."""
        if self.db_default is UNSET:
            return None
        if isinstance(self.db_default, sqlalchemy.sql.ClauseElement):
            return self.db_default
        from covet_orm.expressions.base import Expression as ExpressionBase
        from covet_orm.models.definitions import DefinedExpression, DefinedValue

        if isinstance(self.db_default, ExpressionBase):
            return DefinedExpression(self.db_default, self.model)
        return DefinedValue(self, self.db_default)

    def reference(self) -> Expression[T]:
        """The field as an expression: what `Model.field` is."""
        from covet_orm.expressions.references import ColumnReference

        return ColumnReference(self)

    def _no_option(self, name: str) -> str:
        """The message for an option that the field does not have."""
        known = {
            parameter.name
            for ancestor in type(self).__mro__
            if "__init__" in vars(ancestor)
            for parameter in inspect.signature(vars(ancestor)["__init__"]).parameters.values()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        return f"{type(self).__name__} has no option {name!r}{nearest(name, known)}"

    def __set_name__(self, owner: type[Any], name: str) -> None:
        """Called by Python for a class that is no model: a mixin's fields belong to the models that take it."""
        self.name = name

    def __repr__(self) -> str:
        name = getattr(self, "name", "?")
        model = getattr(self, "model", None)
        return (
            f"<{type(self).__name__} {model.__name__}.{name}>"
            if model is not None
            else f"<{type(self).__name__} {name}>"
        )


def _is_pair(choice: Any) -> bool:
    return isinstance(choice, tuple) and len(choice) == 2
