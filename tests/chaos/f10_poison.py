"""F10: records that nobody can judge, and batches that nobody can read.

What cannot be judged goes to the dead letters and the rest is judged as if it were not there. What cannot be read is
read again: it may have been damaged on the way. Where it stays unreadable, the other partitions go on, the log names
the place, and the process ends instead of waiting for ever.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c
from kafka.service import START_US, event

from chaos.ground import HURRIED, ground, traffic
from chaos.proxy import Api, Toxic, Way
from chaos.scenario import Outcome, Scenario, Size
from evaluator.runtime.log.port import Partition

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka.service import Process

    from chaos.ground import Ground, Place
    from chaos.proxy import Frame

RECORDS = "bad JSON and UTF-8, null, NaN, 2^63, deep nesting, 10 MB, a compression bomb"
BATCHES = "a batch with a wrong checksum, a batch with an unknown codec: for a moment, and for good"

MEGABYTE = 1 << 20


class Poison(NamedTuple):
    """A record, whether it has to be refused, and whether that takes a clock, which the oracle has not."""

    name: str
    value: bytes
    refused: bool = True
    by_clock: bool = False


def _with(field: str, written: str) -> bytes:
    """An event one of whose fields is written so."""
    fields = {"time": str(START_US // 1000), "region": '"goma"', "ms": "90", "status": "200"}
    fields[field] = written
    return ("{" + ", ".join(f'"{name}": {value}' for name, value in fields.items()) + "}").encode()


SMALL = (
    Poison("half a JSON", b'{"time": 17'),
    Poison("no UTF-8", b'{"time": "\xff\xfe\x80"}'),
    Poison("null", b"null"),
    Poison("a list", b"[1, 2, 3]"),
    Poison("a time that is null", _with("time", "null")),
    Poison("NaN", _with("ms", "NaN")),
    Poison("a time of 2^63", _with("time", str(1 << 63)), by_clock=True),  # nanoseconds: the year 2262
    Poison("a time of -2^63", _with("time", str(-(1 << 63)))),
    Poison("a latency of 2^63", _with("ms", str(1 << 63)), refused=False),
    Poison("a latency of 1e308", _with("ms", "1e308"), refused=False),
    Poison("half a surrogate pair", _with("region", '"\\ud800"'), refused=False),
    Poison("100,000 lists in each other", b"[" * 100_000),
    Poison("100,000 objects in each other", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
)


def large(size: Size) -> tuple[Poison, ...]:
    """What has to be refused for its size alone."""
    bomb = (256 if size.is_full else 32) * MEGABYTE
    padded = _with("pad", '"' + "x" * (10 * MEGABYTE) + '"')
    return Poison("10 MB", padded), Poison(f"{bomb // MEGABYTE} MB of spaces in a few KB", b" " * bomb)


async def records(folder: Path, size: Size) -> Outcome:
    """All of them among the traffic."""
    poisons = SMALL + large(size)
    async with ground(folder, broker={"message.max.bytes": str(20 * MEGABYTE)}) as here:
        place = here.place
        process = place.begin(HURRIED)
        async with traffic(place):
            await place.caught_up("start", process)
            producer = AIOKafkaProducer(
                bootstrap_servers=place.bootstrap, compression_type="gzip", max_request_size=512 * MEGABYTE
            )
            await producer.start()
            try:
                for poison in poisons:
                    await place.write_raw(producer, poison.value, is_judged=not poison.by_clock)
            finally:
                await producer.stop()
            recovery = await place.caught_up("poison", process)
        letters = await place.log.read(Partition(place.topics.dlq, 0))
        refused = [poison.name for poison in poisons if poison.refused]
        if len(letters) != len(refused):
            reasons = [dict(letter.headers).get("reason") for letter in letters]
            place.failures.append(f"{len(refused)} records had to be refused ({refused}), found {reasons}")
        peak = _peak_mb(process)
        return await place.verdict(
            "F10", RECORDS, process, faults=len(poisons), recovery_s=recovery,
            notes=f"{len(letters)} dead letters; peak of the process {peak} MB",
        )  # fmt: skip


def _peak_mb(process: Process) -> int:
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) >> 10


# -- what cannot be read ----------------------------------------------------------------------------------------------


def broken(body: bytes, marker: bytes) -> bytes:
    """A fetch answer with a bit of this payload turned: its batch has a wrong checksum."""
    place = body.index(marker)
    return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]


def of_unknown_codec(body: bytes, marker: bytes) -> bytes:
    """A fetch answer whose batch with this payload names codec 7, with the checksum that goes with it."""
    start, end = _batch(body, body.index(marker))
    (attributes,) = struct.unpack_from(">h", body, start + 21)
    checked = struct.pack(">h", attributes | 7) + body[start + 23 : end]
    return body[: start + 17] + struct.pack(">I", calc_crc32c(checked)) + checked + body[end:]


def _batch(body: bytes, inside: int) -> tuple[int, int]:
    """Where the batch around a position begins and ends: the magic is 2 and the checksum is right."""
    for start in range(inside, -1, -1):
        if body[start + 16] != 2:
            continue
        length, _, _, checksum = struct.unpack_from(">iibI", body, start + 8)
        end = start + 12 + length
        if inside < end <= len(body) and calc_crc32c(body[start + 21 : end]) == checksum:
            return start, end
    message = "no batch around it"
    raise AssertionError(message)


BENDS: tuple[tuple[str, Callable[[bytes, bytes], bytes]], ...] = (
    ("wrong checksum", broken),
    ("unknown codec", of_unknown_codec),
)

IMPATIENT = {
    **HURRIED,
    "constants": {
        "evaluator.runtime.watchdog:STUCK_S": 7.0,
        "evaluator.runtime.watchdog:LOOK_EVERY_S": 1.0,
        "evaluator.runtime.worker:LOOK_EVERY_S": 1.0,
    },
}
"""The watchdog looks for what does not move after seconds instead of two minutes."""


async def batches(folder: Path, size: Size) -> Outcome:
    """Each kind for a moment, and for good; in the full form with the watchdog's own limits."""
    harm = {**HURRIED} if size.is_full else IMPATIENT
    faults, worst = 0, 0.0
    async with ground(folder) as here:
        place = here.place
        process = place.begin(harm)
        async with traffic(place):
            await place.caught_up("start", process)
            for name, bend in BENDS:
                toxic = await _bent(here, f"{name} once", bend, times=3)
                worst = max(worst, await place.caught_up(f"{name}, three times", process, limit_s=20.0))
                faults += toxic.hits
                toxic = await _bent(here, f"{name} always", bend, times=None)
                await _others_go_on(place, name)
                limit_s = 240.0 if size.is_full else 25.0
                await place.gone(
                    f"{name}, for good", process, 70, says="records that were not fetched", limit_s=limit_s
                )
                faults += toxic.hits
                here.proxy.heal()
                process = await _anew(place, process, harm)
                worst = max(worst, await place.caught_up(f"{name}, put right", process))
        return await place.verdict("F10-batch", BATCHES, process, runs=2 * len(BENDS), faults=faults, recovery_s=worst)


async def _anew(place: Place, process: Process, harm: dict[str, object]) -> Process:
    """Another process where the last one has ended."""
    return process if process.popen.poll() is None else place.begin(harm)


async def _bent(here: Ground, marker: str, bend: Callable[[bytes, bytes], bytes], times: int | None) -> Toxic:
    """Write an event that can be found again, and bend every fetch answer that it is in."""
    mark = marker.encode()

    def has(frame: Frame) -> bool:
        return mark in frame.body

    toxic = here.proxy.add(
        Toxic(Way.DOWN, frozenset({Api.FETCH}), times=times, when=has, bend=lambda body: bend(body, mark))
    )
    await here.place.write([event(START_US, marker)], partition=0)
    return toxic


async def _others_go_on(place: Place, name: str) -> None:
    """Partition 1 is read on while a batch of partition 0 cannot be."""
    before = (await place.log.bounds(Partition(place.source, 1)))[1] + 20
    if not await place.reaches(1, before, limit_s=5.0):
        place.failures.append(f"{name}: partition 1 did not go on")


SCENARIOS = (Scenario("F10", RECORDS, records), Scenario("F10-batch", BATCHES, batches))
