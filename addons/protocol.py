"""Which layer comes next: intercept TLS, splice what passes through, read HTTP, refuse the rest."""

import asyncio
from collections.abc import Callable

from mitmproxy import connection, exceptions, http, tls
from mitmproxy.connection import Server
from mitmproxy.proxy import layer, layers, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.tls import ServerTLSLayer, parse_client_hello

from addons import bounds, internals
from addons.destinations import choose
from addons.guard import fails_closed
from addons.layers import MAX_CLIENT_HELLO, InterceptTls, Refuse, Splice
from sidecar.fence.canaries import Canaries, nonce_of
from sidecar.hosts import Host, HostError, parse_host
from sidecar.identity import Claims, Mismatch, prove
from sidecar.ledger import ConnectionRecord, Ledger
from sidecar.policy import Decision, Policy, Verdict, judge_name, judge_tcp
from sidecar.problem import Failure
from sidecar.reasons import Reason
from sidecar.sniff import Speaks, sniff

SILENT_SECONDS = 1.0  # after which a client that may want raw TCP, or is denied, is taken to wait for the server
# The same where the client is the one to speak first, however slow it is: for a denied name on these ports, since it
# shall read its 403, and where only the default allows raw TCP, since its TLS shall be opened.
SLOW_SECONDS = 5.0
CLIENT_FIRST = frozenset({80, 443})
_SERVER_NAME = 0  # the extension's number (RFC 6066, section 3)


