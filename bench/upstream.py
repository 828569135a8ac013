"""The upstream: nginx for what is fetched, a small server of ours for uploads, server-sent events and WebSocket."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.names import BIG, BODY, DOMAIN
from bench.processes import PATIENCE_SECONDS, BenchError, on_cpu, stop
from sidecar.hosts import Host
from sidecar.pki.leaf import LeafMinter
from sidecar.pki.session_ca import issue_session_ca

BIG_BYTES = 1 << 30

_NGINX = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path .; proxy_temp_path .; fastcgi_temp_path .; uwsgi_temp_path .; scgi_temp_path .;
    keepalive_requests 1000000000;
    keepalive_timeout 600;
    server {{
        listen {address}:{port} ssl http2 backlog=1024;
        server_name *.{domain};
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        ssl_session_cache shared:sessions:8m;
        default_type text/plain;
        location / {{ return 200 {body}; }}
        location = {big} {{ root {bodies}; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where it listens, what to verify it with, and what it is."""

    port: int  # nginx
    live_port: int
    root: Path
    server: str
    address: str = "127.0.0.1"


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[str], pause: float = 0.02) -> None:
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
            time.sleep(pause)
        else:
            return
    raise BenchError(f"{process.args!r} doesn't listen on port {port}; its exit code is {process.returncode}")


@contextmanager
def serving(
    folder: Path, cpu: int | None, *, inside: Sequence[str] = (), address: str = "127.0.0.1"
) -> Iterator[Upstream]:
    """
    Run it with one certificate for every name of the benchmark, under a root of its own.

    Args:
        inside: What starts a command in another network namespace; it listens on *address* there.

    Raises:
        BenchError: There is no nginx, or it doesn't start.
    """
    if not (nginx := shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")):
        raise BenchError("nginx isn't installed: it is the upstream (apt install nginx)")
    folder.mkdir()
    folder.chmod(0o755)  # Squid reads the root as another user
    root, certificate, key = _certificates(folder)
    port, live_port = free_port(), free_port()
    with ExitStack() as stack:
        bodies = stack.enter_context(_bodies(folder))
        text = _NGINX.format(
            port=port, address=address, domain=DOMAIN, certificate=certificate, key=key,
            body=BODY.decode(), big=BIG, bodies=bodies,
        )  # fmt: skip
        (folder / "nginx.conf").write_text(text)
        command = [nginx, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        live = [sys.executable, "-m", "bench.live", str(live_port), str(certificate), str(key), address]
        with on_cpu(cpu):
            for arguments in (command, live):
                process = subprocess.Popen([*inside, *arguments], stdin=subprocess.DEVNULL, text=True)
                stack.callback(stop, process)
                if not inside:
                    wait_for(port if arguments is command else live_port, process)
        version = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr.rpartition(" ")[2]
        yield Upstream(port, live_port, root, version.strip(), address)


@contextmanager
def _bodies(folder: Path) -> Iterator[Path]:
    """A folder with the large body: a file without blocks, in memory where it can be, so that no disk is measured."""
    shared = Path("/dev/shm")
    memory = shared.is_dir() and os.access(shared, os.W_OK)
    bodies = Path(tempfile.mkdtemp(prefix="bench-", dir=shared if memory else folder))
    bodies.chmod(0o755)
    try:
        with (bodies / BIG.lstrip("/")).open("wb") as file:
            file.truncate(BIG_BYTES)
        yield bodies
    finally:
        shutil.rmtree(bodies)


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
