"""An application with every kind of parameter, body and response, for what reads or attacks its OpenAPI document.

Its handlers accept whatever fits their signatures: a request that fits the document and is refused shows a mistake.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic

from covet import (
    Body,
    Cookie,
    Covet,
    Depends,
    EventSourceResponse,
    File,
    FileResponse,
    Form,
    Header,
    HTMLResponse,
    HTTPError,
    PlainTextResponse,
    Query,
    RedirectResponse,
    Request,
    Response,
    Router,
    ServerSentEvent,
    StreamingResponse,
    UploadFile,
)

app = Covet(
    {"app": {"name": "everything"}, "plugins": {"openapi": {"description": "All there is.", "public": True}}},
    installed_plugins=["openapi", "request_id"],
)


class Colour(enum.Enum):
    """What it looks like."""

    RED = "red"
    GREEN = "green"


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 3


class Part(msgspec.Struct):
    """A part of something."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=20, description="What it is called.")]
    weight: Annotated[float, msgspec.Meta(gt=0, le=1000, examples=[1.5])] = 1.0


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    """Something with parts, some of which are things."""

    id: uuid.UUID
    parts: Annotated[list[Part], msgspec.Meta(max_length=5)] = []
    colour: Colour = Colour.RED
    made: datetime.date | None = None
    inner: Thing | None = None
    notes: dict[str, str] = {}


class Circle(msgspec.Struct, tag="circle"):
    radius: Annotated[float, msgspec.Meta(ge=0)]


class Square(msgspec.Struct, tag="square"):
    side: Annotated[float, msgspec.Meta(ge=0)]


@dataclass
class Point:
    x: int
    y: int = 0
    labels: list[str] = field(default_factory=list)


class Options(TypedDict, total=False):
    verbose: bool
    level: int


@attrs.define
class Crate:
    width: int
    lid: bool = True


class Pair(NamedTuple):
    left: int
    right: str


class Address(pydantic.BaseModel):
    street: str
    number: Annotated[int, pydantic.Field(ge=1)] = 1


class Person(pydantic.BaseModel):
    """Somebody."""

    name: Annotated[str, pydantic.Field(max_length=30)]
    address: Address | None = None


class Moments(msgspec.Struct):
    at: datetime.datetime
    on: datetime.date
    time: datetime.time
    lasting: datetime.timedelta
    data: bytes


class Paging(msgspec.Struct):
    """Which part of a list is wanted."""

    page: Annotated[int, msgspec.Meta(ge=1, description="Counted from 1.")] = 1
    size: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    order: Literal["up", "down"] = "up"


def paging(paging: Annotated[Paging, Query()]) -> Paging:
    return paging


async def tenant(x_tenant: Annotated[str, Header(description="Who pays.", examples=("acme",))] = "nobody") -> str:
    return x_tenant


# Paths


@app.get("/path/{text}")
async def path_text(text: Annotated[str, msgspec.Meta(max_length=10)]) -> str:
    return text


@app.get("/path/int/{number:int}")
async def path_int(number: Annotated[int, msgspec.Meta(ge=1, le=1000)]) -> int:
    return number


@app.get("/path/signed/{number}")
async def path_signed(number: int) -> int:
    return number


@app.get("/path/float/{number:float}/{day:date}/{key:uuid}/{name:slug}")
async def path_many(number: float, day: datetime.date, key: uuid.UUID, name: str) -> dict[str, Any]:
    return {"number": number, "day": day, "key": key, "name": name}


@app.get("/path/rest/{rest:path}")
async def path_rest(request: Request) -> str:
    return str(request.path_params["rest"])


@app.get("/path/colour/{colour}")
async def path_colour(colour: Colour) -> Colour:
    return colour


# Query, headers, cookies


@app.get("/query", tags=["parameters"])
async def query(
    text: str,
    number: Annotated[int, msgspec.Meta(ge=0, le=100)] = 7,
    ratio: float = 0.5,
    flag: bool = False,
    colour: Colour | None = None,
    size: Size = Size.SMALL,
    kind: Literal["a", "b"] = "a",
    key: uuid.UUID | None = None,
    day: datetime.date | None = None,
    at: datetime.datetime | None = None,
    lasting: datetime.timedelta | None = None,
    price: decimal.Decimal | None = None,
    numbers: Annotated[list[int], msgspec.Meta(max_length=5)] = [],  # noqa: B006 - never changed
    words: Annotated[list[str] | None, Query("word", "Repeated for several.")] = None,
) -> dict[str, Any]:
    """Take all kinds of query parameters.

    They come back as JSON.
    """
    return {"text": text, "number": number, "numbers": numbers}


@app.get("/paged", tags=["parameters"])
async def paged(paging: Annotated[Paging, Depends(paging)], tenant: Annotated[str, Depends(tenant)]) -> Paging:
    """Take parameters through dependencies."""
    return paging


