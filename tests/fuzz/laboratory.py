"""The proxy without sockets: its driver, layers and addons, fed with bytes; what it says, dials and records."""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any, Final

import orjson
from mitmproxy import ctx, options
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.master import Master
from mitmproxy.proxy import layers, mode_specs

import sidecar.runtime.listeners  # noqa: F401 - registers our modes with mitmproxy
from addons import bounds
from addons.dial import guard_dials
from addons.egress import FORCED, addons_of
from sidecar.pki.session_ca import issue_session_ca
from sidecar.policy import parse_policy
from sidecar.runtime.driver import ClientWire, Driver, Shared
from sidecar.runtime.engine import _eager, install
from sidecar.runtime.hooks import HookTable
from sidecar.runtime.lookups import Snapshot
from sidecar.runtime.session import Session, Settings
from sidecar.upstreams.files import load_upstreams
from sidecar.upstreams.roots import RootFiles
from tests.live.sidecars import CONNECTION_ENDS, REQUEST_ENDS

POLICY: Final = """
version: 1
rules:
  - allow: [up.test]
    ports: [80, 443]
  - passthrough: [pinned.test]
network: {allow_addresses: [127.0.0.0/8]}
"""
ALLOWED: Final = frozenset({"up.test", "pinned.test"})
TURNS: Final = 40  # of the loop: more than any chain of hooks, dials and ends takes


class Transport:
    """What asyncio's would be; keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 14101)}.get(name, default)

    def write(self, data: bytes) -> None:
        assert not self.closing, "written to after the end"
        self.written += data

    def writelines(self, data: Sequence[bytes]) -> None:
        self.write(b"".join(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = write_eof = close

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, **_: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class UpstreamTransport(Transport):
    """Answers the first bytes that it gets, whatever they are, and closes."""

    def __init__(self, protocol: Any, answer: Sequence[bytes]) -> None:
        super().__init__()
        self._protocol, self._answer = protocol, list(answer)

    def write(self, data: bytes) -> None:
        super().write(data)
        answer, self._answer = self._answer, []
        if answer:
            asyncio.get_running_loop().call_soon(self._say, answer)

    def _say(self, answer: list[bytes]) -> None:
        for piece in answer:
            if not self.closing:
                self._protocol.data_received(piece)
        if not self.closing:
            self._protocol.eof_received()
            self._protocol.connection_lost(None)


class Complaints(logging.Handler):
    """Whatever is logged with an exception: nothing may be."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or record.levelno >= logging.ERROR:
            self.seen.append(self.format(record))


class Laboratory:
    """One sidecar; conversations with it one after the other."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.complaints, self._lines = Complaints(), list[dict[str, Any]]()
        logging.getLogger().addHandler(self.complaints)
        self.ca = issue_session_ca(common_name="fuzz", now=datetime.now(UTC))
        self.trusting = ssl.create_default_context(cadata=self.ca.root_pem().decode())
        self.trusting.set_alpn_protocols(["h2"])
        self.dialled: list[tuple[str, int]] = []
        self._answer: Sequence[bytes] = ()
        self._run(self._begin())

    def _run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    async def _begin(self) -> None:
        loop: Any = self.loop
        loop.create_connection = self._dial
        policy = parse_policy(POLICY, "policy.yaml")
        session = Session(
            Settings(
                policy=policy,
                upstreams=load_upstreams(policy, RootFiles()),
                ca=self.ca,
                sink=self,
                session="fuzz",
                level="debug",
                pinned={(name, None): IPv4Address("127.0.0.1") for name in ALLOWED},
            )
        )
        install()
        bounds.use(session.settings.limits)
        guard_dials(loop)
        master = Master(options.Options(), event_loop=loop)
        proxyserver = Proxyserver()
        master.addons.add(*addons_of(session), proxyserver)
        master.options.update(**FORCED, mode=[], tcp_timeout=3600)
        loop.set_task_factory(_eager)
        self._session, self._connections = session, proxyserver.connections
        self._shared = Shared(Snapshot(ctx.options), HookTable(master.addons), proxyserver.connections)
        self._mode = mode_specs.ProxyMode.parse("explicit:0")

    def offer(self, line: bytes) -> bool:
        self._lines.append(orjson.loads(line))
        return True

    def close(self) -> None:
        logging.getLogger().removeHandler(self.complaints)

    async def _dial(self, factory: Any, host: str, port: int, **_: Any) -> Any:
        assert host == "127.0.0.1"
        protocol = factory()
        self.dialled.append((protocol.connection.address[0], port))
        transport = UpstreamTransport(protocol, self._answer)
        protocol.connection_made(transport)
        return transport, protocol

    def talk(self, *pieces: bytes, tls: Sequence[bytes] | None = None, answer: Sequence[bytes] = ()) -> bytes:
        """
        Send *pieces* and hang up; check what holds for every conversation.

        Args:
            tls: Sent inside of TLS to denied.test, whose handshake follows *pieces*.
            answer: What any upstream says, once it is spoken to.

        Returns:
            What the client has got, in the clear.
        """
        self._lines.clear()
        self.dialled.clear()
        self._answer = answer
        received: bytes = self._run(asyncio.wait_for(self._talk(pieces, tls), 20))
        self._check()
        return received

    async def _talk(self, pieces: Sequence[bytes], tls: Sequence[bytes] | None) -> bytes:
        transport = Transport()

        def begin(driver: Driver, _: Any) -> bool:
            driver.layer = layers.modes.HttpProxy(driver.layer.context)
            return True

        wire = ClientWire(self._shared, self._mode, begin)
        wire.connection_made(transport)
        for piece in pieces:
            await self._say(wire, transport, piece)
        received = bytes(transport.written)
        if tls is not None:
            transport.written.clear()
            received = await self._inside(wire, transport, tls)
        if not transport.closing:
            wire.eof_received()
        await self._turn()
        wire.connection_lost(None)
        await self._turn()
        return received

    async def _say(self, wire: ClientWire, transport: Transport, data: bytes) -> None:
        if not transport.closing:
            wire.data_received(data)
            await self._turn()

    async def _inside(self, wire: ClientWire, transport: Transport, pieces: Sequence[bytes]) -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.trusting.wrap_bio(incoming, outgoing, server_hostname="denied.test")
        received = b""

        async def exchange() -> None:
            await self._say(wire, transport, outgoing.read())
            incoming.write(bytes(transport.written))
            transport.written.clear()

        for _ in range(6):
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                await exchange()
        for piece in pieces:
            client.write(piece)
            await exchange()
        while True:
            try:
                data = client.read(65_536)
            except ssl.SSLError:
                return received
            if not data:
                return received
            received += data

    async def _turn(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def _check(self) -> None:
        assert not self.complaints.seen, self.complaints.seen
        assert {host for host, _ in self.dialled} <= ALLOWED, self.dialled
        assert not self._connections and not len(self._session.ledger), "something is left of it"
        names = Counter(line["event"] for line in self._lines)
        assert not names["internal_error"], self._lines
        requests: dict[str, int] = {}
        for line in self._lines:
            if line["event"].startswith("request_"):
                requests.setdefault(line["request_id"], 0)
                requests[line["request_id"]] += line["event"] in REQUEST_ENDS
        assert all(ends == 1 for ends in requests.values()), self._lines
        ends = [
            line for line in self._lines if line["event"] in CONNECTION_ENDS and line.get("side", "client") == "client"
        ]
        assert len(ends) == (0 if requests else 1), self._lines
