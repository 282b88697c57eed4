"""The proxy of the chaos suite, against a server that answers each request with itself."""

from __future__ import annotations

import asyncio
import struct
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from chaos.proxy import Act, Api, Proxy, Toxic, Way

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Echo:
    """Answers with the request's correlation id and what stood behind its header; notes what it was asked."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(size)
                self.heard.append(request[8:])
                answer = request[4:]
                writer.write(struct.pack(">i", len(answer)) + answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


class Caller:
    """A client that asks one thing at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer, self._next = reader, writer, 0

    def say(self, api: int, text: bytes) -> None:
        self._next += 1
        body = struct.pack(">hhi", api, 0, self._next) + text
        self.writer.write(struct.pack(">i", len(body)) + body)

    async def hear(self) -> bytes:
        (size,) = struct.unpack(">i", await self._reader.readexactly(4))
        return (await self._reader.readexactly(size))[4:]

    async def ask(self, api: int, text: bytes) -> bytes:
        self.say(api, text)
        return await self.hear()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, Caller, Echo]]:
    """A proxy before an echo server, and a connection through it."""
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    with_port = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    port = with_port.sockets[0].getsockname()[1]
    with_port.close()
    proxy = await Proxy(port, server.sockets[0].getsockname()[1]).start()
    caller = Caller(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield proxy, caller, echo
    finally:
        caller.writer.close()
        await proxy.close()
        server.close()


async def silent(caller: Caller) -> bool:
    """Whether no answer comes for a moment."""
    try:
        async with asyncio.timeout(0.1):
            await caller.hear()
    except TimeoutError:
        return True
    return False


async def test_frames_pass_unchanged_and_are_counted_by_what_was_asked() -> None:
    async with proxied() as (proxy, caller, _):
        assert await caller.ask(Api.FETCH, b"one") == b"one"
        assert await caller.ask(Api.PRODUCE, b"x" * 300_000) == b"x" * 300_000
        assert proxy.passed == {
            (way, api): 1 for way in (Way.UP, Way.DOWN) for api in (Api.FETCH, Api.PRODUCE)
        }  # fmt: skip


async def test_a_cut_ends_every_connection_and_a_refusal_every_new_one() -> None:
    async with proxied() as (proxy, caller, _):
        await caller.ask(Api.FETCH, b"one")
        assert proxy.cut() == 1
        with pytest.raises(asyncio.IncompleteReadError):
            await caller.hear()
        proxy.refuse()
        other = Caller(*await asyncio.open_connection("127.0.0.1", proxy.port))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await other.ask(Api.FETCH, b"two")
        proxy.heal()
        third = Caller(*await asyncio.open_connection("127.0.0.1", proxy.port))
        assert await third.ask(Api.FETCH, b"three") == b"three"
        assert (proxy.ended, proxy.refused) == (1, 1)
        other.writer.close()
        third.writer.close()


async def test_a_reset_is_seen_as_one() -> None:
    async with proxied() as (proxy, caller, _):
        await caller.ask(Api.FETCH, b"one")
        proxy.cut(reset=True)
        with pytest.raises(ConnectionResetError):
            await caller.hear()


@pytest.mark.parametrize("way", list(Way))
async def test_a_black_hole_of_one_way_holds_what_goes_that_way_and_loses_nothing(way: Way) -> None:
    async with proxied() as (proxy, caller, echo):
        proxy.hold(way)
        caller.say(Api.FETCH, b"one")
        assert await silent(caller)
        assert echo.heard == ([] if way is Way.UP else [b"one"])
        proxy.release()
        assert await caller.hear() == b"one"
        assert proxy.held == {way: 1}


async def test_what_was_held_arrives_though_its_sender_has_gone() -> None:
    async with proxied() as (proxy, caller, echo):
        proxy.hold(Way.UP)
        caller.say(Api.END_TXN, b"commit")
        assert await silent(caller)
        caller.writer.close()
        await caller.writer.wait_closed()
        proxy.release()
        async with asyncio.timeout(5):
            while echo.heard != [b"commit"]:
                await asyncio.sleep(0.01)


async def test_a_dropped_answer_leaves_the_others_their_names() -> None:
    async with proxied() as (proxy, caller, echo):
        lost = proxy.add(Toxic(Way.DOWN, frozenset({Api.END_TXN}), Act.DROP, times=1))
        caller.say(Api.END_TXN, b"lost")
        assert await silent(caller)
        assert await caller.ask(Api.PRODUCE, b"next") == b"next"
        assert await caller.ask(Api.END_TXN, b"kept") == b"kept"
        assert echo.heard == [b"lost", b"next", b"kept"]
        assert lost.hits == 1
        assert proxy.passed[Way.DOWN, Api.PRODUCE] == 1


async def test_a_toxic_delays_bends_and_tells_when_it_struck() -> None:
    struck: list[float] = []
    async with proxied() as (proxy, caller, _):
        proxy.add(Toxic(Way.DOWN, frozenset({Api.FETCH}), delay_s=0.1, times=1, bend=lambda body: body[:4] + b"bent",
                        then=lambda: struck.append(time.monotonic())))  # fmt: skip
        began = time.monotonic()
        assert await caller.ask(Api.FETCH, b"one") == b"bent"
        assert len(struck) == 1
        assert time.monotonic() - began >= 0.1
        assert await caller.ask(Api.FETCH, b"two") == b"two"


@pytest.mark.parametrize("act", [Act.CLOSE, Act.RESET])
async def test_a_toxic_ends_the_connection_of_the_frame_that_it_met(act: Act) -> None:
    async with proxied() as (proxy, caller, echo):
        proxy.add(Toxic(Way.UP, act=act, when=lambda frame: b"evil" in frame.body))
        assert await caller.ask(Api.FETCH, b"good") == b"good"
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await caller.ask(Api.FETCH, b"evil")
        assert echo.heard == [b"good"]


async def test_a_slow_line_takes_its_time() -> None:
    async with proxied() as (proxy, caller, _):
        proxy.slow(latency_s=0.05, bytes_s=100_000, ways=[Way.UP])
        began = time.monotonic()
        assert await caller.ask(Api.PRODUCE, b"x" * 20_000) == b"x" * 20_000
        assert time.monotonic() - began >= 0.2
        proxy.heal()
        assert await caller.ask(Api.PRODUCE, b"y") == b"y"


async def test_a_connection_that_is_still_being_made_is_closed_with_the_proxy() -> None:
    async with proxied() as (proxy, caller, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        while not proxy.connecting:
            await asyncio.sleep(0)
        await proxy.close()
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        caller.writer.close()
