"""What is measured: each row of the table, and what its number means."""

from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    CPU = "µs CPU"  # of the proxy's process tree, for each operation
    CPU_SECONDS = "s CPU"
    DELAY = "ms"
    MEMORY = "MB"


class Row(StrEnum):
    """One row, as ``--only`` and the results name it; in the table's order."""

    KEEP_ALIVE = "keep-alive"
    BARE = "keep-alive-bare"
    STEADY = "steady"
    NEW_CONNECTION = "new-connection"
    UNPOOLED = "new-connection-unpooled"
    RESUMED = "resumed"
    FIRST_CONTACT = "first-contact"
    DOWNLOAD = "download"
    UPLOAD = "upload"
    HTTP2 = "http2"
    WEBSOCKET = "websocket"
    PASSTHROUGH = "passthrough"
    DENIED = "denied"
    TRANSPARENT = "transparent"
    FIRST_BYTE = "first-byte"
    EVENT_DELAY = "event-delay"
    START = "start"
    IDLE_RSS = "idle-rss"
    PEAK_RSS = "peak-rss"
    CONNECTIONS_RSS = "connections-rss"
    GROWTH = "growth"

    @property
    def label(self) -> str:
        return _ROWS[self].label

    @property
    def unit(self) -> Unit:
        return _ROWS[self].unit

    @property
    def against(self) -> "Row":
        """The row whose other contestants the sidecar is compared with: its own, but for a variant of the sidecar."""
        return {Row.BARE: Row.KEEP_ALIVE, Row.UNPOOLED: Row.NEW_CONNECTION}.get(self, self)

    @property
    def measured_by(self) -> "Row":
        """The row whose load gives this one's number, too."""
        return Row.DOWNLOAD if self in {Row.FIRST_BYTE, Row.PEAK_RSS} else self


@dataclass(frozen=True, slots=True)
class _Meaning:
    label: str
    unit: Unit


_ROWS = {
    Row.KEEP_ALIVE: _Meaning("request on a kept-alive connection, 1 kB", Unit.CPU),
    Row.BARE: _Meaning("the same without events and metrics", Unit.CPU),
    Row.STEADY: _Meaning("150 requests/s, 1 kB", Unit.CPU),
    Row.NEW_CONNECTION: _Meaning("new TLS connection, known host", Unit.CPU),
    Row.UNPOOLED: _Meaning("the same without the upstream pool", Unit.CPU),
    Row.RESUMED: _Meaning("new TLS connection, resumed by the client", Unit.CPU),
    Row.FIRST_CONTACT: _Meaning("first contact with a host", Unit.CPU),
    Row.DOWNLOAD: _Meaning("1 GiB down", Unit.CPU_SECONDS),
    Row.UPLOAD: _Meaning("500 MB up", Unit.CPU_SECONDS),
    Row.HTTP2: _Meaning("HTTP/2 request, 100 streams at once", Unit.CPU),
    Row.WEBSOCKET: _Meaning("WebSocket echo, 64 bytes", Unit.CPU),
    Row.PASSTHROUGH: _Meaning("new TLS connection, passed through", Unit.CPU),
    Row.DENIED: _Meaning("denied request, kept-alive connection", Unit.CPU),
    Row.TRANSPARENT: _Meaning("new TLS connection, transparent mode", Unit.CPU),
    Row.FIRST_BYTE: _Meaning("first byte of the download", Unit.DELAY),
    Row.EVENT_DELAY: _Meaning("delay of a server-sent event", Unit.DELAY),
    Row.START: _Meaning("start to first answer", Unit.DELAY),
    Row.IDLE_RSS: _Meaning("resident memory, idle", Unit.MEMORY),
    Row.PEAK_RSS: _Meaning("its peak in the download", Unit.MEMORY),
    Row.CONNECTIONS_RSS: _Meaning("more of it for 1,000 idle connections", Unit.MEMORY),
    Row.GROWTH: _Meaning("more of it after 50,000 requests", Unit.MEMORY),
}
