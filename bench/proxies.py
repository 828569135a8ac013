"""The contestants: each starts fresh, on a CPU of its own, with all that it writes in a folder that is thrown away."""

import compileall
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import addons
import sidecar
from bench import squid
from bench.names import DENIED, DOMAIN, KNOWN, PASSED, contacts
from bench.processes import PATIENCE_SECONDS, BenchError, on_cpu, stop
from bench.rows import Row
from bench.upstream import Upstream, free_port, wait_for
from sidecar.bootstrap import Order, bootstrap

RULES = 100


class Contestant(StrEnum):
    """In the table's order. What is compared with all is the last."""

    DIRECT = "direct"
    MITMDUMP = "mitmdump"
    STREAMING = "mitmdump, streaming"
    SQUID = "squid"
    PROXY_PY = "proxy.py"
    SIDECAR = "sidecar"


class Variant(StrEnum):
    """A sidecar with something turned off, for the rows that say so."""

    BARE = "sidecar-bare"  # no events, no metrics
    UNPOOLED = "sidecar-unpooled"


type Program = Contestant | Variant

VARIANTS: dict[Row, Program] = {Row.BARE: Variant.BARE, Row.UNPOOLED: Variant.UNPOOLED}

# What can't be asked of whom; bench/README.md says why.
CANNOT = {
    Contestant.DIRECT: {Row.FIRST_CONTACT, Row.PASSTHROUGH, Row.DENIED, Row.TRANSPARENT},
    Contestant.STREAMING: {Row.TRANSPARENT},
    Contestant.SQUID: {Row.HTTP2, Row.DENIED, Row.TRANSPARENT},
    Contestant.PROXY_PY: {
        Row.TRANSPARENT,
        *(Row.DOWNLOAD, Row.UPLOAD, Row.FIRST_BYTE, Row.PEAK_RSS),
        *(Row.HTTP2, Row.WEBSOCKET, Row.PASSTHROUGH, Row.DENIED),
    },
}


