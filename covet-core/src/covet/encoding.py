"""What becomes of a handler's return value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from covet.responses import PlainTextResponse, Response
from covet.signatures import is_pydantic

__all__ = ["Renderer", "make_encoder"]


def make_encoder(encoders: Mapping[type, Callable[[Any], Any]]) -> Callable[[Any], bytes]:
    """A function from a value to JSON, for what msgspec knows, pydantic models, and the types in `encoders`.

    An encoder of a class serves its subclasses too. It returns something that can itself be encoded.
    """

    def encode_other(value: Any) -> Any:
        for class_ in type(value).__mro__:
            if class_ in encoders:
                return encoders[class_](value)
        if is_pydantic(type(value)):
            return value.model_dump(mode="json", by_alias=True)
        raise TypeError(
            f"a {type(value).__module__}.{type(value).__qualname__} cannot be encoded as JSON; "
            "return a Struct, dataclass, dict or list, or bring an encoder through the hook `covet_encoders`"
        )

    return msgspec.json.Encoder(enc_hook=encode_other, decimal_format="string").encode


class Renderer:
    """Turns return values into responses.

    Attributes:
        encode: value to JSON.
        json_types: the classes whose values are JSON. It begins with dict and list and learns others as they are
            returned, so that the next value of the class is recognised by one set lookup.
    """

    __slots__ = ("encode", "json_types")

    def __init__(self, encoders: Mapping[type, Callable[[Any], Any]]) -> None:
        self.encode = make_encoder(encoders)
        self.json_types: set[type] = {dict, list}

    def __call__(self, result: Any, status: int | None = None) -> Response:
        """The response for what a handler returned.

        A `Response` is taken as it is; None is an empty 204; text and bytes are themselves; `(body, status)` and
        `(body, status, headers)` set the status and headers; anything else becomes JSON.

        Raises:
            TypeError: the value cannot be encoded.
        """
        if isinstance(result, Response):
            return result
        if result is None:
            return Response(status=204 if status is None else status)
        if isinstance(result, str):
            return PlainTextResponse(result, status or 200)
        if isinstance(result, bytes | bytearray | memoryview):
            return Response(bytes(result), status or 200, content_type="application/octet-stream")
        if isinstance(result, tuple) and len(result) in (2, 3) and type(result[1]) is int:
            response = self(result[0], result[1])
            if len(result) == 3:
                response.headers.update(result[2])
            return response
        response = Response(self.encode(result), status or 200, content_type="application/json")
        if not isinstance(result, tuple):
            self.json_types.add(type(result))
        return response
