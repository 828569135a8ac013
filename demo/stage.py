"""The folder that the demo plays in: starts commands there, follows the events file, clears everything away."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo import client

type Line = dict[str, Any]

SECONDS = 20.0  # for anything to happen; far more than it takes, so that a slow machine is no failure


class DemoFailed(Exception):
    """Something isn't as the demo says: the text is one clear message."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: exit code, standard output and standard error."""

    code: int
    stdout: str
    stderr: str


@dataclass(slots=True)
class Stage:
    """
    A folder of its own under the system's temporary one; commands run in it, so their paths are short.

    Attributes:
        variables: The environment of the clients; the caller adds the workload's proxy and trust variables.
        client: How a client's command begins: curl, or Python with ``client.py``.
    """

    folder: Path
    client: tuple[str, ...]
    variables: dict[str, str]
    _running: list[subprocess.Popen[str]] = field(default_factory=list)
    _read: dict[str, int] = field(default_factory=dict)

    def start(self, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start a command in the folder; it is ended with the stage at the latest."""
        process = subprocess.Popen(
            argv, cwd=self.folder, env=dict(variables or self.variables), text=True, encoding="utf-8",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str]) -> Outcome:
        """Wait for a command's end."""
        try:
            stdout, stderr = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{process.args!r} hasn't ended within {SECONDS:.0f} s") from None
        self._running.remove(process)
        return Outcome(process.returncode, stdout, stderr)

    def run(self, argv: Sequence[str], variables: Mapping[str, str] | None = None) -> Outcome:
        """Run a command to its end."""
        return self.finish(self.start(argv, variables))

    def new_events(self, file: str) -> list[Line]:
        """The event lines that have been added to *file* since they were last asked for."""
        path = self.folder / file
        if not path.exists():
            return []
        with path.open("rb") as stream:
            stream.seek(self._read.get(file, 0))
            added = stream.read()
        whole = added[: added.rfind(b"\n") + 1]  # the last line may not be complete yet
        self._read[file] = self._read.get(file, 0) + len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def events(self, file: str, until: str, count: int = 1) -> list[Line]:
        """New lines of *file*: waits until there are *count*, the last of them being of kind *until*."""
        seen: list[Line] = []
        deadline = time.monotonic() + SECONDS
        while True:
            seen += self.new_events(file)
            if len(seen) >= count and seen[-1]["event"] == until:
                return seen
            for process in self._running:
                if process.poll() not in (None, 0):
                    raise DemoFailed(f"{process.args!r} has ended: {process.communicate()[1].strip()}")
            if time.monotonic() > deadline:
                kinds = ", ".join(line["event"] for line in seen) or "none"
                raise DemoFailed(f"{file} should have {count} new lines, the last of them {until}; it has {kinds}")
            time.sleep(0.01)

    def end(self) -> None:
        """End what still runs; remove the folder."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def staged(which: str) -> Iterator[Stage]:
    """A stage in a new folder, which is removed in the end; *which* client: ``auto``, ``curl`` or ``python``."""
    if which == "curl" and shutil.which("curl") is None:
        raise DemoFailed("there is no curl on the PATH; install it, or take --client python")
    curl = which == "curl" or (which == "auto" and shutil.which("curl") is not None)
    program = ("curl",) if curl else (sys.executable, client.__file__)
    folder = Path(tempfile.mkdtemp(prefix="egress-demo-"))
    # No setting of the user's may lead a client elsewhere, and no command leaves a file elsewhere.
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EGRESS_", "CURL_")) and not name.lower().endswith("_proxy")
    }
    variables |= dict.fromkeys(("HOME", "CURL_HOME", "XDG_CONFIG_HOME", "TMPDIR"), str(folder))
    stage = Stage(folder, program, variables | {"COLUMNS": "92", "PYTHONIOENCODING": "utf-8"})
    try:
        yield stage
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # nothing may end the clearing away
        stage.end()
