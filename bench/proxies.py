"""The contestants: each starts fresh, on a CPU of its own, with all that it writes in a folder that is thrown away."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from bench.names import DOMAIN, KNOWN, contacts
from bench.processes import BenchError, on_cpu, stop
from bench.upstream import Upstream, free_port, wait_for
from sidecar.bootstrap import Order, bootstrap

RULES = 100


class Contestant(StrEnum):
    MITMDUMP = "mitmdump"
    SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running one. ``events`` is where the sidecar writes what it did."""

    pid: int
    port: int
    ca_file: Path
    log: Path
    events: Path | None = None

    def error(self, text: str) -> BenchError:
        """What went wrong with it, and the end of what it has written itself."""
        return BenchError(f"{text}\n{self.log.read_text()[-2000:]}".rstrip())

    def check_events(self, operations: int) -> None:
        """
        Compare what was recorded with what was asked for.

        Raises:
            BenchError: They differ: a sidecar that forgets is fast for the wrong reason.
        """
        if self.events is None:
            return
        closed = self.events.read_bytes().count(b'"event":"request_closed"')
        if closed != operations:
            raise self.error(f"the sidecar answered {operations} requests and recorded the end of {closed}")


@contextmanager
def running(
    contestant: Contestant, folder: Path, upstream: Upstream, cpu: int | None, *, profile: Path | None = None
) -> Iterator[Proxy]:
    """Start it and wait until it listens; *profile* is where a sidecar writes its profile when it's told to."""
    folder.mkdir()
    port = free_port()
    if contestant is Contestant.SIDECAR:
        command, ca_file = _sidecar(folder, upstream, port, profile)
        events: Path | None = folder / "events.jsonl"
    else:
        command, ca_file = _mitmdump(folder, upstream, port)
        events = None
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EGRESS_")}
    log = folder / "log.txt"
    with log.open("w") as output, on_cpu(cpu):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, env=environment
        )
    proxy = Proxy(process.pid, port, ca_file, log, events)
    try:
        try:
            wait_for(port, process)
        except BenchError as e:
            raise proxy.error(f"{contestant}: {e}") from None
        yield proxy
    finally:
        stop(process)


def _mitmdump(folder: Path, upstream: Upstream, port: int) -> tuple[list[str], Path]:
    options = ["flow_detail=0", f"confdir={folder}", f"ssl_verify_upstream_trusted_ca={upstream.root}"]
    command = [sys.executable, "-m", "bench.mitmdump", "--quiet", "--listen-host", "127.0.0.1"]
    command += ["--listen-port", str(port), *(part for option in options for part in ("--set", option))]
    return command, folder / "mitmproxy-ca-cert.pem"


def _sidecar(folder: Path, upstream: Upstream, port: int, profile: Path | None) -> tuple[list[str], Path]:
    ca = folder / "ca"
    bootstrap(Order(common_name="bench", ca_dir=ca, trust_dir=folder / "trust"), datetime.now(UTC))
    (folder / "policy.yaml").write_text(policy(upstream.port))
    program = ["sidecar"] if profile is None else ["bench.profiled", str(profile)]
    command = [sys.executable, "-m", *program, "run", "--listen", f"127.0.0.1:{port}", "--ca-dir", str(ca)]
    command += ["--policy", str(folder / "policy.yaml"), "--upstream-ca", str(upstream.root)]
    command += ["--events", str(folder / "events.jsonl"), "--drain-seconds", "1"]
    for name in (KNOWN, *contacts()):
        command += ["--resolve", f"{name}:127.0.0.1"]
    return command, ca / "ca.pem"


def policy(port: int) -> str:
    """A policy as people write them, of `RULES` rules; the last is the one that lets the load through."""
    lines = ["version: 1", "default: deny", "network: {allow_addresses: [127.0.0.0/8]}", "rules:"]
    for number in range((RULES - 1) // 3):
        lines += [
            f"  - {{name: service-{number}, allow: [api{number}.example.com, '*.svc{number}.example.com']}}",
            f"  - {{name: read-{number}, allow: [git{number}.example.org], methods: [GET], paths: ['/repos/**']}}",
            f"  - {{name: internal-{number}, deny: ['**.internal{number}.example.net']}}",
        ]
    lines += [f"  - {{name: load, allow: ['*.{DOMAIN}'], ports: [{port}], methods: [GET, HEAD], paths: ['/**']}}"]
    return "\n".join(lines) + "\n"
