"""F12: what is stored was damaged, is missing, newer or of another log: refused in words, and nothing is published.

Each damage is done to a service of its own that had fired and was stopped. Where what was damaged is put back, the
service goes on as if nothing had been.
"""

from __future__ import annotations

import asyncio
import random
import signal
import struct
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from kafka.service import SHARDS, minutes

from chaos.ground import HURRIED, Place, ground
from chaos.scenario import Outcome, Scenario, Size
from evaluator.runtime.log.port import Outgoing, Partition, TopicSpec
from evaluator.wire import state as state_wire

if TYPE_CHECKING:
    from pathlib import Path

    from evaluator.wire.records import Record

WHAT = "stored state is damaged, missing, newer, or the logs are others: refused, and nothing is published"

FIRST = minutes(0, 2) + minutes(2, 6, bad=True)
THEN = minutes(6, 8, bad=True) + minutes(8, 14)
"""What would resolve the alerts."""


class Damage(NamedTuple):
    """`do` damages a stopped service and gives what puts it back, if anything does; `says` is in the refusal."""

    name: str
    do: Callable[[Place], Awaitable[Outgoing | None]]
    says: str


async def _newest(place: Place, partition: Partition, prefix: bytes = b"") -> Record:
    """The newest record with a value under such a key."""
    records = await place.log.read(partition)
    return next(r for r in reversed(records) if r.value is not None and (r.key or b"").startswith(prefix))


def _progress(place: Place) -> Partition:
    return Partition(place.topics.progress(place.source_name), 0)


async def _shard(place: Place, prefix: bytes) -> Partition:
    """A shard that holds such a record."""
    for index in range(SHARDS):
        partition = Partition(place.topics.state, index)
        if any((r.key or b"").startswith(prefix) and r.value for r in await place.log.read(partition)):
            return partition
    message = f"no shard holds a record {prefix!r}"
    raise AssertionError(message)


async def _replace(place: Place, partition: Partition, record: Record, value: bytes) -> Outgoing:
    """Write over a record; returns what puts it back."""
    await place.log.append([Outgoing(partition.topic, record.key, value, partition.index)])
    assert (await _newest(place, partition, record.key or b"")).value == value
    return Outgoing(partition.topic, record.key, record.value, partition.index)


def _flipped(value: bytes) -> bytes:
    middle = len(value) // 2 + 3
    return value[:middle] + bytes([value[middle] ^ 0x10]) + value[middle + 1 :]


def _newer(value: bytes) -> bytes:
    """As a later release would write it: the number comes first, the checksum begins with it (`wire/stored.py`)."""
    return struct.pack(">BI", value[0] + 1, zlib.crc32(value[5:], value[0] + 1)) + value[5:]


def _change(change: Callable[[bytes], bytes], prefix: bytes | None) -> Callable[[Place], Awaitable[Outgoing | None]]:
    """Change the newest record of a kind of the state, or of the progress for None."""

    async def do(place: Place) -> Outgoing:
        partition = _progress(place) if prefix is None else await _shard(place, prefix)
        record = await _newest(place, partition, prefix or b"")
        return await _replace(place, partition, record, change(record.value or b""))

    return do


async def _recreate(place: Place, topic: str, partitions: int, *, compact: bool = False) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=place.bootstrap)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()
    while topic in await place.log.describe([topic]):
        await asyncio.sleep(0.05)
    await place.log.create([TopicSpec(topic, partitions, retention_ms=-1, compact=compact)])


async def _no_progress(place: Place) -> None:
    await _recreate(place, _progress(place).topic, place.partitions, compact=True)


async def _no_state(place: Place) -> None:
    await _recreate(place, place.topics.state, SHARDS, compact=True)


async def _nothing_internal(place: Place) -> None:
    await _no_progress(place)
    await _no_state(place)
    await _recreate(place, place.topics.partials, SHARDS)


