"""What becomes of a handler's return value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from covet.annotations import is_pydantic
from covet.responses import Response

__all__ = ["Renderer", "make_encoder"]

TEXT = (b"content-type", b"text/plain; charset=utf-8")
JSON = (b"content-type", b"application/json")


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
            TypeError: the value cannot be encoded, or a status comes with a `Response`, which has its own.
            ValueError: the status is none of HTTP's, 200 to 599.
        """
        if result.__class__ in self.json_types:
            return Response.trusted(self.encode(result), status or 200, JSON)
        if isinstance(result, Response):
            return result
        if result is None:
            return Response(status=204 if status is None else status)
        if isinstance(result, str):
            return Response.trusted(result.encode(), status or 200, TEXT)
        if isinstance(result, bytes | bytearray | memoryview):
            return Response(bytes(result), status or 200, content_type="application/octet-stream")
        if isinstance(result, tuple) and len(result) in (2, 3) and type(result[1]) is int:
            if isinstance(result[0], Response):
                raise TypeError(f"the handler returned {result[0]!r} with a status; give the status to the response")
            if not 200 <= result[1] <= 599:
                raise ValueError(
                    f"{result[1]} is no HTTP status of a response; a tuple of two or three with an int in second place "
                    "is taken for `(body, status)` and `(body, status, headers)`, so return a list for JSON"
                )
            response = self(result[0], result[1])
            if len(result) == 3:
                response.headers.update(result[2])
            return response
        response = Response.trusted(self.encode(result), status or 200, JSON)
        if not isinstance(result, tuple):
            self.json_types.add(type(result))
        return response
