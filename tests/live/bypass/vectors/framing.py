"""Request smuggling: where two readers would disagree about where a request ends, nothing is forwarded."""

from tests.live.bypass import places
from tests.live.bypass.vector import CLOSED, MALFORMED, MISMATCH, Vector

_SMUGGLED = f"GET /{{token}} HTTP/1.1\r\nHost: {places.DENIED}\r\n\r\n"
_REFUSED = MALFORMED


def _message(*headers: str, body: str, line: str = "POST / HTTP/1.1") -> str:
    return "\r\n".join((line, f"Host: {places.ALLOWED}", *headers)) + "\r\n\r\n" + body


def _post(id: str, *headers: str, body: str = f"0\r\n\r\n{_SMUGGLED}", line: str = "POST / HTTP/1.1") -> Vector:
    return _text(id, _message(*headers, body=body, line=line))


def _text(
    id: str, text: str, expected: tuple[str, ...] = _REFUSED, event: str = "request_denied malformed_request"
) -> Vector:
    return Vector(id=id, probe="requests.plain", arguments=(places.ALLOWED, 80, text), expected=expected, event=event)


def _chunk(id: str, body: str) -> Vector:
    """The head is one request and is forwarded; the body turns out to be none."""
    return _text(id, _message(_TE, body=body), CLOSED, "request_failed")


def _second(id: str, first: str) -> Vector:
    """Two requests by any reading: each is judged by itself."""
    return Vector(
        id=id,
        probe="requests.pipelined",
        arguments=(places.ALLOWED, 80, first, _SMUGGLED),
        expected=MISMATCH,
        event="request_denied identity_mismatch",
    )


_TE = "Transfer-Encoding: chunked"

VECTORS = (
    _post("Content-Length and Transfer-Encoding (CL.TE)", "Content-Length: 200", _TE),
    _post("Transfer-Encoding and Content-Length (TE.CL)", _TE, "Content-Length: 4"),
    _post("two Content-Lengths that differ", "Content-Length: 0", "Content-Length: 200", body=_SMUGGLED),
    _post("a list of Content-Lengths", "Content-Length: 0, 200", body=_SMUGGLED),
    _post("a signed Content-Length", "Content-Length: +5", body=_SMUGGLED),
    _post("a negative Content-Length", "Content-Length: -1", body=_SMUGGLED),
    _post("a hexadecimal Content-Length", "Content-Length: 0x5", body=_SMUGGLED),
    _post("an empty Content-Length", "Content-Length: ", body=_SMUGGLED),
    _post("an unknown transfer coding", "Transfer-Encoding: xchunked"),
    _post("chunked twice", "Transfer-Encoding: chunked, chunked"),
    _post("chunked, then identity", "Transfer-Encoding: chunked, identity"),
    _post("two Transfer-Encodings", _TE, "Transfer-Encoding: cow"),
    _post("a space before the colon of Transfer-Encoding", "Transfer-Encoding : chunked", "Content-Length: 200"),
    _post("a vertical tab in Transfer-Encoding", "Transfer-Encoding: \x0bchunked", "Content-Length: 200"),
    _post("a folded Transfer-Encoding (obs-fold)", "Transfer-Encoding:\r\n chunked", "Content-Length: 200"),
    _post("Transfer-Encoding in HTTP/1.0", _TE, line="POST / HTTP/1.0"),
    _post("a bare CR in a value", "X-Note: a\rTransfer-Encoding: chunked", "Content-Length: 200"),
    _post("a bare LF between headers", "X-Note: a\nTransfer-Encoding: chunked", "Content-Length: 200"),
    _post("a NUL in a value", "X-Note: a\x00b{token}", body=""),
    _post("a NUL in a name", "X-No\x00te: {token}", body=""),
    _post("a space in a name", "X Note: {token}", body=""),
    _text("a header without a name", _message(": {token}", body=""), ("400 malformed_request",), "connection_closed"),
    _post("a folded value (obs-fold)", "X-Note: a", " {token}", body=""),
    _chunk("a chunk size with a sign", f"+0\r\n\r\n{_SMUGGLED}"),
    _chunk("a chunk size in the C notation", f"0x0\r\n\r\n{_SMUGGLED}"),
    _chunk("a chunk size that overflows", f"10000000000000000\r\n\r\n{_SMUGGLED}"),
    _chunk("a chunk that is longer than it says", f"1\r\nab\r\n0\r\n\r\n{_SMUGGLED}"),
    _chunk("a bare LF behind a chunk size", f"0\n\n{_SMUGGLED}"),
    _second("a request behind the end of the chunks", _message(_TE, body="0\r\n\r\n")),
    _second("a request behind the body", _message("Content-Length: 0", body="")),
    _text("HTTP/0.9", "GET /{token}\r\n\r\n", CLOSED, "connection_denied not_http"),
    _text(
        "HTTP/2.0 as a version of HTTP/1",
        f"GET /{{token}} HTTP/2.0\r\nHost: {places.ALLOWED}\r\n\r\n",
        CLOSED,
        "connection_denied not_http",
    ),
    _text(
        "a space in the target",
        f"GET /{{token}} x HTTP/1.1\r\nHost: {places.ALLOWED}\r\n\r\n",
        CLOSED,
        "connection_denied not_http",
    ),
    _text(
        "bare LF as the end of lines, another Host",
        f"GET /{{token}} HTTP/1.1\nHost: {places.DENIED}\n\r\n\r\n",
        MISMATCH,
        "request_denied identity_mismatch",
    ),
)