@app.get("/headers", tags=["parameters"])
async def headers(
    x_token: Annotated[str, Header()],
    x_count: Annotated[int, Header()] = 1,
    x_ids: Annotated[list[int], Header()] = [],  # noqa: B006 - never changed
    session: Annotated[str | None, Cookie()] = None,
    visits: Annotated[int, Cookie("visit-count")] = 0,
) -> dict[str, Any]:
    return {"token": x_token, "count": x_count, "ids": x_ids, "visits": visits}


# Bodies

things = Router("/things", name="things", tags=["things"])
stored: dict[uuid.UUID, Thing] = {}


@things.post("/", status=201, responses={409: "There is one of that id already."})
async def create(thing: Thing) -> Thing:
    if thing.id in stored:
        raise HTTPError(409, f"there is a thing {thing.id} already")
    stored[thing.id] = thing
    return thing


@things.get("/{id:uuid}", responses={404: "There is none of that id."})
async def show(id: uuid.UUID) -> Thing:
    if id not in stored:
        raise HTTPError(404, f"there is no thing {id}")
    return stored[id]


@things.put("/{key:uuid}")
async def replace(key: uuid.UUID, thing: Thing) -> Thing:
    stored[key] = thing
    return thing


@things.delete("/{id:uuid}", deprecated=True)
async def delete(id: uuid.UUID) -> None:
    if stored.pop(id, None) is None:
        raise HTTPError(404, f"there is no thing {id}")


app.include(things)


@app.post("/shapes")
async def shapes(shape: Circle | Square) -> Circle | Square:
    return shape


@app.post("/points")
async def points(points: list[Point]) -> list[Point]:
    return points


@app.post("/options")
async def options(
    options: Annotated[Options, Body(description="What to change.", examples=({"level": 3},))],
) -> Options:
    return options


@app.post("/crates")
async def crates(crate: Crate | None = None) -> Crate | None:
    return crate


@app.post("/pairs")
async def pairs(pair: Annotated[Pair, Body()]) -> dict[str, Any]:
    # Not the pair itself: schemathesis 4.32 rewrites `prefixItems` before it checks a response against it.
    return {"left": pair.left, "right": pair.right}


@app.post("/people")
async def people(person: Person) -> Person:
    return person


@app.post("/moments")
async def moments(moments: Moments) -> Moments:
    return moments


@app.post("/numbers")
async def numbers(numbers: dict[str, int]) -> dict[str, int]:
    return numbers


@app.post("/bytes")
async def raw(data: Annotated[bytes, Body()]) -> bytes:
    return data


# Forms


@app.post("/form")
async def form(
    name: Annotated[str, Form(description="Yours.")],
    age: Annotated[int, Form(), msgspec.Meta(ge=0, le=150)] = 0,
    tags: Annotated[list[str], Form()] = [],  # noqa: B006 - never changed
) -> dict[str, Any]:
    return {"name": name, "age": age, "tags": tags}


@app.post("/form/whole")
async def form_whole(paging: Annotated[Paging, Form()]) -> Paging:
    return paging


@app.post("/upload")
async def upload(
    photo: UploadFile,
    others: Annotated[list[UploadFile], File()] = [],  # noqa: B006 - never changed
    title: Annotated[str, Form()] = "",
) -> tuple[dict[str, int], Literal[201]]:
    return {"size": photo.size, "others": len(others)}, 201


# Responses


@app.get("/responses/nothing")
async def nothing(part: bool = False) -> Part | None:
    return Part("bolt") if part else None


@app.get("/responses/html")
async def html() -> HTMLResponse:
    return HTMLResponse("<p>hello</p>")


@app.get("/responses/text")
async def text() -> PlainTextResponse:
    return PlainTextResponse("hello")


@app.get("/responses/redirect")
async def redirect() -> RedirectResponse:
    return RedirectResponse("/responses/text")


@app.get("/responses/file")
async def file() -> FileResponse:
    return FileResponse(Path(__file__))


@app.get("/responses/stream")
async def stream() -> StreamingResponse:
    return StreamingResponse([b"a", b"b"])


@app.get("/responses/events")
async def events() -> EventSourceResponse:
    async def some() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent("hello")

    return EventSourceResponse(some())


@app.get("/responses/any")
async def anything() -> Response:
    return Response(b"any", 203)


@app.get("/responses/decimal")
async def price() -> dict[str, decimal.Decimal]:
    return {"price": decimal.Decimal("1.50")}


@app.get("/responses/either", responses={202: Part})
async def either(later: bool = False) -> tuple[Part | Point, Literal[200, 202]]:
    return (Part("bolt"), 202) if later else (Point(1), 200)


@app.get("/hidden", in_schema=False)
async def hidden() -> str:
    return "hidden"


@app.websocket("/socket")
async def socket() -> None: ...
