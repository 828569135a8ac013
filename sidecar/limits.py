"""
What bounds the sidecar, whatever its peers send: time, size and number. Each limit is a setting, and says what becomes
of it: the event that tells of it, and what the client sees. docs/limits.md is printed from here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Final

from sidecar.errors import SidecarError
from sidecar.reasons import Reason

SPARE_DESCRIPTORS: Final = 96  # beside connections: listeners, files, the event loop's own, lookups, health


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What is to be known of one limit, beside its value."""

    least: float
    most: float
    bounds: str
    event: str  # that tells of it; empty where nothing is refused
    seen: str  # by the client
    reason: Reason | None = None


def _limit(
    default: float, least: float, most: float, bounds: str, event: str, seen: str, reason: Reason | None = None
) -> Any:
    known = Limit(least=least, most=most, bounds=bounds, event=event, seen=seen, reason=reason)
    return field(default=default, metadata={"limit": known})


_REACHED, _AND_CLOSING = "`limit_reached`", "`limit_reached` and the closing record"
_GOAWAY = "GOAWAY, the connection is closed"
_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a session. The unit stands in the name; counts have none."""

    # connections
    client_connections: int = _limit(
        4096, 1, 1_000_000, "client connections at once", "`limit_reached` and `connection_denied`",
        "503 from the explicit proxy; a redirected connection is closed", Reason.TOO_MANY_CONNECTIONS,
    )  # fmt: skip
    upstream_connections: int = _limit(
        4096, 1, 1_000_000, "upstream connections at once, of all clients", "`limit_reached` and `request_failed`",
        "503", Reason.OVERLOAD,
    )  # fmt: skip
    upstreams_per_client: int = _limit(
        64, 8, 100_000, "upstream connections of one client connection", "",
        "nothing: the oldest one is closed, and opened again when it is needed",
    )  # fmt: skip
    upstreams_per_address: int = _limit(
        5, 1, 1000, "upstream connections of one client connection to one address", "", "nothing: further ones wait",
    )  # fmt: skip
    upstream_pool: int = _limit(
        32, 0, 100_000, "upstream connections that a client has left, for the next one of the same destination", "",
        "nothing: the one that has waited longest is closed",
    )  # fmt: skip
    # time
    upstream_pool_seconds: float = _limit(
        4, 0.1, 3600, "the same, each", "", "nothing: it is closed"
    )  # fmt: skip
    idle_seconds: int = _limit(
        3600, 1, _MOST, "silence on a client connection and all that hangs on it", "the closing record",
        "the connection is closed", Reason.TIMEOUT,
    )  # fmt: skip
    head_seconds: float = _limit(
        60, 0.1, 86_400, "a ClientHello, a TLS handshake, the head of a request: from its first byte, of the first "
        "one from the connection's start", _AND_CLOSING,
        "408, or the connection is closed where none can be sent; GOAWAY", Reason.HEAD_TOO_SLOW,
    )  # fmt: skip
    stalled_seconds: float = _limit(
        900, 0.1, _MOST, "a peer that doesn't take what waits for it", _AND_CLOSING, "the connection is closed",
        Reason.TIMEOUT,
    )  # fmt: skip
    address_seconds: float = _limit(
        10, 0.1, 3600, "an address of an upstream to accept a connection",
        "`request_failed`, where it was the last one", "502", Reason.UPSTREAM_UNREACHABLE,
    )  # fmt: skip
    handshake_seconds: float = _limit(
        30, 0.1, 3600, "an upstream's TLS handshake", "`limit_reached` and `request_failed`", "504", Reason.TIMEOUT
    )  # fmt: skip
    hook_seconds: float = _limit(
        30, 0.1, 3600, "the sidecar's own judgement, DNS lookups included", "`internal_error`", "503",
        Reason.INTERNAL_ERROR,
    )  # fmt: skip
    # size
    head_bytes: int = _limit(
        262_144, 4096, 1 << 24, "the head of a request or a response, over HTTP/1",
        _AND_CLOSING, "431; 502 where it is the upstream's", Reason.HEAD_TOO_LARGE,
    )  # fmt: skip
    http2_head_bytes: int = _limit(
        65_536, 4096, 1 << 24, "the same over HTTP/2, as it is on the wire and as it is read",
        _AND_CLOSING, f"{_GOAWAY}; 502 where it is the upstream's", Reason.HEAD_TOO_LARGE,
    )  # fmt: skip
    unread_bytes: int = _limit(
        262_144, 4096, 1 << 28, "what is sent behind a request before that is answered; a chunk's first line; trailers",
        _AND_CLOSING, "the connection is closed; 502 where it is the upstream's", Reason.FLOOD,
    )  # fmt: skip
    discard_bytes: int = _limit(
        1 << 20, 0, _MOST, "what is still read of an upload that was refused", "", "the stream or connection is closed"
    )  # fmt: skip
    held_bytes: int = _limit(
        4 << 20, 65_536, _MOST, "what waits for one peer's HTTP/2 window, or for an upstream that is being dialled", "",
        "nothing: what it comes from isn't read meanwhile",
    )  # fmt: skip
    most_held_bytes: int = _limit(
        64 << 20, 65_536, _MOST, "the same, where both directions wait for each other", _AND_CLOSING,
        "the connection is closed", Reason.FLOOD,
    )  # fmt: skip
    # number
    http2_streams: int = _limit(
        100, 1, 10_000, "HTTP/2 streams of one connection at once", _AND_CLOSING, _GOAWAY, Reason.FLOOD
    )  # fmt: skip
    http2_resets_per_minute: int = _limit(
        300, 1, 1_000_000, "HTTP/2 streams that a client resets, or has reset; two new streams make up for one",
        _AND_CLOSING, _GOAWAY, Reason.FLOOD,
    )  # fmt: skip
    http2_frames_per_minute: int = _limit(
        6000, 100, 1_000_000, "HTTP/2 frames that carry nothing (PING, SETTINGS, WINDOW_UPDATE, PRIORITY, "
        "CONTINUATION, empty DATA, unknown ones); requests and data make up for them", _AND_CLOSING,
        f"{_GOAWAY}; 502 where they are the upstream's", Reason.FLOOD,
    )  # fmt: skip
    websocket_frames_per_minute: int = _limit(
        6000, 100, 1_000_000, "WebSocket frames that carry nothing (ping, pong, empty ones), in one direction; data "
        "makes up for them", _AND_CLOSING, "the connection is closed", Reason.FLOOD,
    )  # fmt: skip
    interim_responses: int = _limit(
        32, 1, 10_000, "interim responses (103) to one request", "`limit_reached` and `request_failed`", "502",
        Reason.UPSTREAM_PROTOCOL,
    )  # fmt: skip
    # what is remembered
    leaf_contexts: int = _limit(
        1024, 1, 1_000_000, "hosts whose certificates are kept", "", "nothing: the one used longest ago is made again"
    )  # fmt: skip
    tls_sessions: int = _limit(
        1024, 1, 1_000_000, "upstreams whose TLS session is kept to be resumed", "",
        "nothing: without one the whole handshake is made",
    )  # fmt: skip
    dns_names: int = _limit(
        32_768, 1, 65_534, "names that get a synthetic address in a session", "`dns_denied`, `dns_range_full`",
        "SERVFAIL",
    )  # fmt: skip
    dns_questions: int = _limit(
        512, 1, 100_000, "DNS questions that wait for a resolver at once", "`dns_denied`, `overload`", "SERVFAIL"
    )  # fmt: skip
    dns_sockets: int = _limit(
        2048, 16, 1_000_000, "UDP sockets that have asked, kept for further questions for 20 s", "",
        "nothing: the one answered longest ago is forgotten",
    )  # fmt: skip
    event_lines: int = _limit(
        65_536, 1, 10_000_000, "event lines that wait for their reader", "`events_dropped`", "nothing"
    )  # fmt: skip
    event_bytes: int = _limit(
        64 << 20, 65_536, 1 << 34, "the same, by size", "`events_dropped`", "nothing"
    )  # fmt: skip

    def fitting(self, descriptors: int) -> "Limits":
        """These, with no more connections than there are file descriptors for."""
        most = max(2, descriptors - SPARE_DESCRIPTORS - self.upstream_pool)
        wanted = self.client_connections + self.upstream_connections
        if wanted <= most:
            return self
        clients = max(1, self.client_connections * most // wanted)
        return replace(self, client_connections=clients, upstream_connections=max(1, most - clients))


_INTEGER, _DECIMAL = re.compile(r"[0-9]{1,12}"), re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?")
KNOWN: Final[Mapping[str, Limit]] = {entry.name: entry.metadata["limit"] for entry in fields(Limits)}


def parse_limits(entries: Iterable[str], base: Limits | None = None) -> Limits:
    """
    Parse ``NAME=VALUE`` on top of *base*.

    Raises:
        SidecarError: There is no such limit, or the value isn't a number in its range.
    """
    found: dict[str, float] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        known = KNOWN.get(name)
        if known is None or not equals:
            close = get_close_matches(name, KNOWN, n=1, cutoff=0.5)
            advice = f"did you mean {close[0]}?" if close and known is None else f"write one of {', '.join(KNOWN)}"
            what = "isn't NAME=VALUE" if known is not None or not equals else f"there is no limit {name!r}"
            raise SidecarError(f"--limit {entry!r}: {what}; {advice}")
        pattern = _INTEGER if float(known.least).is_integer() else _DECIMAL
        if not pattern.fullmatch(value) or not known.least <= float(value) <= known.most:
            raise SidecarError(f"--limit {entry!r}: write a number from {known.least} to {known.most}")
        found[name] = int(value) if pattern is _INTEGER else float(value)
    return replace(base or Limits(), **found)  # type: ignore[arg-type]


def table() -> str:
    """All of them as a table of Markdown."""
    lines = ["| limit | default | from, to | bounds | event | the client sees |", "|---|---|---|---|---|---|"]
    for name, known in KNOWN.items():
        event = (known.event or "–") + (f", `{known.reason}`" if known.reason else "")
        default = getattr(Limits(), name)
        lines.append(
            f"| `{name}` | {default} | {known.least}, {known.most} | {known.bounds} | {event} | {known.seen} |"
        )
    return "\n".join(lines)
