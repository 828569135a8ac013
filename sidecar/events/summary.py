"""A session in numbers, counted from its events; bounded, whatever the workload asks for."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from sidecar.events.model import (
    ConnectionAllowed,
    ConnectionClosed,
    ConnectionDenied,
    Event,
    HostSummary,
    RequestAllowed,
    RequestClosed,
    RequestDenied,
    RequestFailed,
    Summary,
    TlsHandshakeFailed,
)

_HOSTS_KEPT = 1000
_HOSTS_SHOWN = 50


@dataclass(slots=True)
class _Host:
    allowed: int = 0
    denied: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(slots=True)
class Tally:
    """Counts events as they come; `summary` may be asked for at any time."""

    started: datetime
    dropped: int = 0
    connections: int = 0
    _totals: Counter[str] = field(default_factory=Counter)
    _reasons: Counter[str] = field(default_factory=Counter)
    _hosts: dict[tuple[str, int], _Host] = field(default_factory=dict)
    _hosts_omitted: int = 0

    def connection(self) -> None:
        """A client has connected."""
        self.connections += 1

    def count(self, event: Event) -> None:
        match event:
            case RequestAllowed():
                self._host(event.host, event.port).allowed += 1
            case RequestDenied():
                self._host(event.host, event.port).denied += 1
                self._reasons[event.reason.value] += 1
            case RequestClosed():
                self._bytes(event.host, event.port, event.bytes_in, event.bytes_out)
            case RequestFailed():
                self._host(event.host, event.port).failed += 1
                self._bytes(event.host, event.port, event.bytes_in, event.bytes_out)
            case ConnectionAllowed():
                self._host(event.host, event.port).allowed += 1
            case ConnectionDenied():
                if event.host is not None and event.port is not None:
                    self._host(event.host, event.port).denied += 1
                self._reasons[event.reason.value] += 1
            case ConnectionClosed() if event.host is not None and event.port is not None:
                self._bytes(event.host, event.port, event.bytes_in, event.bytes_out)
            case TlsHandshakeFailed() if event.side == "client" and event.host is not None and event.port is not None:
                self._host(event.host, event.port).failed += 1
            case _:
                pass
        self._totals[event.name] += 1

    def _host(self, host: str, port: int) -> _Host:
        if (found := self._hosts.get((host, port))) is not None:
            return found
        if len(self._hosts) < _HOSTS_KEPT:
            return self._hosts.setdefault((host, port), _Host())
        self._hosts_omitted += 1
        return _Host()

    def _bytes(self, host: str, port: int, bytes_in: int, bytes_out: int) -> None:
        entry = self._host(host, port)
        entry.bytes_in += bytes_in
        entry.bytes_out += bytes_out
        self._totals["bytes_in"] += bytes_in
        self._totals["bytes_out"] += bytes_out

    def summary(self, now: datetime) -> Summary:
        busiest = sorted(
            self._hosts.items(), key=lambda item: (-item[1].allowed - item[1].denied - item[1].failed, item[0])
        )
        total = self._totals
        return Summary(
            duration_ms=int((now - self.started).total_seconds() * 1000),
            connections=self.connections,
            requests_allowed=total["request_allowed"],
            requests_denied=total["request_denied"],
            requests_failed=total["request_failed"],
            connections_allowed=total["connection_allowed"],
            connections_denied=total["connection_denied"],
            handshakes_failed=total["tls_handshake_failed"],
            bytes_in=total["bytes_in"],
            bytes_out=total["bytes_out"],
            denied_by_reason=dict(sorted(self._reasons.items())),
            hosts=tuple(
                HostSummary(
                    host=host,
                    port=port,
                    allowed=seen.allowed,
                    denied=seen.denied,
                    failed=seen.failed,
                    bytes_in=seen.bytes_in,
                    bytes_out=seen.bytes_out,
                )
                for (host, port), seen in busiest[:_HOSTS_SHOWN]
            ),
            hosts_omitted=max(len(busiest) - _HOSTS_SHOWN, 0) + self._hosts_omitted,
            events_dropped=self.dropped,
        )
