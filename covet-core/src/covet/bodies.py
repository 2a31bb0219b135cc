"""Reading a request body into what the handler's signature asks for."""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from covet.binding import pydantic_faults
from covet.decoding import decode_json
from covet.exceptions import HTTPError, ValidationError
from covet.requests import read_body, require_json, rest_of_body, start_body
from covet.signatures import BodyPlan, is_pydantic, without_none

if TYPE_CHECKING:
    from covet.requests import Request

JSON = (b"content-type", b"application/json")

__all__ = ["make_body_reader"]


def make_body_reader(plan: BodyPlan, limit: int) -> Callable[[Request], Awaitable[Any]]:
    """A function that reads and decodes a request's body, of at most `limit` bytes, as `plan` says."""
    type_ = plan.type
    bare = typing.get_args(type_)[0] if typing.get_origin(type_) is typing.Annotated else type_
    if without_none(bare) is bytes:
        return _bytes_reader(plan, limit)
    if is_pydantic(without_none(bare)):
        return _pydantic_reader(plan, without_none(bare), limit)
    decode = msgspec.json.Decoder(type_).decode
    required, default = plan.required, plan.default

    async def read_json(request: Request) -> Any:
        data = start_body(request, limit)
        if data.__class__ is not bytes:
            data = await rest_of_body(request, data)
        if JSON not in request.scope["headers"]:
            if not data and not required:
                return default
            require_json(request)
        try:
            return decode(data)
        except ValueError:
            return decode_json(data, decode, type_)

    return read_json


def _bytes_reader(plan: BodyPlan, limit: int) -> Callable[[Request], Awaitable[Any]]:
    async def read_bytes(request: Request) -> Any:
        data = await read_body(request, limit)
        if data or not plan.required:
            return data or plan.default
        raise HTTPError(400, "this operation takes a body, and the request has none")

    return read_bytes


def _pydantic_reader(plan: BodyPlan, model: Any, limit: int) -> Callable[[Request], Awaitable[Any]]:
    async def read_model(request: Request) -> Any:
        data = await read_body(request, limit)
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

