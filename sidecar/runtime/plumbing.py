"""
mitmproxy's plumbing with the same meaning at less cost; its layers, which have the meaning, stay as they are.

In a request's cost the largest part is what carries events and commands through a stack of layers that mostly pass them
on: each hook goes all the way up and its completion all the way down again, though the addons answer at once. Only our
engine installs this; under stock mitmproxy all is stock.
"""

import logging
from typing import Any, Final, Protocol

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import CommandGenerator, Layer, NextLayer, Paused
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpLayer,
    HttpStream,
    RegisterHttpConnection,
    SendHttp,
    _http1,
)
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders
from mitmproxy.proxy.layers.http._hooks import HttpResponseHook
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Server
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Server
from mitmproxy.proxy.layers.modes import HttpProxy, TransparentProxy
from mitmproxy.proxy.layers.tls import ClientTLSLayer, ServerTLSLayer, TLSLayer
from mitmproxy.proxy.tunnel import TunnelLayer, TunnelState
from OpenSSL import SSL

from sidecar.runtime import tls_io

STOCK: Final = {
    "Layer.handle_event": Layer.handle_event,
    "Layer.__process": Layer._Layer__process,  # type: ignore[attr-defined]
    "Layer.__continue": Layer._Layer__continue,  # type: ignore[attr-defined]
    "NextLayer._ask": NextLayer._ask,
    "TunnelLayer.event_to_child": TunnelLayer.event_to_child,
    "HttpLayer.event_to_child": HttpLayer.event_to_child,
    "HttpLayer._handle_event": HttpLayer._handle_event,
    "TunnelLayer._handle_event": TunnelLayer._handle_event,
    "TunnelLayer._handle_command": TunnelLayer._handle_command,
    "ServerTLSLayer.event_to_child": ServerTLSLayer.event_to_child,
    "ClientTLSLayer.on_handshake_error": ClientTLSLayer.on_handshake_error,
    "HttpLayer.make_stream": HttpLayer.make_stream,
    "HttpStream.passthrough": HttpStream.passthrough,
    "HttpProxy._handle_event": HttpProxy._handle_event,
    "DestinationKnown.finish_start": TransparentProxy.finish_start,
    "Http1Connection.make_pipe": _http1.Http1Connection.make_pipe,
}
"""What is replaced, or taken for what it does, as mitmproxy has it."""

# Layers with nothing of their own around `_handle_event`
_PLAIN: Final[frozenset[Any]] = frozenset({HttpStream, Http1Server, Http1Client, Http2Server, Http2Client})
_log = logging.getLogger("sidecar.runtime.driver")  # which writes what layers have to say
_INLINE = "inline_hook"  # attribute of a client whose driver calls hooks where they come up


def install() -> None:
    """Replace the parts; a second call changes nothing."""
    Layer.handle_event = _handle_event  # type: ignore[method-assign]
    Layer._Layer__process = _process  # type: ignore[attr-defined]
    TLSLayer.handle_event = _tls_handle_event  # type: ignore[assignment,method-assign]
    TunnelLayer.event_to_child = _tunnel_event_to_child  # type: ignore[method-assign]
    HttpLayer.handle_event = _http_handle_event  # type: ignore[assignment,method-assign]
    HttpLayer.event_to_child = _http_event_to_child  # type: ignore[method-assign]
    Http1Server.make_pipe = _make_pipe  # type: ignore[assignment,method-assign]


# Hooks


class Inline(Protocol):
    """Calls a hook's functions. True: all have answered; False: the command is to be carried out as usual."""

    def __call__(self, hook: commands.StartHook, /) -> bool: ...


def call_inline(client: Any, inline: Inline) -> None:
    """Have the hooks of *client*'s layers called where they come up."""
    setattr(client, _INLINE, inline)


