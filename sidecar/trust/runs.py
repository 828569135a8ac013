"""Runs clients: so many at once, each for so long, each with so much to say."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sidecar.trust.outcomes import Said

_MOST_BYTES = 256 << 10  # of what a client says; a program in a workload's container may be anything


class Runner:
    """
    Runs programs in one environment.

    Args:
        environment: The workload's, as it is.
        folder: An empty one, to work in.
        seconds: After which a program is killed, with all that it has started.
        at_once: How many run at the same time.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path, seconds: float, at_once: int) -> None:
        self._environment, self._folder, self._seconds = environment, folder, seconds
        self._turns = asyncio.Semaphore(at_once)

    async def run(self, command: Sequence[str], **settings: str) -> Said:
        """Run *command* and hear what it says; *settings* are added to its environment."""
        async with self._turns:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    env={**self._environment, **settings},
                    cwd=self._folder,
                    start_new_session=True,
                )
            except OSError as e:
                return Said(code=126, text=f"{command[0]} can't be run: {e.strerror}")
            heard = bytearray()
            try:
                async with asyncio.timeout(self._seconds):
                    assert process.stdout is not None
                    while len(heard) < _MOST_BYTES and (part := await process.stdout.read(_MOST_BYTES - len(heard))):
                        heard += part
                    code = await process.wait() if len(heard) < _MOST_BYTES else None
            except TimeoutError:
                code = None
            finally:
                with suppress(ProcessLookupError):  # also what it has left behind: a browser has many children
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            return Said(code=code, text=heard.decode(errors="replace"))
