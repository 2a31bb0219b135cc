"""Decoding a request body into what the handler's signature asks for."""

from __future__ import annotations

import typing
from collections.abc import Callable
from textwrap import indent
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

__all__ = ["body_lines"]

# `require_json` is called for what the check before it does not settle: it costs as much as all of this.
JSON = """
plain = 0
for header, sent in request.scope["headers"]:
    if header == b"content-type":
        plain += 1 if sent == b"application/json" else 2
if plain != 1:
    require_json(request)
try:
    data = decode_body(data)
except (ValueError, RecursionError):
    data = explain_body(data)
"""

OPTIONAL = """
if data:
{json}
else:
    data = no_body
"""


def body_lines(plan: BodyPlan) -> tuple[list[str], dict[str, Any]]:
    """The source lines that make of `data`, a request's whole body, what `plan` says; and the objects they name.

    They raise the `HTTPError` that says why a body cannot be decoded.
    """
    type_ = plan.type
    bare = typing.get_args(type_)[0] if typing.get_origin(type_) is typing.Annotated else type_
    if without_none(bare) is bytes:
        return ["data = decode_body(request, data)"], {"decode_body": _as_bytes(plan)}
    if is_pydantic(without_none(bare)):
        return ["data = decode_body(request, data)"], {"decode_body": _with_pydantic(plan, without_none(bare))}
    decode = json_decoder(type_)
    names = {
        "require_json": require_json,
        "decode_body": decode,
        "explain_body": lambda data: decode_json(data, decode, type_),
        "no_body": plan.default,
    }
    source = JSON.strip("\n")
    if not plan.required:
        source = OPTIONAL.strip("\n").format(json=indent(source, "    "))
    lines: list[str] = [*source.split("\n")]
    return lines, names


def _as_bytes(plan: BodyPlan) -> Callable[[Request, bytes], Any]:
    def as_it_is(request: Request, data: bytes) -> Any:
        if data or not plan.required:
            return data or plan.default
        raise HTTPError(400, "this operation takes a body, and the request has none")

    return as_it_is


def _with_pydantic(plan: BodyPlan, model: Any) -> Callable[[Request, bytes], Any]:
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