def _handle_event(self: Layer, event: events.Event) -> CommandGenerator[None]:
    """As stock, but a hook whose functions have all answered at once doesn't pause the layer."""
    if (paused := self._paused) is not None:
        if isinstance(event, events.CommandCompleted) and event.command is paused.command:
            yield from self._Layer__continue(event)  # type: ignore[attr-defined]
        else:
            self._paused_event_queue.append(event)
        return
    generator = self._handle_event(event)
    for command in generator:
        if command.blocking is True:
            yield from _block(self, generator, command)
            return
        yield command


def _process(self: Layer, generator: CommandGenerator[Any], send: Any = None) -> CommandGenerator[None]:
    """The same for a layer that goes on after a pause."""
    try:
        command = generator.send(send)
        while command.blocking is not True:
            yield command
            command = next(generator)
    except StopIteration:
        return
    yield from _block(self, generator, command)


def _block(self: Layer, generator: CommandGenerator[Any], command: commands.Command) -> CommandGenerator[None]:
    """Answer hooks for as long as they can be answered here; pause at what can't."""
    try:
        while True:
            if command.blocking is True:
                if not _answered(self, command):
                    command.blocking = self
                    self._paused = Paused(command, generator)
                    yield command
                    return
                command = generator.send(None)
            else:
                yield command
                command = next(generator)
    except StopIteration:
        return


def _answered(self: Layer, command: commands.Command) -> bool:
    # The hook at a response's end takes the long way. What follows it may be the next request of the connection: of
    # many that are there at once, each would begin within the one before.
    if not isinstance(command, commands.StartHook) or command.__class__ is HttpResponseHook:
        return False
    inline: Inline | None = getattr(self.context.client, _INLINE, None)
    return inline is not None and inline(command)


# Layers that pass on


class Tunnelled(commands.Command):
    """A CONNECT has been answered: *layer* is what is inside, and needs nothing of what stands around it."""

    def __init__(self, inside: Layer) -> None:
        self.inside = inside


def _make_pipe(self: Http1Server) -> CommandGenerator[None]:
    yield from STOCK["Http1Connection.make_pipe"](self)
    around = self.context.layers[self.context.layers.index(self) - 1]
    stream = around.streams.get(self.stream_id) if isinstance(around, HttpLayer) else None
    if stream is not None and stream.child_layer is not None and stream.flow.request.method == "CONNECT":
        yield Tunnelled(stream.child_layer)


def settled(layer: Layer) -> Layer:
    """What *layer* passes all events on to from now on, if that is known: itself, if it does more than that."""
    while is_transient(layer) and layer._paused is None:
        if isinstance(layer, NextLayer):
            if layer._handle is None or layer.layer is None:
                break
            layer = layer.layer
        elif isinstance(following := getattr(layer._handle_event, "__self__", None), NextLayer):
            layer = following
        else:
            break
    return layer


def is_transient(layer: Layer) -> bool:
    """Whether `settled` may have another answer later."""
    return isinstance(layer, (NextLayer, HttpProxy, TransparentProxy))


def _tls_handle_event(self: TLSLayer, event: events.Event) -> CommandGenerator[None]:
    """As stock, in one step where nothing is special: the tunnel is open, or the event isn't about its connection."""
    if self._paused is not None or self.tunnel_state is not TunnelState.OPEN:
        return _handle_event(self, event)
    if isinstance(event, events.ConnectionEvent) and event.connection == self.tunnel_connection:
        if event.__class__ is not events.DataReceived or self.conn is not self.tunnel_connection:
            return _handle_event(self, event)
        return _decrypted(self, event)
    return _passed_on(self, self.child_layer.handle_event(event))


def _decrypted(self: TLSLayer, event: events.DataReceived) -> CommandGenerator[None]:
    assert self.tls is not None
    pieces, failure = tls_io.receive(self.tls, event.data)
    if failure is not None:
        tls_io.keep(self, pieces, failure)
        yield from _process(self, self.receive_data(b""))
        return
    if answer := tls_io.outgoing(self.tls):
        yield commands.SendData(self.conn, answer)
    if pieces:
        plaintext = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if (note_use := getattr(self, "note_use", None)) is not None:
            note_use()
        yield from _passed_on(self, self.child_layer.handle_event(events.DataReceived(self.conn, plaintext)))


