"""Reading a request body into what the handler's signature asks for."""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from covet.binding import pydantic_faults, structure
from covet.exceptions import Fault, HTTPError, ValidationError
from covet.requests import read_body, require_json
from covet.signatures import BodyPlan, is_pydantic, without_none

if TYPE_CHECKING:
    from covet.requests import Request

__all__ = ["decode_json", "make_body_reader"]


def make_body_reader(plan: BodyPlan) -> Callable[[Request], Awaitable[Any]]:
    """A function that reads and decodes a request's body as `plan` says."""
    type_ = plan.type
    bare = typing.get_args(type_)[0] if typing.get_origin(type_) is typing.Annotated else type_
    if without_none(bare) is bytes:
        return _bytes_reader(plan)
    if is_pydantic(without_none(bare)):
        return _pydantic_reader(plan, without_none(bare))
    decode = msgspec.json.Decoder(type_).decode
    required, default = plan.required, plan.default

    async def read_json(request: Request) -> Any:
        data = await read_body(request)
        if not data and not required:
            return default
        require_json(request)
        return decode_json(data, decode, type_)

    return read_json


def _bytes_reader(plan: BodyPlan) -> Callable[[Request], Awaitable[Any]]:
    async def read_bytes(request: Request) -> Any:
        data = await read_body(request)
        if data or not plan.required:
            return data or plan.default
        raise HTTPError(400, "this operation takes a body, and the request has none")

    return read_bytes


def _pydantic_reader(plan: BodyPlan, model: Any) -> Callable[[Request], Awaitable[Any]]:
    async def read_model(request: Request) -> Any:
        data = await read_body(request)
        if not data and not plan.required:
            return plan.default
        require_json(request)
        try:
            return model.model_validate_json(data)
        except ValueError as error:
            if error.errors()[0]["type"] == "json_invalid":  # type: ignore[attr-defined]
                raise HTTPError(400, f"the body is not JSON: {error.errors()[0]['msg']}") from None  # type: ignore[attr-defined]
            raise ValidationError(pydantic_faults(error, "body")) from None

    return read_model


def decode_json(data: bytes, decode: Callable[[bytes], Any], type_: Any) -> Any:
    """Decode a JSON body.

    Args:
        data: the body.
        decode: the decoder for `type_`.
        type_: what the body must be; used to find every fault when it does not fit.

    Raises:
        HTTPError: 400 when it is not JSON.
        ValidationError: it is JSON, but not of that type.
    """
    try:
        return decode(data)
    except msgspec.ValidationError as error:
        raise ValidationError(_faults(data, type_, error)) from None
    except msgspec.DecodeError as error:
        raise HTTPError(400, f"the body is not JSON: {error}" if data else "the body is empty, JSON was expected") from None
    except RecursionError:
        raise HTTPError(400, "the body is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise HTTPError(400, f"the body is not UTF-8: {error.reason} at byte {error.start}") from None


def _faults(data: bytes, type_: Any, error: msgspec.ValidationError) -> list[Fault]:
    """Every fault of a body: msgspec stops at the first, so each field is tried alone."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as malformed:
        raise HTTPError(400, f"the body is not JSON: {malformed}") from None
    first = [structure("body", "", error)]
    bare = without_none(typing.get_args(type_)[0] if typing.get_origin(type_) is typing.Annotated else type_)
    try:
        fields = msgspec.inspect.type_info(bare).fields  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        return first
    if not isinstance(value, dict):
        return first
    hints = typing.get_type_hints(bare, include_extras=True)
    faults = []
    for field in fields:
        if field.encode_name not in value:
            if field.required:
                faults.append(Fault("body", f"/{field.encode_name}", "is required"))
            continue
        try:
            msgspec.convert(value[field.encode_name], hints[field.name])
        except msgspec.ValidationError as wrong:
            faults.append(structure("body", f"/{field.encode_name}", wrong))
        except (KeyError, TypeError):
            continue
    return faults or first
