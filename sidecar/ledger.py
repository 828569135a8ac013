"""
The ledger: who is connected, what was decided, and exactly one closing record for everything that was opened.

A request ends in one of ``request_closed``, ``request_denied``, ``request_failed``; a connection without requests in
one of ``tls_handshake_failed``, ``connection_denied``, ``connection_closed``. Whoever records an end a second time is
ignored, and `Ledger.disconnect` closes what nobody has closed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sidecar.addresses import IPNetwork
from sidecar.events.model import (
    ConnectionAllowed,
    ConnectionClosed,
    ConnectionDenied,
    Event,
    IdentityMismatch,
    InternalError,
    LimitReached,
    RequestAllowed,
    RequestClosed,
    RequestDenied,
    RequestFailed,
    RequestOpened,
    TlsHandshakeFailed,
)
from sidecar.handshakes import Diagnosis, established_but_unused
from sidecar.hosts import Authority, Host
from sidecar.limits import KNOWN
from sidecar.names.channel import Throttle
from sidecar.policy import Decision, Policy
from sidecar.problem import Failure, Problem
from sidecar.reasons import Reason

type Emit = Callable[[Event], None]


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One request, from its head to its one closing record."""

    id: str
    host: str
    port: int
    scheme: str
    method: str
    path: str
    http_version: str
    opened: float  # time.monotonic(), seconds
    allowed: bool = False
    denial: Problem | None = None
    websocket: bool = False
    revoked: Failure | None = None  # why it is about to be ended, by a policy that came after it
    upstream_address: str | None = None
    bytes_out: int = 0
    bytes_in: int = 0


@dataclass(slots=True, kw_only=True)
class ConnectionRecord:
    """One client connection. `closed` once its closing record is written, or a request has made one unnecessary."""

    id: str
    opened: float  # time.monotonic(), seconds
    authority: Authority | None = None  # CONNECT's, or the name behind the original destination
    connect_hosts: tuple[Authority, ...] = ()  # the Host header of the CONNECT request
    candidates: tuple[Host, ...] = ()  # names of which the original destination is one; SNI or Host picks
    # Is the original destination, a synthetic address from before a restart, that of this name?
    kept: Callable[[Host], bool] | None = None
    aliases: frozenset[Host] = frozenset()  # what the pod's search domains make the connection's name of
    spoke: bool = False  # the client has sent something, inside of a CONNECT or on a redirected connection
    silent: bool = False  # it was given time to, and hasn't
    refusal: Problem | None = None  # what every request on this connection is answered with
    sni: Host | None = None
    name: Decision | None = None  # stage one: the verdict on name and port
    protocol: str = "none"  # none, http, passthrough, tcp
    spliced: Decision | None = None  # what allowed it to be forwarded unopened
    revoked: Failure | None = None  # why it is about to be ended, by a policy that came after it
    tls_established: bool = False
    # The alert for a client whose handshake is refused (RFC 8446, section 6.2); internal_error until there is a reason.
    tls_refusal: int = 80
    left_early: bool = False  # before its ClientHello was answered: the upstream is dialled first
    alert: str | None = None  # received after the handshake: OpenSSL's words
    used: bool = False  # a byte has come inside of TLS
    closed: bool = False
    requests: dict[str, RequestRecord] = field(default_factory=dict)
    failures: dict[tuple[str, int], Failure] = field(
        default_factory=dict
    )  # upstreams that couldn't be reached, and why
    # Upstreams that a verdict allows to be dialled, each with the networks of the rule that allows it by address.
    cleared: dict[tuple[str, int], tuple[IPNetwork, ...]] = field(default_factory=dict)
    upstream_address: str | None = None
    bytes_out: int = 0
    bytes_in: int = 0

    @property
    def host(self) -> str | None:
        """The name to record: the judged one, else what was claimed."""
        if self.authority is not None:
            return self.authority.host.name
        return self.sni.name if self.sni is not None else None

    @property
    def port(self) -> int | None:
        return self.authority.port if self.authority is not None else None

    def clear(self, decision: Decision) -> None:
        """A verdict allows to dial its host and port for this client; the latest 128 are remembered."""
        target = (decision.host.name, decision.port)
        rule = decision.rule if decision.host.is_address else None
        self.cleared.pop(target, None)
        self.cleared[target] = tuple(p.network for p in rule.patterns if p.network is not None) if rule else ()
        if len(self.cleared) > 128:
            del self.cleared[next(iter(self.cleared))]

    def failed(self, host: str, port: int, failure: Failure) -> None:
        """*host* couldn't be reached; the latest 128 are remembered."""
        self.failures.pop((host, port), None)
        self.failures[host, port] = failure
        if len(self.failures) > 128:
            del self.failures[next(iter(self.failures))]


