"""
What waits for an upstream to take one more HTTP/2 stream: mitmproxy keeps all of it, without bound. Counted here, so
that the client isn't read meanwhile. `addons.http2` puts this in place.
"""

from collections import defaultdict
from typing import Any
from weakref import WeakKeyDictionary

from mitmproxy.connection import Connection
from mitmproxy.proxy.layers.http._http2 import Http2Client

from addons import bounds

PIECE_BYTES = 256  # that a piece takes beside what is in it
DEADLOCK = "both sides send and don't take what waits for them"

_stock_client_init: Any = Http2Client.__init__
queued: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()  # bytes, by the upstream that they wait for


def install() -> None:
    """Replace the one method; a second call changes nothing."""
    Http2Client.__init__ = _client_init  # type: ignore[method-assign]


def _client_init(self: Any, context: Any) -> None:
    """As stock, but what waits for the upstream to take one more stream is counted, too."""
    _stock_client_init(self, context)
    self.stream_queue = _Places(context.client, self.conn)


class _Places(defaultdict[int, list[Any]]):
    """Events of streams that wait for a place at an upstream."""

    def __init__(self, client: Connection, upstream: Connection) -> None:
        super().__init__(lambda: _Waiting(client, upstream))
        self._upstream = upstream

    def pop(self, key: int, *default: Any) -> Any:
        events = super().pop(key, *default)
        left = queued.get(self._upstream, 0) - sum(map(_size, events))
        if left > 0:
            queued[self._upstream] = left
        else:
            queued.pop(self._upstream, None)
        return events


class _Waiting(list[Any]):
    def __init__(self, client: Connection, upstream: Connection) -> None:
        super().__init__()
        self._client, self._upstream = client, upstream

    def append(self, event: Any) -> None:
        super().append(event)
        queued[self._upstream] = size = queued.get(self._upstream, 0) + _size(event)
        if size > bounds.limits.most_held_bytes:
            bounds.reached(self._client.id, "most_held_bytes", DEADLOCK)
            bounds.end_soon(self._client.id)


def _size(event: Any) -> int:
    return len(getattr(event, "data", b"")) + PIECE_BYTES
