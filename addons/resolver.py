"""DNS: every question is served by the sidecar's own desk; none is left to mitmproxy's stock resolver."""

import asyncio
import logging
import struct
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from mitmproxy import connection, ctx, dns
from mitmproxy.addonmanager import Loader
from mitmproxy.net.dns import domain_names, op_codes

from addons import bounds
from sidecar.names.channel import Throttle
from sidecar.names.desk import Ask, Desk, Reply
from sidecar.names.outcomes import DnsReason
from sidecar.names.records import IN, Question, Rcode, Type, type_name
from sidecar.names.upstream import UpstreamSilent
from sidecar.names.wire import EDNS_SIZE, Message

_log = logging.getLogger(__name__)
_unpack_name = domain_names.unpack_from_with_compression  # as mitmproxy has it

type OnDenied = Callable[[str, str, str, int], None]
"""Name, record type, reason, and how many like this were left out since the last."""


class Resolver:
    """Answers ``dns_request``, always: a flow without a response would be sent on by mitmproxy."""

    def __init__(
        self,
        desk: Desk,
        upstream: Callable[[Question], Awaitable[Message]],
        on_denied: OnDenied,
        *,
        throttle: Throttle | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk, self._upstream, self._on_denied = desk, upstream, on_denied
        self._throttle = throttle or Throttle()
        self._clock = clock
        self._asking = 0  # questions that wait for a resolver
        self._sockets: OrderedDict[str, None] = OrderedDict()  # UDP's, by their last answer

    def load(self, loader: Loader) -> None:  # noqa: ARG002 (mitmproxy gives it by name)
        take_over()

    async def dns_request(self, flow: dns.DNSFlow) -> None:
        await self._answer(flow)
        if (client := flow.client_conn).transport_protocol != "udp":
            return
        # mitmproxy keeps each socket for 20 s, and nearly every question comes from a new one.
        self._sockets.pop(client.id, None)
        self._sockets[client.id] = None
        if len(self._sockets) > bounds.limits.dns_sockets:
            oldest, _ = self._sockets.popitem(last=False)
            bounds.end_soon(oldest)

    def client_disconnected(self, client: connection.Client) -> None:
        self._sockets.pop(client.id, None)

    async def _answer(self, flow: dns.DNSFlow) -> None:
        # A message id that comes again on one connection brings its old flow, with the answer to another question.
        flow.error = None
        flow.response = respond(flow, Reply(Rcode.SERVFAIL))
        try:
            reply = await self._reply(flow.request)
            flow.response = respond(flow, reply)
        except Exception:
            _log.exception("a DNS question could not be served")
            reply = Reply(Rcode.SERVFAIL, denied=DnsReason.INTERNAL_ERROR)
        if reply.denied is not None:
            self._emit(flow.request, reply.denied)

    async def _reply(self, request: dns.DNSMessage) -> Reply:
        if not request.query or request.question is None:
            return Reply(Rcode.FORMERR)
        if request.op_code != op_codes.QUERY:
            return Reply(Rcode.NOTIMP)
        asked = request.question
        served = self._desk.ask(Question(asked.name, asked.type, asked.class_), now=self._clock())
        if isinstance(served, Reply):
            return served
        if self._asking >= bounds.limits.dns_questions:
            return Reply(Rcode.SERVFAIL, denied=DnsReason.OVERLOAD)
        self._asking += 1
        try:
            return await self._ask_upstream(served)
        finally:
            self._asking -= 1

    async def _ask_upstream(self, ask: Ask) -> Reply:
        try:
            answers = await asyncio.gather(*(self._upstream(query) for query in ask.queries))
        except UpstreamSilent as e:
            _log.info("%s: %s", ask.outcome.host, e)
            return Reply(Rcode.SERVFAIL)
        return self._desk.receive(ask, tuple(answers), now=self._clock())

    def _emit(self, request: dns.DNSMessage, reason: DnsReason) -> None:
        suppressed = self._throttle.admit(now=self._clock())
        if suppressed is not None:
            asked = request.question
            name, type_ = (asked.name, type_name(asked.type)) if asked else ("", "")
            self._on_denied(name, type_, reason, suppressed)


def respond(flow: dns.DNSFlow, reply: Reply) -> dns.DNSMessage:
    """The reply as a message: cut off where the client's UDP buffer is too small for it (RFC 2181, section 9)."""
    records = [dns.ResourceRecord(r.name, r.type, IN, r.ttl, r.data) for r in reply.records]
    response = flow.request.succeed(records)
    response.response_code = reply.rcode
    edns = [record for record in flow.request.additionals if record.type == Type.OPT]
    if edns:  # the class of this pseudo record is a size (RFC 6891, section 6.1.2)
        response.additionals = [dns.ResourceRecord("", Type.OPT, EDNS_SIZE, 0, b"")]
    limit = max(512, min(edns[0].class_, 4096)) if edns else 512
    if flow.client_conn.transport_protocol == "udp" and len(response.packed) > limit:
        response.answers, response.truncation = [], True
    return response


def take_over() -> None:
    """Leave no stock resolver in the chain: it comes before us, and would ask before we have judged."""
    keep_labels()
    addons: Any = ctx.master.addons
    stock = addons.get("dnsresolver")
    if stock is not None:
        # Not `addons.remove`: that makes a new chain, while `addons.add` is about to append to this one.
        addons.chain.remove(stock)
        del addons.lookup["dnsresolver"]


def keep_labels() -> None:
    """
    Make mitmproxy read labels as they are.

    It decodes them by IDNA 2003 and hangs up on names that only IDNA 2008 knows (``xn--fa-hia.de``), takes a dot
    inside a label for one between two, and adds one to a name whose last pointer leads to the root.
    """

    def unpack_label(labels: list[str], buffer: bytes, offset: int) -> int:
        size: int = struct.unpack_from("!B", buffer, offset)[0]
        label = buffer[offset + 1 : offset + 1 + size]
        if size >= 64 or len(label) < size:
            raise struct.error(f"a label of length {size} at offset {offset}")
        if size:
            if b"." in label or not label.isascii():
                raise struct.error(f"a label with illegal characters at offset {offset}")
            labels.append(label.decode("ascii"))
        return 1 + size

    def unpack_name(buffer: bytes, offset: int, cache: domain_names.Cache) -> tuple[str, int]:
        name, size = _unpack_name(buffer, offset, cache)
        return name.removesuffix("."), size

    domain_names._unpack_label_into = unpack_label
    domain_names.unpack_from_with_compression = unpack_name
