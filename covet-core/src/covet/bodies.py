"""Reading a request body into what the handler's signature asks for."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from covet.binding import pydantic_faults
from covet.decoding import decode_json
from covet.exceptions import HTTPError, ValidationError
from covet.requests import require_json, rest_of_body, start_body
from covet.signatures import BodyPlan, is_pydantic, without_none

if TYPE_CHECKING:
    from covet.receiving import BodyStream
    from covet.requests import Request

__all__ = ["BodyReader", "make_body_reader"]


BodyReader = Callable[["Request"], Any]
"""Takes a request; gives the value, or a coroutine that gives it when the body has yet to arrive."""


def make_body_reader(plan: BodyPlan, limit: int) -> BodyReader:
    """A function that reads and decodes a request's body, of at most `limit` bytes, as `plan` says."""
    type_ = plan.type
    bare = typing.get_args(type_)[0] if typing.get_origin(type_) is typing.Annotated else type_
    if without_none(bare) is bytes:
        return _bytes_reader(plan, limit)
    if is_pydantic(without_none(bare)):
        return _pydantic_reader(plan, without_none(bare), limit)
    decode = msgspec.json.Decoder(type_).decode
    required, default = plan.required, plan.default

    def from_json(request: Request, data: bytes) -> Any:
        if not data and not required:
            return default
        require_json(request)
        try:
            return decode(data)
        except ValueError:
            return decode_json(data, decode, type_)

    return _reader(from_json, limit)


def _reader(convert: Callable[[Request, bytes], Any], limit: int) -> BodyReader:
    """A reader that gives the value itself when the body is there already, and a coroutine only when it is not."""

    async def finish(request: Request, stream: BodyStream) -> Any:
        return convert(request, await rest_of_body(request, stream))

    def read(request: Request) -> Any:
        data = start_body(request, limit)
        return convert(request, data) if data.__class__ is bytes else finish(request, data)  # type: ignore[arg-type]

    return read


def _bytes_reader(plan: BodyPlan, limit: int) -> BodyReader:
    def as_it_is(request: Request, data: bytes) -> Any:
        if data or not plan.required:
            return data or plan.default
        raise HTTPError(400, "this operation takes a body, and the request has none")

    return _reader(as_it_is, limit)


def _pydantic_reader(plan: BodyPlan, model: Any, limit: int) -> BodyReader:
    def validated(request: Request, data: bytes) -> Any:
        if not data and not plan.required:
            return plan.default
        require_json(request)
        try:
            return model.model_validate_json(data)
        except ValueError as error:
            if error.errors()[0]["type"] == "json_invalid":  # type: ignore[attr-defined]
                raise HTTPError(400, f"the body is not JSON: {error.errors()[0]['msg']}") from None  # type: ignore[attr-defined]
            raise ValidationError(pydantic_faults(error, "body")) from None

    return _reader(validated, limit)
