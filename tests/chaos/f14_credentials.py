"""F14: credentials expire, are revoked and given back, and are rotated, under a running service.

A session that expires is closed by the broker and opened anew. A service whose user is refused goes on when the user
is back; where the password was rotated it has to take the new one from its file, or to end with exit code 4, so that
its next start does.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import TYPE_CHECKING, Any

from support.cluster import broker_module

from chaos.ground import HURRIED, ground, last_line, traffic
from chaos.proxy import Api, Toxic, Way
from chaos.scenario import Outcome, Scenario, Size

if TYPE_CHECKING:
    from pathlib import Path

    from kafka.service import Process

    from chaos.ground import Ground

WHAT = "credentials expire, are revoked and restored, and are rotated"

MECHANISM = "SCRAM-SHA-512"

UNREACHABLE = 4


class User:
    """`app` of a broker, and the file that its password is in."""

    def __init__(self, bootstrap: str, file: Path) -> None:
        self._bootstrap, self.file = bootstrap, file

    async def grant(self, password: str) -> None:
        """Let the broker take this password and no other."""
        await self._alter("--add-config", f"{MECHANISM}=[iterations=4096,password={password}]")

    async def revoke(self) -> None:
        """Let the broker take none."""
        await self._alter("--delete-config", MECHANISM)

    async def _alter(self, *words: str) -> None:
        jars = broker_module().CACHE / "lib"
        command = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", "kafka.admin.ConfigCommand",
                   "--bootstrap-server", self._bootstrap, "--alter", *words,
                   "--entity-type", "users", "--entity-name", "app"]  # fmt: skip
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def settings(self) -> dict[str, Any]:
        """How a process names it."""
        return {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": MECHANISM, "username": "app",
                "password_file": str(self.file)}  # fmt: skip


class Story:
    """What happens to the credentials of one service, and what it costs."""

    def __init__(self, here: Ground, user: User) -> None:
        self.here, self.place, self.user = here, here.place, user
        self.faults = 0
        self.worst = 0.0
        self.notes: list[str] = []
        self.refused = here.proxy.add(Toxic(Way.DOWN, frozenset({Api.SASL_AUTHENTICATE}), when=_is_refusal))

    async def expire(self, process: Process, seconds: float) -> None:
        """Sessions last two seconds (`connections.max.reauth.ms`)."""
        opened = self.here.proxy.passed[Way.DOWN, Api.SASL_HANDSHAKE]
        await asyncio.sleep(seconds)
        expired = self.here.proxy.passed[Way.DOWN, Api.SASL_HANDSHAKE] - opened
        self.notes.append(f"{expired} sessions anew in {seconds:.0f} s")
        self.faults += expired
        self.worst = max(self.worst, await self.place.caught_up("expired", process))

    async def revoke(self, process: Process, seconds: float) -> None:
        """The user is taken away for a while."""
        before = self.refused.hits
        await self.user.revoke()
        self.here.proxy.cut()
        await asyncio.sleep(seconds)
        late = self.place.begin(HURRIED, kafka=self.user.settings)
        await self.place.gone("a start with revoked credentials", late, UNREACHABLE, says="refuses the user 'app'")
        await self.user.grant("first")
        self.faults += self.refused.hits - before
        if process.popen.poll() is None:
            self.worst = max(self.worst, await self.place.caught_up("restored", process))
        elif process.popen.poll() != UNREACHABLE:
            self.place.failures.append(f"revoked: exit {process.popen.poll()}: {last_line(process)}")

    async def rotate(self, process: Process, limit_s: float) -> None:
        """Another password, in the file as well; the connections are made anew."""
        before = self.refused.hits
        await self.user.grant("second")
        self.user.file.write_text("second\n")
        self.here.proxy.cut()
        began = time.monotonic()
        reached = self.place.written // 2
        while process.popen.poll() is None and time.monotonic() - began < limit_s:
            if (await self.place.progress()).get(0, 0) > reached:
                break
            await asyncio.sleep(0.2)
        took = time.monotonic() - began
        self.faults += self.refused.hits - before
        if process.popen.poll() is not None:
            self.notes.append(f"rotated: exit {process.popen.poll()} after {took:.1f} s")
            if process.popen.poll() != UNREACHABLE or "password" not in process.output():
                self.place.failures.append(f"rotated: exit {process.popen.poll()}: {last_line(process)}")
        elif took >= limit_s:
            self.place.failures.append(
                f"rotated: {limit_s:.0f} s later it neither uses the new password nor has it ended"
            )
            process.popen.kill()
            process.popen.wait()


def _is_refusal(frame: Any) -> bool:
    """An answer to SaslAuthenticate: correlation id, error code."""
    return bytes(frame.body[4:6]) != b"\0\0"


async def run(folder: Path, size: Size) -> Outcome:
    """All three, one after the other."""
    broker = {
        "sasl.enabled.mechanisms": MECHANISM,
        "connections.max.reauth.ms": "2000",
        "listener.name.proxied.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }
    async with ground(folder, protocol="SASL_PLAINTEXT", broker=broker) as here:
        place = here.place
        file = folder / "password"
        file.write_text("first\n")
        user = User(place.bootstrap, file)
        await user.grant("first")
        story = Story(here, user)
        process = place.begin(HURRIED, kafka=user.settings)
        async with traffic(place):
            await place.caught_up("start", process)
            await story.expire(process, 30.0 if size.is_full else 3.0)
            await story.revoke(process, 30.0 if size.is_full else 3.0)
            if process.popen.poll() is not None:
                process = place.begin(HURRIED, kafka=user.settings)
            await story.rotate(process, 120.0 if size.is_full else 15.0)
            if process.popen.poll() is not None:
                process = place.begin(HURRIED, kafka=user.settings)
            story.worst = max(story.worst, await place.caught_up("rotated", process))
        return await place.verdict(
            "F14", WHAT, process, runs=3, faults=story.faults, recovery_s=story.worst, notes="; ".join(story.notes)
        )


SCENARIOS = (Scenario("F14", WHAT, run),)
