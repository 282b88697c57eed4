"""A TCP proxy between processes and a broker, which knows enough of Kafka's protocol to hurt it where it matters.

    process  --requests-->   proxy   --requests-->  broker
             <--answers---          <--answers---

It forwards whole frames: 4 bytes of size, then a request (int16 API key, int16 version, int32 correlation id) or an
answer (int32 correlation id). Which request an answer belongs to is remembered per connection. A toxic decides
what becomes of a frame; gates and speeds hold for every connection. What was hit is counted here and nowhere else.

A frame that waits (a black hole, a delay) is still delivered when its sender has closed meanwhile: the system would
have kept it in its buffer as well. So a commit that was given up may arrive late.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST = 256 << 20
"""A size above this is no frame of Kafka, nor of a test."""

LINGER_S = 5.0
"""How long the broker's side stays open for the answers to what a client sent before it closed."""

STEP_BYTES = 16 << 10
"""At a limited bandwidth a frame goes out in pieces of this size."""


_Side: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Api(IntEnum):
    """The requests that a service sends."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    LEAVE_GROUP = 13
    SYNC_GROUP = 14
    SASL_HANDSHAKE = 17
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    END_TXN = 26
    SASL_AUTHENTICATE = 36


class Way(Enum):
    """A direction."""

    UP = "request"
    DOWN = "answer"


class Frame(NamedTuple):
    """One request or answer without its size. `api` is -1 for an answer to nothing that was asked."""

    way: Way
    api: int
    body: bytes


class Act(Enum):
    """What a toxic does with a frame."""

    PASS = auto()
    DROP = auto()
    CLOSE = auto()
    RESET = auto()


def anything(_: Frame) -> bool:
    """Every frame."""
    return True


@dataclass
class Toxic:
    """What to do with frames of these API keys (none: all) in this direction; `times` of them, or all for None.

    `delay_s` waits before the act, with everything behind it. `bend` changes the body. `then` is called after the
    frame has passed (or was dropped): the moment to strike otherwise.
    """

    way: Way
    apis: frozenset[int] = frozenset()
    act: Act = Act.PASS
    delay_s: float = 0.0
    times: int | None = None
    when: Callable[[Frame], bool] = anything
    bend: Callable[[bytes], bytes] | None = None
    then: Callable[[], None] | None = None
    hits: int = 0

    def takes(self, frame: Frame) -> bool:
        """Whether it is for this frame; counts it if so."""
        wanted = frame.way is self.way and (not self.apis or frame.api in self.apis)
        if not wanted or (self.times is not None and self.hits >= self.times) or not self.when(frame):
            return False
        self.hits += 1
        return True


@dataclass
class Speed:
    """Of one direction: seconds before each frame, and bytes a second (0: as fast as it goes)."""

    latency_s: float = 0.0
    bytes_s: float = 0.0


@dataclass(eq=False)
class _Link:
    """One connection: both sides, and the requests whose answers are due (correlation id and API key)."""

    client: _Side
    broker: _Side
    asked: deque[tuple[int, int]] = field(default_factory=deque)
    pumps: list[asyncio.Task[None]] = field(default_factory=list)

    def parse(self, way: Way, body: bytes) -> Frame:
        """Which request this is, or the answer to which one."""
        if way is Way.UP:
            if len(body) < 8:
                return Frame(way, -1, body)
            api, _, correlation = struct.unpack_from(">hhi", body)
            self.asked.append((correlation, api))
            return Frame(way, api, body)
        correlation = struct.unpack_from(">i", body)[0] if len(body) >= 4 else -1
        # Answers come in the order of the requests; what stands before ours was dropped on its way.
        while self.asked and any(correlation == asked for asked, _ in self.asked):
            asked, api = self.asked.popleft()
            if asked == correlation:
                return Frame(way, api, body)
        return Frame(way, -1, body)

    def end(self, *, reset: bool) -> None:
        """Close both sides, politely or with RST."""
        for _, writer in (self.client, self.broker):
            if reset:
                _reset_on_close(writer)
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """Listens on `port` and forwards to `target` (a port of this machine)."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.toxics: list[Toxic] = []
        self.speeds = {way: Speed() for way in Way}
        self.passed: Counter[tuple[Way, int]] = Counter()
        self.held: Counter[Way] = Counter()
        """Frames that met a closed gate."""
        self.ended = 0
        """Connections that `cut` or a toxic closed."""
        self.refused = 0
        """New ones that were closed at once; a client may try hundreds of times a second."""
        self._gates = {way: _opened() for way in Way}
        self._refuses = False
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[_Side]] = set()
        self._closed = False

    async def start(self) -> Proxy:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def close(self) -> None:
        """Stop listening and end every connection."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.end(reset=True)
        pumps = [pump for link in self._links for pump in link.pumps]
        for task in (*pumps, *self._connecting):
            task.cancel()
        await asyncio.gather(*pumps, *self._connecting, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    # -- what holds for every connection ----------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._links)

    @property
    def connecting(self) -> int:
        """How many wait for the broker to take them."""
        return len(self._connecting)

    def cut(self, *, reset: bool = False) -> int:
        """Close every connection now, with RST if `reset`; returns how many."""
        links = list(self._links)
        for link in links:
            link.end(reset=reset)
        self.ended += len(links)
        return len(links)

    def refuse(self, *, refuses: bool = True) -> None:
        """Close new connections at once, or take them again."""
        self._refuses = refuses

    def hold(self, *ways: Way) -> None:
        """A black hole: take everything and forward nothing in these directions (none given: both)."""
        for way in ways or Way:
            self._gates[way].clear()

    def release(self) -> None:
        """Forward again, first of all what was held."""
        for gate in self._gates.values():
            gate.set()

    def slow(self, latency_s: float = 0.0, bytes_s: float = 0.0, ways: Iterable[Way] = Way) -> None:
        """Slow down; without arguments: as fast as it goes."""
        for way in ways:
            self.speeds[way] = Speed(latency_s, bytes_s)

    def add(self, toxic: Toxic) -> Toxic:
        """Poison with this too; the first one that takes a frame decides."""
        self.toxics.append(toxic)
        return toxic

    def heal(self) -> None:
        """Everything as without a proxy."""
        self.toxics.clear()
        self.refuse(refuses=False)
        self.slow()
        self.release()

    # -- connections ------------------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not a coroutine: one that is cancelled before its first step could not close what it was given."""
        if self._refuses or self._closed:
            self.refused += 1
            writer.close()
            return
        connecting = asyncio.create_task(asyncio.open_connection("127.0.0.1", self.target))
        self._connecting.add(connecting)
        connecting.add_done_callback(partial(self._connected, (reader, writer)))

    def _connected(self, client: _Side, connecting: asyncio.Task[_Side]) -> None:
        self._connecting.discard(connecting)
        broker = None
        with suppress(OSError, asyncio.CancelledError):
            broker = connecting.result()
        if broker is None or self._closed:
            for _, writer in filter(None, (client, broker)):
                writer.close()
            return
        link = _Link(client, broker)
        self._links.add(link)
        link.pumps = [asyncio.create_task(self._pump(link, way), name=f"proxy {self.port} {way.value}") for way in Way]
        for pump in link.pumps:
            pump.add_done_callback(lambda _: self._ended(link))

    def _ended(self, link: _Link) -> None:
        if all(pump.done() for pump in link.pumps):
            self._links.discard(link)
            link.end(reset=False)

    async def _pump(self, link: _Link, way: Way) -> None:
        """Forward one direction until its sender has nothing more to say."""
        (reader, _), (_, writer) = (link.client, link.broker) if way is Way.UP else (link.broker, link.client)
        with suppress(OSError):
            while (body := await _read(reader)) is not None:
                if not await self._forward(link, link.parse(way, body), writer):
                    return
        if way is Way.UP:
            await self._last_answers(link)
        writer.close()

    async def _last_answers(self, link: _Link) -> None:
        """The client is gone; what it asked is done all the same, if the broker's side stays open for it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LINGER_S
        while link.asked and not link.pumps[1].done() and loop.time() < until:
            await asyncio.sleep(0.05)

    async def _forward(self, link: _Link, frame: Frame, writer: asyncio.StreamWriter) -> bool:
        """Deal with one frame; False where the connection has ended by it."""
        toxic = next((toxic for toxic in self.toxics if toxic.takes(frame)), None)
        if toxic is not None and toxic.delay_s:
            await asyncio.sleep(toxic.delay_s)
        gate, speed = self._gates[frame.way], self.speeds[frame.way]
        if not gate.is_set():
            self.held[frame.way] += 1
            await gate.wait()
        if speed.latency_s:
            await asyncio.sleep(speed.latency_s)
        if toxic is not None and toxic.act in (Act.CLOSE, Act.RESET):
            self.ended += 1
            link.end(reset=toxic.act is Act.RESET)
        elif toxic is None or toxic.act is Act.PASS:
            body = frame.body if toxic is None or toxic.bend is None else toxic.bend(frame.body)
            await _write(writer, struct.pack(">i", len(body)) + body, speed.bytes_s)
            self.passed[frame.way, frame.api] += 1
        if toxic is not None and toxic.then is not None:
            toxic.then()
        return toxic is None or toxic.act in (Act.PASS, Act.DROP)


def _opened() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame without its size; None at the end."""
    try:
        (size,) = struct.unpack(">i", await reader.readexactly(4))
        if not 0 <= size <= LARGEST:
            return None
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, OSError):
        return None


async def _write(writer: asyncio.StreamWriter, data: bytes, bytes_s: float) -> None:
    if not bytes_s:
        writer.write(data)
        await writer.drain()
        return
    for start in range(0, len(data), STEP_BYTES):
        piece = data[start : start + STEP_BYTES]
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(len(piece) / bytes_s)


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Let the system end this connection with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
