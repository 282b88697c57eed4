"""The commands as a person types them, against a real Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.cluster import Cluster

ROOT = Path(__file__).parents[2]


class Shell:
    """A user's shell: the settings in the environment, names that nobody else uses."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.app = cluster.name("shell")
        self.source = f"{self.app}.events"
        self.rules = folder / "rules.yaml"
        demo = (ROOT / "evaluator" / "cli" / "demo.yaml").read_text()
        self.rules.write_text(demo.replace("topic: demo.events", f"topic: {self.source}"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.listen = f"127.0.0.1:{probe.getsockname()[1]}"
        public = ("alerts", "status", "verdicts", "dlq", "control")
        self.environ = {
            **os.environ, "EVALUATOR_APP_ID": self.app, "EVALUATOR_KAFKA__BOOTSTRAP_SERVERS": cluster.bootstrap,
            "EVALUATOR_WEB__LISTEN": self.listen,
            **{f"EVALUATOR_TOPICS__{name.upper()}": f"{self.app}.{name}" for name in public},
        }  # fmt: skip

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        command = [sys.executable, "-m", "evaluator", *words]
        return subprocess.run(command, capture_output=True, text=True, env={**self.environ, **environ}, timeout=90,
                              check=False)  # fmt: skip

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command beside others; ended with SIGTERM."""
        command = [sys.executable, "-m", "evaluator", *words]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True, env=self.environ)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    def created(self) -> None:
        """Every topic, the source's too."""
        done = self.run("topics", "create", "--config", str(self.rules), "--sources", "2")
        assert done.returncode == 0, done.stderr

    def until_ready(self) -> None:
        """Wait for the page."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{self.listen}/-/ready", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        pytest.fail("never ready")


@pytest.fixture
def shell(kafka: Cluster, tmp_path: Path) -> Shell:
    """A shell of one test."""
    return Shell(kafka, tmp_path)


def test_five_commands_bring_an_alert_onto_the_topic_and_the_metrics(kafka: Cluster, shell: Shell) -> None:
    shell.created()
    with shell.running("run", "--config", str(shell.rules)) as process:
        shell.until_ready()
        with subprocess.Popen(
            [sys.executable, "-m", "evaluator", "tail", "--from-beginning", "--count", "2", "-o", "json"],
            stdout=subprocess.PIPE, text=True, env=shell.environ,
        ) as tail:  # fmt: skip
            simulated = shell.run("simulate", "--topic", shell.source)
            assert simulated.returncode == 0, simulated.stderr
            told, _ = tail.communicate(timeout=60)
        firing, resolved = map(json.loads, told.splitlines())
        assert (firing["status"], resolved["status"]) == ("firing", "resolved")
        status = shell.run("status")
        assert f"task     {shell.source}/0" in status.stdout
        assert "running    watermark 20" in status.stdout
        assert "18 taken over in " in status.stdout  # 2 source partitions and 16 shards
        assert shell.run("healthcheck").returncode == 0
        with urllib.request.urlopen(f"http://{shell.listen}/metrics", timeout=10) as answer:
            metrics = answer.read()
        checked = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, check=False)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
        assert b'evaluator_alerts_published_total{status="firing"} 1.0' in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    asyncio.run(_is_in_the_contracts_form(kafka, shell, firing["id"]))


async def _is_in_the_contracts_form(kafka: Cluster, shell: Shell, wanted: str) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, isolation_level="read_committed",
                                auto_offset_reset="earliest", enable_auto_commit=False)  # fmt: skip
    await consumer.start()
    consumer.assign([TopicPartition(f"{shell.app}.alerts", 0)])
    record = await asyncio.wait_for(consumer.getone(), 30)
    await consumer.stop()
    schema = json.loads((ROOT / "schema" / "alert.v1.json").read_text())
    alert = json.loads(record.value)
    jsonschema.validate(alert, schema)
    assert alert["id"] == wanted
    headers = {name: value.decode() for name, value in record.headers}
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_id"] == wanted
    assert headers["ce_type"] == "dev.slo-evaluator.alert.firing.v1"
    assert headers["ce_source"] == f"/evaluator/{shell.app}"
    assert headers["ce_subject"] == headers["ce_partitionkey"] == record.key.decode() == alert["key"]
    assert headers["ce_time"] == alert["firedAt"]
    assert headers["content-type"] == "application/json"


def test_topics_are_shown_made_and_compared(shell: Shell) -> None:
    dry = shell.run("topics", "create", "--config", str(shell.rules), "--sources", "2", "--dry-run")
    assert f"would create  {shell.source}  partitions=2" in dry.stdout
    missing = shell.run("topics", "check", "--config", str(shell.rules))
    assert (missing.returncode, missing.stdout) == (1, "")
    assert f"topic {shell.source} does not exist" in missing.stderr
    shell.created()
    checked = shell.run("topics", "check", "--config", str(shell.rules))
    assert checked.returncode == 0
    assert checked.stdout.startswith("SUCCESS: 8 topics")


@pytest.mark.parametrize(
    ("environ", "code", "message"),
    [
        pytest.param({"EVALUATOR_KAFKA__BOOTSTRAP_SERVERS": "localhost:1"}, 4,
                     'cannot reach localhost:1: connection refused; start a broker, or try "evaluator demo"\n',
                     id="nobody_listens"),
        pytest.param({"EVALUATOR_KAFKA__BOOTSTRAP_SERVERS": "no-such-host.invalid:9092"}, 4,
                     "cannot reach no-such-host.invalid:9092:", id="no_such_host"),
        pytest.param({"EVALUATOR_KAFKA__SECURITY_PROTOCOL": "SSL"}, 4, "check kafka.security_protocol",
                     id="tls_to_a_plain_port"),
        pytest.param({"EVALUATOR_SHARDS": "8"}, 1, "partitions and needs 8; set EVALUATOR_SHARDS=16",
                     id="another_number_of_shards"),
        pytest.param({"EVALUATOR_TOPICS__ALERTS": "missing.alerts"}, 1,
                     "topic missing.alerts does not exist; create it with `evaluator topics create`\n",
                     id="a_missing_topic"),
        pytest.param({"EVALUATOR_KAFKA__CA_FILE": "/none"}, 0, "", id="an_unused_setting_does_no_harm"),
    ],
)  # fmt: skip
def test_a_start_that_cannot_work_is_one_line_that_says_what_to_do(
    shell: Shell, environ: dict[str, str], code: int, message: str
) -> None:
    shell.created()
    if code == 0:
        assert shell.run("topics", "check", "--config", str(shell.rules), **environ).returncode == 0
        return
    done = shell.run("run", "--config", str(shell.rules), **environ)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_topic_with_the_wrong_cleanup_policy_is_refused(shell: Shell) -> None:
    shell.created()
    done = shell.run("run", "--config", str(shell.rules), EVALUATOR_TOPICS__STATUS=f"{shell.app}.alerts")
    assert done.returncode == 1
    assert f"topic {shell.app}.alerts has cleanup.policy=delete and needs compact" in done.stderr


def test_a_port_that_is_taken_is_one_line(shell: Shell) -> None:
    shell.created()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(shell.listen.rpartition(":")[2])))
        taken.listen()
        done = shell.run("run", "--config", str(shell.rules))
    assert done.returncode == 2
    assert f"cannot listen on {shell.listen}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_plays_on_a_broker_too(kafka: Cluster, shell: Shell) -> None:
    done = shell.run("demo", "--kafka", kafka.bootstrap, "--for", "25", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["firing", "resolved"]


@pytest.mark.parametrize("options", [["-o", "terraform"], ["-o", "kafka-topics"], ["--dry-run"]], ids=" ".join)
def test_what_is_for_others_to_apply_creates_nothing(shell: Shell, options: list[str]) -> None:
    done = shell.run("topics", "create", "--config", str(shell.rules), "--sources", "3", *options)
    assert done.returncode == 0, done.stderr
    assert f"{shell.app}.partials" in done.stdout
    assert f"topic {shell.source} does not exist yet; 3 partitions, as --sources says" in done.stderr
    checked = shell.run("topics", "check", "--config", str(shell.rules))
    assert checked.returncode == 1
    # Every one of them, the source first.
    assert len([line for line in checked.stderr.splitlines() if "does not exist" in line]) == 8
