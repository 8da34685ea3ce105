"""The store in Redis or Valkey: the only file that talks to it for histories.

Commands are packed by hand onto redis-py's connection: at thousands of alerts a second the library's own
packing costs more than the rest of the stage.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis.connection import ConnectionPool

from broker.config import HistorySettings
from broker.errors import BrokerError, RetryBatch
from broker.history.base import Addition, Claim, Opened
from broker.history.pack import LAYOUT_VERSION

_SECONDS_PER_DAY = 86400
_REPLACE = (
    b"if redis.call('STRLEN',KEYS[1])==tonumber(ARGV[1]) then redis.call('SET',KEYS[1],ARGV[2]) end return 1"
)
_TROUBLE = (redis.ConnectionError, redis.TimeoutError, OSError)
_CONNECT_TIMEOUT_S = 2.0
_ANSWER_TIMEOUT_S = 30.0


class RedisStore:
    """Light curves and claims in one Redis database."""

    def __init__(self, url: str, settings: HistorySettings) -> None:
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
                policy, layout, _ = self._exchange(
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
                f"{LAYOUT_VERSION.decode()}: point redis.url at another database or flush this one"
            )
        value = bytes(policy[b"maxmemory-policy"] if isinstance(policy, dict) else policy[1]).decode()
        if value != "noeviction":
            raise BrokerError(
                f"Redis has maxmemory-policy {value}: it would forget claims and let duplicates through; "
                "set it to noeviction"
            )

    def open(self, claims: Sequence[Claim], keys: Sequence[bytes]) -> Opened:
        """Set each claim if it is absent and read the light curves."""
        commands: list[tuple[bytes, ...]] = [(b"INFO", b"server")]
        for claim in claims:
            commands.append((b"HSETNX", claim.bucket, claim.field, claim.value))
            commands.append((b"HGET", claim.bucket, claim.field))
        commands += [(b"EXPIRE", bucket, self._claim_ttl) for bucket in {claim.bucket for claim in claims}]
        if keys:
            commands.append((b"MGET", *keys))
        answers = self._exchange(commands)
        held = [value or b"" for value in answers[2 : 2 + 2 * len(claims) : 2]]
        curves = [value or b"" for value in answers[-1]] if keys else []
        return Opened(held, curves, _run_id(answers[0]))

    def append(self, additions: Sequence[Addition], claims: Sequence[Claim]) -> str:
        """Store points, overwrite claims, and say which server did."""
        commands: list[tuple[bytes, ...]] = []
        for item in additions:
            if item.replace_length is None:
                commands.append((b"APPEND", item.key, item.points))
            else:
                commands.append((b"EVAL", _REPLACE, b"1", item.key, b"%d" % item.replace_length, item.points))
            commands.append((b"EXPIRE", item.key, self._curve_ttl))
        commands += [(b"HSET", claim.bucket, claim.field, claim.value) for claim in claims]
        commands.append((b"INFO", b"server"))
        return _run_id(self._exchange(commands)[-1])

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        self._pool.disconnect()

    def _exchange(self, commands: Iterable[tuple[bytes, ...]]) -> list[Any]:
        """One round trip; trouble drops the connection: half an answer must not meet the next question."""
        batch = list(commands)
        try:
            if self._connection is None:
                self._connection = self._pool.get_connection()
            self._connection.send_packed_command([_pack(batch)])
            return [self._connection.read_response(disable_decoding=True) for _ in batch]
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


def _run_id(info: Any) -> str:
    """The server's incarnation, from the text of INFO."""
    text = info if isinstance(info, bytes) else str(info).encode()
    for line in text.split(b"\r\n"):
        if line.startswith(b"run_id:"):
            return line[7:].decode()
    raise RetryBatch("Redis does not say its run_id")
