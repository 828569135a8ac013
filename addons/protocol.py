"""Which layer comes next: intercept TLS, splice what passes through, read HTTP, refuse the rest."""

from collections.abc import Callable

from mitmproxy import exceptions, tls
from mitmproxy.connection import Server
from mitmproxy.proxy import layer, layers
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.tls import ServerTLSLayer, parse_client_hello

from addons.guard import fails_closed
from addons.layers import InterceptTls, Refuse, Splice
from sidecar.hosts import Host, HostError, parse_host
from sidecar.identity import Claims, Mismatch, prove
from sidecar.ledger import ConnectionRecord, Ledger
from sidecar.policy import Decision, Policy, Verdict, judge_name
from sidecar.reasons import Reason
from sidecar.sniff import Speaks, sniff

MAX_CLIENT_HELLO = 64 * 1024  # bytes; post-quantum key shares make a ClientHello larger than a packet, not than this


@fails_closed
class Protocol:
    """
    Answers ``next_layer`` itself, always: stock mitmproxy takes a short first segment for raw TCP and forwards it.

    Args:
        policy: Gives the policy in force.
        ledger: Knows the connection's name and the verdict on it.
    """

    name = "egress_protocol"

    def __init__(self, policy: Callable[[], Policy], ledger: Ledger) -> None:
        self.ledger = ledger
        self._policy = policy

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        if nextlayer.layer:
            return
        context, data = nextlayer.context, nextlayer.data_client()
        record = self.ledger.connection(context.client.id)
        inside_tls = isinstance(context.layers[-1], InterceptTls)
        if inside_tls and data:
            record.used = True
        if inside_tls and context.client.alpn in (b"h2", b"http/1.1"):
            nextlayer.layer = layers.HttpLayer(context, HTTPMode.transparent)
            return
        explicit = isinstance(context.layers[-1], modes.HttpProxy)
        match sniff(data):
            case Speaks.UNDECIDED:
                raise exceptions.AddonHalt  # asked again with the next bytes; nobody else may decide meanwhile
            case Speaks.HTTP:
                nextlayer.layer = layers.HttpLayer(context, HTTPMode.regular if explicit else HTTPMode.transparent)
            case Speaks.TLS if not explicit and not inside_tls:
                nextlayer.layer = self._tls(nextlayer, record, data)
            case _:
                self.ledger.deny_connection(record, Reason.NOT_HTTP, "neither HTTP nor TLS", first_bytes=data)
                nextlayer.layer = Refuse(context)

    def _tls(self, nextlayer: layer.NextLayer, record: ConnectionRecord, data: bytes) -> layer.Layer:
        context = nextlayer.context
        if record.name is not None and record.name.verdict is Verdict.PASSTHROUGH and record.refusal is None:
            try:
                hello = parse_client_hello(data)
            except ValueError:
                hello = None
                record.name = None  # no TLS to speak of: the interception will fail, and say so
            else:
                if hello is None and len(data) <= MAX_CLIENT_HELLO:
                    raise exceptions.AddonHalt
            if hello is not None and self._same_name(record, hello.sni):
                return self._splice(context, record)
        server_tls = ServerTLSLayer(context)
        server_tls.child_layer = InterceptTls(context, lambda words: setattr(record, "alert", words))
        return server_tls

    def _same_name(self, record: ConnectionRecord, sni: str | None) -> bool:
        """Passthrough needs an SNI that is absent or the judged name; another name is intercepted, and gets its 403."""
        record.sni = _host_of(sni)
        claims = Claims(record.authority, record.sni, record.connect_hosts)
        return not isinstance(prove(claims, 443), Mismatch)

    def _splice(self, context: Context, record: ConnectionRecord) -> layer.Layer:
        decision = record.name
        assert decision is not None and decision.host is not None
        policy = self._policy()
        context.server = Server(address=(decision.host.name, decision.port))
        record.clear(decision.host.name, decision.port)
        self.ledger.allow_connection(record, decision, policy, "passthrough")

        def count(bytes_out: int, bytes_in: int) -> None:
            record.bytes_out += bytes_out
            record.bytes_in += bytes_in

        return Splice(context, count, lambda: self.ledger.close_connection(record))

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        record = self.ledger.connection(data.context.client.id)
        record.sni = _host_of(data.client_hello.sni)
        data.establish_server_tls_first = False
        if record.authority is None or record.authority.port is None or record.refusal is not None:
            return
        if isinstance(prove(Claims(record.authority, record.sni, record.connect_hosts), 443), Mismatch):
            return
        decision = self._name(record)
        if decision.verdict is not Verdict.DENY:
            # The upstream's choice of h2 or http/1.1 is mirrored to the client. Price: a denial by path comes after
            # the dial, of a name that is allowed.
            record.clear(record.authority.host.name, record.authority.port)
            data.establish_server_tls_first = True

    def _name(self, record: ConnectionRecord) -> Decision:
        assert record.authority is not None and record.authority.port is not None
        if record.name is None:
            record.name = judge_name(self._policy(), record.authority.host, record.authority.port)
        return record.name


def _host_of(sni: str | None) -> Host | None:
    try:
        return parse_host(sni) if sni else None
    except HostError:
        return None
