"""What keeps a web page in somebody's browser from using an API that listens on this machine.

A browser lets any page send a POST of form or plain text to any address, and a name that its owner points at
127.0.0.1 passes for that page's own server. So bodies must be JSON (which a page cannot send to a stranger
without asking first, and we never agree), or where files are taken a file, of a type of which the same holds;
and while we listen on loopback, or api.hosts is set, the Host must be ours.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.config import ApiSettings

MAX_BODY_BYTES = 1024 * 1024
MAX_FILE_BYTES = 128 * 1024 * 1024
_FILES = {
    "/api/v1/watchlists": ("text/csv", "text/tab-separated-values"),
    "/api/v1/regions": ("application/fits", "application/gzip", "application/octet-stream"),
}
"""Where a body may be a file, and of which types besides JSON: none that a page can send without asking."""
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
        await self._app(scope, _bounded(receive, _most(scope)), send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = host_name(headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            return 421, f"this API does not answer for host {host[:100]!r}; set api.url to the address it has"
        if scope["method"] in _WITH_BODY and not _may_be(scope["path"], headers.get("content-type", "")):
            types = " or ".join(_FILES.get(scope["path"], ("application/json",)))
            what = "the file as the body" if scope["path"] in _FILES else "the body as JSON"
            return 415, f"send {what}, with the header Content-Type: {types}"
        length, most = headers.get("content-length", "0"), _most(scope)
        if not length.isdecimal() or int(length[:20]) > most:
            return 413, f"the body is larger than {most:,} bytes"
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


def _may_be(path: str, content_type: str) -> bool:
    """Whether a body of this type is taken at a path."""
    kind = content_type.partition(";")[0].strip().lower()
    return is_json(content_type) or kind in _FILES.get(path, ())


def _most(scope: Scope) -> int:
    """Size of the largest body that is taken [bytes]."""
    return MAX_FILE_BYTES if scope["path"] in _FILES else MAX_BODY_BYTES


def is_json(content_type: str) -> bool:
    """Whether a body is declared as JSON, under its own name or one that ends in +json."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _bounded(receive: Receive, most: int) -> Receive:
    """The body, cut off where it grows beyond what its length said or the limit allows."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            return {"type": "http.disconnect"}
        return message

    return bounded
