"""
What is worth a graph or an alert, counted from the events and read from the session, in Prometheus' text form.

Labels are closed sets of words: no host, path or rule becomes one. So a workload can't make the number of time series
grow. Counting is a dictionary's addition per event, and the client library comes in when someone asks: its own
counters take a lock and several microseconds each time.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from sidecar import __version__
from sidecar.events.model import (
    CanaryFailed,
    CaReloadFailed,
    CaRotated,
    ConnectionAllowed,
    ConnectionClosed,
    ConnectionDenied,
    DnsDenied,
    Event,
    IdentityMismatch,
    InternalError,
    LimitReached,
    PolicyLoaded,
    PolicyReloadFailed,
    RequestAllowed,
    RequestClosed,
    RequestDenied,
    RequestFailed,
    TlsHandshakeFailed,
)
from sidecar.reasons import HandshakeReason

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"  # prometheus_client's CONTENT_TYPE_PLAIN_0_0_4

# Seconds: from an answer out of a cache to a long poll. WebSockets lie beyond.
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class CountOf(NamedTuple):
    """A counter: its help, its labels."""

    text: str
    labels: tuple[str, ...] = ()


COUNTERS: Final = {
    "requests": CountOf("Verdicts on requests.", ("verdict", "reason")),
    "requests_failed": CountOf("Requests that were allowed but not completed.", ("reason",)),
    "connection_verdicts": CountOf(
        "Verdicts on connections that aren't opened, aren't HTTP, or can't be answered.", ("verdict", "reason")
    ),
    "bytes": CountOf("Carried for the workload: out of it, or in.", ("direction",)),
    "tls_handshake_failures": CountOf(
        "TLS handshakes that failed, with the workload (client) or an upstream (server).", ("side", "reason")
    ),
    "identity_mismatches": CountOf("Clients that gave several names for one request."),
    "dns_denied": CountOf("Questions for names that were refused.", ("reason",)),
    "policy_reload_failures": CountOf("New policies that were invalid."),
    "connections_revoked": CountOf("Client connections from which a new policy took something."),
    "ca_rotations": CountOf("New CAs that were taken."),
    "ca_reload_failures": CountOf("New CAs that were invalid."),
    "canaries_failed": CountOf("Canaries of the fence check that weren't held."),
    "limits_reached": CountOf("What the sidecar's limits have ended or refused.", ("limit",)),
    "internal_errors": CountOf("Defects of the sidecar; each was answered with a refusal."),
}

# Alerts look for the first of these, and an increase is seen only from a 0 that was there before.
_FROM_THE_START: Final[tuple[tuple[str, ...], ...]] = (
    *((name,) for name, counter in COUNTERS.items() if not counter.labels),
    ("bytes", "out"),
    ("bytes", "in"),
    ("tls_handshake_failures", "client", HandshakeReason.CLIENT_REJECTED_CA),
    ("tls_handshake_failures", "client", HandshakeReason.CLIENT_CLOSED_AFTER_HANDSHAKE),
    ("tls_handshake_failures", "server", HandshakeReason.UPSTREAM_CERTIFICATE),
    ("tls_handshake_failures", "server", HandshakeReason.UPSTREAM_NAME),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What is read when the metrics are asked for, since no event tells it."""

    connections: int  # accepted since the start
    connections_open: int
    requests_open: int
    policy_generation: int
    ca_seconds: float  # to the end of the CA's validity; negative once it is over
    ca_reload_ok: bool
    events_dropped: int
    ready: bool


