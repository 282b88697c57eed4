"""The daemon: both stages on Kafka, the page and the metrics, until a signal.

Starting is a list of things that can be wrong, each of which ends in one line: the brokers, the topics, the
port. Nothing is joined, fenced or written before all of them are right.
"""

from __future__ import annotations

import asyncio
import faulthandler
import signal
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import orjson
import structlog

from evaluator import __version__
from evaluator.core.blind import Telling
from evaluator.errors import EvaluatorError
from evaluator.runtime.clock import SystemClock
from evaluator.runtime.collector import prefer_throughput
from evaluator.runtime.fleet import Fleet
from evaluator.runtime.live import Address, Tail, WorkerHealth, serve, work_until
from evaluator.runtime.log.kafka_client import probe
from evaluator.runtime.log.port import Log
from evaluator.runtime.metrics import Metrics
from evaluator.runtime.moved import watch_addresses
from evaluator.runtime.preflight import Wish, preflight
from evaluator.runtime.rotation import watch_password
from evaluator.runtime.service import World, build
from evaluator.runtime.settings import Settings
from evaluator.runtime.topics import Topics
from evaluator.runtime.view import View
from evaluator.runtime.web.app import make_app
from evaluator.wire.codecs import CODECS, Codecs
from evaluator.wire.config.load import Config

if TYPE_CHECKING:
    from evaluator.runtime.worker import Worker

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
"""Seconds between two looks of the tail at what was published."""

STDERR = 2
"""The file itself: a crash does not go through Python."""

SHUT_DOWN_S = 30.0
"""What a last commit may take. Kubernetes allows 30 s by default, our chart 40."""


class ShutdownOverran(EvaluatorError):
    """The last commits took too long. Nothing is lost: what was not committed is done again by the next owner."""

    exit_code = 75


class Signals:
    """SIGTERM and SIGINT ask for an orderly end; SIGHUP is answered with a log line: there is no reload yet."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.number: int | None = None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._refuse_reload)

    def _stop(self, number: int) -> None:
        self.number = number
        self.stopped.set()

    @staticmethod
    def _refuse_reload() -> None:
        hint = "the configuration is that of the start; restart to take a changed one, safe at any moment"
        log.warning("reload.unsupported", hint=hint)


class Run(NamedTuple):
    """What to run on what. `say` is given lines for a person."""

    config: Config
    settings: Settings
    log: Log
    say: Callable[[str], None]
    accepts_loss: bool = False
    init: bool = False
    codecs: Codecs = CODECS


async def run(wish: Run) -> int:
    """Run until a signal; returns the exit code. Raises `EvaluatorError` for everything that can be acted on."""
    faulthandler.enable(STDERR)  # a crash in native code has no other way to say where it was
    config, settings = wish.config, wish.settings
    signals, clock = Signals(), SystemClock()
    topics = Topics.of(settings)
    checks = Wish(settings.shards, create=settings.kafka.create_topics, init=wish.init)
    partitions = await preflight(wish.log, config, topics, checks)
    view = View(config.rules, clock, settings.web.max_rejected)
    metrics = Metrics(view)
    world = World(
        shards=settings.shards, commit_interval=settings.commit_interval, state_interval=settings.state_interval,
        external_url=settings.url, accepts_loss=wish.accepts_loss,
        telling=None if settings.blind_alert == "off" else Telling(settings.blind_alert),
        codecs=wish.codecs.finalized() if settings.state.finalize else wish.codecs,
    )  # fmt: skip
    service = build(wish.log, config, topics, clock, world, partitions, observer=metrics)
    fleet = Fleet(wish.log, service.worker, config.rules)
    metrics.attach(service.worker, service.tallies, fleet)
    health = WorkerHealth(service.worker, clock)
    runner = await serve(make_app(view, metrics, health, fleet), Address(*settings.web.address))
    try:
        log.info(
            "evaluator.started", version=__version__, app_id=settings.app_id, config=config.rules.hash,
            brokers=settings.kafka.bootstrap_servers, sources=sorted(partitions),
        )  # fmt: skip
        wish.say(f"page     {settings.url}/\nmetrics  {settings.url}/metrics\nalerts   topic {topics.alerts}")
        tail = Tail(wish.log, topics, view, _log_alert)
        await service.worker.start()
        prefer_throughput()
        crew = service.worker.evaluate
        reach = partial(probe, settings.kafka, "evaluator")
        beside = {
            "tail": tail.follow(clock, LOOK_EVERY_S, lambda: crew.is_restoring), "loop lag": metrics.watch_loop(clock),
            "addresses": watch_addresses(partial(wish.log.describe, [topics.alerts]), reach, clock),
            "fleet": fleet.follow(clock),
        }  # fmt: skip
        if settings.kafka.password_file is not None:
            beside["password"] = watch_password(settings.kafka, reach, clock)
        await work_until(service.worker, signals.stopped.wait(), beside)
        log.info("evaluator.stopping", signal=signal.Signals(signals.number).name if signals.number else None)
        await _shut_down(service.worker)
    finally:
        await runner.cleanup()
    log.info("evaluator.stopped")
    return 128 + signal.SIGINT if signals.number == signal.SIGINT else 0


async def _shut_down(worker: Worker) -> None:
    try:
        async with asyncio.timeout(SHUT_DOWN_S):
            await worker.shut_down()
    except TimeoutError:
        message = (f"the last commits took more than {SHUT_DOWN_S:.0f} s, so they were left; nothing is lost, "
                   f"the next owner does them again")  # fmt: skip
        raise ShutdownOverran(message) from None


def _log_alert(record: bytes) -> None:
    alert = orjson.loads(record)
    log.info(
        "alert.published", status=alert["status"], id=alert["id"], alertname=alert["alertname"], labels=alert["labels"],
        summary=alert["annotations"].get("summary"), at=alert["endsAt"] or alert["firedAt"],
    )  # fmt: skip