def _passed_on(self: TLSLayer, generator: CommandGenerator[None]) -> CommandGenerator[None]:
    """What the layer inside of this one wants; what one event makes for the peer is encrypted together."""
    conn = self.conn
    kept: list[bytes] = []
    for command in generator:
        if isinstance(command, commands.ConnectionCommand) and command.connection == conn:
            if command.__class__ is not commands.SendData or self.tls is None:
                if kept:
                    yield from _encrypted(self, b"".join(kept))
                yield from _process(self, _special(self, command, generator))
                return
            kept.append(command.data)
        else:
            yield command
    if kept:
        yield from _encrypted(self, kept[0] if len(kept) == 1 else b"".join(kept))


def _encrypted(self: TLSLayer, data: bytes) -> CommandGenerator[None]:
    assert self.tls is not None
    try:
        tls_io.write(self.tls, data)
    except SSL.Error:
        yield from self.send_data(data)  # which says what that means
    else:
        if sent := tls_io.outgoing(self.tls):
            yield commands.SendData(self.conn, sent)


def _special(self: TLSLayer, command: commands.Command, rest: CommandGenerator[None]) -> CommandGenerator[None]:
    yield from self._handle_command(command)
    for command in rest:
        yield from self._handle_command(command)


def _tunnel_event_to_child(self: TunnelLayer, event: events.Event) -> CommandGenerator[None]:
    """As stock, but what isn't about this tunnel's connection isn't looked at twice."""
    if self.tunnel_state is TunnelState.ESTABLISHING and not self.command_to_reply_to:
        self._event_queue.append(event)
        return
    for command in self.child_layer.handle_event(event):
        if isinstance(command, commands.ConnectionCommand) and command.connection == self.conn:
            yield from self._handle_command(command)
        else:
            yield command


def _http_handle_event(self: HttpLayer, event: events.Event) -> CommandGenerator[None]:
    """As stock: this layer never pauses, so most events go straight to where they belong."""
    if isinstance(event, events.ConnectionEvent):
        child: Any = self.connections.get(event.connection)
    elif isinstance(event, events.CommandCompleted):
        child = self.command_sources.pop(event.command)
    else:
        child = None
    if child is None:
        return _handle_event(self, event)
    return self.event_to_child(child, event)


def _http_event_to_child(self: HttpLayer, child: Any, event: events.Event) -> CommandGenerator[None]:
    """As stock, with `_handle_event` of *child* within: there are some thirty of these steps to a request."""
    plain = child.__class__ in _PLAIN and child._paused is None
    generator: CommandGenerator[Any] = child._handle_event(event) if plain else child.handle_event(event)
    reply: Any = None
    while True:
        try:
            command: Any = generator.send(reply)
        except StopIteration:
            return
        reply = None
        if command.blocking is True:
            if _answered(child, command):
                continue
            command.blocking = child
            child._paused = Paused(command, generator)
            paused = True
        else:
            paused = False
        kind = command.__class__
        if kind is ReceiveHttp:
            what = command.event
            if what.__class__ is RequestHeaders:
                yield from self.make_stream(what.stream_id)
            if (stream := self.streams.get(what.stream_id)) is not None:
                yield from self.event_to_child(stream, what)
        elif kind is SendHttp:
            yield from self.event_to_child(self.connections[command.connection], command.event)
        elif kind is commands.SendData:
            yield command
        elif kind is commands.Log:
            if _log.isEnabledFor(command.level):
                yield command
        else:
            # Their answers are routed back to who has asked.
            if command.blocking or isinstance(command, commands.RequestWakeup):
                self.command_sources[command] = child
            if isinstance(command, DropStream):
                self.streams.pop(command.stream_id, None)
            elif isinstance(command, GetHttpConnection):
                yield from self.get_connection(command)
            elif isinstance(command, RegisterHttpConnection):
                yield from self.register_connection(command)
            else:
                if isinstance(command, commands.OpenConnection):
                    self.connections[command.connection] = child
                yield command
        if paused:
            return
