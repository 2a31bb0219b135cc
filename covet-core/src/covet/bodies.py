"""Decoding a request body into what the handler's signature asks for."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from covet.annotations import is_pydantic, without_none
from covet.binding import pydantic_faults
from covet.decoding import decode_json, json_decoder
from covet.exceptions import HTTPError, ValidationError
from covet.requests import require_json
from covet.signatures import BodyPlan

if TYPE_CHECKING:
    from covet.requests import Request

__all__ = ["BodyDecoder", "make_body_decoder"]


BodyDecoder = Callable[["Request", bytes], Any]
"""Takes a request and its whole body; gives the value, or raises the `HTTPError` that says why it cannot."""


def make_body_decoder(plan: BodyPlan) -> BodyDecoder:
    """A function that decodes a request's body as `plan` says."""
    type_ = plan.type
    bare = typing.get_args(type_)[0] if typing.get_origin(type_) is typing.Annotated else type_
    if without_none(bare) is bytes:
        return _as_bytes(plan)
    if is_pydantic(without_none(bare)):
        return _with_pydantic(plan, without_none(bare))
    decode = json_decoder(type_)
    required, default = plan.required, plan.default

    def from_json(request: Request, data: bytes) -> Any:
        if not data and not required:
            return default
        require_json(request)
        try:
            return decode(data)
        except (ValueError, RecursionError):
            return decode_json(data, decode, type_)

    return from_json


def _as_bytes(plan: BodyPlan) -> BodyDecoder:
    def as_it_is(request: Request, data: bytes) -> Any:
        if data or not plan.required:
            return data or plan.default
        raise HTTPError(400, "this operation takes a body, and the request has none")

    return as_it_is


def _with_pydantic(plan: BodyPlan, model: Any) -> BodyDecoder:
    skim = msgspec.json.Decoder(msgspec.Raw).decode

    def check(data: bytes) -> msgspec.Raw:
        data.decode()
        return skim(data)

    def validated(request: Request, data: bytes) -> Any:
        if not data and not plan.required:
            return plan.default
        require_json(request)
        # pydantic takes NaN and Infinity, which are no JSON, and has other words for what is none.
        decode_json(data, check, msgspec.Raw)
        try:
            return model.model_validate_json(data)
        except ValueError as error:
            raise ValidationError(pydantic_faults(error, "body")) from None

    return validated