class Ledger:
    """All live connections. Not thread-safe: one event loop owns it."""

    def __init__(self, emit: Emit, *, opened: Callable[[], None] = lambda: None, verbose: bool = True) -> None:
        self._emit, self._opened, self._verbose = emit, opened, verbose
        self._connections: dict[str, ConnectionRecord] = {}
        self._throttles: dict[str, Throttle] = {}  # by limit

    def __len__(self) -> int:
        return len(self._connections)

    def find(self, connection_id: str) -> ConnectionRecord | None:
        """The record of a client connection that is still there."""
        return self._connections.get(connection_id)

    def of(self, connection_id: str) -> ConnectionRecord:
        """
        The record of a client connection that is there, or of one that has gone: closed, and kept by nobody.

        What was under way for a client when it left (a dial, a handshake) ends after it; that opens nothing anew.
        """
        found = self._connections.get(connection_id)
        return found or ConnectionRecord(id=connection_id, opened=time.monotonic(), closed=True)

    def connections(self) -> list[ConnectionRecord]:
        return list(self._connections.values())

    @property
    def open_requests(self) -> int:
        return sum(len(c.requests) for c in self._connections.values())

    def connection(self, connection_id: str) -> ConnectionRecord:
        """The record of a client connection that begins; made when first asked for."""
        record = self._connections.get(connection_id)
        if record is None:
            record = ConnectionRecord(id=connection_id, opened=time.monotonic())
            self._connections[connection_id] = record
            self._opened()
        return record

    def open_request(self, connection: ConnectionRecord, request: RequestRecord) -> None:
        connection.closed = connection.used = True
        connection.protocol = "http"
        connection.requests[request.id] = request
        if self._verbose:
            self._emit(RequestOpened(connection_id=connection.id, **_request(request)))

    def allow_request(
        self, connection: ConnectionRecord, request: RequestRecord, decision: Decision, policy: Policy
    ) -> None:
        request.allowed = True
        self._emit(
            RequestAllowed(
                connection_id=connection.id,
                **_request(request),
                reason=decision.reason,
                rule=decision.rule.label if decision.rule else None,
                policy_generation=policy.generation,
                policy_hash=policy.hash,
            )
        )

    def deny_request(
        self, connection: ConnectionRecord, request: RequestRecord, problem: Problem, policy: Policy | None
    ) -> None:
        if connection.requests.pop(request.id, None) is None:
            return
        request.denial = problem
        self._emit(
            RequestDenied(
                connection_id=connection.id,
                **_request(request),
                reason=problem.reason,
                rule=problem.rule,
                detail=problem.detail,
                status=problem.status,
                policy_generation=policy.generation if policy else 0,
                policy_hash=policy.hash if policy else "",
            )
        )

    def close_request(self, connection: ConnectionRecord, request: RequestRecord, status: int) -> None:
        if request.revoked is not None:
            self.fail_request(connection, request, request.revoked)
            return
        if connection.requests.pop(request.id, None) is None:
            return
        self._emit(
            RequestClosed(
                connection_id=connection.id,
                **_request(request),
                status=status,
                upstream_address=request.upstream_address,
                bytes_out=request.bytes_out,
                bytes_in=request.bytes_in,
                duration_ms=_ms_since(request.opened),
            )
        )

    def fail_request(self, connection: ConnectionRecord, request: RequestRecord, failure: Failure) -> None:
        if connection.requests.pop(request.id, None) is None:
            return
        failure = request.revoked or failure
        self._emit(
            RequestFailed(
                connection_id=connection.id,
                **_request(request),
                reason=failure.reason,
                detail=failure.detail,
                upstream_address=request.upstream_address,
                bytes_out=request.bytes_out,
                bytes_in=request.bytes_in,
                duration_ms=_ms_since(request.opened),
            )
        )

    def mismatch(
        self, connection: ConnectionRecord, request_id: str | None, hosts: tuple[Authority, ...], detail: str
    ) -> None:
        self._emit(
            IdentityMismatch(
                connection_id=connection.id,
                request_id=request_id,
                authority=_text(connection.authority),
                sni=_text(connection.sni),
                hosts=tuple(str(host) for host in (*connection.connect_hosts, *hosts)),
                detail=detail,
            )
        )

    def allow_connection(self, connection: ConnectionRecord, decision: Decision, policy: Policy, protocol: str) -> None:
        connection.protocol, connection.used, connection.spliced = protocol, True, decision
        self._emit(
            ConnectionAllowed(
                connection_id=connection.id,
                host=str(decision.host),
                port=decision.port,
                protocol="passthrough" if protocol == "passthrough" else "tcp",
                sni=_text(connection.sni),
                reason=decision.reason,
                rule=decision.rule.label if decision.rule else None,
                policy_generation=policy.generation,
                policy_hash=policy.hash,
            )
        )

    def deny_connection(
        self,
        connection: ConnectionRecord,
        reason: Reason,
        detail: str,
        *,
        rule: str | None = None,
        first_bytes: bytes = b"",
    ) -> None:
        if connection.closed:
            return
        connection.closed = True
        self._emit(
            ConnectionDenied(
                connection_id=connection.id,
                host=connection.host,
                port=connection.port,
                sni=_text(connection.sni),
                reason=reason,
                rule=rule,
                detail=detail,
                first_bytes=first_bytes[:16].hex() or None,
            )
        )

    def close_connection(self, connection: ConnectionRecord, failure: Failure | None = None) -> None:
        if connection.closed:
            return
        connection.closed = True
        failure = connection.revoked or failure
        self._emit(
            ConnectionClosed(
                connection_id=connection.id,
                host=connection.host,
                port=connection.port,
                protocol=connection.protocol if connection.protocol in ("passthrough", "tcp") else "none",  # type: ignore[arg-type]
                reason=failure.reason if failure else None,
                detail=failure.detail if failure else None,
                upstream_address=connection.upstream_address,
                bytes_out=connection.bytes_out,
                bytes_in=connection.bytes_in,
                duration_ms=_ms_since(connection.opened),
            )
        )

    def handshake_failed(
        self,
        connection: ConnectionRecord,
        diagnosis: Diagnosis,
        *,
        tls_version: str | None = None,
        upstream: Authority | None = None,
    ) -> None:
        """A handshake with the client (which closes the connection's record), or with *upstream* if that is given."""
        if upstream is None:
            if connection.closed:
                return
            connection.closed = True
        self._emit(
            TlsHandshakeFailed(
                connection_id=connection.id,
                side="client" if upstream is None else "server",
                reason=diagnosis.reason,
                host=connection.host if upstream is None else upstream.host.name,
                port=connection.port if upstream is None else upstream.port,
                sni=_text(connection.sni),
                alert=diagnosis.alert,
                tls_version=tls_version,
                suspected=diagnosis.suspected,
                detail=diagnosis.detail,
                hint=diagnosis.hint,
            )
        )

    def reach(self, limit: str, detail: str, connection: ConnectionRecord | None, *, ends: bool = True) -> None:
        """
        A limit is reached.

        Args:
            limit: Its name in `sidecar.limits`.
            detail: For people.
            connection: Whose limit it is, if one's.
            ends: The connection is about to be closed for it; what is open on it fails for that reason.
        """
        reason = KNOWN[limit].reason
        assert reason is not None
        suppressed = self._throttles.setdefault(limit, Throttle()).admit(now=time.monotonic())
        if suppressed is not None:
            self._emit(
                LimitReached(
                    limit=limit,
                    reason=reason,
                    detail=detail,
                    connection_id=connection.id if connection else None,
                    host=connection.host if connection else None,
                    suppressed=suppressed,
                )
            )
        if connection is None or not ends:
            return
        connection.revoked = connection.revoked or Failure(reason, detail)
        for request in connection.requests.values():
            request.revoked = request.revoked or connection.revoked
        if connection.protocol == "none":
            self.deny_connection(connection, reason, detail)

    def internal_error(
        self, where: str, error: BaseException, connection_id: str | None, request_id: str | None
    ) -> None:
        self._emit(
            InternalError(where=where, error=type(error).__name__, connection_id=connection_id, request_id=request_id)
        )

    def disconnect(self, connection_id: str, *, tls_version: str | None = None) -> None:
        """The client connection is gone: close what is still open, forget it."""
        connection = self._connections.pop(connection_id, None)
        if connection is None:
            return
        gone = Failure(Reason.CLIENT_DISCONNECTED, "the workload closed the connection")
        self._end_requests(connection, gone, status=499)
        unused = connection.tls_established and not connection.used and connection.protocol == "none"
        if unused and connection.revoked is None:
            self.handshake_failed(connection, established_but_unused(connection.alert), tls_version=tls_version)
        failure = (
            next(iter(connection.failures.values()), None) if connection.protocol in ("passthrough", "tcp") else None
        )
        if failure is not None and failure.is_denial and connection.revoked is None:
            self.deny_connection(connection, failure.reason, failure.detail)
        self.close_connection(connection, failure)

    def shut_down(self) -> None:
        """The sidecar stops: what is still open isn't the workload's doing."""
        stopped = Failure(Reason.SHUTDOWN, "the sidecar was stopped")
        for connection in self.connections():
            self._end_requests(connection, stopped, status=503)

    def _end_requests(self, connection: ConnectionRecord, why: Failure, *, status: int) -> None:
        for request in list(connection.requests.values()):
            if request.allowed:
                self.fail_request(connection, request, why)
            else:
                self.deny_request(connection, request, Problem.of_failure(why, status=status), None)


def _request(request: RequestRecord) -> dict[str, Any]:
    return {
        "request_id": request.id,
        "host": request.host,
        "port": request.port,
        "scheme": request.scheme,
        "method": request.method,
        "path": request.path,
        "http_version": request.http_version,
    }


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)


def _ms_since(opened: float) -> float:
    return round((time.monotonic() - opened) * 1000, 3)
