"""Writer schemas that the package does not hold, from a Confluent-compatible schema registry over HTTP."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, build_opener

from broker.errors import RetryBatch
from broker.message import MAX_INPUT_BYTES, Message
from broker.surveys.avro import CONFLUENT_MAGIC, LocalSchemas, SchemaSource
from broker.surveys.references import NoSuchPart, NotASchema, Place, assembled, parts_of
from broker.text import fault_of_json, printable

_ANSWER_S = 10.0
_PATIENCE_S = 1.0
"""For this long an answer is waited for; later it is for whoever asks for the id again."""
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_ASK_AGAIN_S = 60.0
"""For this long an id that the registry denied is not asked for again: damaged messages name random ids."""
_MOST_DENIED = 10_000
_LARGEST_ANSWER = 4 << 20
_CHUNK = 1 << 16
_MOST_PARTS = 1000
_NOT_FOUND = 404
_PREFIX_BYTES = 5


def schema_source(url: str) -> SchemaSource:
    """The package's own schemas, then those of the registry at `url` ('' = none)."""
    return RegistrySchemas(url, LocalSchemas()) if url else LocalSchemas()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message whose schema cannot be told now: where it is, what it names, and what is in the way."""

    offset: int
    schema_id: int
    why: str


def first_unreadable(messages: Iterable[Message], schemas: SchemaSource) -> dict[tuple[str, int], Unreadable]:
    """The first message of each (topic, partition) for whose schema there is no answer now."""
    found: dict[tuple[str, int], Unreadable] = {}
    answered: set[bytes] = set()
    for message in messages:
        prefix, key = message.value[:_PREFIX_BYTES], (message.topic, message.partition)
        if prefix in answered or key in found or not _names_a_schema(message.value):
            continue
        schema_id = int.from_bytes(prefix[1:], "big", signed=True)
        try:
            schemas.get(schema_id)
            answered.add(prefix)
        except RetryBatch as trouble:
            found[key] = Unreadable(message.offset, schema_id, str(trouble))
    return found


def _names_a_schema(value: bytes) -> bool:
    return value.startswith(CONFLUENT_MAGIC) and _PREFIX_BYTES <= len(value) <= MAX_INPUT_BYTES


@dataclass(slots=True)
class _Question:
    """An id for which the registry has no answer yet.

    answer : of the question that is under way, None between two
    trouble : what is in the way;  failures : questions that failed;  again_at : when to ask again
    """

    trouble: str
    answer: Future[str | None] | None = None
    failures: int = 0
    again_at: float = 0.0


class RegistrySchemas:
    """Schemas by id: a first source's, else the registry's, each fetched once and kept in memory.

    An id that the registry denies is known to nobody, and is asked for again after a minute. While the
    registry cannot be reached or fails, `get` raises RetryBatch: nothing may be taken for unknown then.
    It is asked in the background, again and again with growing pauses for as long as `get` is called, so
    that a registry that hangs keeps nobody.

    url : http(s)://host[:port][/path], with user:password@ before the host where the registry wants them
    """

    def __init__(self, url: str, first: SchemaSource, clock: Callable[[], float] = time.monotonic) -> None:
        self._base, self._headers = _address(url)
        self._first = first
        self._clock = clock
        self._opener = build_opener()
        self._found: dict[int, str] = {}
        self._denied: dict[int, float] = {}
        self._questions: dict[int, _Question] = {}
        self._parts: dict[Place, dict[str, Any]] = {}

    def get(self, schema_id: int) -> str | None:
        """The schema's text, None when nobody knows the id.  Raises RetryBatch."""
        known = self._first.get(schema_id) or self._found.get(schema_id)
        if known is not None or schema_id <= 0 or self._lately_denied(schema_id):
            return known
        question = self._questions.get(schema_id)
        if question is None:
            question = self._first_asked(schema_id)
        elif question.answer is None and self._clock() >= question.again_at:
            question.answer = _in_background(lambda: self._fetch(schema_id))
        if question.answer is None or not question.answer.done():
            raise RetryBatch(question.trouble)
        return self._settled(schema_id, question, question.answer)

    def _first_asked(self, schema_id: int) -> _Question:
        """Ask for an id, and wait a moment for the answer unless the registry owes others already."""
        self._questions = {id_: item for id_, item in self._questions.items() if self._waited_for(item)}
        patience = 0.0 if self._questions else _PATIENCE_S
        answer = _in_background(lambda: self._fetch(schema_id))
        question = _Question(f"the schema registry has not yet answered for id {schema_id}", answer)
        self._questions[schema_id] = question
        wait([answer], patience)
        return question

    def _waited_for(self, question: _Question) -> bool:
        """Whether an answer is under way, or the question is asked again: not if its partition has gone."""
        if question.answer is not None:
            return not question.answer.done()
        return self._clock() < question.again_at + _LONGEST_PAUSE_S

    def _settled(self, schema_id: int, question: _Question, answer: Future[str | None]) -> str | None:
        """What a question that is over came to."""
        error = answer.exception()
        if error is not None:
            pause = min(_FIRST_PAUSE_S * 2**question.failures, _LONGEST_PAUSE_S)
            if not isinstance(error, RetryBatch):
                error = RetryBatch(f"the schema registry cannot be used: {printable(repr(error), 300)}")
            question.trouble, question.answer = str(error), None
            question.failures += 1
            question.again_at = self._clock() + pause
            raise error
        del self._questions[schema_id]
        text = answer.result()
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
        """A schema with all that it refers to; None when the registry says that it has no such id or part."""
        address = f"{self._base}/schemas/ids/{schema_id}"
        try:
            answer = self._ask(address)
            if not answer.get("references"):
                return _text_of(answer)
            parts = parts_of(answer, self._part, _schema_of)
            return json.dumps(assembled(_schema_of(answer), parts), separators=(",", ":"))
        except NoSuchPart:
            return None
        except (NotASchema, RecursionError) as error:
            raise RetryBatch(f"{address} does not answer as a schema registry does: {error!r}") from error

    def _part(self, place: Place) -> dict[str, Any]:
        """The registry's answer for a part; it never changes, so it is asked for once."""
        if place not in self._parts:
            if len(self._parts) >= _MOST_PARTS:
                self._parts.clear()
            subject = quote(place.subject, safe="")
            self._parts[place] = self._ask(f"{self._base}/subjects/{subject}/versions/{place.version}")
        return self._parts[place]

    def _ask(self, address: str) -> dict[str, Any]:
        """One question to the registry.  Raises NoSuchPart when it says that there is no such thing."""
        request = Request(address)
        for name, value in self._headers.items():
            request.add_unredirected_header(name, value)  # a redirect elsewhere must not learn the password
        try:
            with self._opener.open(request, timeout=_ANSWER_S) as answer:
                return _object(_whole(answer))
        except HTTPError as error:
            error.close()
            if error.code == _NOT_FOUND:
                raise NoSuchPart(address) from None
            raise RetryBatch(f"the schema registry answers {error.code} to {address}") from error
        except (OSError, HTTPException) as error:
            why = printable(str(error), 300)
            raise RetryBatch(f"the schema registry cannot be reached at {address}: {why}") from error
        except (ValueError, RecursionError) as error:
            why = printable(repr(error), 300)
            raise RetryBatch(f"{address} does not answer as a schema registry does: {why}") from error


