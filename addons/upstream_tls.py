"""Server-side TLS: verify the upstream, always."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from weakref import WeakSet

from mitmproxy import connection, tls
from mitmproxy.proxy import server_hooks

from addons import bounds, internals, redial
from addons.dial import Refused, checked_dial, let_retry
from addons.guard import fails_closed
from addons.pool import Pool
from sidecar.handshakes import diagnose_server
from sidecar.hosts import Authority, parse_host
from sidecar.ledger import ConnectionRecord, Ledger
from sidecar.problem import Failure
from sidecar.reasons import Reason
from sidecar.upstreams.files import Upstreams
from sidecar.upstreams.handshake import connection_to, listen_for_alerts, objection_of, refused_by
from sidecar.upstreams.sessions import Destination, Sessions


@fails_closed
class UpstreamTls:
    """
    Verifies who answers.

    Args:
        ledger: Is told of handshakes that fail.
        upstreams: Gives the contexts in force; asked for each handshake.
        sessions: What is resumed.
        pool: What another client has left; emptied, as the sessions are, when other contexts come into force.
    """

    name = "egress_upstream_tls"

    def __init__(self, ledger: Ledger, upstreams: Callable[[], Upstreams], sessions: Sessions, pool: Pool) -> None:
        self.ledger = ledger
        self.pool = pool
        self._upstreams, self._sessions = upstreams, sessions
        self._direct: WeakSet[connection.Server] = WeakSet()

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Behind `Upstream`, which has judged and checked what is dialled: the same may be taken from the pool."""
        server, checked = data.server, checked_dial.get()
        if server.error or not server.tls or not server.address or checked is None or checked.through is not None:
            return
        host, port = server.address[:2]
        if checked.target != (host, port):
            return
        self._direct.add(server)
        for address in checked.addresses:
            if self.pool.reserve(server, self._destination(data.client, host, port, (str(address), port))):
                return

    def tls_start_server(self, tls_start: tls.TlsData) -> None:
        server, client = tls_start.conn, tls_start.context.client
        assert isinstance(server, connection.Server) and server.address
        host = parse_host(server.address[0])  # the judged name; an SNI is only ever equal to it
        server.sni = host.name if host.address is None else None
        refused = partial(self._refused_late, client.id, server.address[:2])
        peer = server.peername or server.address
        destination = self._destination(client, *server.address[:2], (peer[0], peer[1]))
        server.alpn_offers = destination.offers
        direct = server in self._direct
        if (adopted := self.pool.adopted(server)) is not None:
            if adopted.destination != destination:
                raise Refused(f"{host} is trusted otherwise since it was taken from the pool")
            refused_by(adopted.tls, refused)
            redial.mark_used(server)
            tls_start.ssl_conn = adopted.tls
            self.pool.began(server, destination, adopted.tls, direct=direct)
            return
        seconds = bounds.limits.handshake_seconds
        asyncio.get_running_loop().call_later(seconds, self._still_shaking, client.id, server, seconds)
        resumed = self._sessions.take(destination, time.time())
        tls_start.ssl_conn = connection_to(host, destination.context, destination.offers, refused, resumed)
        self.pool.began(server, destination, tls_start.ssl_conn, direct=direct)

    def tls_established_server(self, data: tls.TlsData) -> None:
        assert data.ssl_conn is not None
        listen_for_alerts(data.ssl_conn)

    def server_disconnected(self, data: server_hooks.ServerConnectionHookData) -> None:
        self.pool.ended(data.server)

    def _destination(self, client: connection.Client, name: str, port: int, peer: tuple[str, int]) -> Destination:
        offers = tuple(offer for offer in client.alpn_offers if offer in (b"h2", b"http/1.1")) or (b"http/1.1",)
        host = parse_host(name)
        return Destination(host.name, port, peer, offers, self._upstreams().context_for(host))

    def tls_failed_server(self, tls_failed: tls.TlsData) -> None:
        server = tls_failed.conn
        assert isinstance(server, connection.Server) and server.address
        host, port = server.address[:2]
        record = self.ledger.find(tls_failed.context.client.id)
        if record is None:
            return  # the client has gone, and this is the end of what was begun for it
        objection = objection_of(tls_failed.ssl_conn) if tls_failed.ssl_conn is not None else None
        # OpenSSL's own words are "ok" then: it had no objection.
        words = f"Certificate verify failed: {objection.words}" if objection else server.error or ""
        self._failed(record, (host, port), words, objection.accept if objection else None)
        let_retry(server)

    def _still_shaking(self, connection_id: str, server: connection.Server, seconds: float) -> None:
        if server.tls_established or not server.connected or server.address is None:
            return
        record = self.ledger.find(connection_id)
        if record is not None:
            host, port = server.address[:2]
            text = f"{host} port {port} has not completed its TLS handshake within {seconds:g} s"
            self.ledger.reach("handshake_seconds", text, record, ends=False)
            record.failed(host, port, Failure(Reason.TIMEOUT, text))
            internals.end_upstream(connection_id, server, "handshake")

    def _refused_late(self, connection_id: str, upstream: tuple[str, int], words: str) -> None:
        if (record := self.ledger.find(connection_id)) is not None:
            self._failed(record, upstream, words)

    def _failed(
        self, record: ConnectionRecord, upstream: tuple[str, int], words: str, accept: str | None = None
    ) -> None:
        host, port = upstream
        if upstream not in record.failures:
            record.failed(host, port, Failure(Reason.UPSTREAM_TLS, f"{host} port {port}: {words}"))
        diagnosis = diagnose_server(words, accept=accept)
        self.ledger.handshake_failed(record, diagnosis, upstream=Authority(parse_host(host), port))
