"""From the parts of a request to a handler's arguments: text is converted, every fault is collected.

One reader is made per parameter when the application is built; `read` runs them for a request.
"""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from covet.annotations import is_pydantic, without_none
from covet.decoding import MAX_FAULTS, fault_of
from covet.exceptions import Fault, ValidationError
from covet.signatures import Parameter

if TYPE_CHECKING:
    from covet.requests import Request

__all__ = ["Reader", "make_reader", "pydantic_faults", "read"]

Reader = Callable[["Request", Any], Any]
"""Takes a request and its parsed form (None without one); gives a value or raises `Invalid`."""

MAX_SHOWN = 80


class Invalid(Exception):  # noqa: N818 - it never leaves this module
    """A part of the request that does not fit; carries its faults."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults = faults


def read(readers: Sequence[Reader], request: Request, form: Any = None) -> list[Any]:
    """The value of each reader's parameter.

    Raises:
        ValidationError: with the faults of all of them.
        HTTPError: a part of the request is malformed (400), not merely unfit.
    """
    values = []
    faults: list[Fault] = []
    for reader in readers:
        try:
            values.append(reader(request, form))
        except Invalid as error:
            faults.extend(error.faults)
    if faults:
        raise ValidationError(faults)
    return values


def make_reader(parameter: Parameter, path_names: Sequence[str]) -> Reader:
    """The reader of a parameter."""
    if parameter.source == "path":
        return _path_reader(parameter, path_names.index(parameter.alias))
    if parameter.whole:
        return _whole_reader(parameter)
    if parameter.source == "file":
        return _file_reader(parameter)
    return _member_reader(parameter)


def _path_reader(parameter: Parameter, index: int) -> Reader:
    convert = None if parameter.converted else make_convert(parameter)

    def read_path(request: Request, form: Any) -> Any:
        value = request.values[index]
        return value if convert is None else convert(value)

    return read_path


def _member_reader(parameter: Parameter) -> Reader:
    alias, default, required = parameter.alias, parameter.default, parameter.required
    convert = make_convert(parameter)
    members = _members(parameter)
    in_header = parameter.source == "header"

    def read_one(request: Request, form: Any) -> Any:
        text = members(request, form).get(alias)
        if text is None:
            if required:
                raise Invalid(_missing(parameter))
            return default
        return text if convert is None else convert(text)

    def read_all(request: Request, form: Any) -> Any:
        # What stands between proxies may join the lines of a header with commas (RFC 9110 section 5.3).
        texts = request.headers.elements(alias) if in_header else members(request, form).getlist(alias)
        if not texts:
            if required:
                raise Invalid(_missing(parameter))
            return default
        return texts if convert is None else convert(texts)

    return read_all if parameter.multiple else read_one


def _file_reader(parameter: Parameter) -> Reader:
    alias = parameter.alias

    def read_file(request: Request, form: Any) -> Any:
        files = form.getlist(alias)
        if any(isinstance(item, str) for item in files):
            raise Invalid(Fault("form", "/" + _escaped(alias), "is a file, not text"))
        if not files:
            if parameter.required:
                raise Invalid(_missing(parameter))
            return parameter.default
        return files if parameter.multiple else files[0]

    return read_file


def _whole_reader(parameter: Parameter) -> Reader:
    """All members at once, as the fields of a class."""
    bare = without_none(_bare(parameter.type))
    members = _members(parameter)
    lists = {name for name, type_ in _fields(bare).items() if _is_list(type_)}
    convert = make_convert(parameter)

    def read_whole(request: Request, form: Any) -> Any:
        found = members(request, form)
        values = {name: found.getlist(name) if name in lists else found.get(name) for name in found}
        if not values and not parameter.required:
            return parameter.default
        return values if convert is None else convert(values)

    return read_whole


def _members(parameter: Parameter) -> Callable[[Request, Any], Any]:
    source = parameter.source
    if source == "query":
        return lambda request, form: request.query
    if source == "header":
        return lambda request, form: request.headers
    if source == "cookie":
        return lambda request, form: _Cookies(request.cookies)
    return lambda request, form: form


class _Cookies:
    """Cookies behind the same two calls as the multi mappings."""

    def __init__(self, cookies: Mapping[str, str]) -> None:
        self._cookies = cookies

    def get(self, name: str) -> str | None:
        return self._cookies.get(name)

    def getlist(self, name: str) -> list[str]:
        return [self._cookies[name]] if name in self._cookies else []

    def __iter__(self) -> typing.Iterator[str]:
        return iter(self._cookies)


def make_convert(parameter: Parameter) -> Callable[[Any], Any] | None:
    """What turns text (or a list or dict of texts) into the parameter's type; None where text is what it wants."""
    type_ = _without_none_inside(parameter.type)
    if type_ in (str, Any):
        # In a form the client decides whether a member is text or a file.
        return _text_of_form(parameter) if type_ is str and parameter.source == "form" else None
    if is_pydantic(_bare(type_)):
        return _pydantic_convert(parameter, _bare(type_))
    expected = _EXPECTED.get(_bare(type_))
    numbers = _number_fields(_bare(type_)) if parameter.whole else {"": ""} if _has_number(type_) else {}

    def convert(text: Any) -> Any:
        try:
            value = msgspec.convert(text, type_, strict=False)
        except (ValueError, OverflowError) as error:
            raise Invalid(_fault(parameter, error, text, expected)) from None
        if numbers:
            _check_numbers(parameter, numbers, value, text)
        return value

    return convert


