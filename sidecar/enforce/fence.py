"""
The fence as the sidecar holds it: its sockets in the new network namespace, and the one command that runs there.

The listeners are made inside and handed out, so that the sidecar, which stays outside, accepts what comes from inside
and dials from where it is. The namespace has no other way out: a loopback of its own, and not one route.
"""

import asyncio
import json
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from sidecar.enforce.refusals import SYSCTLS, refusal
from sidecar.enforce.syscalls import MACHINES
from sidecar.errors import CannotRun

NO_PROXY = "localhost,127.0.0.1,::1"  # the namespace's own loopback, which has only what the command starts itself
_SECONDS = 20.0  # for the helper to start
_ROOT = Path(__file__).parents[2]
# Isolated: neither the folder that the user is in nor their PYTHON* variables decide what is imported.
_HELPER = (sys.executable, "-I", "-S", "-c")
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from sidecar.enforce.inside import main; main()"


class Fence:
    """
    Namespaces in which one command is going to run.

    Attributes:
        listeners: Listening TCP sockets in there, one for each address that was asked for.
    """

    def __init__(self, helper: subprocess.Popen[bytes], control: socket.socket, listeners: list[socket.socket]) -> None:
        self._helper, self._control = helper, control
        self.listeners = listeners

    @classmethod
    def build(cls, *listen: tuple[str, int]) -> Self:
        """
        Make the namespaces, with sockets that listen on *listen* in there; port 0 lets the system choose.

        Call it before secrets are loaded and threads are started: a helper process is made from this one.

        Raises:
            CannotRun: This system doesn't permit it; the text says what to do.
        """
        if not sys.platform.startswith("linux") or platform.machine() not in MACHINES:
            here = f"{platform.system()} on {platform.machine()}"
            raise CannotRun(
                f"--enforce needs Linux on {', '.join(MACHINES)}, and this is {here}; run it in a container "
                "or virtual machine, or leave --enforce out"
            )
        ours, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), str(os.getpid()), json.dumps(listen)]
        with theirs:
            helper = subprocess.Popen([*_HELPER, _START, str(_ROOT), *arguments], pass_fds=(theirs.fileno(),))
        ours.settimeout(_SECONDS)
        try:
            line, descriptors, _, _ = socket.recv_fds(ours, 4096, len(listen))
            answer = json.loads(line) if line else {}
        except TimeoutError:
            descriptors, answer = [], {}
        if not answer.get("ready"):
            helper.kill()
            helper.wait()
            ours.close()
            if "step" in answer:
                raise CannotRun(refusal(answer["step"], answer["errno"], answer["words"], _sysctls()))
            raise CannotRun("--enforce: the helper process ended before it was ready; its message is above")
        ours.setblocking(False)
        listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for listener in listeners:
            listener.setblocking(False)
        return cls(helper, ours, listeners)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End everything in there."""
        self._helper.kill()
        self._helper.wait()
        self._control.close()
        for listener in self.listeners:
            listener.close()

    async def start(self, program: str, arguments: Sequence[str], variables: Mapping[str, str]) -> "Fenced":
        """
        Start the command in there.

        Raises:
            OSError: *program* can't be run.
        """
        order = {"program": program, "arguments": [program, *arguments], "variables": dict(variables)}
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._control, json.dumps(order).encode() + b"\n")
            line = await loop.sock_recv(self._control, 4096)
        except ConnectionError:
            line = b""
        answer: dict[str, Any] = json.loads(line) if line else {}
        if not answer.get("started"):
            number = answer.get("errno", 0)
            raise OSError(number, os.strerror(number) if number else "the namespace has ended")
        return Fenced(self._helper, self._control)


class Fenced:
    """The command in there, with as much of a process's interface as `sidecar.child` needs."""

    def __init__(self, helper: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._helper, self._control = helper, control

    @property
    def returncode(self) -> int | None:
        return self._helper.returncode

    async def wait(self) -> int:
        """The exit code; 128 + N if signal N ended it, -N if that hit the helper."""
        with suppress(ConnectionError):  # which is the end as well
            await asyncio.get_running_loop().sock_recv(self._control, 1)  # nothing comes but the end
        return self._helper.wait()

    def send_signal(self, number: signal.Signals) -> None:
        self._helper.send_signal(number)

    def kill(self) -> None:
        self._helper.kill()


def _sysctls() -> dict[str, str]:
    values = {name: Path("/proc/sys", name) for name in SYSCTLS}
    return {name: path.read_text().strip() for name, path in values.items() if path.is_file()}
