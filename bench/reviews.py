"""
``python -m bench.reviews``: the webhook under load, its certificate exchanged meanwhile.

Reviews are sent at a steady rate, each with a pod that gets the sidecar; every tenth on a connection of its own, so
that handshakes happen all the time. Each answer is checked. Exit 1 if one is wrong, missing, or the rate isn't held.
"""

import asyncio
import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import aiohttp
import typer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.processes import PATIENCE_SECONDS, BenchError, cpu_microseconds, stop
from sidecar.hosts import parse_host
from sidecar.pki.leaf import LeafMinter
from sidecar.pki.session_ca import SessionCa, issue_session_ca

NAME = "egress-webhook.egress-system.svc"
CONFIG = """
sidecar: {image: registry.example/egress-sidecar:1}
policies: [{name: agents, configMap: egress-policy-agents}]
namespaces: [{match: [agents], policies: [agents], enforce: true}]
"""


def make_authority() -> SessionCa:
    """The CA that the API server would trust by ``caBundle``."""
    return issue_session_ca(common_name="webhook", now=datetime.now(UTC))


def write_certificate(folder: Path, ca: SessionCa) -> int:
    """
    Put a new certificate where the webhook reads it, as the kubelet does: by one move of a link.

    Returns:
        Its serial number.
    """
    minter = LeafMinter(ca, lambda: datetime.now(UTC))
    leaf = minter.mint(parse_host(NAME))
    version = folder / f"..{time.monotonic_ns()}"
    version.mkdir(parents=True)
    chain = [leaf, *ca.chain]
    (version / "tls.crt").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    (version / "tls.key").write_bytes(minter.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    fresh = folder / "..data_tmp"
    fresh.symlink_to(version.name)
    fresh.rename(folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    return leaf.serial_number


@dataclass
class Webhook:
    """A running ``sidecar inject serve``."""

    process: subprocess.Popen[str]
    port: int
    health_port: int
    certificates: Path
    ca: SessionCa

    def context(self) -> ssl.SSLContext:
        """Trusts its CA and nothing else."""
        return ssl.create_default_context(cadata=self.ca.root_pem().decode())


@contextmanager
def webhook(folder: Path, config: str = CONFIG, *arguments: str) -> Iterator[Webhook]:
    """Run the webhook on free ports of loopback."""
    ca, certificates = make_authority(), folder / "tls"
    write_certificate(certificates, ca)
    (folder / "config.yaml").write_text(config)
    command = [sys.executable, "-m", "sidecar", "inject", "serve", "--listen", "127.0.0.1:0"]
    command += ["--health-listen", "127.0.0.1:0", "--cert-dir", str(certificates), "--drain-seconds", "0.5"]
    command += ["--config", str(folder / "config.yaml"), *arguments]
    log = folder / "log.txt"
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=stderr, text=True)
    try:
        ports = _ports(process, log)
        yield Webhook(process, ports[0], ports[1], certificates, ca)
    finally:
        stop(process)


def _ports(process: subprocess.Popen[str], log: Path) -> list[int]:
    deadline = time.monotonic() + PATIENCE_SECONDS * 4
    while time.monotonic() < deadline and process.poll() is None:
        found = re.findall(r" on \S+:(\d+)$", log.read_text(), re.MULTILINE)
        if len(found) == 2:
            return [int(port) for port in found]
        time.sleep(0.02)
    raise BenchError(f"the webhook didn't start: {log.read_text()}")


async def served(hook: Webhook, name: str | None = NAME) -> int:
    """The serial number of the certificate that a new connection gets, with this SNI or with none."""
    context = hook.context()
    context.check_hostname = name is not None
    _, writer = await asyncio.open_connection("127.0.0.1", hook.port, ssl=context, server_hostname=name or "")
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der).serial_number


@dataclass
class Tally:
    """What came of a run."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    serials: set[int] = field(default_factory=set)
    rotations: int = 0
    late: int = 0  # sent more than a tenth of a second after they should have been


async def load(hook: Webhook, body: bytes, *, rate: int, seconds: float, rotate_seconds: float = 1.0) -> Tally:
    """Send *rate* reviews in a second, for *seconds*, and exchange the certificate every *rotate_seconds*."""
    tally, context = Tally(), hook.context()
    url = f"https://{NAME}:{hook.port}/mutate?timeout=10s"
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with aiohttp.ClientSession(connector=_connector(context)) as kept:

        async def one(number: int) -> None:
            own = number % 10 == 0
            async with contextlib.AsyncExitStack() as stack:
                session = kept
                if own:
                    session = await stack.enter_async_context(aiohttp.ClientSession(connector=_connector(context)))
                await _send(session, url, body, tally)

        async def rotate() -> None:
            while True:
                await asyncio.sleep(rotate_seconds)
                tally.serials.add(await served(hook))
                await asyncio.to_thread(write_certificate, hook.certificates, hook.ca)
                tally.rotations += 1

        rotating = asyncio.create_task(rotate())
        tasks = []
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            tally.late += loop.time() > due + 0.1
            tasks.append(asyncio.create_task(one(number)))
        await asyncio.gather(*tasks)
        rotating.cancel()
    return tally


def _connector(context: ssl.SSLContext) -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(ssl=context, resolver=_Loopback(), limit=0)


class _Loopback(aiohttp.abc.AbstractResolver):
    """The webhook's name is one of the cluster's; here it's loopback."""

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - the interface's
    ) -> list[aiohttp.abc.ResolveResult]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


async def _send(session: aiohttp.ClientSession, url: str, body: bytes, tally: Tally) -> None:
    begin = time.perf_counter()
    try:
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
            response: Any = (await answer.json())["response"]
    except (aiohttp.ClientError, OSError, ValueError, KeyError) as e:
        tally.errors.append(f"{type(e).__name__}: {e}")
        return
    tally.seconds.append(time.perf_counter() - begin)
    if not (response["allowed"] and response.get("patch")):
        tally.errors.append(f"not injected: {response}")


def review() -> bytes:
    """A pod of three containers."""
    containers = [{"name": f"app-{number}", "image": "registry.example/app:1"} for number in range(3)]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": {"containers": containers}}
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "agents",
        "operation": "CREATE",
        "object": pod,
    }
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


def main(
    rate: Annotated[int, typer.Option(min=1, help="Reviews in a second.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="For so long.")] = 20.0,
) -> None:
    """Load the webhook, and exchange its certificate every second."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, webhook(Path(name)) as hook:
        before = cpu_microseconds(hook.process.pid)
        tally = asyncio.run(load(hook, review(), rate=rate, seconds=seconds))
        used = cpu_microseconds(hook.process.pid) - before
    if len(tally.seconds) < 2:
        raise BenchError(f"no answers: {tally.errors[:3]}")
    cuts = quantiles(tally.seconds, n=100)
    print(f"{len(tally.seconds)} reviews at {rate} in a second, {len(tally.errors)} errors, {tally.late} sent late")
    print(f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms, {used / len(tally.seconds):.0f} µs CPU each")
    print(f"{tally.rotations} certificates exchanged, {len(tally.serials)} seen")
    for error in tally.errors[:10]:
        print(error)
    raise SystemExit(1 if tally.errors or tally.late > rate * seconds / 100 else 0)


if __name__ == "__main__":
    try:
        typer.run(main)
    except BenchError as e:
        sys.exit(f"bench: {e}")
