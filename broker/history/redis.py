"""The store in Redis or Valkey: the only file that talks to it for histories.

Commands are packed by hand onto redis-py's connection: at thousands of alerts a second the library's own
packing costs more than the rest of the stage.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import redis
from redis.connection import ConnectionPool

from broker.config import HistorySettings
from broker.errors import BrokerError, RetryBatch
from broker.history import pack
from broker.history.base import Addition, Claim, Kept, Located, Opened, Stored, Withdrawal
from broker.history.pack import LAYOUT_VERSION, POSITION_BYTES

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
_HSETNX = b"*4\r\n$6\r\nHSETNX\r\n$%d\r\n%b\r\n$8\r\n%b\r\n$%d\r\n%b\r\n"
_APPEND = b"*3\r\n$6\r\nAPPEND\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
_LOCATE = (
    b"*4\r\n$4\r\nHSET\r\n$%d\r\n%b\r\n$8\r\n%b\r\n$16\r\n%b\r\n"
    b"*3\r\n$6\r\nEXPIRE\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
)
"""The commands that a batch sends by the hundred, as they go over the wire; the last are two."""
_TROUBLE = (redis.ConnectionError, redis.TimeoutError, OSError)
_CONNECT_TIMEOUT_S = 2.0
_ANSWER_TIMEOUT_S = 30.0


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
        self._claim_ttl = b"%d" % int(settings.claim_days * _SECONDS_PER_DAY)
        self._curve_ttl = b"%d" % int(settings.ttl_days * _SECONDS_PER_DAY)

    def check(self, wait_s: float = 30.0) -> None:
        """Prove that the server answers, never evicts, and holds our layout.  Raises BrokerError."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                policy, layout, _ = self.exchange(
                    [
                        (b"CONFIG", b"GET", b"maxmemory-policy"),
                        (b"SET", b"layout", LAYOUT_VERSION, b"NX", b"GET"),
                        (b"PING",),
                    ]
                )
                break
            except RetryBatch as error:
                if time.monotonic() > deadline:
                    raise BrokerError(str(error)) from error
                time.sleep(0.2)
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
            frozenset(bytes(name).decode() for name in answers[2]),
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
        answers = self._answers(b"".join(words) + _pack(others), len(words) + len(located) + len(others))
        told = dict(zip(buckets, map(_as_dict, answers[-2 - len(buckets) : -2]), strict=True))
        withdrawn = [told[claim.bucket].get(claim.field, b"") for claim in claims]
        annotated = answers[-3 - len(buckets)] or b""
        return Stored(withdrawn, _incarnation(*answers[-2:]), annotated)

    def claims_in(self, asked: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """The claims in some fields of some buckets; nothing is set."""
        return [value or b"" for value in self.exchange((b"HGET", *place) for place in asked)]

    def near(self, places: Sequence[bytes]) -> list[Mapping[bytes, bytes]]:
        """The objects located in each place."""
        return [_as_dict(found) for found in self.exchange([(b"HGETALL", place) for place in places])]

    def release(self, claims: Sequence[Claim], withdrawals: Sequence[Withdrawal]) -> None:
        """Take back the claims that are in force by their positions, and the notes of these carriers."""
        self.exchange(
            (b"EVAL", _RELEASE, b"1", *place, position)
            for place, position in pack.released(claims, withdrawals)
        )

    def rebuilt(self) -> bool:
        """Whether the database is known to hold what the cluster remembers.  Raises RetryBatch."""
        return self.exchange([(b"GET", self._marker)])[0] is not None

    def mark_rebuilt(self) -> None:
        """Note that the store now holds what Kafka remembers: a new note each time, see `_incarnation`."""
        self.exchange([(b"SET", self._marker, secrets.token_hex(8).encode())])

    def lock(self) -> bool:
        """Take, or go on holding, the right to rebuild; it lapses 30 s after the last call."""
        lease = b"%d" % _LOCK_MS
        renewed, taken = self.exchange(
            [
                (b"EVAL", _RENEW, b"1", self._lock, self._token, lease),
                (b"SET", self._lock, self._token, b"NX", b"PX", lease),
            ]
        )
        return bool(renewed) or taken is not None

    def unlock(self) -> None:
        """Let another rebuild; only if the right is still ours."""
        self.exchange([(b"EVAL", _UNLOCK, b"1", self._lock, self._token)])

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        self._pool.disconnect()

    def exchange(self, commands: Iterable[tuple[bytes, ...]]) -> list[Any]:
        """One round trip; trouble drops the connection: half an answer must not meet the next question."""
        batch = list(commands)
        return self._answers(_pack(batch), len(batch))

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
            raise RetryBatch(f"Redis refused a command: {error}") from error
        except _TROUBLE as error:
            self._drop()
            raise RetryBatch(f"Redis does not answer: {error}") from error

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
    return f"{_run_id(info)}:{(marker or b'').decode()}"


def _run_id(info: Any) -> str:
    """The server's incarnation, from the text of INFO."""
    text = info if isinstance(info, bytes) else str(info).encode()
    for line in text.split(b"\r\n"):
        if line.startswith(b"run_id:"):
            return line[7:].decode()
    raise RetryBatch("Redis does not say its run_id")
