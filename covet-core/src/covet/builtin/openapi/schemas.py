"""JSON Schemas (draft 2020-12, as OpenAPI 3.1 has them) of the types that handlers take and return.

`msgspec.inspect` says what msgspec accepts for a type; pydantic says it of its models. msgspec has a generator of JSON
Schemas itself, but it leaves dates of unknown time zone and other formats open, and cannot name two generic classes
that differ only by the module of their argument.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from msgspec import NODEFAULT, UNSET, to_builtins
from msgspec import inspect as kinds

from covet.annotations import is_pydantic
from covet.exceptions import CovetError

__all__ = ["Schema", "Schemas"]

Schema = dict[str, Any]
"""A JSON Schema as it is encoded."""

Mode = Literal["validation", "serialization"]

REFERENCE = "#/components/schemas/"

_SECONDS = r"[0-9]{1,6}(?:\.[0-9]{1,6})?S"
_MINUTES = rf"(?:[0-9]{{1,6}}M(?:{_SECONDS})?|{_SECONDS})"
_HOURS = rf"T(?:[0-9]{{1,6}}H{_MINUTES}?|{_MINUTES})"
# What msgspec reads and writes; with signs and fractions it is more than `duration` of RFC 3339 is.
_DURATION = rf"^[+-]?P(?:[0-9]{{1,6}}D(?:{_HOURS})?|{_HOURS})$"
_DECIMAL = r"^[+-]?[0-9]+(?:\.[0-9]+)?(?:[Ee][+-]?[0-9]{1,3})?$"
_BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

SCALARS: Mapping[type, Schema] = {
    kinds.NoneType: {"type": "null"},
    kinds.BoolType: {"type": "boolean"},
    kinds.IntType: {"type": "integer"},
    kinds.FloatType: {"type": "number"},
    kinds.StrType: {"type": "string"},
    kinds.BytesType: {"type": "string", "contentEncoding": "base64", "pattern": _BASE64},
    kinds.ByteArrayType: {"type": "string", "contentEncoding": "base64", "pattern": _BASE64},
    kinds.MemoryViewType: {"type": "string", "contentEncoding": "base64", "pattern": _BASE64},
    kinds.DateTimeType: {"type": "string", "format": "date-time"},
    kinds.DateType: {"type": "string", "format": "date"},
    kinds.TimeType: {"type": "string", "format": "time"},
    kinds.TimeDeltaType: {"type": "string", "title": "ISO 8601 duration", "pattern": _DURATION},
    kinds.UUIDType: {"type": "string", "format": "uuid"},
    kinds.DecimalType: {"type": "string", "format": "decimal", "pattern": _DECIMAL},
}
# Without a zone it is no `date-time` of RFC 3339.
_LOCAL_DATE_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?$"
_LOCAL_TIME = r"^[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?$"
NUMBERS = {
    "ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum", "multiple_of": "multipleOf",
    "pattern": "pattern",
}  # fmt: skip
LENGTHS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}
FIELDS = (kinds.StructType, kinds.DataclassType, kinds.TypedDictType, kinds.NamedTupleType)


class Schemas:
    """The schemas of one document. Classes with fields, enumerations and pydantic models become its components.

    How a component is called depends on all the others, so what refers to one is filled in by `resolve`, in place:
    change a schema that `of` gave, but do not copy it before.

    Attributes:
        components: the schemas by name, once resolved.
    """

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}
        self._classes: dict[Any, Schema] = {}
        self._references: dict[Any, list[Schema]] = {}
        self._mappings: list[tuple[dict[str, str], Mapping[str, Schema]]] = []

    def of(self, type_: Any, mode: Mode = "validation") -> Schema:
        """The schema of a type.

        Args:
            type_: a type; what msgspec and pydantic do not know gets the schema that everything fits.
            mode: whether values are read or written, for pydantic models, where it may differ.
        """
        bare = get_args(type_)[0] if hasattr(type_, "__metadata__") else type_
        if is_pydantic(bare):
            return self._model(bare, mode)
        try:
            info = kinds.type_info(type_)
        except (TypeError, NameError):
            return {}
        return self._schema(info)

    def members(self, type_: Any) -> tuple[dict[str, Schema], frozenset[str]]:
        """The fields of a class with their schemas, and which of them are required."""
        bare = get_args(type_)[0] if hasattr(type_, "__metadata__") else type_
        if is_pydantic(bare):
            schema = bare.model_json_schema()
            defs = schema.pop("$defs", {})
            schema = _inlined(schema, defs, ())
        else:
            info = kinds.type_info(bare)
            schema = self._object(info) if isinstance(info, FIELDS) else {}
        return schema.get("properties", {}), frozenset(schema.get("required", ()))

    def resolve(self) -> None:
        """Name the components, and fill in the references to them.

        Raises:
            CovetError: pydantic has no schema for one of its models.
        """
        classes = list(self._classes)
        for key, name in zip(classes, _names(classes), strict=True):
            self.components[name] = self._classes[key]
            for reference in self._references[key]:
                reference["$ref"] = REFERENCE + name
        for mapping, tagged in self._mappings:
            mapping.update({tag: schema["$ref"] for tag, schema in tagged.items()})
        self._resolve_models()

    def _schema(self, info: kinds.Type) -> Schema:
        extra: Schema = {}
        while isinstance(info, kinds.Metadata):
            extra = {**(info.extra_json_schema or {}), **extra}
            info = info.type
        schema = self._plain(info)
        schema.update(extra)
        return schema

    def _plain(self, info: kinds.Type) -> Schema:
        if isinstance(info, (*FIELDS, kinds.EnumType)):
            return self._component(info)
        if isinstance(info, kinds.UnionType):
            return self._union(info)
        if isinstance(info, kinds.LiteralType):
            return _enumeration(info.values)
        if isinstance(info, kinds.CustomType):
            # Something that only an encoder knows to write.
            return self._model(info.cls, "serialization") if is_pydantic(info.cls) else {}
        if isinstance(info, kinds.DateTimeType) and info.tz is False:
            return {"type": "string", "pattern": _LOCAL_DATE_TIME}
        if isinstance(info, kinds.TimeType) and info.tz is False:
            return {"type": "string", "pattern": _LOCAL_TIME}
        schema = dict(SCALARS[type(info)]) if type(info) in SCALARS else self._container(info)
        return _with_constraints(schema, info)

    def _container(self, info: kinds.Type) -> Schema:
        if isinstance(info, kinds.DictType | kinds.FrozenDictType):
            schema: Schema = {"type": "object"}
            names = self._schema(info.key_type)
            if names.keys() - {"type", "title", "description"}:
                names.pop("type", None)
                schema["propertyNames"] = names
            if not isinstance(info.value_type, kinds.AnyType):
                schema["additionalProperties"] = self._schema(info.value_type)
            return schema
        if isinstance(info, kinds.TupleType):
            count = len(info.item_types)
            fixed = {"prefixItems": [self._schema(item) for item in info.item_types], "items": False} if count else {}
            return {"type": "array", **fixed, "minItems": count, "maxItems": count}
        if isinstance(info, kinds.CollectionType):
            items = {} if isinstance(info.item_type, kinds.AnyType) else {"items": self._schema(info.item_type)}
            return {"type": "array", **items}
        return {}

    def _union(self, info: kinds.UnionType) -> Schema:
        tagged: dict[Any, Schema] = {}
        others: list[Schema] = []
        field = ""
        for option in info.types:
            inner = option
            while isinstance(inner, kinds.Metadata):
                inner = inner.type
            schema = self._schema(option)
            if isinstance(inner, kinds.StructType) and inner.tag_field and not inner.array_like:
                field = inner.tag_field
                tagged[inner.tag] = schema
            else:
                others.append(schema)
        if len(tagged) > 1 and not others and all(isinstance(tag, str) for tag in tagged):
            mapping: dict[str, str] = {}
            self._mappings.append((mapping, tagged))
            return {"oneOf": list(tagged.values()), "discriminator": {"propertyName": field, "mapping": mapping}}
        # None last: it is the exception that readers may skip.
        options = sorted([*tagged.values(), *others], key=lambda schema: schema.get("type") == "null")
        return {"anyOf": options}

    def _component(self, info: Any) -> Schema:
        key = info.cls
        if key not in self._classes:
            self._references[key] = []
            self._classes[key] = content = {}
            content.update(self._object(info) if isinstance(info, FIELDS) else _enum(info.cls))
        return self._reference(key)

    def _reference(self, key: Any) -> Schema:
        reference: Schema = {"$ref": ""}
        self._references[key].append(reference)
        return reference

    def _object(self, info: Any) -> Schema:
        schema: Schema = {"title": _class_name(info.cls), "type": "object"}
        description = _documentation(info.cls)
        if description:
            schema["description"] = description
        properties: dict[str, Schema] = {}
        required: list[str] = []
        tag = getattr(info, "tag_field", None)
        if tag is not None:
            properties[tag] = {"const": info.tag}
            required.append(tag)
        for field in info.fields:
            properties[field.encode_name] = member = self._schema(field.type)
            if field.required:
                required.append(field.encode_name)
            else:
                member.update(_default(field))
        if isinstance(info, kinds.NamedTupleType) or getattr(info, "array_like", False):
            limit = {"maxItems": len(properties)} if getattr(info, "forbid_unknown_fields", True) else {}
            items = {"prefixItems": list(properties.values())} if properties else {}
            return {**schema, "type": "array", **items, "minItems": len(required), **limit}
        schema["properties"] = properties
        if required:
            schema["required"] = required
        if getattr(info, "forbid_unknown_fields", False):
            schema["additionalProperties"] = False
        return schema

    def _model(self, model: Any, mode: Mode) -> Schema:
        self._references.setdefault((model, mode), [])
        return self._reference((model, mode))

    def _resolve_models(self) -> None:
        models = [key for key in self._references if key not in self._classes]
        if not models:
            return
        from pydantic.json_schema import models_json_schema

        try:
            made, definitions = models_json_schema(models, ref_template=REFERENCE + "{model}")
        except Exception as error:
            names = ", ".join(sorted({model.__qualname__ for model, _ in models}))
            raise CovetError(f"pydantic has no JSON Schema for one of its models ({names}): {error}") from error
        renamed = {name: _free(name, self.components) for name in definitions.get("$defs", {})}
        for name, schema in definitions.get("$defs", {}).items():
            self.components[renamed[name]] = _with_references(schema, renamed)
        for key in models:
            schema = _with_references(made[key], renamed)
            for reference in self._references[key]:
                siblings = {name: value for name, value in reference.items() if name != "$ref"}
                reference.clear()
                reference.update({**schema, **siblings})


def _with_constraints(schema: Schema, info: Any) -> Schema:
    for name, keyword in NUMBERS.items():
        value = getattr(info, name, None)
        if value is not None:
            schema[keyword] = value
    for name, keyword in zip(("min_length", "max_length"), LENGTHS.get(schema.get("type", ""), ()), strict=False):
        value = getattr(info, name, None)
        if value is not None:
            # Bytes are longer when they are written as base64.
            schema[keyword] = 4 * ((value + 2) // 3) if "contentEncoding" in schema else value
    return schema


def _default(field: kinds.Field) -> Schema:
    if field.default is not NODEFAULT and field.default is not UNSET:
        return {"default": to_builtins(field.default, enc_hook=str, str_keys=True)}
    if field.default_factory in (list, dict, set, tuple, frozenset):
        return {"default": to_builtins(field.default_factory(), str_keys=True)}
    return {}


def _enum(cls: Any) -> Schema:
    schema = {"title": cls.__name__, **_enumeration([member.value for member in cls])}
    description = _documentation(cls)
    if description:
        schema["description"] = description
    return schema


def _enumeration(values: Iterable[Any]) -> Schema:
    found = list(dict.fromkeys(values))
    types = {"null" if value is None else "integer" if isinstance(value, int) else "string" for value in found}
    return {"type": types.pop() if len(types) == 1 else sorted(types), "enum": found}


def _documentation(cls: Any) -> str:
    """What a class says of itself; not what it inherits, nor what a dataclass generates."""
    origin = get_origin(cls) or cls
    text = vars(origin).get("__doc__") or ""
    if not isinstance(text, str) or (text.startswith(f"{origin.__name__}(") and text.endswith(")")):
        return ""
    return inspect.cleandoc(text)


def _class_name(cls: Any) -> str:
    origin = get_origin(cls)
    if origin is None:
        return str(cls.__name__)
    return (
        f"{origin.__name__}[{', '.join(getattr(argument, '__name__', repr(argument)) for argument in get_args(cls))}]"
    )


def _names(classes: list[Any]) -> Iterator[str]:
    """A name for each class: its own where no other has it, with its module where that tells them apart."""
    short = [_allowed(_class_name(cls)) for cls in classes]
    count = Counter(short)
    taken = {name for name in short if count[name] == 1}
    for cls, name in zip(classes, short, strict=True):
        if count[name] > 1:
            name = _free(_allowed(f"{cls.__module__}.{_class_name(cls)}"), taken)
            taken.add(name)
        yield name


def _allowed(name: str) -> str:
    # The names of components: OpenAPI 3.1 section 4.8.7.
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_")


def _free(name: str, taken: Iterable[str]) -> str:
    """The name itself, or with the first number that makes it another than those taken."""
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _with_references(value: Any, renamed: Mapping[str, str]) -> Any:
    """The value with the references in it changed to the components' final names."""
    if isinstance(value, dict):
        return {key: _with_references(inner, renamed) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_references(inner, renamed) for inner in value]
    if isinstance(value, str) and value.startswith(REFERENCE):
        name = value.removeprefix(REFERENCE)
        return REFERENCE + renamed.get(name, name)
    return value


def _inlined(value: Any, defs: Mapping[str, Any], above: tuple[str, ...]) -> Any:
    """The value with definitions in place of the references to them; a definition inside itself becomes anything."""
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str):
            name = reference.rpartition("/")[2]
            rest = {key: inner for key, inner in value.items() if key != "$ref"}
            return {} if name in above else {**_inlined(defs[name], defs, (*above, name)), **rest}
        return {key: _inlined(inner, defs, above) for key, inner in value.items()}
    if isinstance(value, list):
        return [_inlined(inner, defs, above) for inner in value]
    return value
