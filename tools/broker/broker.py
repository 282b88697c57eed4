"""A Kafka broker of one process, for development and tests. Needs Java 17 and Maven; nothing of Python's but itself.

    python tools/broker/broker.py run [--port 9092]

The jars come from Maven Central once, into `.cache/kafka` of the checkout. Nothing is kept between two runs.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "kafka"
IMAGE = "apache/kafka:4.1.0"
LEAN = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
START_S = 60.0
STOP_S = 30.0
_PR_SET_PDEATHSIG = 1


class BrokerError(Exception):
    """The broker cannot be had. The message says what to do."""


def java() -> str | None:
    """Why Java and Maven cannot run a broker here; None when they can."""
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not found; install Java 17 and Maven" if missing else None


class Broker:
    """One broker on its own ports and data. `stop` and `start` keep both, so that a restart is one."""

    def __init__(self, port: int | None = None, extra: Mapping[str, str] | None = None) -> None:
        self.port = port or _free_port()
        self._controller_port = _free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="kafka-"))
        self._extra = dict(extra or {})
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @property
    def bootstrap(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process, while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Broker:
        """Start, with the data of the last run if there was one; returns when it answers."""
        jars = _jars()
        properties = self._folder / "server.properties"
        if not properties.exists():
            properties.write_text(self._properties())
            shutil.copytree(_formatted(jars), self._folder / "data")
        with (self._folder / "kafka.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["java", *LEAN, "-cp", f"{jars}/*", "kafka.Kafka", str(properties)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip
        self._wait()
        return self

    def stop(self) -> None:
        """End it in an orderly way (SIGTERM)."""
        self._signal(signal.SIGTERM)
        self._reap()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._signal(signal.SIGKILL)
        self._reap()

    def move(self, port: int) -> None:
        """Start it again with its data at another port, as in a cluster whose machines all got other addresses."""
        self.stop()
        properties = self._folder / "server.properties"
        properties.write_text(properties.read_text().replace(f":{self.port}", f":{port}"))
        self.port = port
        self.start()

    def freeze(self) -> None:
        """Let it hang: connections stay, nothing answers. Returns when it does."""
        self._signal(signal.SIGSTOP)
        state = Path(f"/proc/{self.pid}/stat")
        while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its data."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        atexit.unregister(self.close)

    def wait(self) -> int:
        """Wait until it ends by itself."""
        assert self._process is not None
        return self._process.wait()

    def _properties(self) -> str:
        text = (HERE / "server.properties").read_text()
        # The last one counts where a name comes twice.
        text += "".join(f"{name}={value}\n" for name, value in self._extra.items())
        return text.format(port=self.port, controller_port=self._controller_port, data=self._folder / "data")

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _reap(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                lines = (self._folder / "kafka.log").read_text(errors="replace").splitlines()
                message = f"the broker ended at its start; the last lines of its log:\n{os.linesep.join(lines[-15:])}"
                raise BrokerError(message)
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.5).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        message = f"the broker did not open its port within {START_S:.0f} s; see {self._folder / 'kafka.log'}"
        raise BrokerError(message)


def _die_with_parent() -> None:
    """A broker must not outlive whoever started it, not even after kill -9 (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _once(what: str) -> Iterator[None]:
    """Only one process at a time prepares `what`; the others find it done."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _jars() -> Path:
    """The folder with the broker's jars, filled at the first use."""
    ready = CACHE / "lib"
    with _once("lib"):
        if not ready.exists():
            if (reason := java()) is not None:
                raise BrokerError(reason)
            fresh = CACHE / "lib.fresh"
            shutil.rmtree(fresh, ignore_errors=True)
            _run(["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies",
                  f"-DoutputDirectory={fresh}"], "Maven could not fetch the broker")  # fmt: skip
            fresh.rename(ready)
    return ready


def _formatted(jars: Path) -> Path:
    """A formatted, empty data folder to be copied: formatting takes longer than the rest of a start."""
    ready = CACHE / "formatted"
    with _once("formatted"):
        if not ready.exists():
            with tempfile.TemporaryDirectory() as scratch:
                data, properties = Path(scratch) / "data", Path(scratch) / "server.properties"
                text = (HERE / "server.properties").read_text()
                properties.write_text(text.format(port=1, controller_port=2, data=data))
                cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
                _run(["java", *LEAN, "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format", "-t", cluster,
                      "-c", str(properties)], "the broker's data could not be formatted")  # fmt: skip
                fresh = CACHE / "formatted.fresh"
                shutil.rmtree(fresh, ignore_errors=True)
                shutil.copytree(data, fresh)
                fresh.rename(ready)
    return ready


def _run(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        message = f"{failure}:\n{last}"
        raise BrokerError(message)


def main() -> int:
    """Run one in the foreground."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run a broker until Ctrl-C")
    run.add_argument("--port", type=int, default=9092)
    port = parser.parse_args().port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            sys.stderr.write(
                f"port {port} is in use, perhaps by a broker already; make kafka PORT=9093 takes another\n"
            )
            return 1
    if java() is not None and shutil.which("docker"):
        return subprocess.run(_docker(port), check=False).returncode
    try:
        broker = Broker(port).start()
    except BrokerError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"a broker runs at {broker.bootstrap}; Ctrl-C ends it and its data\n")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return broker.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        broker.close()


def _docker(port: int) -> list[str]:
    """The same with the official image, where there is no Java."""
    listeners = {
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_NODE_ID": "1",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    variables = [part for name, value in listeners.items() for part in ("-e", f"{name}={value}")]
    return ["docker", "run", "--rm", "-p", f"127.0.0.1:{port}:9092", *variables, IMAGE]


if __name__ == "__main__":
    sys.exit(main())