async def _trimmed(place: Place) -> None:
    await place.log.append([Outgoing(place.source, None, value, 0) for value in THEN])
    partition = Partition(place.source, 0)
    await place.log.trim(partition, (await place.log.bounds(partition))[1] - 5)


async def _partials_trimmed(place: Place) -> None:
    """The newest partials, which nobody has merged, are gone: made by adding some first."""
    for index in range(SHARDS):
        partition = Partition(place.topics.partials, index)
        records = await place.log.read(partition)
        if records:
            await place.log.append([Outgoing(partition.topic, r.key, r.value, index) for r in records[-2:]])
            await place.log.trim(partition, (await place.log.bounds(partition))[1])


async def _recreated(place: Place) -> None:
    await _recreate(place, place.source, place.partitions)
    for index in range(place.partitions):
        more = minutes(0, 20, bad=True)
        await place.log.append([Outgoing(place.source, None, value, index) for value in more])


DAMAGES = (
    Damage("a flipped byte in the progress", _change(_flipped, None), "progress of a source partition"),
    Damage("a flipped byte in a shard's meta", _change(_flipped, state_wire.META_KEY), "state of a shard"),
    Damage("a flipped byte in an alert's progress", _change(_flipped, b"a"), "alert progress"),
    Damage("a flipped byte in a pane", _change(_flipped, b"p"), "pane"),
    Damage("a newer schema of the progress", _change(_newer, None), "stored with schema 2"),
    Damage("a newer schema of the state", _change(_newer, state_wire.META_KEY), "stored with schema 2"),
    Damage("no progress", _no_progress, "a partial was lost or repeated"),
    Damage("no state", _no_state, "--init"),
    Damage("nothing internal", _nothing_internal, "--init"),
    Damage("records deleted before they were read", _trimmed, "--accept-data-loss"),
    Damage("partials deleted before they were merged", _partials_trimmed, "partials were deleted"),
    Damage("a source recreated with more records", _recreated, "the topic was recreated"),
)


async def _suffer(place: Place, damage: Damage) -> float:
    """One damage from start to end; seconds until it was refused."""
    process = place.begin(HURRIED)
    await place.write(FIRST)
    await place.until(2, process)
    await place.caught_up(f"{damage.name}: before", process)
    process.signal(signal.SIGTERM)
    await place.gone(f"{damage.name}: stop", process, 0)
    cure = await damage.do(place)
    if damage.do not in (_trimmed, _recreated):
        await place.write(THEN)
    before = len(await place.alerts())
    began = time.monotonic()
    refused = place.begin(HURRIED)
    await place.gone(damage.name, refused, 78, says=damage.says)
    took = time.monotonic() - began
    if "Traceback" in refused.output():
        place.failures.append(f"{damage.name}: a traceback")
    if len(await place.alerts()) != before:
        place.failures.append(f"{damage.name}: {len(await place.alerts()) - before} alerts were published")
    if cure is not None:
        await place.log.append([cure])
        outcome = await place.verdict("F12", WHAT, place.begin(HURRIED), faults=1)
        if not outcome.passed:
            place.failures.append(f"{damage.name}: after it was put back: {outcome}")
    return took


async def run(folder: Path, size: Size) -> Outcome:
    """All damages in the full form, two of them in the short one."""
    chosen = DAMAGES if size.is_full else tuple(random.Random(size.seed).sample(DAMAGES, 2))
    alerts, took = 0, []
    async with ground(folder) as here:
        failures = []
        for number, damage in enumerate(chosen):
            place = await here.place.neighbour(str(number))
            took.append(await _suffer(place, damage))
            alerts += len(await place.alerts())
            failures += place.failures
    return Outcome(
        "F12", WHAT, len(chosen), len(chosen), alerts, alerts, 0, 0, 0, None, tuple(failures),
        f"refused {min(took):.1f} to {max(took):.1f} s after the start",
    )  # fmt: skip


SCENARIOS = (Scenario("F12", WHAT, run),)