class Metrics:
    """
    One sidecar's metrics: what its client library takes for a registry.

    Args:
        gauges: Called at each scrape.
    """

    def __init__(self, gauges: Callable[[], Gauges]) -> None:
        self._gauges = gauges
        self._counts: dict[tuple[str, ...], int] = dict.fromkeys(_FROM_THE_START, 0)
        self._buckets, self._seconds = [0] * (len(_SECONDS) + 1), 0.0
        self._reload_ok = True
        self._by_kind: dict[type[Event], Callable[[Any], None]] = {
            RequestAllowed: lambda e: self._add(1, "requests", "allowed", e.reason),
            RequestDenied: lambda e: self._add(1, "requests", "denied", e.reason),
            RequestClosed: self._ended,
            RequestFailed: self._failed,
            ConnectionAllowed: lambda e: self._add(1, "connection_verdicts", "allowed", e.reason),
            ConnectionDenied: lambda e: self._add(1, "connection_verdicts", "denied", e.reason),
            ConnectionClosed: self._carried,
            TlsHandshakeFailed: lambda e: self._add(1, "tls_handshake_failures", e.side, e.reason),
            IdentityMismatch: lambda _: self._add(1, "identity_mismatches"),
            DnsDenied: lambda e: self._add(1 + e.suppressed, "dns_denied", e.reason),
            PolicyLoaded: self._policy_loaded,
            PolicyReloadFailed: self._policy_reload_failed,
            CaRotated: lambda _: self._add(1, "ca_rotations"),
            CaReloadFailed: lambda _: self._add(1, "ca_reload_failures"),
            CanaryFailed: lambda _: self._add(1, "canaries_failed"),
            LimitReached: lambda e: self._add(1 + e.suppressed, "limits_reached", e.limit),
            InternalError: lambda _: self._add(1, "internal_errors"),
        }

    def count(self, event: Event) -> None:
        """Count one event. Never raises; not thread-safe: the event log calls it under its lock."""
        if (count := self._by_kind.get(type(event))) is not None:
            count(event)

    def text(self) -> bytes:
        """All of it, in the text format 0.0.4 that every Prometheus reads."""
        from prometheus_client.exposition import generate_latest

        return generate_latest(cast("CollectorRegistry", self))

    def collect(self) -> "Iterable[Metric]":
        """The metric families as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counts = self._counts.copy()  # in one step: another thread may be counting
        for name, counter in COUNTERS.items():
            family = CounterMetricFamily(f"egress_{name}", counter.text, labels=counter.labels)
            for key in sorted(key for key in counts if key[0] == name):
                family.add_metric(key[1:], counts[key])
            yield family
        yield self._durations()
        now = self._gauges()
        yield CounterMetricFamily("egress_connections", "Client connections.", value=now.connections)
        text = "Events whose reader was too slow or gone."
        yield CounterMetricFamily("egress_events_dropped", text, value=now.events_dropped)
        gauges: tuple[tuple[str, str, float], ...] = (
            ("connections_open", "Client connections, now.", now.connections_open),
            ("requests_open", "Requests under way, now.", now.requests_open),
            ("policy_generation", "1 at the start, one more with each reload.", now.policy_generation),
            ("policy_reload_ok", "0 while the newest policy is invalid and an older one in force.", self._reload_ok),
            ("ca_expiry_seconds", "To the end of the CA's validity; negative after it.", now.ca_seconds),
            ("ca_reload_ok", "0 while the mounted CA is invalid and an older one in force.", now.ca_reload_ok),
            ("ready", "1 if /readyz says so, else 0.", now.ready),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"egress_{name}", text, value=value)
        info = GaugeMetricFamily("egress_info", "1, with the sidecar's version.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info

    def _durations(self) -> "Metric":
        from prometheus_client.core import HistogramMetricFamily

        sums, total = [], 0
        for limit, count in zip((*_SECONDS, float("inf")), self._buckets.copy(), strict=True):
            total += count
            sums.append((f"{limit:g}" if limit < float("inf") else "+Inf", total))
        text = "Of requests that were allowed, from their head to their end."
        return HistogramMetricFamily("egress_request_duration_seconds", text, buckets=sums, sum_value=self._seconds)

    def _add(self, amount: int, *key: str) -> None:
        self._counts[key] = self._counts.get(key, 0) + amount

    def _failed(self, event: RequestFailed) -> None:
        self._add(1, "requests_failed", event.reason)
        self._ended(event)

    def _ended(self, event: RequestClosed | RequestFailed) -> None:
        seconds = event.duration_ms / 1000
        self._buckets[bisect_left(_SECONDS, seconds)] += 1
        self._seconds += seconds
        self._carried(event)

    def _carried(self, event: RequestClosed | RequestFailed | ConnectionClosed) -> None:
        self._add(event.bytes_out, "bytes", "out")
        self._add(event.bytes_in, "bytes", "in")

    def _policy_loaded(self, event: PolicyLoaded) -> None:
        self._reload_ok = True
        self._add(event.revoked_connections, "connections_revoked")

    def _policy_reload_failed(self, _: PolicyReloadFailed) -> None:
        self._reload_ok = False
        self._add(1, "policy_reload_failures")