def takes_part(contestant: Contestant, row: Row) -> bool:
    if row in VARIANTS:
        return contestant is Contestant.SIDECAR
    return row not in CANNOT.get(contestant, set())


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running one. ``events`` is where the sidecar writes what it did."""

    name: str
    pid: int | None  # None: there is no proxy
    port: int
    ca_file: Path
    log: Path
    events: Path | None = None
    started: float = 0.0  # perf_counter's

    def error(self, text: str) -> BenchError:
        """What went wrong with it, and the end of what it has written itself."""
        said = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        return BenchError(f"{text}\n{said}".rstrip())

    def check_events(self, requests: int) -> None:
        """
        Compare what was recorded with what was asked for.

        Raises:
            BenchError: They differ: a sidecar that forgets is fast for the wrong reason.
        """
        if self.events is None:
            return
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (ended := count_ended(self.events.read_bytes())) != requests:
            if time.monotonic() > deadline:
                raise self.error(f"the sidecar answered {requests} requests and recorded the end of {ended}")
            time.sleep(0.05)


def compile_sidecar() -> None:
    """Once, as pip does with an installed package, such as all of the peers': no user's start includes it."""
    for package in (sidecar, addons):
        for folder in package.__path__:
            compileall.compile_dir(folder, quiet=1)


def count_ended(events: bytes) -> int:
    """Requests that were closed or denied, in the text of the events; a failed one isn't the benchmark's."""
    return events.count(b'"event":"request_closed"') + events.count(b'"event":"request_denied"')


@contextmanager
def running(
    program: Program,
    folder: Path,
    upstream: Upstream,
    cpu: int | None,
    *,
    number: int = 0,
    profile: Path | None = None,
    options: Sequence[str] = (),
) -> Iterator[Proxy]:
    """
    Start it and wait until it listens.

    Args:
        profile: Where a sidecar writes its profile when it's told to.
        options: More of a sidecar's, which override what it gets otherwise.
    """
    if program is Contestant.DIRECT:
        yield Proxy(program, None, 0, upstream.root, folder)
        return
    folder.mkdir()
    folder.chmod(0o755)
    port, events = free_port(), None
    if isinstance(program, Variant) or program is Contestant.SIDECAR:
        command, ca_file = sidecar_command(folder, upstream, f"127.0.0.1:{port}", number, profile)
        command += [*_variant(program), *options]
        events = None if program is Variant.BARE else folder / "events.jsonl"
    elif program is Contestant.SQUID:
        ca_file = _ca(folder) / "ca.pem"
        command = squid.command(folder, upstream, port, ca_file.parent, number)
    elif program is Contestant.PROXY_PY:
        command, ca_file = _proxy_py(folder, upstream, port)
    else:
        command, ca_file = mitmdump_command(folder, upstream, port)
        if program is Contestant.STREAMING:
            command += ["--set", "stream_large_bodies=1"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EGRESS_")}
    log = folder / "log.txt"
    started = time.perf_counter()
    with log.open("w") as output, on_cpu(cpu):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, env=environment
        )
    proxy = Proxy(program, process.pid, port, ca_file, log, events, started)
    try:
        try:
            wait_for(port, process, pause=0.002)
        except BenchError as e:
            raise proxy.error(f"{program}: {e}") from None
        yield proxy
    finally:
        stop(process)


def mitmdump_command(folder: Path, upstream: Upstream, port: int) -> tuple[list[str], Path]:
    """Its CA lies there already: making an RSA key is no part of a start."""
    from mitmproxy.certs import CertStore  # imports much that a contestant's process has itself

    CertStore.from_store(folder, "mitmproxy", 2048)
    options = ["flow_detail=0", f"confdir={folder}", f"ssl_verify_upstream_trusted_ca={upstream.root}"]
    options += [f"ignore_hosts=^{PASSED}:", f"block_list=|~u {DENIED}$|403"]
    command = [sys.executable, "-m", "bench.shims", "mitmdump", "--quiet", "--listen-host", "127.0.0.1"]
    command += ["--listen-port", str(port), *(part for option in options for part in ("--set", option))]
    return command, folder / "mitmproxy-ca-cert.pem"


def _proxy_py(folder: Path, upstream: Upstream, port: int) -> tuple[list[str], Path]:
    ca = _ca(folder)
    certificates = folder / "certificates"
    certificates.mkdir()
    command = [sys.executable, "-m", "bench.shims", "proxy", "--hostname", "127.0.0.1", "--port", str(port)]
    command += ["--num-workers", "1", "--num-acceptors", "1", "--log-level", "ERROR", "--timeout", "600"]
    command += ["--ca-cert-file", str(ca / "ca.pem"), "--ca-key-file", str(ca / "ca-key.pem")]
    command += ["--ca-signing-key-file", str(ca / "ca-key.pem"), "--ca-cert-dir", str(certificates)]
    command += ["--ca-file", str(upstream.root), "--data-dir", str(folder)]
    return command, ca / "ca.pem"


def sidecar_command(
    folder: Path, upstream: Upstream, listen: str, number: int = 0, profile: Path | None = None
) -> tuple[list[str], Path]:
    ca = _ca(folder)
    (folder / "policy.yaml").write_text(policy(upstream.port, upstream.live_port))
    program = ["sidecar"] if profile is None else ["bench.profiled", str(profile)]
    command = [sys.executable, "-m", *program, "run", "--listen", listen, "--ca-dir", str(ca)]
    command += ["--policy", str(folder / "policy.yaml"), "--upstream-ca", str(upstream.root)]
    command += ["--events", str(folder / "events.jsonl"), "--drain-seconds", "1"]
    command += ["--health-listen", f"127.0.0.1:{free_port()}"]
    for name in (KNOWN, PASSED, *contacts(number)):
        command += ["--resolve", f"{name}:{upstream.address}"]
    return command, ca / "ca.pem"


def _variant(program: Program) -> list[str]:
    """Options that override those before them."""
    if program is Variant.BARE:
        return ["--events", "/dev/null", "--event-level", "error", "--health-listen", "none"]
    if program is Variant.UNPOOLED:
        return ["--limit", "upstream_pool=0"]
    return []


def _ca(folder: Path) -> Path:
    ca = folder / "ca"
    bootstrap(Order(common_name="bench", ca_dir=ca, trust_dir=folder / "trust"), datetime.now(UTC))
    return ca


def policy(*ports: int) -> str:
    """A policy as people write them, of `RULES` rules; the last is the one that lets the load through."""
    lines = ["version: 1", "default: deny", "network: {allow_addresses: [127.0.0.0/8, 203.0.113.0/24]}", "rules:"]
    lines += [
        f"  - {{name: passed, passthrough: [{PASSED}], ports: [{', '.join(map(str, ports))}]}}",
        f"  - {{name: denied, deny: ['*.{DOMAIN}'], paths: ['{DENIED}']}}",
    ]
    for number in range((RULES - 3) // 3):
        lines += [
            f"  - {{name: service-{number}, allow: [api{number}.example.com, '*.svc{number}.example.com']}}",
            f"  - {{name: read-{number}, allow: [git{number}.example.org], methods: [GET], paths: ['/repos/**']}}",
            f"  - {{name: internal-{number}, deny: ['**.internal{number}.example.net']}}",
        ]
    lines += [f"  - {{name: one-{number}, allow: [one{number}.example.com]}}" for number in range((RULES - 3) % 3)]
    allowed = f"ports: [{', '.join(map(str, ports))}], methods: [GET, HEAD, POST], paths: ['/**']"
    lines += [f"  - {{name: load, allow: ['*.{DOMAIN}'], {allowed}}}"]
    return "\n".join(lines) + "\n"
