"""The rights of docs/guarantees.md on a broker that enforces them: together they are enough, and each is needed."""

from __future__ import annotations

import asyncio
import shlex
import socket
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest
from kafka.service import SHARDS, Service, minutes
from support.cluster import OURS_MS, Cluster, broker_module, own_broker

from evaluator.cli.acls import commands
from evaluator.runtime.acls import creating, needed, useful
from evaluator.runtime.daemon import Run, run
from evaluator.runtime.log.kafka import KafkaLog
from evaluator.runtime.log.kafka_rights import CODES
from evaluator.runtime.log.port import KafkaUnreachable, NotAuthorized, Partition, TopicSpec
from evaluator.runtime.log.rights import Operation, Resource, Right
from evaluator.runtime.preflight import Wish, preflight
from evaluator.runtime.settings import KafkaSettings, load
from evaluator.wire.config.load import load_rules

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from kafka.service import Process

USERS = [f"user{number}" for number in range(40)]
"""A broker of this kind learns its users when it starts; a test takes those that nobody had before."""

NOT_AUTHORIZED = 4
SOON_S = 20.0
"""For a process to start and to end on a busy machine. What must not happen is that it never ends."""

_RESOURCES = {Resource.TOPIC: 2, Resource.GROUP: 3, Resource.TRANSACTIONAL_ID: 5}
_LITERAL, _PREFIXED, _ALLOW = 3, 4, 3


class Guard:
    """A broker with authorization: one listener for its administrator, one for users with passwords."""

    def __init__(self, bootstrap: str, users_at: str, folder: Path) -> None:
        self.bootstrap, self.users_at, self._folder = bootstrap, users_at, folder
        self._free = iter(USERS)

    def user(self) -> str:
        """Somebody without any right."""
        return next(self._free)

    def settings(self, user: str) -> dict[str, Any]:
        """How a user reaches the broker."""
        file = self._folder / f"password-{user}"
        file.write_text(f"secret-{user}\n")
        return {"bootstrap_servers": self.users_at, "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN",
                "username": user, "password_file": str(file)}  # fmt: skip

    @asynccontextmanager
    async def log(self, user: str) -> AsyncIterator[KafkaLog]:
        """Our log as that user."""
        log = KafkaLog(KafkaSettings(**self.settings(user)))
        await log.start()
        try:
            yield log
        finally:
            await log.close()

    async def grant(self, user: str, rights: Sequence[Right]) -> None:
        """Add these rows."""
        async with self._admin() as admin:
            for right in rights:
                answer = await asked(admin, CreateAclsRequest(*_row(user, right)))
                assert [code for code, _ in answer.creation_responses] == [0]

    async def revoke(self, user: str, right: Right) -> None:
        """Take one row away."""
        async with self._admin() as admin:
            answer = await asked(admin, DeleteAclsRequest(*_row(user, right)))
            ((code, _, matching),) = answer.filter_responses
            assert (code, len(matching)) == (0, 1), right

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


async def asked(admin: AIOKafkaAdminClient, request: object) -> Any:
    """The answer to a request that aiokafka knows and that its administrator does not."""
    return await admin._send_request(request)  # noqa: SLF001  # there is nothing public for it


