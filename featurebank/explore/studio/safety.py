"""What keeps other pages and machines out: the token in the address, Host, Origin, and the page's own policy."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
)
NOTEBOOKS = "http://localhost:* http://127.0.0.1:* https://localhost:* https://127.0.0.1:*"
HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(18)


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine and no other can reach it.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that answers only to its own page.

    A name that is bound anew to this machine (DNS rebinding) comes as another Host; another page in the same browser
    names itself as the Origin, or says that it is ``cross-site``.

    Parameters
    ----------
    app : ASGI application
    hosts : iterable of str
        Names this server is reached by, without the port; of any other only a bare address counts, and only where
        `is_open`.
    is_open : bool
        Whether other machines may ask.
    in_frames : bool
        Whether a notebook on this machine may show the page in a frame.
    """

    def __init__(
        self, app: ASGIApp, hosts: Iterable[str] = LOOPBACK, *, is_open: bool = False, in_frames: bool = False
    ) -> None:
        self._app, self._hosts, self._is_open = app, frozenset(hosts), is_open
        policy = POLICY.format(ancestors=NOTEBOOKS if in_frames else "'none'")
        self._headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        self._headers.append((b"content-security-policy", policy.encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        refusal = self._refusal(Headers(scope=scope), scope["method"])
        if refusal:
            await JSONResponse({"error": refusal}, 403)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _refusal(self, headers: Headers, method: str) -> str:
        """Return why a request is refused; nothing for one of our page."""
        host = headers.get("host", "")
        if not self._is_known(host):
            return f"this server is not {host!r}; open the address that `featurebank studio` printed"
        origin = headers.get("origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return f"a request of another page, {origin!r}; only the studio's own page is answered"
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
        is_visit = method == "GET" and mode == "navigate"  # a link or a notebook's frame
        if site not in ("same-origin", "none") and not is_visit:
            return "a request of another page; only the studio's own page is answered"
        return ""

    def _is_known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return self._is_open
