"""The gate: each request is proven to have one destination, and judged; it is let through, or refused with a reason."""

import re
from collections.abc import Callable

from mitmproxy import http

from addons.destinations import choose
from addons.guard import fails_closed
from addons.responses import builtin_response, problem_response
from sidecar import builtin
from sidecar.hosts import Authority, HostError, parse_authority
from sidecar.identity import Claims, Mismatch, prove
from sidecar.ledger import ConnectionRecord, Ledger, RequestRecord
from sidecar.policy import Decision, Policy, Verdict, judge_name, judge_request
from sidecar.problem import Failure, Problem
from sidecar.reasons import Reason

# In origin-form, without a fragment (RFC 9112, section 3.2). HTTP/2 knows no lines, and its `:path` may hold anything.
_TARGET = re.compile(rb"/[^\x00-\x20#\x7f]*")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # a token (RFC 9110, section 9.1), as `sidecar.sniff` has it


class Malformed(ValueError):
    """Not one well-formed request to one valid host."""


@fails_closed
class Gate:
    """
    Judges CONNECT by name, and each request whole.

    Args:
        policy: Gives the policy in force; asked once for each decision, since a reload swaps the whole value.
        ledger: Keeps what was claimed and decided.
        ca_expired: Says that the session CA's time is over, and with it that of every connection under it.
    """

    name = "egress_gate"

    def __init__(
        self,
        policy: Callable[[], Policy],
        ledger: Ledger,
        ca_expired: Callable[[], Failure | None] = lambda: None,
    ) -> None:
        self.ledger = ledger
        self._policy, self._ca_expired = policy, ca_expired

    def http_connect(self, flow: http.HTTPFlow) -> None:
        record = self.ledger.of(flow.client_conn.id)
        try:
            # Never pretty_host: it prefers the Host header, which is a claim, not a destination.
            authority = parse_authority(flow.request.authority)
            if flow.request.data.method != b"CONNECT":  # mitmproxy takes it in any case; others wait for no tunnel
                raise Malformed("the method is not CONNECT")
            if authority.port is None:
                raise HostError(f"CONNECT {flow.request.authority} names no port; write host:port")
            record.connect_hosts = _host_headers(flow.request)
        except (HostError, Malformed) as e:
            self.ledger.deny_connection(record, Reason.MALFORMED_REQUEST, str(e))
            flow.response = problem_response(flow, Problem(400, Reason.MALFORMED_REQUEST, str(e)))
            flow.response.headers["connection"] = "close"
            return
        record.authority = authority
        flow.request.data.host, flow.request.data.port = authority.host.name, authority.port
        # A denied name is answered 200, too: the client shall read its 403 through completed TLS.
        record.name = judge_name(self._policy(), authority.host, authority.port)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response or flow.error:
            return  # already answered, or not to be read as one request: the recorder closes it
        record = self.ledger.of(flow.client_conn.id)
        request = record.requests[flow.id]
        if record.refusal is not None:
            self._refuse(flow, record, request, record.refusal)
            return
        if (expired := self._ca_expired()) is not None:
            self._refuse(flow, record, request, Problem.of_failure(expired))
            return
        try:
            _check_line(flow)
            claims = _claims(record, flow.request, self._policy())
        except (HostError, Malformed) as e:
            self._refuse(flow, record, request, Problem(400, Reason.MALFORMED_REQUEST, str(e)))
            if flow.response is not None and not flow.request.is_http2:
                flow.response.headers["connection"] = "close"  # where it ends is not to be relied on
            return
        proof = prove(claims, 443 if flow.request.scheme == "https" else 80)
        if isinstance(proof, Mismatch):
            self.ledger.mismatch(record, request.id, claims.hosts, proof.text)
            self._refuse(flow, record, request, Problem(proof.status, Reason.IDENTITY_MISMATCH, proof.text))
            return
        policy = self._policy()
        request.host, request.port = proof.host.name, proof.port
        decision = judge_request(policy, proof.host, proof.port, flow.request.method, flow.request.path)
        if decision.verdict is Verdict.DENY:
            self._refuse(flow, record, request, Problem.of_decision(decision, _asked(record, request)))
            return
        if decision.reason is Reason.BUILTIN:
            self._answer(flow, record, request, decision, policy)
            return
        self.ledger.allow_request(record, request, decision, policy)
        record.clear(decision)
        _canonicalise(flow.request, proof.host.name, proof.port)

        def count(data: bytes) -> bytes:
            request.bytes_out += len(data)
            return data

        flow.request.stream = count

    def _answer(
        self,
        flow: http.HTTPFlow,
        record: ConnectionRecord,
        request: RequestRecord,
        decision: Decision,
        policy: Policy,
    ) -> None:
        """Nothing of this request goes anywhere: its host is never cleared to be dialled."""
        objection = builtin.objection(flow.request.method, tls=flow.client_conn.tls_established)
        if objection is not None:
            status, detail = objection
            self._refuse(flow, record, request, Problem(status, Reason.BUILTIN, detail))
            return
        self.ledger.allow_request(record, request, decision, policy)
        flow.response = builtin_response(flow)
        request.bytes_in = len(flow.response.raw_content or b"")
        discard_body(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        record = self.ledger.of(flow.client_conn.id)
        request = record.requests.get(flow.id)
        if request is None or flow.response is None:
            return
        peer = flow.server_conn.peername
        request.upstream_address = (
            f"[{peer[0]}]:{peer[1]}" if peer and ":" in peer[0] else f"{peer[0]}:{peer[1]}" if peer else None
        )
        flow.response.headers.pop("alt-svc", None)  # would lead clients to HTTP/3, which isn't mediated

        def count(data: bytes) -> bytes:
            request.bytes_in += len(data)
            return data

        flow.response.stream = count

    def _refuse(self, flow: http.HTTPFlow, record: ConnectionRecord, request: RequestRecord, problem: Problem) -> None:
        self.ledger.deny_request(record, request, problem, self._policy())
        flow.response = problem_response(flow, problem)
        discard_body(flow)


def discard_body(flow: http.HTTPFlow) -> None:
    """What is refused has no use for a body."""
    flow.request.stream = True  # what still comes of an upload is discarded, not buffered
    flow.request.headers.pop("expect", None)  # no 100 Continue before an answer that doesn't wait for the body


def _asked(record: ConnectionRecord, request: RequestRecord) -> str:
    """Method and path, if it's they that are denied, and not all of the host."""
    whole_host = record.name is not None and record.name.verdict is Verdict.DENY
    return "" if whole_host else f"{request.method} {request.path}"


def _check_line(flow: http.HTTPFlow) -> None:
    """Method, target and version are what every reader takes for them; the first request's have been seen to."""
    request = flow.request
    if not _METHOD.fullmatch(request.data.method):
        raise Malformed("the method is not a token of at most 32 characters")
    if request.method in ("CONNECT", "PRI"):  # spelled in any way: mitmproxy would open a tunnel for "connect"
        raise Malformed(f"{request.method} asks for no resource")
    if not _TARGET.fullmatch(request.data.path) and (request.method, request.data.path) != ("OPTIONS", b"*"):
        raise Malformed("the request target is no path, or has a space, a control character or a fragment in it")
    versions = ("HTTP/2.0",) if flow.client_conn.alpn == b"h2" else ("HTTP/1.1", "HTTP/1.0")
    if request.http_version not in versions:
        raise Malformed(f"{request.http_version} is not the version that is spoken here; send {versions[0]}")


def _claims(record: ConnectionRecord, request: http.Request, policy: Policy) -> Claims:
    """Every name that the client has given for this request."""
    hosts = _host_headers(request)
    if request.authority:  # :authority, or absolute-form inside of a tunnel
        hosts = (parse_authority(request.authority), *hosts)
    if record.authority is None:  # a plain request to the proxy: mitmproxy has parsed its absolute-form target
        hosts = (Authority(parse_authority(_bracketed(request.host)).host, request.port), *hosts)
    elif not hosts and request.http_version == "HTTP/1.1":
        raise Malformed("an HTTP/1.1 request needs a Host header")
    if hosts:
        choose(record, hosts[0].host, policy)
    return Claims(record.authority, record.sni, (*record.connect_hosts, *hosts), record.aliases)


def _host_headers(request: http.Request) -> tuple[Authority, ...]:
    values = request.headers.get_all("host")
    if len(values) > 1:
        raise Malformed("more than one Host header")
    return tuple(parse_authority(value.strip()) for value in values)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _canonicalise(request: http.Request, host: str, port: int) -> None:
    """What is forwarded goes to the proven name, in origin-form, without what was meant for a proxy."""
    request.data.host, request.data.port = host, port
    said = request.headers.get("host", "")
    if request.http_version == "HTTP/2.0":
        request.authority = _spelled(request.authority or said, request.scheme, host, port)
        request.headers.pop("host", None)  # RFC 9113, section 8.3.1
    else:
        request.authority = ""
        if not said:
            request.headers.pop("host", None)
            request.headers.insert(0, "Host", _spelled("", request.scheme, host, port))
        elif (spelled := _spelled(said, request.scheme, host, port)) != said:
            request.headers["host"] = spelled
    request.data.method = request.method.encode()  # as it was judged; methods are case-sensitive
    request.data.path = _NOT_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], request.data.path)  # RFC 3986, section 2.1
    for name in ("proxy-connection", "proxy-authorization"):
        if name in request.headers:
            del request.headers[name]
    if "upgrade" in request.headers and not _is_websocket(request):
        for name in ("upgrade", "http2-settings"):
            request.headers.pop(name, None)


def _spelled(said: str, scheme: str, host: str, port: int) -> str:
    """How the authority is written that is forwarded: as it was said, unless that has a second reading (U-labels)."""
    if not said:
        # Without one, an upstream of many names would choose by itself (HTTP/1.0, absolute-form, HTTP/2).
        bracketed = _bracketed(host)
        return bracketed if port == (443 if scheme == "https" else 80) else f"{bracketed}:{port}"
    judged = str(parse_authority(said.strip()))
    return said if said.lower() == judged else judged


def _is_websocket(request: http.Request) -> bool:
    """
    Whether it may become a WebSocket; RFC 9110, section 7.8: no other protocol is spoken behind an answer of 101, h2c
    least of all. One with a body is none (RFC 6455, section 4.1), and readers disagree about where it ends.
    """
    headers = request.headers
    return (
        headers["upgrade"].strip().lower() == "websocket"
        and headers.get("sec-websocket-version") == "13"
        and request.method == "GET"
        and "transfer-encoding" not in headers
        and headers.get("content-length", "0") == "0"
    )
