"""A proxy before Kafka that reads the requests which pass and does to chosen ones what bad networks do.

It runs in a thread of the test and is steered by plain calls: `plan` says what to do to the next requests of
a kind, `cut_all` and `freeze` act on everything at once, `done` counts what was done. Clients stay on it
because Kafka has a second listener, WIRE, that advertises the proxy's port (`wire_settings`).
"""

from __future__ import annotations

import asyncio
import shutil
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from broker.embedded import OwnedServers
from broker.embedded.child import Fate
from broker.embedded.kafka import KafkaPlace
from broker.embedded.owned import START_TIMEOUT_S
from broker.embedded.ports import LOOPBACK, free_port
from broker.embedded.valkey import ValkeyPlace

_CHUNK = 256 * 1024
_ANSWER_PATIENCE_S = 15.0
_NOBODY = -1

KINDS = {
    "Produce": 0, "Fetch": 1, "ListOffsets": 2, "Metadata": 3, "OffsetCommit": 8, "OffsetFetch": 9,
    "FindCoordinator": 10, "JoinGroup": 11, "Heartbeat": 12, "LeaveGroup": 13, "SyncGroup": 14,
    "ApiVersions": 18, "CreateTopics": 19, "InitProducerId": 22, "AddPartitionsToTxn": 24,
    "AddOffsetsToTxn": 25, "EndTxn": 26, "TxnOffsetCommit": 28,
}  # fmt: skip
_NAMES = {number: name for name, number in KINDS.items()}
# The version from which a request is written in the flexible form, for those that begin with a name.
_FLEXIBLE = {
    "Produce": 9, "JoinGroup": 6, "Heartbeat": 4, "LeaveGroup": 4, "SyncGroup": 4, "InitProducerId": 2,
    "AddPartitionsToTxn": 3, "AddOffsetsToTxn": 3, "EndTxn": 3, "TxnOffsetCommit": 3,
}  # fmt: skip
_TRANSACTIONAL_PRODUCE = 3
_OF_SEVERAL_TRANSACTIONS = 4


class Act(Enum):
    """What becomes of a request, and what its client sees of it."""

    HOLD = "hold"
    """It waits for some seconds, and all behind it on its connection with it."""
    CUT_BEFORE = "cut before"
    """The connection breaks; Kafka never sees the request."""
    CUT_AFTER = "cut after"
    """Kafka carries it out; the connection breaks in place of the answer."""
    DROP = "drop"
    """It and all behind it vanish in silence; the connection breaks after some seconds."""
    LATE = "late"
    """The connection breaks at once; Kafka gets the request some seconds later, on the old connection."""


@dataclass(frozen=True)
class Request:
    """What the head of a request says.

    client : the client.id it came with
    name : its transactional id (transactions, Produce) or its group (JoinGroup, Heartbeat ...); empty if none
    """

    kind: str
    version: int
    correlation: int
    client: str
    name: str


@dataclass
class Fault:
    """What to do to the next `count` requests of a kind, if wished only of one client.id or one name."""

    act: Act
    kind: str
    count: int = 1
    seconds: float = 1.0
    client: str | None = None
    name: str | None = None

    def fits(self, request: Request) -> bool:
        """Whether it is meant for this request."""
        return (
            self.count > 0
            and request.kind == self.kind
            and self.client in (None, request.client)
            and self.name in (None, request.name)
        )


@dataclass(frozen=True)
class Deed:
    """One thing the proxy did: at [Unix s], to which request; for LATE and CUT_AFTER what Kafka answered."""

    at: float
    act: str
    request: Request | None = None
    answer: bytes | None = None

    @property
    def error_code(self) -> int | None:
        """Of an answer to EndTxn, AddOffsetsToTxn or TxnOffsetCommit v0-2: its error; None without one."""
        if (
            self.answer is None
            or self.request is None
            or self.request.kind not in ("EndTxn", "AddOffsetsToTxn")
        ):
            return None
        tags = int(self.request.version >= _FLEXIBLE[self.request.kind])
        return int(struct.unpack_from(">h", self.answer, tags + 4)[0])


