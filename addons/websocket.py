"""
WebSockets as they come: frames are relayed byte by byte and counted, never collected.

Stock mitmproxy puts each message together before it sends it on, in memory without bound and in quadratic time; it
turns an upstream's crash into a clean close, and knows no extension but one. `addons.internals` puts this in place.
"""

from collections.abc import Callable
from typing import Any

from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers import websocket

from addons import bounds

_CONTROL = 0x8  # set in the opcodes of close, ping and pong (RFC 6455, section 5.5)


def install() -> None:
    """Replace the one class; a second call changes nothing."""
    websocket.WebsocketLayer = Relay  # type: ignore[misc, assignment]


class Payload:
    """
    Counts the payload of the data frames in a stream of bytes, as they are on the wire: compressed, if they are.

    Args:
        count: Called with pieces of payload.
    """

    def __init__(self, count: Callable[[bytes], object]) -> None:
        self._count = count
        self._head = b""  # of the frame that is being read
        self._left = 0  # bytes of its payload that are still to come
        self._is_data = False
        self._idle = bounds.Allowance(bounds.limits.websocket_frames_per_minute)

    def receive(self, data: bytes) -> bool:
        """False once there were more frames that carry nothing than may be."""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                size = min(self._left, end - at)
                self._left -= size
                if self._is_data:
                    self._count(data[at : at + size])
                    self._idle.give(1 + size / 1024)
                at += size
                continue
            size = self._head_size() - len(self._head)
            self._head, at = self._head + data[at : at + size], at + size
            if len(self._head) == self._head_size():
                self._left = self._size()
                self._is_data = not self._head[0] & _CONTROL
                self._head = b""
                if not (self._is_data and self._left) and not self._idle.take():
                    return False
        return True

    def _head_size(self) -> int:
        """RFC 6455, section 5.2: two bytes, those of an extended length, those of a mask."""
        if len(self._head) < 2:
            return 2
        return 2 + {126: 2, 127: 8}.get(self._head[1] & 0x7F, 0) + (4 if self._head[1] & 0x80 else 0)

    def _size(self) -> int:
        short = self._head[1] & 0x7F
        return int.from_bytes(self._head[2 : {126: 4, 127: 10}[short]]) if short > 125 else short


class Relay(layer.Layer):
    """Stands in for ``WebsocketLayer``: what comes from one side goes to the other; the end of one ends both."""

    def __init__(self, context: context.Context, flow: HTTPFlow) -> None:
        super().__init__(context)
        self._flow = flow
        self._sent, self._received = Payload(_counter(flow.request)), Payload(_counter(flow.response))

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield websocket.WebsocketStartHook(self._flow)
        elif isinstance(event, events.DataReceived) and self._flow.live:
            from_client = event.connection == self.context.client
            if not (self._sent if from_client else self._received).receive(event.data):
                who, most = "client" if from_client else "upstream", bounds.limits.websocket_frames_per_minute
                text = f"the {who} has sent more than {most} frames that carry nothing"
                bounds.reached(self.context.client.id, "websocket_frames_per_minute", text)
                yield from self._end()
                return
            yield commands.SendData(self.context.server if from_client else self.context.client, event.data)
        elif isinstance(event, events.ConnectionClosed) and self._flow.live:
            yield from self._end()

    def _end(self) -> layer.CommandGenerator[None]:
        self._flow.live = False
        yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)
        yield websocket.WebsocketEndHook(self._flow)


def _counter(message: Any) -> Callable[[bytes], object]:
    """What counts a message's body when that streams counts what follows it, too."""
    return message.stream if callable(message.stream) else lambda _: None