def _row(user: str, right: Right) -> tuple[int, str, int, str, str, int, int]:
    pattern = _PREFIXED if right.is_prefix else _LITERAL
    return (_RESOURCES[right.resource], right.name, pattern, f"User:{user}", "*", CODES[right.operation], _ALLOW)


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """A broker that denies what was not allowed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    users = " ".join(f'user_{user}="secret-{user}"' for user in USERS)
    broker = own_broker(
        listeners=f"PLAINTEXT://127.0.0.1:{{port}},USERS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{{controller_port}}",
        advertised__listeners=f"PLAINTEXT://127.0.0.1:{{port}},USERS://127.0.0.1:{port}",
        listener__security__protocol__map="PLAINTEXT:PLAINTEXT,USERS:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        inter__broker__listener__name="PLAINTEXT", sasl__enabled__mechanisms="PLAIN",
        listener__name__users__plain__sasl__jaas__config=(
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        ),
        authorizer__class__name="org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        super__users="User:ANONYMOUS", allow__everyone__if__no__acl__found="false",
    )  # fmt: skip
    broker.start()
    yield Guard(broker.bootstrap, f"127.0.0.1:{port}", tmp_path_factory.mktemp("users"))
    broker.close()


@asynccontextmanager
async def serving(guard: Guard, folder: Path) -> AsyncIterator[tuple[Service, list[Right]]]:
    """A service whose topics were made by somebody else, and the rights that it needs."""
    async with Service(Cluster(guard.bootstrap, OURS_MS), folder).running() as service:
        yield service, needed(service.topics, {service.source_name: service.source})


async def ended(process: Process) -> None:
    """Wait until it ends with the exit code for what is missing, and no traceback."""
    assert await process.ended(SOON_S) == NOT_AUTHORIZED, process.output()
    assert "Traceback" not in process.output()


async def test_the_printed_commands_are_all_that_a_service_needs_to_fire(guard: Guard, tmp_path: Path) -> None:
    async with serving(guard, tmp_path) as (service, rights):
        user = guard.user()
        for command in commands(rights, f"User:{user}", guard.bootstrap):
            await asyncio.to_thread(kafka_acls, command)
        process = service.start(kafka=guard.settings(user))
        await service.write([*minutes(0, 2), *minutes(2, 6, bad=True)])
        (alert, *_) = await service.until(1, process)
        assert alert["status"] == "firing"
        assert "not allowed" not in process.output()


def kafka_acls(command: str) -> None:
    """Kafka's own tool."""
    _, *words = shlex.split(command)
    java = ["java", "-Xmx96m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{broker_module().CACHE}/lib/*"]
    done = subprocess.run(
        [*java, "org.apache.kafka.tools.AclCommand", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_each_missing_right_is_named_at_the_start_within_seconds(guard: Guard, tmp_path: Path) -> None:
    async with serving(guard, tmp_path) as (service, rights):
        for missing in rights:
            user = guard.user()
            await guard.grant(user, [right for right in rights if right is not missing])
            with pytest.raises(NotAuthorized) as refused:
                await started(guard, service, user)
            first, *others = str(refused.value).splitlines()
            assert first == f"no right to {missing}: {missing.why}"
            assert others == ["`evaluator topics acls` prints what to grant"]
            assert refused.value.exit_code == NOT_AUTHORIZED


async def started(guard: Guard, service: Service, user: str, **kafka: Any) -> None:
    """What `evaluator run` does, in this process: an interpreter for each row would take a minute."""
    settings = load(environ={}, overrides={
        "app_id": service.app, "shards": SHARDS, "web": {"listen": "127.0.0.1:0"},
        "topics": {name: getattr(service.topics, name) for name in ("alerts", "status", "verdicts", "dlq", "control")},
        "kafka": {**guard.settings(user), **kafka},
    })  # fmt: skip
    log = KafkaLog(settings.kafka)
    try:
        async with asyncio.timeout(SOON_S):
            await log.start()
            await run(Run(load_rules([service.rules]), settings, log, lambda _: None))
    finally:
        await log.close()


async def test_without_any_right_all_of_them_are_named_at_once(guard: Guard, tmp_path: Path) -> None:
    async with serving(guard, tmp_path) as (service, rights):
        process = service.start(kafka=guard.settings(guard.user()))
        await ended(process)
        assert [f"no right to {right}" for right in rights if f"no right to {right}: " not in process.output()] == []


# -- a right that is taken away from a running process -------------------------------------------------------------


TAKEN = (
    (Resource.TOPIC, "calls", Operation.READ),
    (Resource.TOPIC, "progress.", Operation.WRITE),
    (Resource.TOPIC, "alerts", Operation.WRITE),
    (Resource.TOPIC, "status", Operation.READ),
    (Resource.GROUP, "evaluate", Operation.READ),
    (Resource.TRANSACTIONAL_ID, "", Operation.WRITE),
)


async def test_a_right_that_is_taken_away_ends_a_running_process_and_given_back_nothing_is_lost(
    guard: Guard, tmp_path: Path
) -> None:
    async with serving(guard, tmp_path) as (service, rights):
        user, minute = guard.user(), 0
        await guard.grant(user, rights)
        named = {(right.resource, right.name, right.operation): right for right in rights}
        for resource, name, operation in TAKEN:
            right = named[resource, f"{service.app}.{name}", operation]
            process = service.start(kafka=guard.settings(user))
            minute = await incident(service, minute, process)
            await guard.revoke(user, right)
            await service.write([*minutes(minute, minute + 2), *minutes(minute + 2, minute + 6, bad=True)])
            minute += 6
            await ended(process)
            last = process.output().splitlines()[-1]
            assert last.startswith(f"not allowed to {operation}")
            assert right.name in last
            await guard.grant(user, [right])
        process = service.start(kafka=guard.settings(user))
        await service.write(minutes(minute, minute + 5))
        expected = service.replayed()
        await service.until(len(expected), process)
        assert sorted(alert["id"] for alert in await service.alerts()) == sorted(alert["id"] for alert in expected)


async def test_what_is_only_useful_is_missed_where_it_is_used_and_nowhere_else(guard: Guard, tmp_path: Path) -> None:
    async with serving(guard, tmp_path) as (service, rights):
        user, progress = guard.user(), service.topics.progress(service.source_name)
        await guard.grant(user, rights)
        async with guard.log(user) as log:
            for right in useful(service.topics):
                name = progress if right.is_prefix else right.name
                if right.operation is Operation.DESCRIBE_CONFIGS:
                    assert (await log.describe([name]))[name].config is None
                elif right.operation is Operation.DELETE:
                    with pytest.raises(NotAuthorized, match=f"not allowed to delete records of {name}/0"):
                        await log.trim(Partition(name, 0), 0)
                else:
                    with pytest.raises(NotAuthorized, match=f"not allowed to add partitions to {name}"):
                        await log.grow(name, service.partitions + 1)
            await guard.grant(user, useful(service.topics))
            await log.trim(Partition(service.topics.partials, 0), 0)
            await log.grow(progress, service.partitions + 1)
            found = await log.describe([spec.name for spec in service.topics.specs(SHARDS, {service.source_name: 1})])
            assert all(topic.config is not None for topic in found.values())


async def test_who_may_create_topics_creates_them_at_the_start(guard: Guard, tmp_path: Path) -> None:
    service, user = Service(Cluster(guard.bootstrap, OURS_MS), tmp_path), guard.user()
    admin = KafkaLog(KafkaSettings(bootstrap_servers=guard.bootstrap))
    await admin.start()
    await admin.create([TopicSpec(service.source, 1)])
    await admin.close()
    await guard.grant(user, needed(service.topics, {"calls": service.source}))
    with pytest.raises(NotAuthorized, match="not allowed to create the topic"):
        await started(guard, service, user, create_topics=True)
    await guard.grant(user, creating(service.topics))
    with pytest.raises(KafkaUnreachable, match=r"cannot create the topic .*; see kafka\.replication_factor"):
        await started(guard, service, user, create_topics=True, replication_factor=3)
    async with guard.log(user) as log:
        await preflight(log, load_rules([service.rules]), service.topics, Wish(SHARDS, create=True))


async def incident(service: Service, minute: int, process: Process) -> int:
    """Let it fire and resolve, so that everything is used; returns the next minute."""
    before = len(await service.alerts())
    await service.write([*minutes(minute, minute + 3, bad=True), *minutes(minute + 3, minute + 6)])
    await service.until(before + 2, process)
    return minute + 6