def _whole(answer: Any) -> bytes:
    """The body of an answer.  Raises NotASchema if it is too large, OSError if it takes too long."""
    deadline, parts, size = time.monotonic() + _ANSWER_S, list[bytes](), 0
    while part := answer.read1(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > _LARGEST_ANSWER:
            raise NotASchema(f"an answer of more than {_LARGEST_ANSWER:,} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError(f"its answer is not complete after {_ANSWER_S:g} s")
    return b"".join(parts)


def _object(body: bytes) -> dict[str, Any]:
    """An answer's JSON.  Raises ValueError or RecursionError."""
    content = json.loads(body)
    if not isinstance(content, dict) or not isinstance(content.get("schema"), str):
        raise NotASchema("no object with the text of a schema")
    if fault := fault_of_json(content):
        raise NotASchema(f"it has {fault}")
    return content


def _text_of(answer: dict[str, Any]) -> str:
    return str(answer["schema"])


def _schema_of(answer: Any) -> Any:
    """The schema of an answer.  Raises NotASchema."""
    try:
        schema = json.loads(answer["schema"])
    except (ValueError, RecursionError) as error:
        raise NotASchema(f"a schema that is not JSON: {printable(str(error), 200)}") from None
    if fault := fault_of_json(schema):
        raise NotASchema(f"a schema that has {fault}")
    return schema


def _in_background(fetch: Callable[[], str | None]) -> Future[str | None]:
    """The answer to come of a call in a thread of its own, which does not keep the process from ending."""
    answer: Future[str | None] = Future()

    def run() -> None:
        try:
            answer.set_result(fetch())
        except BaseException as error:  # it is for whoever asks for the answer
            answer.set_exception(error)

    threading.Thread(target=run, name="schema-registry", daemon=True).start()
    return answer


def _address(url: str) -> tuple[str, dict[str, str]]:
    """A registry's address without user and password, and the headers of every request to it."""
    parts = urlsplit(url)
    headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}", headers
