"""
Live revocation: what a new policy takes back is ended in mitmproxy, at once and no more than that.

mitmproxy has no way to end one HTTP/2 stream, nor an answer for a request that waits for its upstream. Both are told
to its layers from inside its own handling of events, so that nothing changes between looking and telling.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

from mitmproxy import flow as flows
from mitmproxy.connection import Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import GetHttpConnection, GetHttpConnectionCompleted, HttpLayer, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
)

from addons.responses import problem_response
from addons.upstream import OWN_ADDRESSES
from sidecar.ledger import ConnectionRecord
from sidecar.policy import Policy
from sidecar.problem import Failure, Problem
from sidecar.revoke import Dialled, Revocation, renew, revocation
from sidecar.runtime.engine import Engine

INSIST_SECONDS = 1.0  # what hasn't ended by then takes its whole client connection with it

type Commands = layer.CommandGenerator[None]
type Path = tuple[tuple[HttpLayer, HttpStream], ...]  # from the outermost HTTP layer (CONNECT's) to the request's own

_log = logging.getLogger(__name__)


def take_back(engine: Engine, policy: Policy) -> list[tuple[ConnectionRecord, Revocation]]:
    """Judge everything that is open by *policy*, and mark what must end; `end` ends it. One step: nothing awaits."""
    handlers, found = engine.handlers(), []
    for connection in engine.session.ledger.connections():
        handler = handlers.get(connection.id)
        dialled = [entry for _, entry in _dialled(handler)] if handler is not None else []
        revoked = revocation(policy, connection, dialled, OWN_ADDRESSES)
        renew(policy, connection)
        if revoked:
            revoked.mark(connection)
            found.append((connection, revoked))
    return found


async def end(engine: Engine, found: Sequence[tuple[ConnectionRecord, Revocation]]) -> None:
    """End what `take_back` has found; returns once mitmproxy has been told."""
    loop = asyncio.get_running_loop()
    handlers = engine.handlers()
    for connection, revoked in found:
        if revoked.connection is not None:
            engine.end_connection(connection.id, "the policy has changed")
        elif (handler := handlers.get(connection.id)) is not None:
            await _tell(handler, partial(_errand, handler, revoked))
    if found:
        loop.call_later(INSIST_SECONDS, _insist, engine, found)


def _insist(engine: Engine, found: Sequence[tuple[ConnectionRecord, Revocation]]) -> None:
    for connection, revoked in found:
        if engine.session.ledger.find(connection.id) is connection and any(
            request.id in connection.requests for request, _ in revoked.requests
        ):
            _log.warning("a request that was revoked had not ended after %.0f s; its client is closed", INSIST_SECONDS)
            engine.end_connection(connection.id, "the policy has changed")


def _dialled(handler: Any) -> Iterator[tuple[Server, Dialled]]:
    for upstream in list(handler.transports):
        if isinstance(upstream, Server) and upstream.address and upstream.peername:
            address = None if upstream.via else ip_address(upstream.peername[0].partition("%")[0])
            yield upstream, Dialled(upstream.address[0], upstream.address[1], address)


@dataclass(eq=False)
class Errand(events.Event):
    """Something to do in the middle of a handler's event handling; what it yields are commands to the handler."""

    run: Callable[[], Commands]


class Door:
    """Stands before a handler's topmost layer and runs errands; everything else goes through it."""

    def __init__(self, inner: layer.Layer) -> None:
        self.inner, self.context = inner, inner.context

    def handle_event(self, event: events.Event) -> Commands:
        yield from event.run() if isinstance(event, Errand) else self.inner.handle_event(event)


async def _tell(handler: Any, run: Callable[[], Commands]) -> None:
    if not isinstance(handler.layer, Door):
        handler.layer = Door(handler.layer)
    await handler.server_event(Errand(run))


def _errand(handler: Any, revoked: Revocation) -> Commands:
    door: Door = handler.layer
    for request, why in revoked.requests:
        path = _find(door.context.layers, request.id)
        if path is None:
            continue  # it has ended meanwhile; else `_insist` ends the client
        stream = path[-1][1]
        if stream.child_layer is not None:  # a WebSocket, which has its upstream for itself
            yield commands.CloseConnection(stream.flow.server_conn)
        else:
            yield from _deliver(door.inner, path, why)
    for upstream, entry in list(_dialled(handler)):
        if entry in revoked.upstreams:
            yield commands.CloseConnection(upstream)


def _find(layers: Sequence[layer.Layer], flow_id: str, outer: Path = ()) -> Path | None:
    for http in layers:
        if not isinstance(http, HttpLayer):
            continue
        for stream in http.streams.values():
            path = (*outer, (http, stream))
            if (flow := getattr(stream, "flow", None)) is not None and flow.id == flow_id:
                return path
            mine = stream.context.layers  # forked: what lies above the stream, the stream, what lies in it
            if stream in mine and (found := _find(mine[mine.index(stream) + 1 :], flow_id, path)) is not None:
                return found
    return None


def _deliver(top: layer.Layer, path: Path, why: Failure) -> Commands:
    """Reach a stream as the completion of one of its own commands does, which every layer passes on."""
    command = commands.RequestWakeup(0)
    for http, stream in path[:-1]:
        http.command_sources[command] = stream
    http, stream = path[-1]
    http.command_sources[command] = _Ending(http, stream, why, command)  # type: ignore[assignment]
    yield from top.handle_event(events.Wakeup(command))


class _Ending:
    """Stands in for a stream in its HTTP layer for as long as its ending takes."""

    def __init__(self, http: HttpLayer, stream: HttpStream, why: Failure, command: commands.Command) -> None:
        self._http, self._stream, self._why, self._command = http, stream, why, command

    def handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, events.CommandCompleted) and event.command is self._command:
            return self._end()
        return self._stream.handle_event(event)

    def _end(self) -> Commands:
        stream = self._stream
        flow, paused, number = stream.flow, stream._paused, stream.stream_id
        if paused is not None and isinstance(dial := paused.command, GetHttpConnection):
            # Nothing has been sent: the client gets the answer that the error hook makes, as if the dial had failed.
            for waiting in self._http.waiting_for_establishment.values():
                waiting[:] = [other for other in waiting if other is not dial]
            self._http.command_sources.pop(dial, None)
            yield from stream.handle_event(GetHttpConnectionCompleted(dial, (None, self._why.detail)))
        elif paused is None and stream.server_state == stream.state_wait_for_response_headers:
            response = problem_response(flow, Problem.of_failure(self._why, status=403))
            if stream.client_state == stream.state_done:
                # Else the end of the upstream connection would reach it behind its answer, and crash the next request.
                self._http.streams.pop(number, None)
            abandoned = RequestProtocolError(number, self._why.detail, ErrorCode.CANCEL)
            yield SendHttp(abandoned, stream.context.server)
            yield from stream.handle_event(ResponseHeaders(number, response, not response.raw_content))
            if response.raw_content:
                yield from stream.handle_event(ResponseData(number, response.raw_content))
            yield from stream.handle_event(ResponseEndOfMessage(number))
        else:
            # Checked by the stream when it goes on, if it is paused; and here it makes the stream reset both sides.
            flow.error = flows.Error(flows.Error.KILLED_MESSAGE) if paused is not None else flow.error
            killed = RequestProtocolError(number, flows.Error.KILLED_MESSAGE, ErrorCode.KILL)
            yield from stream.handle_event(killed)