@dataclass
class KafkaProxy:
    """Listens on `port`, hands on to `upstream`; used as a context manager.

    seen : requests by kind;  done : deeds by (act, kind), kind empty for `cut all` and `freeze`
    """

    upstream: int
    port: int = field(default_factory=free_port)
    seen: Counter[str] = field(default_factory=Counter)
    deeds: list[Deed] = field(default_factory=list)
    _faults: list[Fault] = field(default_factory=list)
    _wires: set[_Wire] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __enter__(self) -> KafkaProxy:
        """Listen, in a thread of its own."""
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka-proxy", daemon=True)
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        """Break what is connected and stop listening."""
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def bootstrap_servers(self) -> str:
        """Address for a client that is to go through the proxy."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def done(self) -> Counter[tuple[str, str]]:
        """What it has done so far, by act and kind of request."""
        return Counter((deed.act, deed.request.kind if deed.request else "") for deed in list(self.deeds))

    def plan(self, fault: Fault) -> Fault:
        """Do this to the next requests it fits; its count goes down as it is done."""
        if fault.kind not in KINDS:
            raise ValueError(f"unknown kind of request {fault.kind!r}; known: {', '.join(KINDS)}")
        with self._lock:
            self._faults = [*(item for item in self._faults if item.count), fault]
        return fault

    def clear(self) -> None:
        """Forget what is planned and was not done."""
        with self._lock:
            self._faults = []

    def cut_all(self) -> int:
        """Break every connection; how many there were. Late requests under way still arrive."""
        return int(self._call(self._cut_all()))

    def freeze(self, seconds: float) -> None:
        """Let nothing pass for some seconds, neither way, new connections neither. Returns at once."""
        self._call(self._freeze(seconds))

    def take(self, request: Request) -> Fault | None:
        """The fault that is to befall a request, counted down; None if it may pass."""
        with self._lock:
            self.seen[request.kind] += 1
            fault = next((item for item in self._faults if item.fits(request)), None)
            if fault is not None:
                fault.count -= 1
            return fault

    def note(self, act: str, request: Request | None = None, answer: bytes | None = None) -> None:
        """Write down what was done."""
        self.deeds.append(Deed(time.time(), act, request, answer))

    async def flow(self) -> None:
        """Wait while everything is frozen."""
        await self._flowing.wait()

    def leave(self, wire: _Wire) -> None:
        """A connection is no longer one that `cut_all` breaks."""
        self._wires.discard(wire)

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    async def _shut(self) -> None:
        self._flowing.set()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the transports' last words

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.flow()
            kafka = await asyncio.open_connection(LOOPBACK, self.upstream)
        except OSError:  # Kafka is away: so are we
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        wire = _Wire(self, (reader, writer), kafka)
        self._wires.add(wire)
        try:
            await wire.run()
        finally:
            self.leave(wire)

    async def _cut_all(self) -> int:
        wires = list(self._wires)
        for wire in wires:
            wire.cut()
        self.note("cut all")
        return len(wires)

    async def _freeze(self, seconds: float) -> None:
        self._flowing.clear()
        self.note("freeze")
        self._loop.call_later(seconds, self._flowing.set)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Wire:
    """One connection of a client and its twin to Kafka."""

    def __init__(self, proxy: KafkaProxy, client: Stream, kafka: Stream) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_kafka, self._to_kafka = kafka
        self._mute = False
        self._awaited = _NOBODY
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Hand on both ways until either side, or a fault, ends it."""
        ways = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._answers())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def cut(self) -> None:
        """Break both sides."""
        self._to_client.transport.abort()
        self._to_kafka.transport.abort()

    async def _requests(self) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await self._from_client.readexactly(4)
                body = await self._from_client.readexactly(int.from_bytes(head, "big"))
                await self._proxy.flow()
                request = parse(body)
                fault = self._proxy.take(request)
                if fault is None:
                    await self._send(head + body)
                elif not await _BEFALL[fault.act](self, fault, request, head + body):
                    return

    async def _answers(self) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await self._from_kafka.readexactly(8)
                size, correlation = struct.unpack(">ii", head)
                if correlation == self._awaited:
                    self._answer.set_result(await self._from_kafka.readexactly(size - 4))
                else:
                    await self._pass_on(head, size - 4)

    async def _pass_on(self, head: bytes, left: int) -> None:
        await self._tell(head)
        while left:
            data = await self._from_kafka.read(min(left, _CHUNK))
            if not data:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(data)
            await self._tell(data)

    async def _tell(self, data: bytes) -> None:
        await self._proxy.flow()
        if self._mute:
            return
        try:
            self._to_client.write(data)
            await self._to_client.drain()
        except OSError:
            if not self._mute:  # else it was a fault that broke the client's side meanwhile
                raise

    async def _send(self, data: bytes) -> None:
        self._to_kafka.write(data)
        await self._to_kafka.drain()

    async def _hold(self, fault: Fault, request: Request, data: bytes) -> bool:
        self._proxy.note(fault.act.value, request)
        await asyncio.sleep(fault.seconds)
        await self._send(data)
        return True

    async def _cut_before(self, fault: Fault, request: Request, _: bytes) -> bool:
        self._proxy.note(fault.act.value, request)
        return False

    async def _cut_after(self, fault: Fault, request: Request, data: bytes) -> bool:
        answer = await self._carry_out(request, data)
        self._proxy.note(fault.act.value, request, answer)
        return False

    async def _drop(self, fault: Fault, request: Request, _: bytes) -> bool:
        self._proxy.note(fault.act.value, request)
        self._mute = True
        await asyncio.sleep(fault.seconds)
        return False

    async def _late(self, fault: Fault, request: Request, data: bytes) -> bool:
        self._mute = True
        self._proxy.leave(self)
        self._to_client.transport.abort()
        await asyncio.sleep(fault.seconds)
        answer = await self._carry_out(request, data)
        self._proxy.note(fault.act.value, request, answer)
        return False

    async def _carry_out(self, request: Request, data: bytes) -> bytes | None:
        """Have Kafka do it and keep its answer from the client; None if none came."""
        self._awaited = request.correlation
        await self._send(data)
        with suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(self._answer, _ANSWER_PATIENCE_S)
        return None


