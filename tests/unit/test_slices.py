"""A large fetch is taken in slice by slice: nobody waits for the loop longer than for one of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.decoded import config_of
from support.spans import NOON_NS
from unit.test_crew import Filling, crew_of, turn

from evaluator.core.event import SECOND, EpochUs
from evaluator.errors import SchemasMissing
from evaluator.runtime.aggregate_stage import AggregateStage, Timing
from evaluator.runtime.clock import VirtualClock, VirtualLoop, run_virtual
from evaluator.runtime.crew import Crew
from evaluator.runtime.log.memory import MemoryLog
from evaluator.runtime.log.port import Fetched, Outgoing, Partition, TopicSpec
from evaluator.runtime.slices import SLICE_BYTES, slices
from evaluator.runtime.stage import Unobserved
from evaluator.runtime.topics import Topics
from evaluator.runtime.turns import TURN_S
from evaluator.wire.records import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluator.runtime.registries import Learn

NOON = EpochUs(NOON_NS // 1000)
HALF, THIRD = SLICE_BYTES // 2, SLICE_BYTES // 3


def fetch(*values: bytes | None, first: int = 10, gap: int = 1) -> Fetched:
    """A fetch of these values, at every `gap`-th offset; two more are in the log."""
    records = [Record(first + number * gap, NOON // 1000, None, value) for number, value in enumerate(values)]
    after = first + len(values) * gap
    return Fetched(records, after, after + 2, NOON, is_continuous=False)


@pytest.mark.parametrize(
    ("sizes", "cut"),
    [
        ([], [[]]),
        ([None], [[None]]),
        ([HALF, HALF], [[HALF, HALF]]),
        ([HALF, HALF, 1], [[HALF, HALF], [1]]),
        ([HALF, HALF + 1], [[HALF], [HALF + 1]]),
        ([SLICE_BYTES + 1], [[SLICE_BYTES + 1]]),
        ([1, SLICE_BYTES + 1, 1], [[1], [SLICE_BYTES + 1], [1]]),
        ([THIRD, None, THIRD, 0, THIRD, THIRD], [[THIRD, None, THIRD, 0, THIRD], [THIRD]]),
    ],
)
def test_a_slice_is_as_large_as_allowed_or_one_record(sizes: list[int | None], cut: list[list[int | None]]) -> None:
    values = [None if size is None else b"x" * size for size in sizes]
    found = list(slices(fetch(*values)))
    assert [[None if v is None else len(v) for *_, v, _ in part.fetched.records] for part in found] == cut
    assert [part.size for part in found] == [sum(size or 0 for size in part) for part in cut]


def test_slices_follow_each_other_as_fetches_would() -> None:
    """Across offsets that compaction took."""
    whole = fetch(*[b"x" * HALF] * 5, gap=3)
    first, second, third = (part.fetched for part in slices(whole))
    assert [record.offset for part in (first, second, third) for record in part.records] == [10, 13, 16, 19, 22]
    assert (first.next_offset, second.next_offset, third.next_offset) == (16, 22, 25)
    assert {part[2:] for part in (first, second, third)} == {whole[2:]}


class Noted(Filling):
    """Notes what is applied, and at which of its offsets a schema was missing."""

    def __init__(self, unknown: int = -1) -> None:
        super().__init__()
        self.applied: list[tuple[int, ...]] = []
        self.told: list[str] = []
        self.unknown = unknown

    def apply(self, fetched: Fetched) -> None:
        offsets = tuple(record.offset for record in fetched.records)
        if self.unknown in offsets:
            raise SchemasMissing([7])
        if offsets:
            self.applied.append(offsets)
            self.told.append("slice")
        super().apply(fetched)
        self.is_full = False


def test_everybody_else_has_the_loop_between_two_slices() -> None:
    async def main() -> list[str]:
        stage = Noted()
        crew, log = await crew_of(stage, [])
        while not crew.is_settled:
            await turn(crew, 0.1)
        await log.append([Outgoing("in", None, b"x" * (HALF // 2), 0) for _ in range(12)])

        async def heartbeat() -> None:
            while True:
                stage.told.append("heartbeat")
                await asyncio.sleep(0)

        beating = asyncio.create_task(heartbeat())
        await crew.poll(1, 100)
        beating.cancel()
        assert stage.applied == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
        assert stage.next_offset == 12
        return stage.told

    told = run_virtual(main())
    between = told[told.index("slice") : len(told) - told[::-1].index("slice")]
    assert between == ["slice", "heartbeat", "slice", "heartbeat", "slice"]


def test_a_small_fetch_is_taken_in_at_once() -> None:
    async def main() -> list[tuple[int, ...]]:
        stage = Noted()
        crew, log = await crew_of(stage, [])
        while not crew.is_settled:
            await turn(crew, 0.1)
        await log.append([Outgoing("in", None, b"x" * 100, 0) for _ in range(5)])
        await crew.poll(1, 100)
        return stage.applied

    assert run_virtual(main()) == [(0, 1, 2, 3, 4)]


def test_everybody_else_has_the_loop_after_a_while_though_it_was_little() -> None:
    told: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        clock = VirtualClock(loop)
        log = MemoryLog(clock=clock)
        await log.create([TopicSpec("in", 3), TopicSpec("out", 1), TopicSpec("own", 1, compact=True)])

        class Slow(Noted):
            """Takes half of a turn for each record."""

            def apply(self, fetched: Fetched) -> None:
                super().apply(fetched)
                if fetched.records:
                    told.append("slice")
                    loop.advance(TURN_S / 2)

        def begun(partition: Partition) -> Slow:
            stage = Slow()
            stage.input, stage.transactional_id = partition, f"app.numbers.{partition.index}"
            return stage

        crew = Crew("numbers", ["in"], begun, log, clock, Unobserved())
        await crew.consumer.start()
        while not crew.is_settled:
            await turn(crew, 0.1)
        for partition in range(3):
            await log.append([Outgoing("in", None, b"x", partition)])

        async def heartbeat() -> None:
            while True:
                told.append("heartbeat")
                await asyncio.sleep(0)

        beating = asyncio.create_task(heartbeat())
        assert await crew.poll(1, 100) == 3
        beating.cancel()

    run_virtual(main())
    between = told[told.index("slice") : len(told) - told[::-1].index("slice")]
    assert between == ["slice", "slice", "heartbeat", "slice"]


class Answering:
    """A registry that knows every schema after a second."""

    def __init__(self, stage: Noted) -> None:
        self.stage = stage

    def lesson(self, *_: object) -> Learn:
        async def learn() -> None:
            await asyncio.sleep(1)
            self.stage.unknown = -1

        return learn


def test_a_schema_that_is_missing_in_a_later_slice_costs_nothing_of_the_former_and_none_twice() -> None:
    async def main() -> list[tuple[int, ...]]:
        stage = Noted(unknown=5)
        crew, log = await crew_of(stage, [], lambda _: Answering(stage))  # type: ignore[arg-type,return-value]
        while not crew.is_settled:
            await turn(crew, 0.1)
        await log.append([Outgoing("in", None, b"x" * (HALF // 2), 0) for _ in range(12)])
        await crew.poll(1, 100)
        assert stage.applied == [(0, 1, 2, 3)]
        for _ in range(10):
            await crew.poll(1, 100)
            crew.settle()
        return stage.applied

    assert run_virtual(main()) == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]


# -- what the Collector's exporter writes --------------------------------------------------------------------

RESOURCES, SCOPES, SPANS = 40, 5, 50


def collected(first: int) -> bytes:
    """10,000 spans: of each resource five scopes, of each scope fifty spans; every tenth of them failed."""
    made = ExportTraceServiceRequest()
    for service in range(RESOURCES):
        of_resource = made.resource_spans.add()
        of_resource.resource.attributes.add(key="service.name", value={"string_value": f"service-{service:02d}"})
        for scope in range(SCOPES):
            of_scope = of_resource.scope_spans.add()
            of_scope.scope.name = f"scope-{scope}"
            for number in range(SPANS):
                span = of_scope.spans.add(
                    trace_id=(first + number).to_bytes(16, "big"), span_id=b"12345678", name="GET /cart", kind=2,
                    start_time_unix_nano=NOON_NS - 250_000_000, end_time_unix_nano=NOON_NS + number,
                )  # fmt: skip
                span.status.code = 2 if number % 10 == 0 else 0
                span.attributes.add(key="user_agent.original", value={"string_value": "x" * 200})
    return made.SerializeToString()


def test_records_of_ten_thousand_spans_are_a_slice_each_and_come_out_as_if_they_were_one() -> None:
    config = config_of({"format": "otlp_proto"}, ["service.name"])
    whole = fetch(*(collected(first) for first in (0, 1000, 2000)), first=0)
    assert all(SLICE_BYTES < len(record.value or b"") < config.sources["events"].max_record_bytes
               for record in whole.records)  # fmt: skip

    def taken_in(parts: list[Fetched]) -> tuple[Sequence[Outgoing], Counter[tuple[str, ...]]]:
        stage = AggregateStage(config, "events", 0, 1, 4, Topics("app"), Timing(SECOND), Counter())
        stage.restore([], (0, 0), None)
        stage.freeze(NOON)
        for part in parts:
            rest: Fetched | None = part
            while rest is not None:
                rest = stage.apply(rest)
        outbox = stage.freeze(NOON)
        assert outbox is not None
        return outbox.records, stage.tallies

    parts = [part.fetched for part in slices(whole)]
    assert [len(part.records) for part in parts] == [1, 1, 1]
    written, tallies = taken_in(parts)
    assert (written, tallies) == taken_in([whole])
    assert tallies["records", "events", "ok"] == 3 * RESOURCES * SCOPES * SPANS
