"""Starts the sidecar as its users do, as a process, and reads its events."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator

from sidecar.bootstrap import Order, bootstrap
from sidecar.events.schema import event_schema

type Line = dict[str, Any]

REQUEST_ENDS: Final = ("request_closed", "request_denied", "request_failed")
CONNECTION_ENDS: Final = ("connection_closed", "connection_denied", "tls_handshake_failed")

SECONDS = 60.0  # for anything to happen; far more than it takes, so that a slow machine is no failure


def until[T](look: Callable[[], T | None], what: str) -> T:
    """Look again and again until there is something to see; fail with *what* was expected."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(0.01)
    raise AssertionError(f"within {SECONDS:.0f} s: no {what}")


class Sidecar:
    """A running sidecar: its proxy's address, its trust folder, its events."""

    def __init__(self, process: subprocess.Popen[bytes], events: Path, trust: Path, stderr: Path) -> None:
        self.process, self.trust, self._events, self._stderr = process, trust, events, stderr
        self.listen = self.event("session_started")["listen"][0]

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def proxy(self) -> str:
        return f"http://{self.listen}"

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def events(self, name: str | None = None, **fields: object) -> list[Line]:
        """The lines so far, of one kind and with these fields."""
        text = self._events.read_bytes() if self._events.exists() else b""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]
        return [
            line
            for line in lines
            if (name is None or line["event"] == name) and all(line.get(k) == v for k, v in fields.items())
        ]

    def event(self, name: str, **fields: object) -> Line:
        """The first such line; waits for it."""

        def look() -> Line | None:
            if self.process.poll() is not None and not self.events(name, **fields):
                raise AssertionError(f"the sidecar has ended with {self.process.returncode}: {self.stderr}")
            found = self.events(name, **fields)
            return found[0] if found else None

        try:
            return until(look, f"{name} {fields}")
        except AssertionError as e:
            raise AssertionError(f"{e}; events: {self.events()}; log: {self.stderr}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and wait for that."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def rss(self) -> int:
        """Resident memory, bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def peak_rss(self) -> int:
        """Peak of resident memory so far, bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")


def make_trust(folder: Path, name: str = "test-session") -> tuple[Path, Path]:
    """A session CA and its trust folder, as ``sidecar bootstrap`` makes them."""
    ca, trust = folder / "ca", folder / "trust"
    bootstrap(Order(common_name=name, ca_dir=ca, trust_dir=trust), datetime.now(UTC))
    return ca, trust


_VALIDATOR: Final = Draft202012Validator(event_schema())


def check_lines(lines: Sequence[Line]) -> None:
    """
    What holds for every event log from its first line to its last.

    Each line is valid by the schema; ``seq`` has no gap; what was opened was closed by exactly one record, after which
    nothing more is said of it; every connection of the summary has left a trace.
    """
    for line in lines:
        _VALIDATOR.validate(line)
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    assert [line["event"] for line in lines if line["event"].startswith("session_")] == [
        "session_started",
        "session_ended",
    ], "a session is started once and ended once"
    assert lines[-1]["event"] == "session_ended"
    if any(line["event"] == "events_dropped" for line in lines):
        return

    requests: dict[str, list[str]] = {}
    connections: dict[str, list[Line]] = {}
    for line in lines:
        if line["event"].startswith("request_"):
            requests.setdefault(line["request_id"], []).append(line["event"])
        if line.get("connection_id"):
            connections.setdefault(line["connection_id"], []).append(line)
    for request, names in requests.items():
        ends = [name for name in names if name in REQUEST_ENDS]
        assert len(ends) == 1, f"request {request}: {names}"
        assert names[-1] == ends[0], f"request {request}: {names}"
    for connection, records in connections.items():
        ended = [
            line["event"]
            for line in records
            if line["event"] in CONNECTION_ENDS and line.get("side", "client") == "client"
        ]
        has_requests = any(line["event"].startswith("request_") for line in records)
        assert len(ended) == (0 if has_requests else 1), f"connection {connection}: {records}"

    count, summary = Counter(line["event"] for line in lines), lines[-1]["summary"]
    assert summary["connections"] == len(connections)
    assert summary["requests_allowed"] == count["request_allowed"]
    assert summary["requests_denied"] == count["request_denied"]
    assert summary["requests_failed"] == count["request_failed"]
    assert summary["handshakes_failed"] == count["tls_handshake_failed"]
    assert summary["events_dropped"] == 0


@contextmanager
def running(
    folder: Path,
    policy: str,
    *arguments: str,
    command: list[str] | None = None,
    make: Callable[[Path], tuple[Path, Path]] = make_trust,
) -> Iterator[Sidecar]:
    """Run the sidecar with this policy text on a free loopback port; ends it, checks how, and its events."""
    folder.mkdir(exist_ok=True)
    ca, trust = make(folder)
    (folder / "policy.yaml").write_text(policy)
    events, stderr = folder / "events.jsonl", folder / "stderr.txt"
    default = [sys.executable, "-m", "sidecar", "run", "--listen", "127.0.0.1:0", "--ca-dir", str(ca)]
    default += ["--policy", str(folder / "policy.yaml"), "--events", str(events), "--drain-seconds", "1", *arguments]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("EGRESS_")}
    with stderr.open("wb") as log:
        process = subprocess.Popen(command or default, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=variables)
    try:
        sidecar = Sidecar(process, events, trust, stderr)
        yield sidecar
        sidecar.stop()
        assert process.returncode == 0, sidecar.stderr
        assert "Traceback" not in sidecar.stderr, sidecar.stderr
        check_lines(sidecar.events())
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
