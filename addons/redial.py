"""
A request on a connection that its upstream ends at that moment: it goes out once more, on another one, if it may.

An upstream may end a connection between two requests whenever it likes (RFC 9112, section 9.5), and a request that is
then on its way has not been answered. Clients know that of their own connections; of those that a pool keeps, or that
they share, they can't.
"""

from typing import Any, Final

from mitmproxy.connection import Server
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers.http import HttpStream, SendHttp
from mitmproxy.proxy.layers.http._events import RequestEndOfMessage, RequestHeaders, ResponseProtocolError

_AGAIN: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # the safe ones (RFC 9110, sections 9.2.1 and 9.2.2)
_UNANSWERED: Final = "server closed connection"  # mitmproxy's words for an end before the first byte of an answer


def mark_used(server: Server) -> None:
    """It has begun to answer a request, or has before it came from the pool: its end may be due."""
    server.used = True


def may_redial(stream: HttpStream, event: Any) -> bool:
    """Whether *stream*'s request has got nothing but the end of a used connection, and is one that may be repeated."""
    if not isinstance(event, ResponseProtocolError) or event.message != _UNANSWERED:
        return False
    request = stream.flow.request
    return (
        stream.client_state == stream.state_done
        and stream.server_state == stream.state_wait_for_response_headers
        and getattr(stream.flow.server_conn, "used", False)
        and not hasattr(stream, "redialled")
        and request.method in _AGAIN
        and request.raw_content == b""  # not None, as of a body that has been streamed, and can't be sent again
        and not request.trailers
    )


def redial(stream: HttpStream) -> layer.CommandGenerator[None]:
    """Send it once more. It was judged, and the dial is judged like any other."""
    stream.redialled = True  # type: ignore[attr-defined]
    if (yield from stream.make_server_connection()):
        yield SendHttp(RequestHeaders(stream.stream_id, stream.flow.request, True), stream.context.server)
        yield SendHttp(RequestEndOfMessage(stream.stream_id), stream.context.server)
