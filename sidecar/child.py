"""The command that `sidecar exec` runs: its environment, its signals, its exit code."""

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from sidecar.trust.env import JAVA, env_variables, java_proxy_options, with_java_options

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


class Process(Protocol):
    """As much of `asyncio.subprocess.Process` as is used here."""

    @property
    def returncode(self) -> int | None: ...
    async def wait(self) -> int: ...
    def send_signal(self, number: signal.Signals, /) -> None: ...
    def kill(self) -> None: ...


class Place(Protocol):
    """Where a command runs: here, or behind `sidecar.enforce.fence.Fence`."""

    async def start(self, program: str, arguments: Sequence[str], variables: Mapping[str, str]) -> Process: ...


class Here:
    """Among the user's other processes."""

    async def start(self, program: str, arguments: Sequence[str], variables: Mapping[str, str]) -> Process:
        return await asyncio.create_subprocess_exec(program, *arguments, env=dict(variables))


def environment(trust: Path, proxy: str, base: Mapping[str, str] = os.environ, *, no_proxy: str = "") -> dict[str, str]:
    """
    *base* with proxy and trust variables: both spellings, since programs differ in which they read.

    ``NO_PROXY`` is replaced: an exception in the user's own environment would lead past the sidecar. Java reads none of
    them but its options, which are appended to.
    """
    variables = dict(base) | env_variables(trust, java=base.get(JAVA, ""))
    variables[JAVA] = with_java_options(variables[JAVA], java_proxy_options(proxy, no_proxy))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY"):
        variables[name] = variables[name.lower()] = proxy
    for name in ("NO_PROXY", "no_proxy"):
        variables[name] = no_proxy
    variables["NODE_USE_ENV_PROXY"] = "1"  # Node 22.21 and later: fetch and https honour the variables
    return variables


class Child:
    """
    One command, run to its end.

    Attributes:
        exit_code: The command's own; 128 + N if signal N ended it, as shells say.
        error: Why it couldn't be started, else None.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], place: Place | None = None) -> None:
        self._command, self._variables, self._place = list(command), dict(variables), place or Here()
        self.exit_code = 1
        self.error: str | None = None

    async def run(self) -> None:
        """Start it, pass on signals, wait for its end. Cancelled: end it first."""
        program = shutil.which(self._command[0], path=self._variables.get("PATH"))
        if program is None:
            self.error = f"{self._command[0]!r} isn't a program on the PATH; write the command after --"
            return
        loop, early = asyncio.get_running_loop(), list[signal.Signals]()
        for number in _FORWARDED:
            loop.add_signal_handler(number, early.append, number)  # it may run before we are told that it does
        try:
            process = await self._place.start(program, self._command[1:], self._variables)
        except OSError as e:
            self.error = f"{program}: can't be run: {e.strerror}"
            return
        for number in _FORWARDED:
            # Of a Ctrl-C the terminal has told the command already; a second one would end its clean-up.
            loop.add_signal_handler(number, _forward, process, number)
        for number in early:
            _forward(process, number)
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        self.exit_code = code if code >= 0 else 128 - code


def _forward(process: Process, number: signal.Signals) -> None:
    from_terminal = number in (signal.SIGINT, signal.SIGQUIT) and os.isatty(0)
    if process.returncode is None and not from_terminal:
        process.send_signal(number)
