"""Servers on loopback, each with a leaf below a root and an intermediate that have constraints, or haven't."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.hosts import parse_host
from sidecar.pki import LeafMinter, SessionCa
from sidecar.pki.pem import to_pem
from tests.pki.authorities import DAY, authority, constraints

PERMITTED, DENIED, ADDRESS = "host.permitted.test", "host.denied.test", "127.0.0.1"
HOSTS = (PERMITTED, DENIED, ADDRESS)

_WELL_FORMED = constraints(["permitted.test"], ["0.0.0.0/0", "::/0"])
_STARRED = constraints(["*.permitted.test"], ["*"])


class Place(StrEnum):
    """Which certificate has which constraints."""

    NONE = "none"
    ROOT = "root"
    INTERMEDIATE = "intermediate"
    STARRED = "starred"  # both, as Konflux writes them


@dataclass(frozen=True)
class Server:
    """Listens on 127.0.0.1; *root* is a file with what a client shall trust."""

    place: Place
    host: str
    port: int
    root: Path


class _Unchecked(LeafMinter):
    """Mints what a stolen key would."""

    def refusal(self, host: object) -> None:
        return None


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: Any) -> None:
        pass


class _Https(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass  # a client that refuses is what this is about


@contextmanager
def servers(folder: Path) -> Iterator[dict[tuple[Place, str], Server]]:
    """One server for each place and host; they end with the context."""
    with ExitStack() as stack:
        found = {}
        for place in Place:
            ca = _ca(place)
            root = folder / f"{place}.pem"
            root.write_bytes(ca.root_pem())
            minter = _Unchecked(ca, lambda: datetime.now(UTC))
            for host in HOSTS:
                context = _context(folder, minter, minter.mint(parse_host(host)))
                found[place, host] = Server(place, host, stack.enter_context(_serving(context)), root)
        yield found


def _ca(place: Place) -> SessionCa:
    now = datetime.now(UTC)
    on_root = {Place.ROOT: [_WELL_FORMED], Place.STARRED: [_STARRED]}.get(place, [])
    on_intermediate = {Place.INTERMEDIATE: [_WELL_FORMED], Place.STARRED: [_STARRED]}.get(place, [])
    begin, end = now - DAY, now + DAY
    root = authority(f"{place} root", begin=begin, end=end, path_length=1, extra=on_root)
    issuing = authority(f"{place} issuing", root, begin=begin, end=end, path_length=0, extra=on_intermediate)
    return SessionCa(issuing.key, (issuing.certificate,), root.certificate)


def _context(folder: Path, minter: LeafMinter, leaf: x509.Certificate) -> ssl.SSLContext:
    file = folder / "served.pem"
    key = minter.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(to_pem([leaf]) + minter.ca.chain_pem() + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


@contextmanager
def _serving(context: ssl.SSLContext) -> Iterator[int]:
    server = _Https(("127.0.0.1", 0), _Hello)
    # The handshake is each connection's own thread's work, when it first reads.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
