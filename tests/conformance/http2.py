# ruff: noqa: E501 (a table)
"""What RFC 9113 asks of a server: what is sent, and what may come of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.hostile.http2 import PREFACE, RawHttp2, request

HOST: Final = "denied.test"  # each request is answered by the sidecar itself: 403
SETTINGS: Final = SettingsFrame(0).serialize()

type Sent = Sequence[Frame | bytes]


@dataclass(frozen=True, slots=True)
class Case:
    """
    Attributes:
        section: Of RFC 9113.
        may: Outcomes that the section allows, as `RawHttp2.outcome` words them; a connection error covers a stream's.
        ends: Whether something has to come of stream 1; if not, a PING says when to look.
    """

    section: str
    sent: str
    frames: Callable[[RawHttp2], Sent]
    may: tuple[str, ...]
    ends: bool = True
    begin: bytes = PREFACE + SETTINGS


def raw(type_: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """A frame as it is told, right or wrong (section 4.1)."""
    size = len(payload) if length is None else length
    return size.to_bytes(3) + bytes([type_, flags]) + stream.to_bytes(4) + payload


def connection(*codes: str) -> tuple[str, ...]:
    return tuple(f"GOAWAY {code}" for code in codes)


def stream_or_connection(*codes: str) -> tuple[str, ...]:
    return (*(f"RST_STREAM {code}" for code in codes), *connection(*codes))


_PROTOCOL, _SIZE, _FLOW, _CLOSED = "PROTOCOL_ERROR", "FRAME_SIZE_ERROR", "FLOW_CONTROL_ERROR", "STREAM_CLOSED"
MALFORMED: Final = (*stream_or_connection(_PROTOCOL), "400")  # section 8.1.1
ANSWERED: Final = ("403",)
IGNORED: Final = ("nothing",)
_GET = request(HOST, "/")
_POST = request(HOST, "/", method="POST")


def _get(client: RawHttp2, stream: int = 1) -> Frame:
    return client.head(_GET, stream, "END_STREAM")


def _with(*more: tuple[str, str]) -> Callable[[RawHttp2], Sent]:
    return lambda c: [c.head(request(HOST, "/", *more), 1, "END_STREAM")]


def _split(client: RawHttp2, *between: Frame) -> Sent:
    block = client.block(_GET)
    first = HeadersFrame(1, data=block[:4], flags=["END_STREAM"])
    return [first, *between, ContinuationFrame(1, data=block[4:], flags=["END_HEADERS"])]


CASES: Final = (
    Case("3.4", "the preface, SETTINGS, a request", lambda c: [_get(c)], ANSWERED),
    Case("3.4", "something else instead of the preface", lambda c: [], (*connection(_PROTOCOL), "closed"), begin=b"GET / HTTP/1.1\r\nHost: denied.test\r\n\r\n"),
    Case("3.4", "no SETTINGS behind the preface", lambda c: [_get(c)], (*connection(_PROTOCOL), "403"), begin=PREFACE),
    Case("4.1", "a frame of a type that there isn't, then a request", lambda c: [raw(0xEE, 0xFF, 0, b"x" * 9), _get(c)], ANSWERED),
    Case("4.1", "undefined flags, and the reserved bit", lambda c: [raw(6, 0xFE, 1 << 31, b"12345678"), _get(c)], ANSWERED),
    Case("4.2", "DATA above SETTINGS_MAX_FRAME_SIZE", lambda c: [c.head(_POST), raw(0, 0, 1, bytes(1 << 18))], stream_or_connection(_SIZE)),
    Case("4.2", "HEADERS above SETTINGS_MAX_FRAME_SIZE", lambda c: [raw(1, 4, 1, bytes(1 << 18))], connection(_SIZE)),
    Case("4.3", "a header block that is no HPACK", lambda c: [raw(1, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff")], connection("COMPRESSION_ERROR", _PROTOCOL)),
    Case("4.3", "a header block in two pieces", lambda c: _split(c), ANSWERED),
    Case("4.3", "PING between the pieces of a header block", lambda c: _split(c, PingFrame(0, b"12345678")), connection(_PROTOCOL)),
    Case("4.3", "HEADERS of another stream between them", lambda c: _split(c, HeadersFrame(3, data=b"")), connection(_PROTOCOL)),
    Case("5.1", "DATA on an idle stream", lambda c: [DataFrame(1, data=b"x")], connection(_PROTOCOL, _CLOSED)),
    Case("5.1", "RST_STREAM on an idle stream", lambda c: [RstStreamFrame(1, 8)], connection(_PROTOCOL)),
    Case("5.1", "WINDOW_UPDATE on an idle stream", lambda c: [WindowUpdateFrame(1, 9)], connection(_PROTOCOL)),
    Case("5.1", "CONTINUATION on an idle stream", lambda c: [ContinuationFrame(1, data=b"", flags=["END_HEADERS"])], connection(_PROTOCOL)),
    Case("5.1", "DATA behind END_STREAM", lambda c: [_get(c), DataFrame(1, data=b"x")], (*stream_or_connection(_CLOSED), *ANSWERED)),
    Case("5.1", "HEADERS behind END_STREAM", lambda c: [_get(c), c.head(_GET, 1, "END_STREAM")], (*stream_or_connection(_CLOSED), *connection(_PROTOCOL), *ANSWERED)),
    Case("5.1", "DATA behind one's own RST_STREAM", lambda c: [c.head(_POST), RstStreamFrame(1, 8), DataFrame(1, data=b"x")], (*stream_or_connection(_CLOSED), *IGNORED), ends=False),
    Case("5.1.1", "a request on a stream of even number", lambda c: [_get(c, 2)], connection(_PROTOCOL)),
    Case("5.1.1", "a stream lower than one before", lambda c: [_get(c, 5), _get(c, 3)], connection(_PROTOCOL, _CLOSED), ends=True),
    Case("5.3.1", "a stream that depends on itself", lambda c: [PriorityFrame(1, 1), _get(c)], (*stream_or_connection(_PROTOCOL), *ANSWERED)),
    Case("5.5", "an unknown SETTINGS parameter", lambda c: [raw(4, 0, 0, b"\xff\xff\0\0\0\1"), _get(c)], ANSWERED),
    Case("6.1", "DATA on stream 0", lambda c: [raw(0, 0, 0, b"x")], connection(_PROTOCOL)),
    Case("6.1", "DATA with more padding than payload", lambda c: [c.head(_POST), raw(0, 9, 1, b"\xffabc")], connection(_PROTOCOL)),
    Case("6.1", "padded DATA", lambda c: [c.head(_POST), raw(0, 9, 1, b"\x03abc\0\0\0")], ANSWERED),
    Case("6.2", "HEADERS on stream 0", lambda c: [raw(1, 5, 0, c.block(_GET))], connection(_PROTOCOL)),
    Case("6.2", "HEADERS with more padding than payload", lambda c: [raw(1, 13, 1, b"\xffabc")], connection(_PROTOCOL)),
    Case("6.3", "PRIORITY on stream 0", lambda c: [raw(2, 0, 0, bytes(5))], connection(_PROTOCOL)),
    Case("6.3", "PRIORITY of four bytes", lambda c: [_get(c), raw(2, 0, 1, bytes(4))], (*stream_or_connection(_SIZE), *ANSWERED)),
    Case("6.4", "RST_STREAM on stream 0", lambda c: [raw(3, 0, 0, bytes(4))], connection(_PROTOCOL)),
    Case("6.4", "RST_STREAM of three bytes", lambda c: [c.head(_POST), raw(3, 0, 1, bytes(3))], connection(_SIZE)),
    Case("6.5", "SETTINGS on a stream", lambda c: [raw(4, 0, 1, b"")], connection(_PROTOCOL)),
    Case("6.5", "SETTINGS of five bytes", lambda c: [raw(4, 0, 0, bytes(5))], connection(_SIZE)),
    Case("6.5", "an acknowledgement of SETTINGS with a payload", lambda c: [raw(4, 1, 0, bytes(6))], connection(_SIZE)),
    Case("6.5.2", "SETTINGS_ENABLE_PUSH of 2", lambda c: [raw(4, 0, 0, b"\0\2\0\0\0\2")], connection(_PROTOCOL)),
    Case("6.5.2", "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1", lambda c: [raw(4, 0, 0, b"\0\4\x80\0\0\0")], connection(_FLOW)),
    Case("6.5.2", "SETTINGS_MAX_FRAME_SIZE below 2^14", lambda c: [raw(4, 0, 0, b"\0\5\0\0\0\1")], connection(_PROTOCOL)),
    Case("6.5.2", "SETTINGS_MAX_FRAME_SIZE above 2^24-1", lambda c: [raw(4, 0, 0, b"\0\5\1\0\0\0")], connection(_PROTOCOL)),
    Case("6.6", "PUSH_PROMISE by a client", lambda c: [c.head(_POST), PushPromiseFrame(1, 2, data=c.block(_GET), flags=["END_HEADERS"])], connection(_PROTOCOL)),
    Case("6.7", "PING", lambda c: [PingFrame(0, b"12345678")], IGNORED, ends=False),
    Case("6.7", "PING on a stream", lambda c: [raw(6, 0, 1, bytes(8))], connection(_PROTOCOL)),
    Case("6.7", "PING of six bytes", lambda c: [raw(6, 0, 0, bytes(6))], connection(_SIZE)),
    Case("6.8", "GOAWAY on a stream", lambda c: [raw(7, 0, 1, bytes(8))], connection(_PROTOCOL)),
    Case("6.8", "GOAWAY, then nothing", lambda c: [GoAwayFrame(0, 0, 0)], ("closed", "GOAWAY NO_ERROR")),
    Case("6.9", "WINDOW_UPDATE of 0 for the connection", lambda c: [raw(8, 0, 0, bytes(4))], connection(_PROTOCOL)),
    Case("6.9", "WINDOW_UPDATE of 0 for a stream", lambda c: [c.head(_POST), raw(8, 0, 1, bytes(4))], stream_or_connection(_PROTOCOL)),
    Case("6.9", "WINDOW_UPDATE of three bytes", lambda c: [raw(8, 0, 0, bytes(3))], connection(_SIZE)),
    Case("6.9.1", "a connection's window above 2^31-1", lambda c: [WindowUpdateFrame(0, 2**31 - 1), WindowUpdateFrame(0, 2**31 - 1)], connection(_FLOW)),
    Case("6.9.1", "a stream's window above 2^31-1", lambda c: [c.head(_POST), WindowUpdateFrame(1, 2**31 - 1)], stream_or_connection(_FLOW)),
    Case("6.9.2", "a window of one byte, opened later", lambda c: [raw(4, 0, 0, b"\0\4\0\0\0\1"), _get(c), WindowUpdateFrame(1, 10_000)], ANSWERED),
    Case("6.10", "CONTINUATION behind END_HEADERS", lambda c: [c.head(_POST), ContinuationFrame(1, data=b"", flags=["END_HEADERS"])], connection(_PROTOCOL)),
    Case("8.1", "a second HEADERS without END_STREAM", lambda c: [c.head(_POST), c.head((("x", "a"),))], MALFORMED),
    Case("8.1.1", "a length that isn't the body's", lambda c: [c.head(request(HOST, "/", ("content-length", "1"), method="POST")), DataFrame(1, data=b"abc", flags=["END_STREAM"])], MALFORMED),
    Case("8.1.1", "a length and no body", _with(("content-length", "3")), MALFORMED),
    Case("8.2", "a field name in upper case", _with(("X-Note", "a")), MALFORMED),
    Case("8.2.1", "a NUL in a value", _with(("x-note", "a\0b")), MALFORMED),
    Case("8.2.1", "a line break in a value", _with(("x-note", "a\r\nb")), MALFORMED),
    Case("8.2.1", "a value that begins with a space", _with(("x-note", " a")), MALFORMED),
    Case("8.2.1", "a colon in a name", _with(("x:note", "a")), MALFORMED),
    Case("8.2.2", "connection", _with(("connection", "close")), MALFORMED),
    Case("8.2.2", "transfer-encoding", _with(("transfer-encoding", "chunked")), MALFORMED),
    Case("8.2.2", "te: gzip", _with(("te", "gzip")), MALFORMED),
    Case("8.2.2", "te: trailers", _with(("te", "trailers")), ANSWERED),
    Case("8.3", "a pseudo-header that there isn't", lambda c: [c.head([(":x", "a"), *_GET], 1, "END_STREAM")], MALFORMED),
    Case("8.3", "a pseudo-header behind a field", lambda c: [c.head([*_GET[:3], ("x", "a"), _GET[3]], 1, "END_STREAM")], MALFORMED),
    Case("8.3", "a pseudo-header in trailers", lambda c: [c.head(_POST), c.head([(":path", "/")], 1, "END_STREAM")], MALFORMED),
    Case("8.3", ":status in a request", lambda c: [c.head([(":status", "200"), *_GET], 1, "END_STREAM")], MALFORMED),
    Case("8.3.1", "no :method", lambda c: [c.head(_GET[1:], 1, "END_STREAM")], MALFORMED),
    Case("8.3.1", "no :scheme", lambda c: [c.head([_GET[0], *_GET[2:]], 1, "END_STREAM")], MALFORMED),
    Case("8.3.1", "no :path", lambda c: [c.head(_GET[:3], 1, "END_STREAM")], MALFORMED),
    Case("8.3.1", ":path twice", lambda c: [c.head([*_GET, (":path", "/")], 1, "END_STREAM")], MALFORMED),
    Case("8.3.1", "an empty :path", lambda c: [c.head(request(HOST, ""), 1, "END_STREAM")], MALFORMED),
    Case("8.3.1", "Host that differs from :authority", _with(("host", "other.test")), (*MALFORMED, "421")),
    Case("8.5", "CONNECT with :path", lambda c: [c.head(request(HOST, "/", method="CONNECT"), 1, "END_STREAM")], MALFORMED),
)  # fmt: skip
