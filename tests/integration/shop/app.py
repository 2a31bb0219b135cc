"""A shop that is attacked in a browser. Some of its handlers are careless, for an attack to succeed on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import msgspec

from covet import (
    Cookie,
    Covet,
    EventSourceResponse,
    Form,
    HTMLResponse,
    HTTPError,
    JSONResponse,
    PlainTextResponse,
    Request,
    Response,
    ServerSentEvent,
    WebSocket,
)
from covet.csp import csp_nonce
from covet.csrf import csrf_exempt
from covet.sessions import Session

app = Covet()
transfers: list[str] = []
arrived: list[list[str]] = []
profile: dict[str, str] = {}


@app.get("/")
async def index() -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>Shop</title><h1>Welcome</h1>")


# Cookies: as Covet sets them, and as carelessness does.


@app.get("/cookies/set")
async def set_cookies() -> Response:
    response = PlainTextResponse("set")
    response.set_cookie("__Host-id", "ada")
    return response


@app.get("/cookies/set/careless")
async def set_careless_cookies() -> Response:
    response = PlainTextResponse("set")
    response.set_cookie("id", "ada", http_only=False, same_site="none")
    return response


@app.get("/cookies/set/strict")
async def set_strict_cookies() -> Response:
    response = PlainTextResponse("set")
    response.set_cookie("__Host-id", "ada", same_site="strict")
    return response


@app.route("/cookies", methods=["GET", "POST"])
@csrf_exempt
async def cookies(request: Request) -> str:
    arrived.append([f"{name}={value}" for name, value in request.cookies.items()])
    return " ".join(arrived[-1]) or "none"


@app.get("/cookies/last")
async def last_cookies() -> str:
    return " ".join(arrived[-1]) or "none" if arrived else "no request"


# What a forged request would do. The cookie is one that every request brings along.


@app.get("/account")
async def account() -> Response:
    transfers.clear()
    profile.clear()
    arrived.clear()
    response = PlainTextResponse("ada's")
    response.set_cookie("account", "ada", same_site="none")
    return response


@app.get("/transfer")
async def transfer_form() -> HTMLResponse:
    return HTMLResponse("<!doctype html><form method=post><input name=to><button>Send</button></form>")


@app.post("/transfer")
async def transfer(to: Annotated[str, Form()], account: Annotated[str | None, Cookie()] = None) -> str:
    if account is None:
        raise HTTPError(401, "log in first")
    transfers.append(f"{account} to {to}")
    return "sent"


@app.get("/transfers")
async def show_transfers() -> list[str]:
    return transfers


class Profile(msgspec.Struct):
    city: str


@app.route("/profile", methods=["PUT", "POST"])
async def change_profile(new: Profile, account: Annotated[str | None, Cookie()] = None) -> dict[str, str]:
    if account is None:
        raise HTTPError(401, "log in first")
    profile.update(city=new.city)
    return profile


@app.post("/profile/careless")
@csrf_exempt
async def change_profile_carelessly(request: Request) -> dict[str, str]:
    profile.update(json.loads(await request.body()))
    return profile


@app.get("/profile")
async def show_profile() -> dict[str, str]:
    return profile


# What only some may read.


@app.get("/orders")
async def orders(account: Annotated[str | None, Cookie()] = None) -> JSONResponse:
    return JSONResponse({"of": account}, headers={"x-total": "3", "x-internal": "7"})


@app.get("/broken")
async def broken() -> str:
    raise RuntimeError("broken")


# Sessions, as Covet means them, and as carelessness uses them.


@app.get("/visit")
async def visit(session: Session) -> int:
    visits: int = session.get("visits", 0) + 1
    session["visits"] = visits
    return visits


@app.get("/login")
async def login_form() -> HTMLResponse:
    return HTMLResponse("<!doctype html><form method=post><input name=user><button>Log in</button></form>")


@app.post("/login")
async def login(user: Annotated[str, Form()], session: Session) -> str:
    await session.bind(user)
    session["user"] = user
    return f"hello {user}"


@app.post("/login/careless")
async def login_carelessly(user: Annotated[str, Form()], session: Session) -> str:
    session["user"] = user
    return f"hello {user}"


@app.get("/who")
async def who(session: Session) -> str:
    user: str = session.get("user", "nobody")
    return user


@app.post("/logout")
async def logout(session: Session) -> str:
    await session.destroy()
    return "bye"


@app.post("/logout/careless")
async def logout_carelessly(request: Request) -> Response:
    response = PlainTextResponse("bye")
    response.delete_cookie("__Host-session")
    return response


# A page with a hole: it shows what a stranger wrote as it is. And one with a script of its own.


@app.get("/comment")
async def comment(text: str = "") -> HTMLResponse:
    return HTMLResponse(f"<!doctype html><title>Comment</title><h1>Comment</h1>{text}")


@app.get("/greeting")
async def greeting(request: Request, text: str = "") -> HTMLResponse:
    nonce = csp_nonce(request)
    return HTMLResponse(f"<!doctype html><title>Greeting</title><script nonce={nonce}>greeted = true</script>{text}")


# Events, of which each waits until the page has told of the one before.

told: dict[str, anyio.Event] = {}


@app.get("/events")
async def events() -> EventSourceResponse:
    async def numbers() -> AsyncIterator[ServerSentEvent]:
        for number in ("one", "two", "three"):
            told[number] = anyio.Event()
            yield ServerSentEvent(number)
            await told[number].wait()

    return EventSourceResponse(numbers())


@app.post("/events/{number}")
async def tell(number: str) -> None:
    told[number].set()


# What a browser might take for something else, or show where it should not.


@app.get("/upload.txt")
async def upload() -> PlainTextResponse:
    return PlainTextResponse("window.ran = true")


# Who may connect.


@app.websocket("/socket")
async def socket(socket: WebSocket, account: Annotated[str | None, Cookie()] = None) -> None:
    await socket.accept()
    await socket.send_text(str(account))


@app.websocket("/socket/careless")
async def open_socket(socket: WebSocket, account: Annotated[str | None, Cookie()] = None) -> None:
    await socket.accept(origins=["*"])
    await socket.send_text(str(account))