_BEFALL: dict[Act, Callable[[_Wire, Fault, Request, bytes], Any]] = {
    Act.HOLD: _Wire._hold,
    Act.CUT_BEFORE: _Wire._cut_before,
    Act.CUT_AFTER: _Wire._cut_after,
    Act.DROP: _Wire._drop,
    Act.LATE: _Wire._late,
}


def parse(body: bytes) -> Request:
    """The head of a request (without its size): kind, version, correlation id, client.id, and its name."""
    key, version, correlation, length = struct.unpack_from(">hhih", body)
    end = 10 + max(0, length)
    kind = _NAMES.get(key, str(key))
    return Request(
        kind, version, correlation, body[10:end].decode(errors="replace"), _name(kind, version, body, end)
    )


def _name(kind: str, version: int, body: bytes, at: int) -> str:
    """The transactional id or group that a request begins with."""
    if kind not in _FLEXIBLE or (kind == "Produce" and version < _TRANSACTIONAL_PRODUCE):
        return ""
    if kind == "AddPartitionsToTxn" and version >= _OF_SEVERAL_TRANSACTIONS:
        return ""
    if version < _FLEXIBLE[kind]:
        (length,) = struct.unpack_from(">h", body, at)
        start = at + 2
    else:  # an empty list of tags ends the header; the length is written plus one, in 7 bits a byte
        length, start = _compact_length(body, at + 1)
    return body[start : start + max(0, length)].decode(errors="replace")


def _compact_length(body: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value - 1, at
        shift += 7


def wire_settings(port: int, controller_port: int, wire_port: int, proxy_port: int) -> dict[str, str]:
    """Settings of a Kafka with a second listener on `wire_port` that sends its clients to the proxy."""
    plain = f"PLAINTEXT://{LOOPBACK}:{port}"
    return {
        "listeners": f"{plain},WIRE://{LOOPBACK}:{wire_port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"{plain},WIRE://{LOOPBACK}:{proxy_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,WIRE:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }


@contextmanager
def servers_behind_proxy(*, valkey: bool = True) -> Iterator[tuple[OwnedServers, KafkaProxy]]:
    """A Kafka, and a Valkey, of this process; clients bootstrapped at the proxy stay on it, others do not."""
    folder = Path(tempfile.mkdtemp(prefix="transient-broker-"))
    port, controller_port, wire_port = free_port(), free_port(), free_port()
    try:
        with KafkaProxy(wire_port) as proxy:
            settings = wire_settings(port, controller_port, wire_port, proxy.port)
            kafka = KafkaPlace(folder / "kafka", port, controller_port, settings)
            store = ValkeyPlace(folder / "valkey", free_port()) if valkey else None
            fate = Fate(grace_s=0, remove=folder)
            servers = OwnedServers(kafka, store, fate, START_TIMEOUT_S, quiet=True)
            try:
                yield servers, proxy
            finally:
                servers.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
