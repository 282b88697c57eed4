"""A rotated password ends the process once the brokers take it, and not before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from evaluator.runtime.clock import VirtualClock, run_virtual
from evaluator.runtime.log.port import KafkaUnreachable
from evaluator.runtime.rotation import LOOK_EVERY_S, PasswordRotated, watch_password
from evaluator.runtime.settings import KafkaSettings

if TYPE_CHECKING:
    from pathlib import Path


def watched(file: Path, changes: dict[int, str | None], taken: set[str]) -> int:
    """After how many looks it ends; `changes` are what the file holds from a look on, None for no file at all."""

    async def main() -> int:
        clock = VirtualClock(asyncio.get_running_loop())
        kafka = KafkaSettings(
            security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", username="app", password_file=file
        )

        async def probe() -> None:
            if file.read_text() not in taken:
                message = "refuses the user"
                raise KafkaUnreachable(message)

        watching = asyncio.ensure_future(watch_password(kafka, probe, clock))
        await clock.sleep(LOOK_EVERY_S / 2)
        for look in range(10):
            if look in changes:
                content = changes[look]
                if content is None:
                    file.unlink()
                else:
                    file.write_text(content)
            await clock.sleep(LOOK_EVERY_S)
            if watching.done():
                with pytest.raises(PasswordRotated, match="was rotated, and the brokers take the new one"):
                    watching.result()
                return look
        watching.cancel()
        return -1

    file.write_text("one")
    return run_virtual(main())


def test_as_long_as_the_file_holds_the_same_nothing_happens(tmp_path: Path) -> None:
    assert watched(tmp_path / "password", {3: "one"}, {"one"}) == -1


def test_a_password_that_the_brokers_take_ends_the_process(tmp_path: Path) -> None:
    assert watched(tmp_path / "password", {3: "two"}, {"two"}) == 3


def test_one_that_they_do_not_take_yet_is_waited_for(tmp_path: Path) -> None:
    assert watched(tmp_path / "password", {2: "two", 3: None, 5: "three"}, {"one", "three"}) == 5