def _text_of_form(parameter: Parameter) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if not isinstance(value, str):
            raise Invalid(Fault(parameter.source, "/" + _escaped(parameter.alias), "is text, not a file"))
        return value

    return convert


def _has_number(type_: Any) -> bool:
    """Whether the type is `float` or `Decimal`, or holds one."""
    return _bare(type_) in (float, Decimal) or any(map(_has_number, typing.get_args(type_)))


def _number_fields(type_: Any) -> dict[str, str]:
    """The fields of a class that hold numbers: the attribute of each by its name in the request."""
    names = {}
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        names = {field.encode_name: field.name for field in msgspec.structs.fields(type_)}
    return {name: names.get(name, name) for name, hint in _fields(type_).items() if _has_number(hint)}


def _check_numbers(parameter: Parameter, numbers: Mapping[str, str], value: Any, text: Any) -> None:
    """Refuse NaN and the infinities, which no number of JSON is, and which compare with nothing."""
    faults = []
    for name, attribute in numbers.items():
        given, made = text, value
        if parameter.whole:
            if name not in text:
                continue
            given, made = text[name], value[attribute] if isinstance(value, dict) else getattr(value, attribute)
        if _is_odd(made, given):
            shown = repr(given) if isinstance(given, str) and len(given) <= MAX_SHOWN else "what was sent"
            pointer = "/" + _escaped(name if parameter.whole else parameter.alias)
            faults.append(Fault(parameter.source, pointer, f"{shown} is not a finite number"))
    if faults:
        raise Invalid(*faults)


# Decimal() takes spaces, underscores and the digits of every script besides.
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def _is_odd(value: Any, text: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Decimal):
        return not value.is_finite() or (isinstance(text, str) and _DECIMAL.fullmatch(text) is None)
    if isinstance(value, list | tuple) and isinstance(text, list):
        return any(map(_is_odd, value, text))
    return isinstance(value, set | frozenset) and any(_is_odd(item, None) for item in value)


def _pydantic_convert(parameter: Parameter, model: Any) -> Callable[[Any], Any]:
    def convert(values: Any) -> Any:
        try:
            return model.model_validate(values)
        except ValueError as error:
            raise Invalid(*pydantic_faults(error, parameter.source)) from None

    return convert


def pydantic_faults(error: Any, source: str) -> list[Fault]:
    """The faults of a pydantic `ValidationError`, at most 100."""
    return [
        Fault(source, "".join(f"/{_escaped(str(part))}" for part in item["loc"]), str(item["msg"]))
        for item in error.errors(include_url=False, include_context=False, include_input=False)[:MAX_FAULTS]
    ]


_EXPECTED: dict[Any, str] = {
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
}


def _fault(parameter: Parameter, error: Exception, value: Any, expected: str | None) -> Fault:
    fault = fault_of(parameter.source, "" if parameter.whole else "/" + _escaped(parameter.alias), error)
    if expected and isinstance(value, str) and (not fault.detail or fault.detail.endswith("got `str`")):
        shown = value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…"
        return Fault(fault.location, fault.pointer, f"{shown!r} is not {expected}")
    return fault


def _missing(parameter: Parameter) -> Fault:
    return Fault(parameter.source, "/" + _escaped(parameter.alias), "is required")


def _escaped(text: str) -> str:
    # RFC 6901 section 3
    return text.replace("~", "~0").replace("/", "~1")


def _bare(type_: Any) -> Any:
    return typing.get_args(type_)[0] if typing.get_origin(type_) is typing.Annotated else type_


def _without_none_inside(type_: Any) -> Any:
    """Drop `None` from the type: text never is None, and msgspec would read the text `null` as it."""
    if typing.get_origin(type_) is typing.Annotated:
        base, *metadata = typing.get_args(type_)
        return typing.Annotated[(without_none(base), *metadata)]
    return without_none(type_)


def _fields(type_: Any) -> dict[str, Any]:
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        hints = typing.get_type_hints(type_, include_extras=False)
        return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(type_)}
    try:
        return typing.get_type_hints(type_)
    except TypeError:
        return {}


def _is_list(type_: Any) -> bool:
    origin = typing.get_origin(without_none(type_)) or without_none(type_)
    return origin in (list, set, frozenset, tuple)
