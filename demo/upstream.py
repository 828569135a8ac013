"""The demo's Internet: one HTTPS server on loopback that has a certificate for each name, not all of them good."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.hosts import parse_host
from sidecar.pki.leaf import LIFETIME, LeafMinter
from sidecar.pki.session_ca import issue_session_ca

ROOT_NAME = "Demo Upstream Root"
API = "api.example.com"
PINNED = "pinned.example.com"
EXPIRED = "expired.example.com"
MISNAMED = "misnamed.example.com"
TELEMETRY = "telemetry.example.net"
NAMES = (API, PINNED, EXPIRED, MISNAMED, TELEMETRY)

_PORT = 8443


class Upstream:
    """The server: its port, and how many handshakes and requests it has seen."""

    def __init__(self, folder: Path) -> None:
        now = datetime.now(UTC)
        long_ago = now - LIFETIME - timedelta(days=5)  # a leaf minted then has expired 5 days ago
        root = issue_session_ca(
            common_name=ROOT_NAME, organization="Demo", now=long_ago, validity=timedelta(days=90), skew=timedelta(0)
        )
        minter = LeafMinter(root, lambda: now)
        former = LeafMinter(root, lambda: long_ago, key=minter.key)
        key = minter.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.connections = self.requests = 0
        self.port = 0
        (folder / "upstream-root.pem").write_bytes(root.root_pem())

        def context(leaf: x509.Certificate) -> ssl.SSLContext:
            file = folder / "upstream-leaf.pem"  # load_cert_chain reads files only
            file.touch(mode=0o600)
            file.write_bytes(leaf.public_bytes(Encoding.PEM) + key)
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            made.load_cert_chain(file)
            file.unlink()
            return made

        leaves = {name: minter.mint(parse_host(name)) for name in (API, PINNED, TELEMETRY)}
        leaves[EXPIRED] = former.mint(parse_host(EXPIRED))
        leaves[MISNAMED] = minter.mint(parse_host("another.example.com"))
        contexts = {name: context(leaf) for name, leaf in leaves.items()}

        def choose(sock: ssl.SSLSocket | ssl.SSLObject, sni: str | None, _: ssl.SSLContext) -> None:
            self.connections += 1
            sock.context = contexts.get(sni or "", contexts[API])

        self.context = contexts[API]
        self.context.sni_callback = choose


@contextmanager
def serving(folder: Path) -> Iterator[Upstream]:
    """Serve on loopback from a thread; the root is written to ``upstream-root.pem`` in *folder*."""
    upstream = Upstream(folder)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(_application(upstream), shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", _PORT, ssl_context=upstream.context).start()
        except OSError:  # taken: any other does as well
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=upstream.context).start()
        upstream.port = runner.addresses[0][1]

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def _application(upstream: Upstream) -> web.Application:
    async def hello(request: web.Request) -> web.Response:
        upstream.requests += 1
        return web.Response(text=f"hello from {request.host}{request.path}\n")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hello)
    return app
