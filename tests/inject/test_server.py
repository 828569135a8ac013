"""What goes on around the reviews."""

import asyncio
from typing import Any, cast

import pytest

from sidecar.inject import server


class Failing:
    """A certificate, or a configuration, whose first look fails as nobody expected."""

    def __init__(self) -> None:
        self.looks = 0
        self.again = asyncio.Event()

    def reload(self) -> bool:
        self.looks += 1
        if self.looks == 1:
            raise ZeroDivisionError
        self.again.set()
        return False


def test_a_look_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(server, "_LOOK_SECONDS", 0.001)

    async def scene() -> None:
        failing = cast(Any, Failing())
        looking = asyncio.create_task(server._look(server.Webhooks(failing, failing)))
        await asyncio.wait_for(failing.again.wait(), 30)
        looking.cancel()

    asyncio.run(scene())

    assert "ZeroDivisionError" in caplog.text
