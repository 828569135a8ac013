# ruff: noqa: E501 (lists of bytes)
"""Answers of an upstream that two clients may take for different ones, each with what has to become of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

type Fate = Literal["refused", "forwarded", "either"]
# refused: the client gets a 502 of the sidecar's, or its connection is closed. forwarded: the upstream's answer, as one.

INJECTED: Final = b"HTTP/1.1 200 OK\r\nX-Injected: yes\r\nContent-Length: 2\r\n\r\nno"
_CHUNKED: Final = b"Transfer-Encoding: chunked"
_WHOLE: Final = b"3\r\nabc\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Mutation:
    """
    Attributes:
        raw: What the upstream sends.
        method: Of the request that it answers.
        closes: Whether it closes its connection after that.
    """

    id: str
    raw: bytes
    fate: Fate
    method: str = "GET"
    closes: bool = False


def _answer(*lines: bytes, body: bytes = b"", line: bytes = b"HTTP/1.1 200 OK", end: bytes = b"\r\n") -> bytes:
    return end.join((line, *lines)) + end + end + body


def _show(piece: bytes) -> str:
    return repr(piece)[2:-1]


def _framing() -> Iterator[Mutation]:
    for value in (
        b"xchunked", b"chunked, chunked", b"chunked, identity", b"gzip, chunked", b"gzip", b"deflate", b"compress, chunked", b"cow",
        b"", b",chunked", b"chunked,", b"chunked;x", b"ch\x00unked", b"chunked\x00", b"ch unked", b"ch\runked", b"\xefchunked",
        b"chun\xe2\x84\xaaed", b"br",
    ):  # fmt: skip
        raw = _answer(b"Transfer-Encoding: " + value, body=_WHOLE + INJECTED)
        yield Mutation(f"Transfer-Encoding: {_show(value)}", raw, "refused", closes=True)
        raw = _answer(b"Transfer-Encoding: " + value, b"Content-Length: 13", body=_WHOLE + INJECTED)
        yield Mutation(f"Transfer-Encoding: {_show(value)}, with a length", raw, "refused", closes=True)
    for value in (b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"\tchunked\t"):
        raw = _answer(b"Transfer-Encoding:" + value, body=_WHOLE)
        yield Mutation(f"Transfer-Encoding:{_show(value)}, alone", raw, "forwarded")
        yield Mutation(f"Transfer-Encoding:{_show(value)}, and an answer behind it", raw + INJECTED, "forwarded")
    raw = _answer(b"Transfer-Encoding: identity", body=b"abc")
    yield Mutation("Transfer-Encoding: identity, to the end", raw, "forwarded", closes=True)
    for value in (
        b"+3", b"-3", b"0x3", b"3.0", b"03", b"3 3", b"3,3", b"3, 3", b"3, 4", b"3\x00", b"", b"three", b"3_0", b"\xd9\xa3", b"3\x7f",
        b"99999999999999999999", b"18446744073709551619", b"3;x", b'"3"',
    ):  # fmt: skip
        raw = _answer(b"Content-Length: " + value, body=b"abc" + INJECTED)
        yield Mutation(f"Content-Length: {_show(value)}", raw, "refused", closes=True)
    for value in (b"3", b" 3", b"3 ", b"\t3\t"):
        yield Mutation(f"Content-Length:{_show(value)}", _answer(b"Content-Length:" + value, body=b"abc"), "forwarded")
    for lines in (
        (b"Content-Length: 3", b"Content-Length: 3"), (b"Content-Length: 3", b"content-length: 20"), (b"Content-Length: 13", _CHUNKED),
        (_CHUNKED, b"Content-Length: 3"), (_CHUNKED, _CHUNKED), (_CHUNKED, b"transfer-encoding: identity"), (b"Content_Length: 0",),
        (b"Transfer-Encoding : chunked",), (b"Content-Length : 3",), (b" Content-Length: 3",), (b"Content-Length\x00: 3",),
    ):  # fmt: skip
        raw = _answer(*lines, body=_WHOLE + INJECTED)
        yield Mutation(f"framed by {_show(b' and '.join(lines))}", raw, "refused", closes=True)
    raw = _answer(_CHUNKED, body=_WHOLE + INJECTED, line=b"HTTP/1.0 200 OK")
    yield Mutation("chunked in HTTP/1.0", raw, "refused", closes=True)
    yield Mutation("no framing: to the end", _answer(body=b"abc"), "forwarded", closes=True)
    yield Mutation("no framing, in HTTP/1.0", _answer(body=b"abc", line=b"HTTP/1.0 200 OK"), "forwarded", closes=True)
    for size in (
        b"+3",
        b"0x3",
        b"-3",
        b" 3",
        b"3 3",
        b"",
        b"3\x00",
        b"3_0",
        b"ffffffffffffffffff",
        b"3\n",
        b"\r\n3",
        b"g",
    ):
        raw = _answer(_CHUNKED, body=size + b"\r\nabc\r\n0\r\n\r\n" + INJECTED)
        yield Mutation(f"chunk size {_show(size)}", raw, "either", closes=True)
    for end in (b"3\nabc\n0\n\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"3;x\ny\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nX: a\r\n\r\n",
                b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n", b"3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n", b"3;x=y\r\nabc\r\n0;z\r\n\r\n"):  # fmt: skip
        yield Mutation(f"chunks {_show(end)}", _answer(_CHUNKED, body=end + INJECTED), "either", closes=True)


def _without_body() -> Iterator[Mutation]:
    """RFC 9112, section 6.3, number 1: these have none, whatever their fields say."""
    for line, method in (
        (b"HTTP/1.1 204 No Content", "GET"), (b"HTTP/1.1 304 Not Modified", "GET"), (b"HTTP/1.1 200 OK", "HEAD"),
        (b"HTTP/1.1 404 Not Found", "HEAD"),
    ):  # fmt: skip
        short = f"{line[9:12].decode()} to {method}"
        bodies: tuple[tuple[tuple[bytes, ...], bytes], ...] = (
            ((b"Content-Length: 3",), b""), ((b"Content-Length: 3",), b"abc"), ((), b"abc"), ((), INJECTED),
            ((b"Content-Length: %d" % len(INJECTED),), INJECTED), ((b"Content-Length: 0",), INJECTED),
        )  # fmt: skip
        for lines, body in bodies:
            raw = _answer(*lines, body=body, line=line)
            yield Mutation(f"{short}, {_show(b''.join(lines))}, {len(body)} bytes", raw, "forwarded", method)
        for body in (b"", _WHOLE, INJECTED):
            raw = _answer(_CHUNKED, body=body, line=line)
            yield Mutation(f"{short}, chunked, {len(body)} bytes", raw, "either", method)
    final = _answer(b"Content-Length: 3", body=b"abc")
    for line in (
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 102 Processing",
        b"HTTP/1.1 103 Early Hints",
        b"HTTP/1.1 199 x",
        b"HTTP/1.0 103 x",
    ):
        yield Mutation(f"{_show(line)}, then the final one", _answer(line=line) + final, "forwarded")
        yield Mutation(
            f"{_show(line)} with fields, then the final one", _answer(b"Link: </x>", line=line) + final, "forwarded"
        )
        yield Mutation(f"{_show(line)} twice", _answer(line=line) * 2 + final, "forwarded")
        yield Mutation(f"{_show(line)}, then nothing", _answer(line=line), "refused", closes=True)
        raw = _answer(b"Content-Length: %d" % len(INJECTED), line=line) + INJECTED + final
        yield Mutation(f"{_show(line)} with a length", raw, "either", closes=True)
    for line in (
        b"HTTP/1.1  103 x",
        b"HTTP/1.1 +103 x",
        b"HTTP/1.1\t103 x",
        b"HTTP/1.1 0103 x",
        b"HTTP/1.1 1_03 x",
        b"HTTP/1.1 99 x",
    ):
        yield Mutation(f"{_show(line)}, then the final one", _answer(line=line) + final, "refused", closes=True)
    for lines in ((), (b"Upgrade: websocket", b"Connection: Upgrade"), (b"Upgrade: h2c", b"Connection: Upgrade")):
        raw = _answer(*lines, line=b"HTTP/1.1 101 Switching Protocols") + INJECTED
        yield Mutation(f"101 that nobody asked for, {_show(b' and '.join(lines))}", raw, "refused", closes=True)


def _fields() -> Iterator[Mutation]:
    length = b"Content-Length: 3"
    for code in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x0D, 0x1F, 0x7F):
        raw = _answer(b"X-Note: a" + bytes([code]) + b"b", length, body=b"abc")
        yield Mutation(f"{_show(bytes([code]))} in a value", raw, "refused", closes=True)
        raw = _answer(length, body=b"abc", line=b"HTTP/1.1 200 O" + bytes([code]) + b"K")
        yield Mutation(f"{_show(bytes([code]))} in the reason", raw, "either", closes=True)
        raw = _answer(b"X-No" + bytes([code]) + b"te: a", length, body=b"abc")
        yield Mutation(f"{_show(bytes([code]))} in a name", raw, "refused", closes=True)
    for fold in (b"\r\n ", b"\r\n\t", b"\n ", b"\r\n  \r\n "):
        yield Mutation(f"obs-fold {_show(fold)}", _answer(b"X-Note: a" + fold + b"b", length, body=b"abc"), "forwarded")
    raw = _answer(b"Transfer-Encoding:\r\n chunked", body=_WHOLE)
    yield Mutation("obs-fold in Transfer-Encoding", raw, "either", closes=True)
    for piece in (b"\rX-Injected: yes", b"\r\r\nX-B: c", b"\n\rX-B: c", b"\x85X-Injected: yes"):
        yield Mutation(
            f"{_show(piece)} behind a value", _answer(b"X-Note: a" + piece, length, body=b"abc"), "either", closes=True
        )
    for line in (b": a", b"no colon", b"X Note: a", b"X-Note : a", b"X-Note\t: a", b"(x): a", b" folded"):
        raw = b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: 3\r\n\r\nabc"
        yield Mutation(f"the line {_show(line)}", raw, "refused", closes=True)
    for value in (b"Content-Length", b"close, transfer-encoding", b"Content-Length;x"):
        raw = _answer(b"Connection: " + value, length, body=b"abc")
        yield Mutation(f"hop-by-hop: Connection: {_show(value)}", raw, "refused", closes=True)
    raw = _answer(b"Connection: keep-alive, X-Note", b"X-Note: a", length, body=b"abc")
    yield Mutation("hop-by-hop: Connection: X-Note is obeyed", raw, "forwarded")


def _lines() -> Iterator[Mutation]:
    length = b"Content-Length: 3"
    for line in (
        b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/9.9 200 OK", b"HTTP/1.2 200 OK", b"HTTP/1.1 -200 OK", b"HTTP/1.1 1000 OK", b"HTTP/1.1 0 OK",
        b"HTTP/1.1 2000000000000000000000 OK", b"HTTP/1.1 OK", b"HTTP/1.1", b"http/1.1 200 OK", b"ICY 200 OK", b"HTTP/1.1x 200 OK", b"200 OK",
        b"", b"\x00", b"HTTP/1.1 2 00 OK"[:11], b"HTTP/1.1 20\x000 OK",
    ):  # fmt: skip
        yield Mutation(f"the line {_show(line)}", _answer(length, body=b"abc", line=line), "refused", closes=True)
    for line in (
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 299 x",
        b"HTTP/1.1 999 x",
        b"HTTP/1.1  200  OK",
        b"HTTP/1.1\t200\tOK",
        b"HTTP/1.1 +200 OK",
        b"HTTP/1.1 2_00 OK",
    ):
        yield Mutation(f"the line {_show(line)} is one", _answer(length, body=b"abc", line=line), "either", closes=True)
    for end in (b"\n", b"\r\r\n", b"\n\r"):
        yield Mutation(f"every line ends in {_show(end)}", _answer(length, body=b"abc", end=end), "either", closes=True)
    for front in (b"\r\n", b"\n", b" ", b"junk\r\n", b"\x00"):
        yield Mutation(f"{_show(front)} in front", front + _answer(length, body=b"abc"), "either", closes=True)
    whole = _answer(length, body=b"abc")
    yield Mutation("an answer behind the answer", whole + INJECTED, "forwarded")
    yield Mutation("half an answer behind the answer", whole + INJECTED[:20], "forwarded")
    yield Mutation("more of a body than was said", _answer(length, body=b"abcdef"), "forwarded")
    yield Mutation("less of a body than was said", _answer(b"Content-Length: 5", body=b"abc"), "either", closes=True)
    yield Mutation("no answer", b"", "refused", closes=True)
    yield Mutation("HTTP/0.9", b"abc", "refused", closes=True)


MUTATIONS: Final = (*_framing(), *_without_body(), *_fields(), *_lines())
