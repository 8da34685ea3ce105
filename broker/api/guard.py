"""What keeps a web page in somebody's browser from using an API that listens on this machine.

A browser lets any page send a POST of form or plain text to any address, and a name that its owner points at
127.0.0.1 passes for that page's own server. So bodies must be JSON (which a page cannot send to a stranger
without asking first, and we never agree), and while we listen on loopback, or api.hosts is set, the Host must
be ours.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.config import ApiSettings

MAX_BODY_BYTES = 1024 * 1024
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_WITH_BODY = ("POST", "PUT", "PATCH")


class Guard:
    """Refuses requests with a foreign Host, a body that is not JSON, or one that is too large."""

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self._app = app
        self._hosts = allowed_hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer why not."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        refusal = self._refusal(scope)
        if refusal is not None:
            status, why = refusal
            return await JSONResponse({"error": why}, status)(scope, receive, send)
        await self._app(scope, _bounded(receive), send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = host_name(headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            return 421, f"this API does not answer for host {host[:100]!r}; set api.url to the address it has"
        if scope["method"] in _WITH_BODY and not is_json(headers.get("content-type", "")):
            return 415, "send the body as JSON, with the header Content-Type: application/json"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MAX_BODY_BYTES:
            return 413, f"the body is larger than {MAX_BODY_BYTES:,} bytes"
        return None


def allowed_hosts(settings: ApiSettings) -> frozenset[str]:
    """The Host names we answer to: loopback's, api.url's and api.hosts.

    Empty = any: when we listen on an address that is not loopback and api.hosts does not say who we are.
    """
    if host_name(settings.host) not in _LOOPBACK and not settings.hosts:
        return frozenset()
    own = urlsplit(settings.url).hostname
    return frozenset({*_LOOPBACK, *settings.hosts, *([own] if own else [])})


def host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name if name.count(":") > 1 else name.partition(":")[0]


def is_json(content_type: str) -> bool:
    """Whether a body is declared as JSON, under its own name or one that ends in +json."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _bounded(receive: Receive) -> Receive:
    """The body, cut off where it grows beyond what its length said or the limit allows."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            return {"type": "http.disconnect"}
        return message

    return bounded
