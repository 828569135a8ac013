"""The small HTTP server of health and control, over real sockets: what it takes, and what it doesn't."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from sidecar.control import http
from sidecar.control.http import Answer, Refused, Routes, serving


def fail(last: str, body: bytes) -> Answer:
    raise ZeroDivisionError(last, body)


def refuse(last: str, body: bytes) -> Answer:
    raise Refused(400, f"{last} {len(body)}")


ROUTES: Routes = {
    ("GET", "/x"): lambda _, body: Answer.json({"bytes": len(body)}),
    ("POST", "/x"): lambda _, body: Answer.json({"bytes": len(body)}),
    ("GET", "/of/"): lambda last, _: Answer.json({"last": last}),
    ("GET", "/fails"): fail,
    ("GET", "/refuses"): refuse,
    ("POST", "/nothing"): lambda _, __: Answer(204),
}


def served(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        async with asyncio.timeout(30), serving(ROUTES, listener):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            await talk(reader, writer)
            writer.close()

    asyncio.run(run())


def exchange(data: bytes) -> bytes:
    """All that comes for *data*, until the server hangs up."""
    got = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        got.append(await reader.read())

    served(talk)
    return got[0]


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join((f"{line} HTTP/1.1", "Host: x", "Connection: close", *headers, "", "")).encode() + body


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        pytest.param(request("GET /x"), 200, b'{"bytes": 0}', id="a route"),
        pytest.param(request("GET /x?a=b"), 200, b'{"bytes": 0}', id="a query is no part of the path"),
        pytest.param(request("GET /of/it"), 200, b'{"last": "it"}', id="a route with a segment"),
        pytest.param(request("GET /of/it/and"), 404, b'{"error": "not found"}', id="one segment, not two"),
        pytest.param(request("HEAD /x"), 200, b"", id="HEAD has the head alone"),
        pytest.param(request("POST /x", "Content-Length: 3", body=b"abc"), 200, b'{"bytes": 3}', id="a body"),
        pytest.param(
            request("POST /x", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n0\r\n\r\n"), 200, b'{"bytes": 2}',
            id="a body in chunks",
        ),
        pytest.param(request("POST /nothing"), 204, b"", id="no content"),
        pytest.param(request("DELETE /x"), 405, b'{"error": "method not allowed"}', id="another method"),
        pytest.param(request("GET /"), 404, b'{"error": "not found"}', id="no route"),
        pytest.param(request("GET /refuses"), 400, b'{"error": "refuses 0"}', id="a route refuses"),
        pytest.param(request("GET /fails"), 500, b'{"error": "internal error"}', id="a route fails"),
        pytest.param(b"nonsense\r\n\r\n", 400, None, id="not HTTP"),
        pytest.param(b"GET /x HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70_000, 431, None, id="an endless head"),
        pytest.param(request("POST /x", f"Content-Length: {http.MAX_BODY + 1}", body=b"a" * (http.MAX_BODY + 1)), 413,
                     None, id="too large a body"),
        pytest.param(
            request("POST /x", "Content-Length: 1", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 200,
            b'{"bytes": 0}', id="chunks count, not the length (RFC 9112, section 6.3)",
        ),
    ],
)  # fmt: skip
def test_answers(data: bytes, status: int, body: bytes | None) -> None:
    head, _, content = exchange(data).partition(b"\r\n\r\n")

    assert int(head.split()[1]) == status
    assert body is None or content == body
    assert b"server:" not in head.lower(), "versions of libraries are nobody's business"


def test_a_connection_is_kept_for_the_next_request_and_pipelined_ones() -> None:
    one = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"

    assert exchange(one + one + request("GET /of/a")).count(b"HTTP/1.1 200") == 3


def test_who_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SECONDS", 0.05)

    assert exchange(b"GET /x HT") == b""


def test_who_waits_to_be_asked_for_the_body_is_asked() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request("POST /x", "Expect: 100-continue", "Content-Length: 1"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"a")
        assert (await reader.read()).endswith(b'{"bytes": 1}')

    served(talk)
