"""
The upstream: nginx where it is installed, else a small server on uvloop. One kilobyte for every request.

As a program, ``python -m bench.upstream PORT CERTIFICATE KEY`` is that small server.
"""

import asyncio
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.names import BODY_BYTES, DOMAIN
from bench.processes import PATIENCE_SECONDS, BenchError, on_cpu, stop
from sidecar.hosts import Host
from sidecar.pki.leaf import LeafMinter
from sidecar.pki.session_ca import issue_session_ca

BODY = b"x" * BODY_BYTES
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)

_NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events {{}}
http {{
    access_log off;
    client_body_temp_path .; proxy_temp_path .; fastcgi_temp_path .; uwsgi_temp_path .; scgi_temp_path .;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        default_type text/plain;
        location / {{ return 200 {body}; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where it listens, what to verify it with, and what it is."""

    port: int
    root: Path
    server: str


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[str]) -> None:
    """
    Wait until *process* accepts connections.

    Raises:
        BenchError: It has ended, or doesn't.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS * 4
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BenchError(f"{process.args!r} doesn't listen on port {port}; its exit code is {process.returncode}")


@contextmanager
def serving(folder: Path, cpu: int | None) -> Iterator[Upstream]:
    """Run it with a certificate for every name of the benchmark, under a root of its own."""
    folder.mkdir()
    root, certificate, key = _certificates(folder)
    port = free_port()
    nginx = shutil.which("nginx")
    if nginx:
        text = _NGINX.format(port=port, certificate=certificate, key=key, body=BODY.decode())
        (folder / "nginx.conf").write_text(text)
        command = [nginx, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        server = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr.rpartition(" ")[2]
    else:
        command = [sys.executable, "-m", "bench.upstream", str(port), str(certificate), str(key)]
        server = f"uvloop/{version('uvloop')}"
    with on_cpu(cpu):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True)
    try:
        wait_for(port, process)
        yield Upstream(port, root, server.strip())
    finally:
        stop(process)


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    ca = issue_session_ca(common_name="bench upstream root", now=datetime.now(UTC), validity=timedelta(days=1))
    minter = LeafMinter(ca, lambda: datetime.now(UTC))
    # Not by parse_host, to which a wildcard is no host; as a name in a certificate it is fine.
    leaf = minter.mint(Host(f"*.{DOMAIN}"))
    root, certificate, key = folder / "root.pem", folder / "certificate.pem", folder / "key.pem"
    root.write_bytes(ca.root_pem())
    certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
    key.touch(0o600)
    key.write_bytes(minter.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return root, certificate, key


class Answers(asyncio.Protocol):
    """Answers each head; requests have no body here, and none is split over two segments."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's, which is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        if heads := data.count(b"\r\n\r\n"):
            self._transport.write(ANSWER * heads)


async def _serve(port: int, certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", port, ssl=context, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
