"""HTTP for a handful of routes that answer at once: what health and control need, without a web framework."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from socket import AF_UNIX, socket
from typing import Any, Final

import h11

MAX_BODY: Final = 256 * 1024  # bytes
SECONDS: Final = 5.0  # for a request to come whole, or the next one: everyone in the pod may open connections

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and its type."""

    status: int
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"

    @classmethod
    def json(cls, value: object, status: int = 200) -> "Answer":
        return cls(status, json.dumps(value).encode())


class Refused(Exception):
    """The request isn't one that a route takes; its text is the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


type Handler = Callable[[str, bytes], Answer]
"""Gets the path's last segment and the body."""
type Routes = Mapping[tuple[str, str], Handler]
"""By method and path; a path that ends with a slash stands for all that have one segment more."""


@dataclass(eq=False)
class _Connection(asyncio.Protocol):
    """One client, one request after the other."""

    routes: Routes
    open: "set[_Connection]"
    _http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.SERVER))
    _body: bytearray = field(default_factory=bytearray)
    _request: h11.Request | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(SECONDS, transport.abort)
        self.open.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._timer.cancel()
        self.open.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            while not isinstance(event := self._http.next_event(), (type(h11.NEED_DATA), type(h11.PAUSED))):
                self._take(event)
        except h11.RemoteProtocolError as e:
            self._send(Answer.json({"error": str(e)}, e.error_status_hint))
            self.close()
            return
        if self._http.they_are_waiting_for_100_continue:
            self._transport.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._request, self._body = event, bytearray()
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > MAX_BODY:
                raise h11.RemoteProtocolError(f"a body has at most {MAX_BODY} bytes", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage) and self._request is not None:
            method, target = self._request.method.decode(), self._request.target.decode()
            self._send(answer(self.routes, method, target, bytes(self._body)), head=method == "HEAD")
            if self._http.our_state is h11.MUST_CLOSE:
                self.close()
                return
            self._http.start_next_cycle()
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(SECONDS, self._transport.abort)

    def _send(self, answered: Answer, *, head: bool = False) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [("Content-Type", answered.content_type), ("Content-Length", str(len(answered.body)))]
        if answered.status == 204:  # RFC 9110, section 8.6: no length of nothing
            headers = []
        response = self._http.send(h11.Response(status_code=answered.status, headers=headers))
        body = b"" if head else self._http.send(h11.Data(data=answered.body))
        end = self._http.send(h11.EndOfMessage())
        self._transport.write(b"".join(part for part in (response, body, end) if part))

    def close(self) -> None:
        """Once all is written, or when its time is over."""
        self._transport.close()


def answer(routes: Routes, method: str, target: str, body: bytes) -> Answer:
    """What the routes say to a request; a defect in one of them is a 500, and logged."""
    path = target.partition("?")[0]
    folder, _, last = path.rpartition("/")
    found = {known: handler for (known, where), handler in routes.items() if where in (path, f"{folder}/")}
    handler = found.get("GET" if method == "HEAD" else method)
    if handler is None:
        return Answer.json({"error": "not found" if not found else "method not allowed"}, 405 if found else 404)
    try:
        return handler(last, body)
    except Refused as e:
        return Answer.json({"error": str(e)}, e.status)
    except Exception:
        _log.exception("%s could not be answered", path)
        return Answer.json({"error": "internal error"}, 500)


@asynccontextmanager
async def serving(routes: Routes, listener: socket) -> AsyncIterator[None]:
    """Serve *routes* on a bound and listening socket, of TCP or Unix."""
    loop = asyncio.get_running_loop()
    connections: set[_Connection] = set()
    create: Any = loop.create_unix_server if listener.family == AF_UNIX else loop.create_server
    server = await create(lambda: _Connection(routes, connections), sock=listener)
    try:
        yield
    finally:
        server.close()
        for connection in list(connections):
            connection.close()
