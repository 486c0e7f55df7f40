"""The studio's addresses: each takes a request apart, asks the session, and answers in JSON or with a picture."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from featurebank.bank.display import json_text
from featurebank.errors import BankError, FeatureBankError, one_line
from featurebank.explore.page import SHARED
from featurebank.explore.studio.opening import Opening
from featurebank.explore.studio.place import NotYetError
from featurebank.explore.studio.safety import Guard

if TYPE_CHECKING:
    from featurebank.explore.studio.session import Session

PAGE = "featurebank.explore.studio"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
MOST_JSON, MOST_IMAGE = 4 << 20, 64 << 20
"""Bytes of a request."""
MOST_ITEMS = 500

Handler = Callable[["Session", Request], Awaitable[Any]]


def make_app(opening: Opening, token: str, **guard: Any) -> Starlette:
    """Return the application of a session behind a token; `guard` goes to `featurebank.explore.studio.safety.Guard`."""

    async def state(request: Request) -> Any:
        return await run_in_threadpool(opening.state)

    routes = [Route("/", _index), Route("/static/{name}", _static), Route("/api/state", _told(state))]
    for path, handler in _GET.items():
        routes.append(Route(f"/api/{path}", _answering(opening, handler), methods=["GET"]))
    for path, handler in _POST.items():
        routes.append(Route(f"/api/{path}", _answering(opening, handler), methods=["POST"]))
    return Starlette(routes=[Mount(f"/{token}", routes=routes)], middleware=[Middleware(Guard, **guard)])


def _answering(opening: Opening, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that asks the session, once it is there."""

    async def asked(request: Request) -> Any:
        return await handler(opening.session, request)

    return _told(asked)


def _told(asked: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint whose errors are one line of JSON."""

    async def endpoint(request: Request) -> Response:
        try:
            answer = await asked(request)
        except NotYetError as error:
            return _json({"error": one_line(error)}, 503)
        except (FeatureBankError, OSError) as error:
            return _json({"error": one_line(error)}, 404 if request.method == "GET" else 400)
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # what a page of ours never sends
            return _json({"error": f"a request that the studio does not know: {one_line(error)}"}, 400)
        return answer if isinstance(answer, Response) else _json(answer)

    return endpoint


def _json(value: Any, status: int = 200) -> Response:
    text = json_text(value, separators=(",", ":"))  # in ASCII: a path may hold what is no Unicode
    return Response(text, status, media_type="application/json", headers={"Cache-Control": "no-store"})


# --- the page ----------------------------------------------------------------------------------------------


async def _index(request: Request) -> Response:
    return _file("index.html")


async def _static(request: Request) -> Response:
    return _file(request.path_params["name"])


def _file(name: str) -> Response:
    """Return a file of the page; a name is one of those that are there, never a path."""
    known = {each.name: each for each in (files(PAGE) / "page").iterdir() if each.is_file()}
    known |= {each: files("featurebank.explore") / "templates" / each for each in SHARED}
    suffix = name[name.rfind(".") :]
    if name not in known or suffix not in TYPES:
        return _json({"error": "no such file"}, 404)
    return Response(known[name].read_bytes(), media_type=TYPES[suffix], headers={"Cache-Control": "no-cache"})


# --- what is asked for -------------------------------------------------------------------------------------


async def _body(request: Request, most: int) -> bytes:
    """Return a request's body, refused once it is too large."""
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most:
            raise BankError(f"more than {most >> 20} MiB; send less")
    return bytes(found)


async def _fields(request: Request) -> dict[str, Any]:
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise ValueError("expected JSON")
    found = json.loads(await _body(request, MOST_JSON))
    if not isinstance(found, dict):
        raise ValueError("expected an object")
    return found


def digest_of(text: Any) -> bytes:
    """Return a digest from its hexadecimal text.

    Raises
    ------
    BankError
        When it is no digest.

    Examples
    --------
    >>> digest_of("00" * 32) == bytes(32)
    True
    """
    if not isinstance(text, str) or len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise BankError("not the digest of an image; expected 64 hexadecimal digits")
    return bytes.fromhex(text)


def _count(request: Request, default: int) -> int:
    return max(1, min(int(request.query_params.get("count", default)), MOST_ITEMS))


def _asking(method: Callable[[Session, Request], Any]) -> Handler:
    """Return a handler that asks the session in a thread, so that nobody else waits."""

    async def handler(session: Session, request: Request) -> Any:
        return await run_in_threadpool(method, session, request)

    return handler


def _next(session: Session, request: Request) -> Any:
    skip = [digest_of(each) for each in request.query_params.get("skip", "").split(",") if each]
    return {"items": session.next(_count(request, 8), skip)}


def _grid(session: Session, request: Request) -> Any:
    items = session.grid(request.query_params.get("label"), _count(request, 48))
    return {"items": items, "tests": session.tests_left()}


def _similar(session: Session, request: Request) -> Any:
    return {"items": session.similar(digest_of(request.query_params["digest"]), _count(request, 48))}


def _image(session: Session, request: Request) -> Response:
    made = session.picture(digest_of(request.path_params["digest"]), int(request.query_params.get("size", 1024)))
    return Response(made, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})


async def _labels(session: Session, request: Request) -> Any:
    fields = await _fields(request)
    answers = [(digest_of(each["digest"]), each["label"], each["seen"]) for each in fields["answers"]]
    return await run_in_threadpool(session.label, str(fields["tab"]), answers)


async def _undo(session: Session, request: Request) -> Any:
    fields = await _fields(request)
    return await run_in_threadpool(session.undo, str(fields["tab"]))


async def _predict(session: Session, request: Request) -> Any:
    data = await _body(request, MOST_IMAGE)
    return await run_in_threadpool(session.predict, data)


async def _finish(session: Session, request: Request) -> Any:
    fields = await _fields(request)
    return await run_in_threadpool(session.finish, fields.get("path"), fields.get("options"))


def _confusion(session: Session, request: Request) -> Any:
    return {"items": session.confusion(request.query_params["truth"], request.query_params["predicted"])}


def _drop(session: Session, request: Request) -> Response:
    made = session.drops.map(request.path_params["name"])
    return Response(made, media_type="image/png", headers={"Cache-Control": "no-store"})


_GET: dict[str, Handler] = {
    "next": _asking(_next),
    "grid": _asking(_grid),
    "similar": _asking(_similar),
    "image/{digest}": _asking(_image),
    "map": _asking(lambda session, request: session.map()),
    "progress": _asking(lambda session, request: session.progress()),
    "confusion": _asking(_confusion),
    "issues": _asking(lambda session, request: {"items": session.issues()}),
    "drop/{name}": _asking(_drop),
    "finish": _asking(lambda session, request: session.finished()),
}
_POST: dict[str, Handler] = {"labels": _labels, "undo": _undo, "predict": _predict, "finish": _finish}
