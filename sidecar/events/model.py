"""
Every event that the sidecar can write, as types: the fields are a contract with those who alert on them.

One JSON object per line: the envelope (see `sidecar.events.log`), then the event's own fields. A field is added
at any time; removing or changing one raises `SCHEMA`. Numbers carry their unit in the name; ``bytes_out`` leave the
workload, ``bytes_in`` reach it. Query strings, header values and bodies are never recorded.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from sidecar.reasons import HandshakeReason, PendingReason, Reason, RotationReason

SCHEMA = 1

type Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events share; their names are past tense, their levels fixed by kind."""

    name: ClassVar[str]
    level: ClassVar[Level] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStarted(Event):
    name: ClassVar = "session_started"
    version: str  # of the sidecar
    listen: tuple[str, ...]  # host:port of each listener


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSummary:
    """One destination of the session, as the workload asked for it."""

    host: str
    port: int
    allowed: int
    denied: int
    failed: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The session in numbers. ``hosts`` has the busiest destinations first; ``hosts_omitted`` counts the rest."""

    duration_ms: int
    connections: int
    requests_allowed: int
    requests_denied: int
    requests_failed: int
    connections_allowed: int
    connections_denied: int
    handshakes_failed: int
    bytes_in: int
    bytes_out: int
    denied_by_reason: dict[str, int]
    hosts: tuple[HostSummary, ...]
    hosts_omitted: int
    events_dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded(Event):
    name: ClassVar = "session_ended"
    summary: Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoaded(Event):
    name: ClassVar = "policy_loaded"
    source: str
    policy_hash: str
    generation: int  # 1 at start, one more with each reload
    rules: int
    default: str
    warnings: tuple[str, ...] = ()
    revoked_connections: int = 0  # client connections on which something was ended, since it is no longer allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReloadFailed(Event):
    name: ClassVar = "policy_reload_failed"
    level: ClassVar[Level] = "error"
    source: str
    problems: tuple[str, ...]
    generation: int  # of the policy that stays in force
    policy_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaLoaded(Event):
    name: ClassVar = "ca_loaded"
    subject: str
    fingerprint_sha256: str  # of the issuing certificate, lower-case hexadecimal
    not_before: str
    not_after: str
    chain_length: int
    warnings: tuple[str, ...] = ()  # what of it some clients don't take


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRotated(Event):
    """Another CA signs from now on; connections that are open go on."""

    name: ClassVar = "ca_rotated"
    subject: str
    fingerprint_sha256: str  # of the new issuing certificate
    old_fingerprint_sha256: str
    not_before: str
    not_after: str
    chain_length: int
    root_changed: bool  # the workload must trust another root than before
    reason: RotationReason


@dataclass(frozen=True, slots=True, kw_only=True)
class CaRotationPending(Event):
    """A new CA with another root is there, and not used yet."""

    name: ClassVar = "ca_rotation_pending"
    level: ClassVar[Level] = "warning"
    subject: str
    fingerprint_sha256: str  # of the new issuing certificate
    old_fingerprint_sha256: str  # of the one that goes on
    reason: PendingReason
    until: str  # when it is taken at the latest, if nothing changes
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaReloadFailed(Event):
    name: ClassVar = "ca_reload_failed"
    level: ClassVar[Level] = "error"
    source: str
    problems: tuple[str, ...]
    fingerprint_sha256: str  # of the CA that goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class CaExpiring(Event):
    """Told up to three times: see `sidecar.pki.expiry`."""

    name: ClassVar = "ca_expiring"
    level: ClassVar[Level] = "warning"
    subject: str
    fingerprint_sha256: str
    not_after: str
    remaining_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaExpired(Event):
    """From now on everything that needs a certificate, and every HTTP request, is refused."""

    name: ClassVar = "ca_expired"
    level: ClassVar[Level] = "error"
    subject: str
    fingerprint_sha256: str
    not_after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfConnection(Event):
    connection_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfRequest(_OfConnection):
    request_id: str
    host: str  # the name that was judged
    port: int
    scheme: str
    method: str
    path: str  # without query
    http_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOpened(_OfRequest):
    """The head of a request has arrived and hasn't been judged yet."""

    name: ClassVar = "request_opened"
    level: ClassVar[Level] = "debug"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAllowed(_OfRequest):
    name: ClassVar = "request_allowed"
    reason: Reason
    rule: str | None  # which rule; null where the default decided
    policy_generation: int
    policy_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestDenied(_OfRequest):
    """A closing record: the request was answered by the sidecar, nothing of it went upstream."""

    name: ClassVar = "request_denied"
    level: ClassVar[Level] = "warning"
    reason: Reason
    rule: str | None
    detail: str
    status: int  # what the workload was answered
    policy_generation: int
    policy_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestClosed(_OfRequest):
    """A closing record: the answer (or the WebSocket) has ended as it should."""

    name: ClassVar = "request_closed"
    status: int  # the upstream's
    upstream_address: str | None
    bytes_out: int
    bytes_in: int
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed(_OfRequest):
    """A closing record: allowed, but not completed."""

    name: ClassVar = "request_failed"
    level: ClassVar[Level] = "warning"
    reason: Reason
    detail: str
    upstream_address: str | None
    bytes_out: int
    bytes_in: int
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsHandshakeFailed(_OfConnection):
    """Of side ``client`` it closes the connection's record; of side ``server`` it stands beside ``request_failed``."""

    name: ClassVar = "tls_handshake_failed"
    level: ClassVar[Level] = "warning"
    side: Literal["client", "server"]  # the workload's handshake, or the upstream's
    reason: HandshakeReason
    host: str | None  # CONNECT's, or the name behind the original destination
    port: int | None
    sni: str | None
    alert: str | None  # the TLS alert's name, RFC 8446 section 6
    tls_version: str | None
    suspected: bool  # concluded from what the peer did, since it sent no alert
    detail: str  # OpenSSL's words, for humans: match on reason, never on this
    hint: str  # what to do about it


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityMismatch(_OfConnection):
    """Stands beside the denial: the names that a client gave for one request aren't one name."""

    name: ClassVar = "identity_mismatch"
    level: ClassVar[Level] = "error"
    request_id: str | None
    authority: str | None
    sni: str | None
    hosts: tuple[str, ...]  # Host, :authority and absolute-form target
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionAllowed(_OfConnection):
    """A connection that isn't opened (passthrough) or isn't HTTP goes through."""

    name: ClassVar = "connection_allowed"
    host: str
    port: int
    protocol: Literal["passthrough", "tcp"]
    sni: str | None
    reason: Reason
    rule: str | None
    policy_generation: int
    policy_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionDenied(_OfConnection):
    """A closing record of a connection that could not be answered with a 403."""

    name: ClassVar = "connection_denied"
    level: ClassVar[Level] = "warning"
    host: str | None
    port: int | None
    sni: str | None
    reason: Reason
    rule: str | None
    detail: str
    first_bytes: str | None = None  # hexadecimal, at most 16 bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionClosed(_OfConnection):
    """A closing record of a connection without requests: passthrough, raw TCP, or nothing at all."""

    name: ClassVar = "connection_closed"
    host: str | None
    port: int | None
    protocol: Literal["passthrough", "tcp", "none"]
    reason: Reason | None  # null where both sides ended it in order
    detail: str | None
    upstream_address: str | None
    bytes_out: int
    bytes_in: int
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsDenied(Event):
    name: ClassVar = "dns_denied"
    level: ClassVar[Level] = "warning"
    query: str
    type: str
    reason: str
    suppressed: int = 0  # like ones left out by the rate limit since the last of these


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryFailed(Event):
    name: ClassVar = "canary_failed"
    level: ClassVar[Level] = "error"
    canary: str
    expected: str
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitReached(Event):
    """Stands beside the closing records of what a limit has ended or refused."""

    name: ClassVar = "limit_reached"
    level: ClassVar[Level] = "warning"
    limit: str  # its name in docs/limits.md
    reason: Reason
    detail: str
    connection_id: str | None
    host: str | None
    suppressed: int = 0  # of the same limit, left out by the rate limit since the last of these


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsDropped(Event):
    """Events that could not be written, because the reader of the events was too slow or gone."""

    name: ClassVar = "events_dropped"
    level: ClassVar[Level] = "error"
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalError(Event):
    """A defect of the sidecar: what was going on was refused. The traceback is in the sidecar's own log."""

    name: ClassVar = "internal_error"
    level: ClassVar[Level] = "error"
    where: str
    error: str  # the exception's type
    connection_id: str | None
    request_id: str | None


EVENTS: tuple[type[Event], ...] = (
    SessionStarted,
    SessionEnded,
    PolicyLoaded,
    PolicyReloadFailed,
    CaLoaded,
    CaRotated,
    CaRotationPending,
    CaReloadFailed,
    CaExpiring,
    CaExpired,
    RequestOpened,
    RequestAllowed,
    RequestDenied,
    RequestClosed,
    RequestFailed,
    TlsHandshakeFailed,
    IdentityMismatch,
    ConnectionAllowed,
    ConnectionDenied,
    ConnectionClosed,
    DnsDenied,
    CanaryFailed,
    LimitReached,
    EventsDropped,
    InternalError,
)
