"""What is slow to write out is shared by those who ask at about the same time."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from evaluator.runtime.web.reused import LONGEST_S, Reused

if TYPE_CHECKING:
    from collections.abc import Callable


class Slow:
    """Counts how often it was looked at; each copy is done when it is let go."""

    def __init__(self) -> None:
        self.looks = 0
        self.gone_on = threading.Event()

    def look(self) -> Callable[[], int]:
        self.looks += 1
        seen = self.looks

        def make() -> int:
            self.gone_on.wait()
            return seen

        return make


class LoopWithTime(asyncio.SelectorEventLoop):
    """A loop whose time is moved by hand."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def run(seconds: float, pauses: list[float]) -> list[int]:
    """Which look each of three who ask at once is given, of a copy that takes `seconds`; then one after each pause."""
    loop = LoopWithTime()

    async def main() -> list[int]:
        slow, reused = Slow(), Reused[int]()
        asking = [asyncio.create_task(reused.get("text", slow.look)) for _ in range(3)]
        await asyncio.sleep(0)
        asking[0].cancel()
        loop.ahead += seconds
        slow.gone_on.set()
        found = list(await asyncio.gather(*asking[1:]))
        for pause in pauses:
            loop.ahead += pause
            found.append(await reused.get("text", slow.look))
        return found

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


@pytest.mark.parametrize(
    ("seconds", "pauses", "looks"),
    [
        pytest.param(0.5, [0.25], [1, 1, 1], id="as_long_as_it_took"),
        pytest.param(0.5, [0.75], [1, 1, 2], id="no_longer"),
        pytest.param(30, [LONGEST_S / 2], [1, 1, 1], id="what_takes_very_long"),
        pytest.param(30, [LONGEST_S * 1.5], [1, 1, 2], id="is_old_after_a_second"),
    ],
)
def test_a_copy_is_given_out_for_as_long_as_it_took_to_make(
    seconds: float, pauses: list[float], looks: list[int]
) -> None:
    assert run(seconds, pauses) == looks


def test_kinds_are_apart() -> None:
    async def main() -> list[int]:
        slow, reused = Slow(), Reused[int]()
        asking = [asyncio.create_task(reused.get(kind, slow.look)) for kind in ("text", "open", "text", "open")]
        await asyncio.sleep(0)
        slow.gone_on.set()
        return await asyncio.gather(*asking)

    assert asyncio.run(main()) == [1, 2, 1, 2]


def test_what_cannot_be_made_is_told_to_all_who_asked() -> None:
    def look() -> Callable[[], int]:
        def make() -> int:
            message = "no"
            raise ValueError(message)

        return make

    async def main() -> list[BaseException | int]:
        reused = Reused[int]()
        return await asyncio.gather(*(reused.get("text", look) for _ in range(2)), return_exceptions=True)

    assert [str(error) for error in asyncio.run(main())] == ["no", "no"]
