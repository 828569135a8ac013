"""
What a client sends on while its request waits, for a verdict or for an upstream that is being dialled.

mitmproxy keeps all of it in a queue of the request's, without bound: an upstream that doesn't answer for ten seconds
makes it keep what a client can send in ten seconds. Counted here, so that the client isn't read meanwhile.
`addons.internals` puts this in place.
"""

from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

from mitmproxy.connection import Connection
from mitmproxy.proxy import events
from mitmproxy.proxy.layers.http import HttpStream

from addons import bounds

_stock_init: Any = HttpStream.__init__
_waiting: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()  # bytes, by the client that they come from


def install() -> None:
    """Replace the one method; a second call changes nothing."""
    HttpStream.__init__ = _init  # type: ignore[method-assign]


def any_waits() -> bool:
    """Whether anything of a client's waits, anywhere."""
    return bool(_waiting)


def is_full(client: Connection) -> bool:
    """Whether so much waits that this client shouldn't be read."""
    return bool(_waiting) and _waiting.get(client, 0) > bounds.limits.held_bytes


def _init(self: HttpStream, context: Any, stream_id: int) -> None:
    _stock_init(self, context, stream_id)
    self._paused_event_queue = _Queue(context.client)


class _Queue(deque[events.Event]):
    """Events of a request that waits, counted by their bytes."""

    def __init__(self, client: Connection) -> None:
        super().__init__()
        self._client = client

    def append(self, event: events.Event) -> None:
        super().append(event)
        if data := getattr(event, "data", None):
            _waiting[self._client] = _waiting.get(self._client, 0) + len(data)

    def popleft(self) -> events.Event:
        event = super().popleft()
        if data := getattr(event, "data", None):
            left = _waiting.get(self._client, 0) - len(data)
            if left > 0:
                _waiting[self._client] = left
            else:
                _waiting.pop(self._client, None)
        return event
