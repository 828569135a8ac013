"""Client-side TLS: each name gets a leaf of the session CA, in a context of its own: no ticket crosses names."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from mitmproxy import connection, exceptions, tls
from OpenSSL import SSL

from addons import bounds
from addons.guard import fails_closed
from sidecar.hosts import Host, HostError, parse_host
from sidecar.ledger import ConnectionRecord, Ledger
from sidecar.pki.leaf import LeafMinter
from sidecar.pki.session_ca import CaConstraint
from sidecar.problem import Failure
from sidecar.reasons import Reason
from sidecar.tls_profile import Fixed, server_context

_ACCESS_DENIED, _UNRECOGNIZED_NAME = 49, 112  # alerts (RFC 8446, section 6.2; RFC 6066, section 3)


@fails_closed
class SessionCaAddon:
    """
    Answers ``tls_start_client`` with a connection of the name's own cached context.

    A name that the CA's constraints forbid gets a TLS alert: a client would refuse its leaf, and read no 403.

    Args:
        minter: Gives the minter of the CA in force; another object after a rotation drops the contexts.
        ledger: Knows the name of the connection where there is no SNI.
        now: The clock; aware, UTC.
        ca_expired: Says that the CA's time is over.
    """

    name = "egress_session_ca"

    def __init__(
        self,
        minter: Callable[[], LeafMinter],
        ledger: Ledger,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        ca_expired: Callable[[], Failure | None] = lambda: None,
    ) -> None:
        self.ledger = ledger
        self._minter, self._now, self._ca_expired = minter, now, ca_expired
        self._contexts: OrderedDict[Host, tuple[SSL.Context, datetime]] = OrderedDict()
        self._of: LeafMinter | None = None
        self._fixed: Fixed | None = None

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        record = self.ledger.of(data.context.client.id)
        host = _host(data.context.client, record)
        if host is not None and (why := self._minter().refusal(host)) is not None:
            data.establish_server_tls_first = False  # nothing is dialled for a client that won't be answered
            record.cleared.clear()
            self._refuse(record, why)

    def tls_start_client(self, tls_start: tls.TlsData) -> None:
        client = tls_start.context.client
        record = self.ledger.find(client.id)
        if record is None:
            raise exceptions.AddonHalt  # left while its upstream was dialled: there is nobody to make a leaf for
        record.left_early = not client.state & connection.ConnectionState.CAN_READ
        if (expired := self._ca_expired()) is not None:
            self.ledger.deny_connection(record, expired.reason, expired.detail)
            raise exceptions.AddonHalt  # no other addon may answer; the client gets an alert
        host = _host(client, record)
        if host is None:
            raise HostError("neither SNI nor a connection name to make a leaf for")
        try:
            answering = SSL.Connection(self._context(host))
        except CaConstraint as e:
            self._refuse(record, str(e))
            raise exceptions.AddonHalt from None
        # What the upstream has chosen, so that both sides speak one protocol; None if it wasn't asked.
        answering.set_app_data(tls_start.context.server.alpn)
        answering.set_accept_state()
        tls_start.ssl_conn = answering

    def _refuse(self, record: ConnectionRecord, why: str) -> None:
        record.tls_refusal = _UNRECOGNIZED_NAME if record.sni is not None else _ACCESS_DENIED
        denied = record.name.rule if record.name is not None and not record.name.allowed else None
        self.ledger.deny_connection(record, Reason.CA_CONSTRAINT, why, rule=denied.label if denied else None)

    def _context(self, host: Host) -> SSL.Context:
        minter, now = self._minter(), self._now()
        if minter is not self._of:
            self._contexts.clear()
            self._of, self._fixed = minter, None
        cached = self._contexts.get(host)
        if cached is not None and now < cached[1]:
            self._contexts.move_to_end(host)
            return cached[0]
        leaf = minter.mint(host)
        if self._fixed is None:
            # A root is in the trust bundle, or it is no use.
            self._fixed = Fixed(minter.key, [c for c in minter.ca.chain if c.issuer != c.subject])
        context = server_context()
        context.set_session_id(b"egress-sidecar")
        self._fixed.show(context, leaf)
        context.set_alpn_select_callback(_choose_alpn)
        # Half of what is left: near the CA's end a leaf is renewed more often, and never served after its own.
        self._contexts[host] = (context, now + (leaf.not_valid_after_utc - now) / 2)
        if len(self._contexts) > bounds.limits.leaf_contexts:
            self._contexts.popitem(last=False)
        return context


def _host(client: connection.Client, record: ConnectionRecord) -> Host | None:
    """Whom the client expects to answer: by its SNI, else by the connection's name."""
    try:
        return parse_host(client.sni or "")
    except HostError:
        return record.authority.host if record.authority else None


def _choose_alpn(answering: SSL.Connection, offers: list[bytes]) -> bytes | Any:
    upstream: bytes | None = answering.get_app_data()
    if upstream is None:  # not dialled: a denied name, which is answered here
        accepted: tuple[bytes, ...] = (b"h2", b"http/1.1")
    else:
        accepted = (upstream or b"http/1.1",)
    for offer in offers:
        if offer in accepted:
            return offer
    return SSL.NO_OVERLAPPING_PROTOCOLS