@fails_closed
class Protocol:
    """
    Answers ``next_layer`` itself, always: stock mitmproxy takes a short first segment for raw TCP and forwards it.

    Args:
        policy: Gives the policy in force.
        ledger: Knows the connection's name and the verdict on it.
        ca_expired: Says that there will be no leaf for the client, so that no upstream is dialled for it.
    """

    name = "egress_protocol"

    def __init__(
        self,
        policy: Callable[[], Policy],
        ledger: Ledger,
        ca_expired: Callable[[], Failure | None] = lambda: None,
    ) -> None:
        self.ledger = ledger
        self._policy, self._ca_expired = policy, ca_expired
        self._tasks: set[asyncio.Future[None]] = set()

    def client_connected(self, client: connection.Client) -> None:
        if (record := self.ledger.find(client.id)) is not None:
            self._expect_speech(record)

    def http_connected(self, flow: http.HTTPFlow) -> None:
        self._expect_speech(self.ledger.of(flow.client_conn.id))

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        if nextlayer.layer or isinstance(nextlayer.context.client.proxy_mode, mode_specs.DnsMode):
            return
        context, data = nextlayer.context, nextlayer.data_client()
        record = self.ledger.of(context.client.id)
        inside_tls = isinstance(context.layers[-1], InterceptTls)
        explicit = isinstance(context.layers[-1], modes.HttpProxy)
        if inside_tls and context.client.alpn in (b"h2", b"http/1.1"):
            nextlayer.layer = layers.HttpLayer(context, HTTPMode.transparent)
            return
        record.spoke = record.spoke or bool(data and not explicit)
        tcp = None if explicit or inside_tls else self._tcp(record)
        if tcp is not None and tcp.allowed and (record.silent or self._name(record).verdict is Verdict.DENY):
            # The server may be the one that speaks first; or nothing but raw TCP is allowed.
            nextlayer.layer = self._splice(context, record, tcp, "tcp")
            return
        match sniff(data):
            case Speaks.UNDECIDED:
                raise exceptions.AddonHalt  # asked again with the next bytes; nobody else may decide meanwhile
            case Speaks.HTTP:
                nextlayer.layer = layers.HttpLayer(context, HTTPMode.regular if explicit else HTTPMode.transparent)
            case Speaks.TLS if not explicit and not inside_tls:
                nextlayer.layer = self._tls(nextlayer, record, data)
            case _ if tcp is not None and tcp.allowed:
                nextlayer.layer = self._splice(context, record, tcp, "tcp")
            case _:
                detail = "neither HTTP nor TLS, and no rule of protocol tcp allows it"
                self.ledger.deny_connection(record, Reason.NOT_HTTP, detail, first_bytes=data)
                nextlayer.layer = Refuse(context)

    def _tcp(self, record: ConnectionRecord) -> Decision | None:
        """What policy says of raw TCP to this destination; where several names share it, the first that may."""
        if record.authority is None or record.authority.port is None or record.refusal is not None:
            return None
        hosts = (*record.candidates, record.authority.host)
        decisions = [judge_tcp(self._policy(), host, record.authority.port) for host in hosts]
        return next((decision for decision in decisions if decision.allowed), decisions[-1])

    def _expect_speech(self, record: ConnectionRecord) -> None:
        loop, tcp = asyncio.get_running_loop(), self._tcp(record)
        if tcp is not None and (tcp.allowed or self._name(record).verdict is Verdict.DENY):
            expected = tcp.rule is not None if tcp.allowed else tcp.port not in CLIENT_FIRST
            loop.call_later(SILENT_SECONDS if expected else SLOW_SECONDS, self._still_silent, record)
        loop.call_later(bounds.limits.head_seconds, self._still_undecided, record)

    def _still_silent(self, record: ConnectionRecord) -> None:
        if record.spoke or record.closed or self.ledger.find(record.id) is not record:
            return
        record.silent = True
        tcp = self._tcp(record)
        if tcp is not None and tcp.allowed:
            self._tasks.add(task := asyncio.ensure_future(internals.wake(record.id)))
            task.add_done_callback(self._tasks.discard)
            return
        denied = self._name(record)
        detail = "the client waits for the server to speak first, and nothing is allowed there"
        self.ledger.deny_connection(record, denied.reason, detail, rule=denied.rule.label if denied.rule else None)
        internals.end_connection(record.id, "silent")

    def _still_undecided(self, record: ConnectionRecord) -> None:
        if record.protocol != "none" or record.tls_established or self.ledger.find(record.id) is not record:
            return
        seconds = bounds.limits.head_seconds
        if record.cleared:  # by the ClientHello: the upstream's handshake comes before the client's
            detail = f"{record.authority} has not completed its TLS handshake within {seconds} s"
            self.ledger.deny_connection(record, Reason.TIMEOUT, detail)
        else:
            detail = f"no whole request head and no ClientHello within {seconds} s"
            self.ledger.reach("head_seconds", detail, record)
        internals.end_connection(record.id, "timeout")

    def _tls(self, nextlayer: layer.NextLayer, record: ConnectionRecord, data: bytes) -> layer.Layer:
        context = nextlayer.context
        passes = record.name is not None and record.name.verdict is Verdict.PASSTHROUGH
        unnamed = record.candidates or record.kept
        if (passes or unnamed) and record.refusal is None:
            try:
                hello = parse_client_hello(data)
            except ValueError:
                hello = None  # no TLS to speak of: the interception will fail, and say so
            else:
                if hello is None and len(data) <= MAX_CLIENT_HELLO:
                    raise exceptions.AddonHalt
            if hello is not None and unnamed:
                choose(record, _host_of(hello.sni), self._policy())
                decision = self._name(record)
                context.server.address = (decision.host.name, decision.port)
                passes = decision.verdict is Verdict.PASSTHROUGH
            if hello is not None and passes and _has_one_reading(hello) and self._same_name(record, hello.sni):
                return self._splice(context, record, self._name(record), "passthrough")
        server_tls = ServerTLSLayer(context)
        server_tls.child_layer = InterceptTls(
            context,
            alert=lambda words: setattr(record, "alert", words),
            used=lambda: setattr(record, "used", True),
            refusal=lambda: record.tls_refusal,
        )
        return server_tls

    def _same_name(self, record: ConnectionRecord, sni: str | None) -> bool:
        """Passthrough needs an SNI that is absent or the judged name; another name is intercepted, and gets its 403."""
        record.sni = _host_of(sni)
        claims = Claims(record.authority, record.sni, record.connect_hosts, record.aliases)
        return not isinstance(prove(claims, 443), Mismatch)

    def _splice(self, context: Context, record: ConnectionRecord, decision: Decision, protocol: str) -> layer.Layer:
        # By the judged name, never by an address that the workload chose; and a connection of its own.
        context.server = Server(address=(decision.host.name, decision.port))
        record.clear(decision)
        self.ledger.allow_connection(record, decision, self._policy(), protocol)

        def count(bytes_out: int, bytes_in: int) -> None:
            record.bytes_out += bytes_out
            record.bytes_in += bytes_in

        return Splice(context, count, lambda: self.ledger.close_connection(record))

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        record = self.ledger.of(data.context.client.id)
        record.sni = _host_of(data.client_hello.sni)
        data.establish_server_tls_first = False
        if record.authority is None or record.authority.port is None or record.refusal is not None:
            return
        if self._ca_expired() is not None:
            return  # the handshake ends without a leaf
        claims = Claims(record.authority, record.sni, record.connect_hosts, record.aliases)
        if isinstance(prove(claims, 443), Mismatch):
            return
        decision = self._name(record)
        if decision.verdict is not Verdict.DENY:
            # The upstream's choice of h2 or http/1.1 is mirrored to the client. Price: a denial by path comes after
            # the dial, of a name that is allowed.
            record.clear(decision)
            data.establish_server_tls_first = True

    def _name(self, record: ConnectionRecord) -> Decision:
        assert record.authority is not None and record.authority.port is not None
        if record.name is None:
            record.name = judge_name(self._policy(), record.authority.host, record.authority.port)
        return record.name


@fails_closed
class CanaryWatch:
    """
    Stands in front of `Protocol`: a fence check's canary is noted and refused, whatever policy says of its destination.

    Its record is no denial, on which people alert: the workload has asked for nothing.
    """

    name = "egress_canary_watch"

    def __init__(self, ledger: Ledger, canaries: Canaries) -> None:
        self.ledger = ledger
        self._canaries = canaries

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        context, nonce = nextlayer.context, nonce_of(nextlayer.data_client())
        if nextlayer.layer or nonce is None or isinstance(context.layers[-1], InterceptTls):
            return
        if self._canaries.arrive(nonce):
            record = self.ledger.of(context.client.id)
            noted = Failure(Reason.NOT_HTTP, f"a canary of the fence check to {record.authority}: held")
            record.authority = record.name = None  # the summary's hosts are those that the workload has asked for
            self.ledger.close_connection(record, noted)
            nextlayer.layer = Refuse(context)


def _has_one_reading(hello: tls.ClientHello) -> bool:
    """Whether every server takes the same name from its SNI: there is none, or one that is a host's."""
    names = sum(number == _SERVER_NAME for number, _ in hello.extensions)
    return names == 0 or (names == 1 and _host_of(hello.sni) is not None)


def _host_of(sni: str | None) -> Host | None:
    try:
        return parse_host(sni) if sni else None
    except HostError:
        return None
