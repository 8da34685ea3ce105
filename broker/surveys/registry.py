"""Writer schemas that the package does not hold, from a Confluent-compatible schema registry over HTTP."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, build_opener

from broker.errors import RetryBatch
from broker.surveys.avro import LocalSchemas, SchemaSource

_ANSWER_S = 10.0
_ASK_AGAIN_S = 60.0
"""For this long an id that the registry denied is not asked for again: damaged messages name random ids."""
_MOST_DENIED = 10_000
_LARGEST_ANSWER = 16 << 20
_NOT_FOUND = 404


def schema_source(url: str) -> SchemaSource:
    """The package's own schemas, then those of the registry at `url` ('' = none)."""
    return RegistrySchemas(url, LocalSchemas()) if url else LocalSchemas()


class RegistrySchemas:
    """Schemas by id: a first source's, else the registry's, each fetched once and kept in memory.

    An id that the registry denies is known to nobody, and is asked for again after a minute. While the
    registry cannot be reached or fails, `get` raises RetryBatch: nothing may be taken for unknown then.

    url : http(s)://host[:port][/path], with user:password@ before the host where the registry wants them
    """

    def __init__(self, url: str, first: SchemaSource, clock: Callable[[], float] = time.monotonic) -> None:
        self._base, self._headers = _address(url)
        self._first = first
        self._clock = clock
        self._opener = build_opener()
        self._found: dict[int, str] = {}
        self._denied: dict[int, float] = {}

    def get(self, schema_id: int) -> str | None:
        """The schema's text, None when nobody knows the id.  Raises RetryBatch."""
        known = self._first.get(schema_id) or self._found.get(schema_id)
        if known is not None or schema_id <= 0 or self._lately_denied(schema_id):
            return known
        text = self._fetch(schema_id)
        if text is None:
            self._deny(schema_id)
        else:
            self._found[schema_id] = text
        return text

    def _lately_denied(self, schema_id: int) -> bool:
        return self._clock() - self._denied.get(schema_id, -_ASK_AGAIN_S) < _ASK_AGAIN_S

    def _deny(self, schema_id: int) -> None:
        if len(self._denied) >= _MOST_DENIED:
            self._denied.clear()
        self._denied[schema_id] = self._clock()

    def _fetch(self, schema_id: int) -> str | None:
        """One question to the registry; None when it says that it has no such id."""
        address = f"{self._base}/schemas/ids/{schema_id}"
        request = Request(address)
        for name, value in self._headers.items():
            request.add_unredirected_header(name, value)  # a redirect elsewhere must not learn the password
        try:
            with self._opener.open(request, timeout=_ANSWER_S) as answer:
                return str(json.loads(answer.read(_LARGEST_ANSWER))["schema"])
        except HTTPError as error:
            error.close()
            if error.code == _NOT_FOUND:
                return None
            raise RetryBatch(f"the schema registry answers {error.code} to {address}") from error
        except (OSError, HTTPException) as error:
            raise RetryBatch(f"the schema registry cannot be reached at {address}: {error}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise RetryBatch(f"{address} does not answer as a schema registry does: {error!r}") from error


def _address(url: str) -> tuple[str, dict[str, str]]:
    """A registry's address without user and password, and the headers of every request to it."""
    parts = urlsplit(url)
    headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}", headers
