"""FastAPI, with a pydantic model as the typed body."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from benchmarks.payload import ROUTES, ROWS


class User(BaseModel):
    id: int
    name: str
    email: str
    age: int
    active: bool
    score: float
    tags: list[str]
    city: str
    zip: str
    note: str


app = FastAPI()


@app.get("/", response_class=PlainTextResponse)
async def plain() -> str:
    return "Hello, World!"


@app.get("/json")
async def small() -> dict[str, str]:
    return {"message": "Hello, World!"}


@app.get("/list")
async def rows() -> list[dict[str, object]]:
    return ROWS


@app.post("/body")
async def body(user: User) -> User:
    return user


async def post(id: int, slug: str) -> dict[str, object]:
    return {"id": id, "slug": slug}


for number in range(ROUTES):
    app.get(f"/r{number}/users/{{id}}/posts/{{slug}}")(post)
