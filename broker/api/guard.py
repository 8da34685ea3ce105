"""What keeps a web page in somebody's browser from using an API that listens on this machine.

A browser lets any page send a POST of form or plain text to any address, and a name that its owner points at
127.0.0.1 passes for that page's own server. So bodies must be JSON (which a page cannot send to a stranger
without asking first, and we never agree), or where files are taken a file, of a type of which the same holds;
and while we listen on loopback, or api.hosts is set, the Host must be ours.

Here is also where text comes in, once for all routes: what UTF-8 cannot hold, control characters, numbers
that are not finite and JSON nested without end are refused in the path, the query and the body.
"""

from __future__ import annotations

import json
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.api.registry import INVALID_SCHEMA, RegistryError, is_registry, registry_answer
from broker.config import ApiSettings
from broker.text import fault_of_json, fault_of_text, parts_of, printable

MAX_BODY_BYTES = 1024 * 1024
MAX_FILE_BYTES = 128 * 1024 * 1024
MAX_JSON_BYTES = 16 * 1024 * 1024
"""Of a list or a region given as JSON: its objects take twenty times as much."""
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
            return await _answer(scope, *refusal)(scope, receive, send)
        if scope["method"] not in _WITH_BODY or not is_json(_content_type(scope)):
            return await self._app(scope, _bounded(receive, _most(scope)), send)
        body = await _whole_body(receive, _most(scope))
        refusal = (413, _too_large(scope)) if body is None else await run_in_threadpool(_fault_of_body, body)
        if refusal is not None:
            return await _answer(scope, *refusal)(scope, receive, send)
        await self._app(scope, _replay(body or b"", receive), send)

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
            return 413, _too_large(scope)
        return _fault_of_address(scope)


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
    if scope["path"] not in _FILES:
        return MAX_BODY_BYTES
    return MAX_JSON_BYTES if is_json(_content_type(scope)) else MAX_FILE_BYTES


def _too_large(scope: Scope) -> str:
    return f"the body is larger than {_most(scope):,} bytes"


def _content_type(scope: Scope) -> str:
    return Headers(scope=scope).get("content-type", "")


def _answer(scope: Scope, status: int, why: str) -> JSONResponse:
    """A refusal, as the path's readers know it."""
    if is_registry(scope["path"]):
        return registry_answer(RegistryError(status, INVALID_SCHEMA if status == 422 else status, why))
    return JSONResponse({"error": why}, status)


def _fault_of_address(scope: Scope) -> tuple[int, str] | None:
    """What is wrong with the text of a path or a query."""
    raw_path = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
    for what, raw in (("path", raw_path), ("query", scope["query_string"].replace(b"+", b" "))):
        try:
            fault = fault_of_text(unquote_to_bytes(raw).decode())
        except UnicodeDecodeError as error:
            fault = f"bytes that are not UTF-8 (at {error.start})"
        if fault:
            return 422, f"the {what} has {fault}"
    return None


def _fault_of_body(body: bytes) -> tuple[int, str] | None:
    """What is wrong with a body of JSON; an empty one, or one of another shape, is for the route to judge."""
    if not body:
        return None
    try:
        content = json.loads(body)
    except RecursionError:
        return 422, "the body is nested too deeply"
    except ValueError as error:  # no JSON, or not UTF-8, or a number of thousands of digits
        return 422, f"the body is not JSON: {printable(str(error), 200)}"
    fault = fault_of_json(content)
    faults = (fault_of_text(part) for part, _ in parts_of(content) if isinstance(part, str))
    fault = fault or next((found for found in faults if found), "")
    return (422, f"the body has {fault}") if fault else None


async def _whole_body(receive: Receive, most: int) -> bytes | None:
    """The body; None if it is larger than it may be, or never ends."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, for whoever reads it next; then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


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
