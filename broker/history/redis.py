"""The store in Redis or Valkey: the only file that talks to it for histories.

Commands are packed by hand onto redis-py's connection: at thousands of alerts a second the library's own
packing costs more than the rest of the stage.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import redis
from redis.connection import ConnectionPool

from broker.config import HistorySettings
from broker.errors import BrokerError, RetryBatch
from broker.history import pack
from broker.history.base import Addition, Claim, Kept, Located, Opened, Stored, Withdrawal
from broker.history.pack import LAYOUT_VERSION, POSITION_BYTES
from broker.history.soundness import (
    ASIDE,
    ASIDE_S,
    MAX_ASIDE_BYTES,
    NO_CLAIM,
    Damage,
    DamageAccount,
    cleaned,
    damages,
    sound_claims,
    sound_places,
)

_SECONDS_PER_DAY = 86400
_REPLACE = (
    b"if redis.call('STRLEN',KEYS[1])==tonumber(ARGV[1]) then redis.call('SET',KEYS[1],ARGV[2]) end return 1"
)
_NOTE = (
    b"local carrier = redis.call('HGET',KEYS[3],ARGV[2]) or '' "
    b"local position = string.sub(carrier,1,%d) "
    b"if position ~= '' and position == ARGV[3] then "
    b"redis.call('HSETNX',KEYS[1],ARGV[1],position .. (redis.call('HGET',KEYS[2],ARGV[1]) or '')) end "
    b"return redis.call('HGET',KEYS[1],ARGV[1])"
) % POSITION_BYTES
"""Only the alert whose claim is in force may note a withdrawal: a duplicate will tell nobody."""
_UNLOCK = b"if redis.call('GET',KEYS[1])==ARGV[1] then redis.call('DEL',KEYS[1]) end return 1"
_RENEW = (
    b"if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('PEXPIRE',KEYS[1],ARGV[2]) end return 0"
)
_RELEASE = (
    b"local held = redis.call('HGET',KEYS[1],ARGV[1]) "
    b"if held and string.sub(held,1,%d)==ARGV[2] then redis.call('HDEL',KEYS[1],ARGV[1]) end return 1"
) % POSITION_BYTES
_LOCK_MS = 30_000
_SURVEYS = b"surveys"
_LAYOUT = b"layout"
_HSETNX = b"*4\r\n$6\r\nHSETNX\r\n$%d\r\n%b\r\n$8\r\n%b\r\n$%d\r\n%b\r\n"
_APPEND = b"*3\r\n$6\r\nAPPEND\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
_LOCATE = (
    b"*4\r\n$4\r\nHSET\r\n$%d\r\n%b\r\n$8\r\n%b\r\n$16\r\n%b\r\n"
    b"*3\r\n$6\r\nEXPIRE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
)
"""The commands that a batch sends by the hundred, as they go over the wire; the last are two."""
_ASIDE_STRING = (
    b"if redis.call('GET',KEYS[1])==ARGV[1] then "
    b"if ARGV[4]=='1' then redis.call('SET',KEYS[2],ARGV[1],'EX',ARGV[3]) end "
    b"if ARGV[2]=='' then redis.call('DEL',KEYS[1]) else redis.call('SET',KEYS[1],ARGV[2],'KEEPTTL') end "
    b"end return 1"
)
_ASIDE_FIELD = (
    b"if redis.call('HGET',KEYS[1],ARGV[5])==ARGV[1] then "
    b"if ARGV[4]=='1' then redis.call('SET',KEYS[2],ARGV[1],'EX',ARGV[3]) end "
    b"if ARGV[2]=='' then redis.call('HDEL',KEYS[1],ARGV[5]) "
    b"else redis.call('HSET',KEYS[1],ARGV[5],ARGV[2]) end "
    b"end return 1"
)
_RENAME = (
    b"if redis.call('EXISTS',KEYS[1])==1 then redis.call('RENAME',KEYS[1],KEYS[2]) "
    b"redis.call('EXPIRE',KEYS[2],ARGV[1]) end return 1"
)
_OF_TYPES = ("WRONGTYPE", "not an integer")
_LOADING = "it is reading its data; this takes a while"
_ADVICE = {
    "OutOfMemoryError": "it is full: give it more memory (maxmemory)",
    "ReadOnlyError": "it is a replica: point redis.url at the primary",
    "BusyLoadingError": _LOADING,
    "LOADING": _LOADING,
    "MISCONF": "it cannot write to its disk: see its log",
    "NOREPLICAS": "too few of its replicas are there",
    "AuthenticationError": "see the user and password in redis.url",
    "NoPermissionError": "the user in redis.url may not do this",
    "BUSY": "a script holds it up",
}
"""What to do about an answer that is an error, by its class or its first word."""
_CONNECT_TIMEOUT_S = 2.0
_ANSWER_TIMEOUT_S = 30.0


class _WrongType(RetryBatch):
    """A key holds another type of thing than we would have put there."""


class RedisStore:
    """Light curves and claims in one Redis database, for one Kafka cluster.

    cluster : that cluster's id; the note that the database is complete names it
    """

    def __init__(self, url: str, settings: HistorySettings, cluster: str) -> None:
        self._marker = b"rebuilt:" + cluster.encode()
        self._lock = b"rebuilding:" + cluster.encode()
        self._token = secrets.token_hex(8).encode()
        self._pool = ConnectionPool.from_url(
            url, socket_connect_timeout=_CONNECT_TIMEOUT_S, socket_timeout=_ANSWER_TIMEOUT_S
        )
        self._connection: Any = None
        self.damage = DamageAccount()
        self._own_types = {self._marker: b"string", _SURVEYS: b"set", pack.ANNOTATED: b"string"}
        self._claim_ttl = b"%d" % int(settings.claim_days * _SECONDS_PER_DAY)
        self._curve_ttl = b"%d" % int(settings.ttl_days * _SECONDS_PER_DAY)

    def check(self, wait_s: float = 30.0) -> None:
        """Prove that the server answers, never evicts, and holds our layout.  Raises BrokerError."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                commands = [
                    (b"CONFIG", b"GET", b"maxmemory-policy"),
                    (b"SET", _LAYOUT, LAYOUT_VERSION, b"NX", b"GET"),
                ]
                policy, layout = self._typed_answers(_pack(commands), 2, lambda: {_LAYOUT: b"string"})
                break
            except RetryBatch as error:
                if time.monotonic() > deadline:
                    raise BrokerError(str(error)) from error
                time.sleep(0.2)
        if layout is not None and not bytes(layout).isdigit():
            self._set_aside([Damage("layout", _LAYOUT, b"", bytes(layout), LAYOUT_VERSION)])
            layout = LAYOUT_VERSION
        if layout is not None and layout != LAYOUT_VERSION:
            raise BrokerError(
                f"Redis holds light curves in layout {bytes(layout).decode()}, this version writes "
                f"{LAYOUT_VERSION.decode()}: point redis.url at another database or flush this one "
                "(it is rebuilt from Kafka)"
            )
        value = bytes(policy[b"maxmemory-policy"] if isinstance(policy, dict) else policy[1]).decode()
        if value != "noeviction":
            raise BrokerError(
                f"Redis has maxmemory-policy {value}: it would forget claims and let duplicates through; "
                "set it to noeviction"
            )

    def open(
        self,
        claims: Sequence[Claim],
        withdrawals: Sequence[Withdrawal],
        keys: Sequence[bytes],
        gated: Sequence[bytes] = (),
    ) -> Opened:
        """Set each claim that is absent, note each withdrawal of which nobody told, read the rest."""
        asked = (claims, withdrawals, keys, gated)
        opened = self._open(*asked)
        found = damages(opened, *asked)
        if not found:
            return opened
        self._set_aside(found)
        return replace(cleaned(self._open(*asked), gated), retried=opened.retried)

    def _set_aside(self, found: Sequence[Damage]) -> None:
        """Put damaged values where they harm nobody, unless somebody else did meanwhile."""
        self.damage.add(found)
        self._answers_but([_aside(item) for item in found])

    def _open(
        self,
        claims: Sequence[Claim],
        withdrawals: Sequence[Withdrawal],
        keys: Sequence[bytes],
        gated: Sequence[bytes],
    ) -> Opened:
        """What `open` answers, whatever its keys hold."""
        try:
            return self._ask(claims, withdrawals, keys, gated)
        except _WrongType:
            buckets = {claim.bucket for claim in (*claims, *(item.carrier for item in withdrawals))}
            buckets |= {item.bucket for item in withdrawals}
            told = {pack.told_bucket(bucket) for bucket in buckets}
            types = dict.fromkeys(told, b"hash") | dict.fromkeys((*keys, *gated), b"string")
            self._set_types_aside(self._own_types | types)
            return self._ask_but(self._others_than_hashes(buckets), claims, withdrawals, keys, gated)

    def _others_than_hashes(self, buckets: Iterable[bytes]) -> set[bytes]:
        """Where claims should be and something else is; it is left there as long as claims would be."""
        names = list(buckets)
        found = self.exchange((b"TYPE", name) for name in names)
        wrong = [name for name, is_ in zip(names, found, strict=True) if is_ not in (b"none", b"hash")]
        self.damage.add([Damage("type", name, b"", b"") for name in wrong])
        self.exchange((b"EXPIRE", name, self._claim_ttl, b"NX") for name in wrong)
        return set(wrong)

    def _ask_but(
        self,
        wrong: set[bytes],
        claims: Sequence[Claim],
        withdrawals: Sequence[Withdrawal],
        keys: Sequence[bytes],
        gated: Sequence[bytes],
    ) -> Opened:
        """The same without the claims in some buckets, which cannot be known."""
        mine = [row for row, claim in enumerate(claims) if claim.bucket not in wrong]
        theirs = [
            row for row, item in enumerate(withdrawals) if not {item.bucket, item.carrier.bucket} & wrong
        ]
        found = self._ask([claims[row] for row in mine], [withdrawals[row] for row in theirs], keys, gated)
        held, withdrawn, retried = [NO_CLAIM] * len(claims), [b""] * len(claims), [False] * len(claims)
        for at, row in enumerate(mine):
            held[row], withdrawn[row], retried[row] = found.claims[at], found.withdrawn[at], found.retried[at]
        noted = [item.carrier.value[:POSITION_BYTES] for item in withdrawals]
        for at, row in enumerate(theirs):
            noted[row] = found.noted[at]
        return replace(found, claims=held, withdrawn=withdrawn, noted=noted, retried=retried)

    def _ask(
        self,
        claims: Sequence[Claim],
        withdrawals: Sequence[Withdrawal],
        keys: Sequence[bytes],
        gated: Sequence[bytes],
    ) -> Opened:
        asked = _by_bucket(claims)
        touched = asked.keys() | {item.bucket for item in withdrawals}
        touched |= {pack.told_bucket(item.bucket) for item in withdrawals}
        words = [
            _pack([(b"INFO", b"server"), (b"GET", self._marker), (b"SMEMBERS", _SURVEYS)]),
            *[_HSETNX % (len(c.bucket), c.bucket, c.field, len(c.value), c.value) for c in claims],
            _pack([_note(item) for item in withdrawals]),
            _pack([(b"HMGET", bucket, *fields) for bucket, (_, fields) in asked.items()]),
            _pack([(b"HGETALL", pack.told_bucket(bucket)) for bucket in asked]),
            _pack([(b"EXPIRE", bucket, self._claim_ttl) for bucket in touched]),
            _pack([(b"GET", pack.ANNOTATED)]),
            _pack([(b"MGET", *keys, *gated)] if keys or gated else []),
        ]
        reads = int(bool(keys or gated))
        counts = (3, len(claims), len(withdrawals), len(asked), len(asked), len(touched), 1, reads)
        answers = self._answers(b"".join(words), sum(counts))
        first_note, first_held = sum(counts[:2]), sum(counts[:3])
        told = [_as_dict(value) for value in answers[first_held + len(asked) : first_held + 2 * len(asked)]]
        held, withdrawn = [b""] * len(claims), [b""] * len(claims)
        for (rows, _), values, notes in zip(asked.values(), answers[first_held:], told, strict=False):
            for row, value in zip(rows, values, strict=True):
                held[row] = value or b""
                withdrawn[row] = notes.get(claims[row].field, b"") if notes else b""
        values = [value or b"" for value in answers[-1]] if reads else []
        return Opened(
            held,
            withdrawn,
            [value or b"" for value in answers[first_note:first_held]],
            values[: len(keys)],
            _incarnation(answers[0], answers[1]),
            answers[1] is not None,
            values[len(keys) :],
            frozenset(bytes(name).decode() for name in answers[2] if bytes(name).isalnum()),
            answers[-1 - reads] or b"",
            [not answer for answer in answers[3 : 3 + len(claims)]],
        )

    def append(
        self,
        additions: Sequence[Addition],
        claims: Sequence[Claim],
        kept: Sequence[Kept] = (),
        located: Sequence[Located] = (),
    ) -> Stored:
        """Store points, expensive features and positions, and overwrite claims."""
        growing = [item for item in additions if item.replace_length is None]
        ttl = self._curve_ttl
        buckets = list(dict.fromkeys(claim.bucket for claim in claims))
        others = [
            *((b"EVAL", _REPLACE, b"1", item.key, b"%d" % (item.replace_length or 0), item.points)
              for item in additions if item.replace_length is not None),
            *((b"EXPIRE", item.key, self._curve_ttl) for item in additions if item.renew),
            *((b"SET", item.key, item.value, b"EX", self._curve_ttl) for item in kept),
            *((b"SADD", _SURVEYS, survey) for survey in {pack.survey_of_place(it.place) for it in located}),
            *((b"HSET", claim.bucket, claim.field, claim.value) for claim in claims),
            *((b"EXPIRE", bucket, self._claim_ttl) for bucket in buckets),
            *([(b"INCR", pack.ANNOTATED)] if pack.holds_annotations(additions) else []),
            (b"GET", pack.ANNOTATED),
            *((b"HGETALL", pack.told_bucket(bucket)) for bucket in buckets),
            (b"INFO", b"server"),
            (b"GET", self._marker),
        ]  # fmt: skip
        words = [_APPEND % (len(item.key), item.key, len(item.points), item.points) for item in growing]
        words += [
            _LOCATE
            % (len(it.place), it.place, it.object, it.position, len(it.place), it.place, len(ttl), ttl)
            for it in located
        ]

        def types() -> dict[bytes, bytes]:
            strings = [item.key for item in additions]
            hashes = [*buckets, *map(pack.told_bucket, buckets), *(item.place for item in located)]
            return self._own_types | dict.fromkeys(strings, b"string") | dict.fromkeys(hashes, b"hash")

        count = len(words) + len(located) + len(others)
        answers = self._typed_answers(b"".join(words) + _pack(others), count, types)
        told = dict(zip(buckets, map(_as_dict, answers[-2 - len(buckets) : -2]), strict=True))
        withdrawn = [told[claim.bucket].get(claim.field, b"") for claim in claims]
        annotated = answers[-3 - len(buckets)] or b""
        return Stored(withdrawn, _incarnation(*answers[-2:]), annotated)

    def claims_in(self, asked: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """The claims in some fields of some buckets; nothing is set."""
        held = self._answers_but([(b"HGET", *place) for place in asked])
        return sound_claims(asked, [value or b"" for value in held])

    def near(self, places: Sequence[bytes]) -> list[Mapping[bytes, bytes]]:
        """The objects located in each place."""
        packed = _pack([(b"HGETALL", place) for place in places])
        answers = self._typed_answers(packed, len(places), lambda: dict.fromkeys(places, b"hash"))
        found = [sound_places(at, _as_dict(held)) for at, held in zip(places, answers, strict=True)]
        bad = [item for _, damaged in found for item in damaged]
        if bad:
            self._set_aside(bad)
        return [good for good, _ in found]

    def release(self, claims: Sequence[Claim], withdrawals: Sequence[Withdrawal]) -> None:
        """Take back the claims that are in force by their positions, and the notes of these carriers."""
        places = pack.released(claims, withdrawals)
        self._answers_but([(b"EVAL", _RELEASE, b"1", *place, position) for place, position in places])

    def rebuilt(self) -> bool:
        """Whether the database is known to hold what the cluster remembers.  Raises RetryBatch."""
        packed = _pack([(b"GET", self._marker)])
        return self._typed_answers(packed, 1, lambda: self._own_types)[0] is not None

    def mark_rebuilt(self) -> None:
        """Note that the store now holds what Kafka remembers: a new note each time, see `_incarnation`."""
        self.exchange([(b"SET", self._marker, secrets.token_hex(8).encode())])

    def lock(self) -> bool:
        """Take, or go on holding, the right to rebuild; it lapses 30 s after the last call."""
        lease = b"%d" % _LOCK_MS
        commands = [
            (b"EVAL", _RENEW, b"1", self._lock, self._token, lease),
            (b"SET", self._lock, self._token, b"NX", b"PX", lease),
        ]
        renewed, taken = self._typed_answers(_pack(commands), 2, lambda: {self._lock: b"string"})
        return bool(renewed) or taken is not None

    def unlock(self) -> None:
        """Let another rebuild; only if the right is still ours."""
        packed = _pack([(b"EVAL", _UNLOCK, b"1", self._lock, self._token)])
        self._typed_answers(packed, 1, lambda: {self._lock: b"string"})

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        self._pool.disconnect()

    def exchange(self, commands: Iterable[tuple[bytes, ...]]) -> list[Any]:
        """One round trip; trouble drops the connection: half an answer must not meet the next question."""
        batch = list(commands)
        return self._answers(_pack(batch), len(batch))

    def exchange_on_hash(self, name: bytes, commands: Sequence[tuple[bytes, ...]]) -> list[Any]:
        """One round trip about one hash; what is there and is none is set aside.  Raises RetryBatch."""
        return self._typed_answers(_pack(commands), len(commands), lambda: {name: b"hash"})

    def _typed_answers(self, packed: bytes, count: int, types: Callable[[], dict[bytes, bytes]]) -> list[Any]:
        """The answers to commands that may be repeated, once keys of another type are out of the way.

        types : what each key of the commands must be
        """
        try:
            return self._answers(packed, count)
        except _WrongType:
            self._set_types_aside(types())
            return self._answers(packed, count)

    def _set_types_aside(self, types: Mapping[bytes, bytes]) -> None:
        """Rename what is of another type than we would have made, for a person to look at."""
        found = self.exchange((b"TYPE", key) for key in types)
        wrong = [key for key, is_ in zip(types, found, strict=True) if is_ not in (b"none", types[key])]
        if pack.ANNOTATED in types and pack.ANNOTATED not in wrong and not self._is_number(pack.ANNOTATED):
            wrong.append(pack.ANNOTATED)
        self.damage.add([Damage("type", key, b"", b"") for key in wrong])
        ttl = b"%d" % ASIDE_S
        for key in wrong:
            self.exchange([(b"EVAL", _RENAME, b"2", key, ASIDE + key, ttl)])

    def _is_number(self, key: bytes) -> bool:
        value = self.exchange([(b"GET", key)])[0]
        return value is None or value.removeprefix(b"-").isdigit()

    def _answers_but(self, commands: Sequence[tuple[bytes, ...]]) -> list[Any]:
        """The answers to commands, None to those whose key holds another type of thing."""
        try:
            return self.exchange(commands)
        except _WrongType:
            return [self._answer_or_none(command) for command in commands]

    def _answer_or_none(self, command: tuple[bytes, ...]) -> Any:
        try:
            return self.exchange([command])[0]
        except _WrongType:
            return None

    def _answers(self, packed: bytes, count: int) -> list[Any]:
        """The answers to so many packed commands."""
        try:
            if self._connection is None:
                self._connection = self._pool.get_connection()
            self._connection.send_packed_command([packed])
            read = self._connection.read_response
            return [read(disable_decoding=True) for _ in range(count)]
        except redis.ResponseError as error:
            self._drop()
            kind = _WrongType if any(text in str(error) for text in _OF_TYPES) else RetryBatch
            raise kind(f"Redis refused a command: {error}{_advice(error)}") from error
        except (redis.RedisError, OSError) as error:
            self._drop()
            raise RetryBatch(f"Redis does not answer: {error}{_advice(error)}") from error

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._pool.release(self._connection)
            self._connection = None


def _pack(commands: Sequence[tuple[bytes, ...]]) -> bytes:
    """Commands in the Redis wire protocol."""
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for word in command:
            parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


def _aside(item: Damage) -> tuple[bytes, ...]:
    """The command that sets a damaged value aside, if it is still there."""
    script = _ASIDE_FIELD if item.field else _ASIDE_STRING
    copied = b"1" if len(item.value) <= MAX_ASIDE_BYTES else b"0"
    rest = (item.value, item.instead, b"%d" % ASIDE_S, copied, *([item.field] if item.field else []))
    return (b"EVAL", script, b"2", item.key, item.aside, *rest)


def _advice(error: Exception) -> str:
    """What to do about it, as the end of a sentence."""
    words = {type(error).__name__, str(error).partition(" ")[0]}
    found = next((advice for word, advice in _ADVICE.items() if word in words), "")
    return found and f"; {found}"


def _note(item: Withdrawal) -> tuple[bytes, ...]:
    """The command that notes a withdrawal and answers with the note in force."""
    keys = (pack.told_bucket(item.bucket), item.bucket, item.carrier.bucket)
    return (b"EVAL", _NOTE, b"3", *keys, item.field, item.carrier.field, item.carrier.value[:POSITION_BYTES])


def _by_bucket(claims: Sequence[Claim]) -> dict[bytes, tuple[list[int], list[bytes]]]:
    """For each bucket: which claims are in it, and their fields."""
    asked: dict[bytes, tuple[list[int], list[bytes]]] = {}
    for row, claim in enumerate(claims):
        rows, fields = asked.setdefault(claim.bucket, ([], []))
        rows.append(row)
        fields.append(claim.field)
    return asked


def _as_dict(value: Any) -> dict[bytes, bytes]:
    """A hash as either version of the protocol answers it."""
    return value if isinstance(value, dict) else dict(zip(value[::2], value[1::2], strict=True))


def _incarnation(info: Any, marker: bytes | None) -> str:
    """Which filling of which server answers: it changes when the server starts anew or is emptied."""
    return f"{_run_id(info)}:{(marker or b'').hex()}"


def _run_id(info: Any) -> str:
    """The server's incarnation, from the text of INFO."""
    text = info if isinstance(info, bytes) else str(info).encode()
    for line in text.split(b"\r\n"):
        if line.startswith(b"run_id:"):
            return line[7:].decode()
    raise RetryBatch("Redis does not say its run_id")
