"""How many there may be at once: connections of clients, and to upstreams."""

from weakref import WeakSet

from mitmproxy import connection
from mitmproxy.proxy import mode_specs, server_hooks

from addons import internals
from addons.guard import fails_closed
from sidecar.ledger import Ledger
from sidecar.limits import Limits
from sidecar.problem import Failure
from sidecar.reasons import Reason


@fails_closed
class Admission:
    """
    Refuses a client connection that is one too many, and a dial.

    Stands behind the recorder, which opens the record, and before `Upstream`, which resolves.
    """

    name = "egress_admission"

    def __init__(self, ledger: Ledger, limits: Limits) -> None:
        self.ledger = ledger
        self._limits = limits
        self._clients: set[str] = set()
        self._dialled: WeakSet[connection.Server] = WeakSet()

    def client_connected(self, client: connection.Client) -> None:
        if isinstance(client.proxy_mode, mode_specs.DnsMode):
            return
        most = self._limits.client_connections
        if len(self._clients) < most:
            self._clients.add(client.id)
            return
        record = self.ledger.of(client.id)
        self.ledger.reach("client_connections", f"{most} client connections are open, and no more allowed", record)
        client.error = str(Reason.TOO_MANY_CONNECTIONS)

    def client_disconnected(self, client: connection.Client) -> None:
        self._clients.discard(client.id)

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        if data.server.error or not data.server.address:
            return
        record = self.ledger.of(data.client.id)
        host, port = data.server.address[:2]
        for oldest in internals.close_oldest_upstreams(data.client.id, data.server, self._limits.upstreams_per_client):
            self._dialled.discard(oldest)  # its end is told later
        most = self._limits.upstream_connections
        if len(self._dialled) >= most:
            detail = f"{most} upstream connections are open, and no more allowed"
            self.ledger.reach("upstream_connections", detail, record, ends=False)
            record.failed(host, port, Failure(Reason.OVERLOAD, detail))
            data.server.error = detail
            return
        self._dialled.add(data.server)

    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        self._dialled.discard(data.server)

    def server_disconnected(self, data: server_hooks.ServerConnectionHookData) -> None:
        self._dialled.discard(data.server)
