# ruff: noqa: E501 (lists of bytes)
"""
Requests that two readers may take for different ones: HTTP/1 as raw bytes, each with what has to become of it.

Names of the attacks as in RFC 9112, section 11.2, and in what has been published on request smuggling since 2005.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

type Fate = Literal["refused", "forwarded", "cut", "either"]
# refused: nothing of it goes upstream. forwarded: it does, as one request. cut: its head does, its body never ends, or
# turns out to be malformed. either: one of the first two; what is said of it here is only that it is one of them.

TARGET, HOST, MARK = b"{target}", b"{host}", b"{mark}"


@dataclass(frozen=True, slots=True)
class Mutation:
    """
    One sequence of bytes.

    Attributes:
        raw: With ``{target}`` and ``{host}`` in it, for what the request is to name, and ``{mark}`` for the path alone.
        fate: What has to become of it.
        judged: How many requests it may be at most, where it is forwarded.
    """

    id: str
    raw: bytes
    fate: Fate
    judged: int = 1

    def to(self, target: bytes, host: bytes, mark: bytes) -> bytes:
        return self.raw.replace(TARGET, target).replace(HOST, host).replace(MARK, mark)


SMUGGLED: Final = b"GET {target}/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked"
_WHOLE: Final = b"3\r\nabc\r\n0\r\n\r\n"


def _message(*lines: bytes, body: bytes = b"", line: bytes = b"POST {target} HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    return end.join((line, b"Host: {host}", *lines)) + end + end + body


def _show(piece: bytes) -> str:
    return repr(piece)[2:-1]


def _framing() -> Iterator[Mutation]:
    """Transfer-Encoding, Content-Length, and both at once."""
    for value in (
        b"xchunked", b"chunkedx", b"chunked;q=1", b"chunked; x", b'"chunked"', b"'chunked'", b"chunked chunked",
        b"chunked, chunked", b"chunked,chunked", b"chunked, identity", b"identity, chunked", b"identity", b"gzip",
        b"deflate", b"compress", b"gzip, chunked", b"deflate,chunked", b"compress\t,\tchunked", b"x-gzip, chunked",
        b"br, chunked", b"cow", b"", b",", b",chunked", b"chunked,", b"chunked,,", b", chunked", b"chunked\x00",
        b"\x00chunked", b"chunked\x0b", b"\x0bchunked", b"\x0cchunked", b"chunked\x0c", b"ch\x00unked", b"ch unked",
        b"ch\x0bunked", b"chunked\x7f", b"\x1fchunked", b"chunk\xc3\xa9d", b"chun\xe2\x84\xaaed", b"\xefchunked",
        b"\xa0chunked", b"chunked\xa0", b"\x85chunked", b"0", b"true", b"chunked\r", b"\rchunked", b"ch\runked",
        b"\t\x0bchunked", b"chunked\t\x0c",
    ):  # fmt: skip
        canonical = value.strip(b" \t\r\x0b\x0c") == b"chunked"
        yield Mutation(
            f"Transfer-Encoding: {_show(value)}",
            _message(b"Transfer-Encoding: " + value, body=_WHOLE + SMUGGLED),
            "either" if canonical else "refused",
            judged=2,
        )
        yield Mutation(
            f"Transfer-Encoding: {_show(value)}, with a length",
            _message(b"Transfer-Encoding: " + value, b"Content-Length: 13", body=_WHOLE + SMUGGLED),
            "refused",
        )
    for value in (b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"\tchunked", b"chunked \t", b"  chunked  "):
        raw = _message(b"Transfer-Encoding:" + value, body=_WHOLE)
        yield Mutation(f"Transfer-Encoding:{_show(value)}, alone", raw, "forwarded")
    for value in (
        b"+3", b"-3", b"0x3", b"3.0", b"3e0", b"03", b"003", b"3 3", b"3,3", b"3, 3", b"3,4", b"3;x", b"3\x00", b"\x003",
        b"3\x01", b"", b"0 3", b"\xd9\xa3", b"\xef\xbc\x93", b"three", b"3_0", b"1_0", b"0b11", b"0o3", b"3L", b"3\x7f",
        b'"3"', b"3 ,", b",3", b"9223372036854775808", b"18446744073709551616", b"18446744073709551619",
        b"99999999999999999999999999999999", b"4294967299999999999999", b"3\xa0", b"\xa03", b"3\x85", b"- 3", b"+ 3",
    ):  # fmt: skip
        raw = _message(b"Content-Length: " + value, body=b"abc" + SMUGGLED)
        yield Mutation(f"Content-Length: {_show(value)}", raw, "refused")
    for value in (b"3", b" 3", b"\t3", b"3 ", b"3\t", b"  3  "):
        raw = _message(b"Content-Length:" + value, body=b"abc")
        yield Mutation(f"Content-Length:{_show(value)}, alone", raw, "forwarded")
    for value in (b"\x0b3", b"3\x0b", b"\x0c3", b"3\x0c", b"3\r", b"\r3"):
        raw = _message(b"Content-Length: " + value, body=b"abc" + SMUGGLED)
        yield Mutation(f"Content-Length: {_show(value)}, alone", raw, "either", judged=2)
    for first, second in ((b"3", b"3"), (b"3", b"0"), (b"0", b"3"), (b"3", b""), (b"", b"3"), (b"3", b"x")):
        raw = _message(b"Content-Length: " + first, b"content-length: " + second, body=b"abc" + SMUGGLED)
        yield Mutation(f"Content-Length twice: {_show(first)} and {_show(second)}", raw, "refused")
    for first, second in ((b"chunked", b"chunked"), (b"chunked", b"identity"), (b"cow", b"chunked"), (b"", b"chunked")):
        raw = _message(b"Transfer-Encoding: " + first, b"Transfer-encoding: " + second, body=_WHOLE + SMUGGLED)
        yield Mutation(f"Transfer-Encoding twice: {_show(first)} and {_show(second)}", raw, "refused")
    for lines, kind in (
        ((b"Content-Length: 13", _CHUNKED), "CL.TE"),
        ((_CHUNKED, b"Content-Length: 13"), "TE.CL"),
        ((b"Content-Length: 0", _CHUNKED), "CL.TE, no length"),
        ((b"content-length: 13", b"transfer-encoding: chunked"), "CL.TE in lower case"),
        ((b"CONTENT-LENGTH: 13", b"TRANSFER-ENCODING: CHUNKED"), "CL.TE in upper case"),
        ((b"Content-Length: 13", b"Transfer-Encoding: identity"), "CL.TE, identity"),
        ((b"Content-Length: 0", b"Content-Length: 13", _CHUNKED), "CL.CL.TE"),
        ((_CHUNKED, _CHUNKED, b"Content-Length: 13"), "TE.TE.CL"),
    ):
        yield Mutation(f"both framings: {kind}", _message(*lines, body=_WHOLE + SMUGGLED), "refused")
    for old in (b"POST {target} HTTP/1.0", b"GET {target} HTTP/1.0"):
        raw = _message(_CHUNKED, body=_WHOLE + SMUGGLED, line=old)
        yield Mutation(f"chunked in {_show(old)}", raw, "refused")
        yield Mutation(
            f"chunked and keep-alive in {_show(old)}",
            _message(_CHUNKED, b"Connection: keep-alive", body=_WHOLE + SMUGGLED, line=old),
            "refused",
        )
    for name, value in ((b"Transfer_Encoding", b"chunked"), (b"content_length", b"0")):
        raw = _message(name + b": " + value, body=SMUGGLED)
        yield Mutation(f"{_show(name)}, which CGI takes for a hyphen's", raw, "refused")
    for name in (b"Transfer-Encodin", b"X-Transfer-Encoding", b"Transfer-Encoding2", b"TE"):
        raw = _message(name + b": chunked", b"Content-Length: 13", body=_WHOLE)
        yield Mutation(f"{_show(name)} is another name", raw, "forwarded")
    for name in (b"Content-Lengt", b"X-Content-Length", b"ContentLength"):
        raw = _message(name + b": 0", b"Content-Length: 3", body=b"abc")
        yield Mutation(f"{_show(name)} is another name", raw, "forwarded")


def _names() -> Iterator[Mutation]:
    """Bytes in and around a field's name and its colon."""
    for name in (b"Transfer-Encoding", b"Content-Length", b"X-Note"):
        value = {b"T": b"chunked", b"C": b"13", b"X": b"note"}[name[:1]]
        beside = (b"Content-Length: 13",) if name[:1] == b"T" else (_CHUNKED,) if name[:1] == b"C" else ()
        for at, piece in enumerate(
            (b" ", b"\t", b"\x00", b"\x01", b"\x0b", b"\x0c", b"\r", b"\x7f", b"\x80", b"\xa0", b"\xff", b'"', b"(", b",",
             b"/", b";", b"=", b"?", b"@", b"[", b"\\", b"{", b"}", b"\x1b", b"\x85")
        ):  # fmt: skip
            places = (
                (name + piece, "behind"),
                (piece + name, "before"),
                (name[:4] + piece + name[4:], "inside of"),
            )
            # All three places for the white space, one each for the others: what is asked is the same.
            for spelled, place in places if at < 7 else places[at % 3 : at % 3 + 1]:
                raw = _message(*beside, spelled + b": " + value, body=_WHOLE + SMUGGLED)
                yield Mutation(f"{_show(piece)} {place} {_show(name)}", raw, "refused")
    for line in (b": note", b"note", b"", b" ", b" folded", b"\tfolded", b"\x00", b"=", b"X-Note", b"X-Note note"):
        raw = b"POST {target} HTTP/1.1\r\nHost: {host}\r\nX-A: b\r\n" + line + b"\r\nContent-Length: 3\r\n\r\nabc"
        # An empty line ends the head; what is behind it is another request, which is none.
        yield Mutation(f"the line {_show(line)}", raw, "either" if not line else "refused")
    for line in (b" folded", b"\tfolded", b" X-A: b", b" Host: other.test"):
        raw = b"POST {target} HTTP/1.1\r\n" + line + b"\r\nHost: {host}\r\nContent-Length: 3\r\n\r\nabc"
        yield Mutation(f"the line {_show(line)} in front of all", raw, "refused")
    for fold in (b"\r\n ", b"\r\n\t", b"\n ", b"\r\n  \r\n ", b"\r\n \r\n"):
        for line in (
            b"Transfer-Encoding:" + fold + b"chunked",
            b"X-Note: a" + fold + b"b",
            b"Host:" + fold + b"{host}",
        ):
            raw = b"POST {target} HTTP/1.1\r\nHost: {host}\r\n" + line + b"\r\nContent-Length: 3\r\n\r\nabc"
            yield Mutation(f"obs-fold {_show(fold)} in {_show(line[:8])}", raw, "refused")


def _values() -> Iterator[Mutation]:
    """Bytes in a field's value, and the ends of lines."""
    for code in (*range(0x20), 0x7F):
        piece = bytes([code])
        raw = _message(b"X-Note: a" + piece + b"b", b"Content-Length: 3", body=b"abc")
        yield Mutation(f"{_show(piece)} in a value", raw, "forwarded" if piece == b"\t" else "refused")
    for code in (0x80, 0x85, 0xA0, 0xC3, 0xE4, 0xFF):
        raw = _message(b"X-Note: a" + bytes([code]) + b"b", b"Content-Length: 3", body=b"abc")
        yield Mutation(f"{_show(bytes([code]))} in a value", raw, "forwarded")
    for piece in (b"\r", b"\n", b"\r\r\n", b"\n\r", b"\r\n\r", b"\x0b\r\n", b"\x85", b"\xe5\x98\x8a\xe5\x98\x8d"):
        raw = _message(
            b"X-Note: a" + piece + b"Transfer-Encoding: chunked", b"Content-Length: 13", body=_WHOLE + SMUGGLED
        )
        fate: Fate = "either" if b"\x85" in piece or b"\xe5" in piece or piece == b"\r\n\r" else "refused"
        yield Mutation(f"{_show(piece)} in front of Transfer-Encoding", raw, fate, judged=2)
    yield Mutation("every line ends in a bare LF", _message(b"Content-Length: 3", body=b"abc", end=b"\n"), "either")
    yield Mutation("every line ends in CR CR LF", _message(b"Content-Length: 3", body=b"abc", end=b"\r\r\n"), "either")
    yield Mutation("every line ends in a bare CR", _message(b"Content-Length: 3", body=b"abc", end=b"\r"), "cut")
    yield Mutation("every line ends in LF CR", _message(b"Content-Length: 3", body=b"abc", end=b"\n\r"), "either")
    yield Mutation("the head ends in LF LF", _message(b"Content-Length: 3")[:-4] + b"\n\nabc", "either")
    yield Mutation("the head ends in LF CR LF", _message(b"Content-Length: 3")[:-4] + b"\n\r\nabc", "either")
    yield Mutation("the head ends in CR LF LF", _message(b"Content-Length: 3")[:-4] + b"\r\n\nabc", "either")
    yield Mutation(
        "the head ends in CR LF CR CR LF",
        _message(b"Content-Length: 3")[:-4] + b"\r\n\r\r\nabc" + SMUGGLED,
        "either",
        2,
    )
    for value in (
        b"Content-Length", b"content-length, close", b"close, Transfer-Encoding", b"Host", b"X-Note, Content-Length",
        b"keep-alive, host", b"\x0bContent-Length", b"Content-Length;x",
    ):  # fmt: skip
        raw = _message(b"Connection: " + value, b"Content-Length: 3", body=b"abc")
        yield Mutation(f"hop-by-hop: Connection: {_show(value)}", raw, "refused")
    for value in (b"X-Note", b"close, X-Note", b"x-note, keep-alive", b"Authorization, X-Note", b"X-Note,,", b"TE"):
        raw = _message(b"Connection: " + value, b"X-Note: a", b"TE: trailers", b"Content-Length: 3", body=b"abc")
        yield Mutation(f"hop-by-hop: Connection: {_show(value)} is obeyed", raw, "forwarded")
    for line in (
        b"Expect: 100-continue, x", b"Expect: 200-ok", b"Expect:", b"Trailer: Content-Length", b"TE: trailers, chunked",
        b"Upgrade: h2c", b"Upgrade: HTTP/2.0", b"Keep-Alive: timeout=5", b"Max-Forwards: 0", b"X-HTTP-Method-Override: PUT",
        b"Content-Encoding: chunked", b"X-Forwarded-Host: other.test",
    ):  # fmt: skip
        raw = _message(line, b"Content-Length: 3", body=b"abc")
        yield Mutation(_show(line), raw, "forwarded")


def _chunks() -> Iterator[Mutation]:
    """Bodies: sizes, extensions, trailers, ends of lines."""
    for size in (
        b"+3", b"-3", b"0x3", b"3 3", b"3h", b"3,", b"", b" ", b"\t3", b" 3", b"3\x00", b"3\x0b", b"\x0b3", b"3_0", b"g",
        b"fffffffffffffffff", b"10000000000000000", b"ffffffffffffffff", b"8000000000000000", b"7fffffffffffffff0",
        b"000000000000000000003", b"\xef\xbc\x93", b"3\xa0", b"0x", b"3\r", b"3\r3", b"3\n", b"\r\n3", b"3\r\r",
    ):  # fmt: skip
        raw = _message(_CHUNKED, body=size + b"\r\nabc\r\n0\r\n\r\n" + SMUGGLED)
        yield Mutation(f"chunk size {_show(size)}", raw, "cut", judged=2)
    for size in (
        b"3",
        b"03",
        b"0000000000003",
        b"3 ",
        b"3\t",
        b"3;",
        b"3;x",
        b"3;x=y",
        b'3;x="a b"',
        b"3 ;x",
        b"3; x",
        b"3;x;y",
    ):
        raw = _message(_CHUNKED, body=size + b"\r\nabc\r\n0\r\n\r\n")
        yield Mutation(f"chunk size {_show(size)} is read", raw, "cut" if size == b"3 ;x" else "forwarded")
    for extension in (
        b";a\nb", b";a\rb", b";\n", b";a\x00b", b";a\r", b";\xff", b';"\r\n0\r\n\r\n"', b";a=\x0b", b";0\r\n\r\n", b";" + b"a" * 5000
    ):  # fmt: skip
        raw = _message(_CHUNKED, body=b"3" + extension + b"\r\nabc\r\n0\r\n\r\n" + SMUGGLED)
        yield Mutation(f"chunk extension {_show(extension[:20])}", raw, "cut", judged=2)
    for data in (
        b"ab\r\n",
        b"abcd\r\n",
        b"abc",
        b"abc\n",
        b"abc\r",
        b"abc\n\r",
        b"abc\r\r\n",
        b"abc\n\n",
        b"abcXX",
        b"abc\r\n\r\n",
    ):
        raw = _message(_CHUNKED, body=b"3\r\n" + data + b"0\r\n\r\n" + SMUGGLED)
        yield Mutation(f"chunk data {_show(data)}", raw, "cut", judged=2)
    for end in (
        b"3\nabc\n0\n\n", b"3\r\nabc\r\n0\n\n", b"3\r\nabc\r\n0\n\r\n", b"3\nabc\r\n0\r\n\r\n", b"3\r\nabc\n0\r\n\r\n",
        b"3\r\nabc\r\n0\r\r\n\r\n", b"3\r\nabc\r\n0\r\n\n", b"3\r\nabc\r\n0\r\n\r", b"3\r\nabc\r\n00\r\n\r\n", b"3\r\nabc\r\n-0\r\n\r\n",
        b"3\r\nabc\r\n0;x\r\n\r\n", b"3\r\nabc\r\n0 \r\n\r\n", b"3\r\nabc\r\n0\r\n\x00\r\n",
    ):  # fmt: skip
        raw = _message(_CHUNKED, body=end + SMUGGLED)
        yield Mutation(f"chunks {_show(end)}", raw, "cut", judged=2)
    for trailer in (
        b"X-Note: a", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: other.test", b"no colon", b": x",
        b"X-Note: a\x00b", b"X-Note: a\rb", b" folded", b"X-Note: a\r\n b", b"X Note: a", b"X-Note : a", b"X-Note: a\nX-B: b",
        b"GET {target}/smuggled HTTP/1.1", b"X-Note: a\n\nGET {target}/smuggled HTTP/1.1",
    ):  # fmt: skip
        raw = _message(_CHUNKED, body=b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n\r\n" + SMUGGLED)
        yield Mutation(f"trailer {_show(trailer[:24])}", raw, "cut", judged=3)


def _lines() -> Iterator[Mutation]:
    """Request lines: methods, targets, versions, what is between and in front of them."""
    for method in (
        b"get", b"Post", b"head", b"Head", b"connect", b"Connect", b"CONNECT", b"G\x00T", b"GE T", b"G\tT", b"GET\x0b", b"G@T",
        b"", b"(GET)", b"G" * 33, b"\xc7ET", b"PRI", b"GET:", b"{GET}",
    ):  # fmt: skip
        raw = _message(line=method + b" {target} HTTP/1.1", body=SMUGGLED)
        own_letters: Fate = "either" if method.lower() in (b"get", b"post", b"head") else "refused"
        yield Mutation(f"method {_show(method)}", raw, own_letters, judged=2)
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"PUT"):
        raw = _message(b"Content-Length: 3", line=method + b" {target} HTTP/1.1", body=b"abc")
        yield Mutation(f"{_show(method)} with a body", raw, "forwarded")
        raw = _message(_CHUNKED, line=method + b" {target} HTTP/1.1", body=_WHOLE)
        yield Mutation(f"{_show(method)} with chunks", raw, "forwarded")
    for version in (
        b"HTTP/1.2", b"HTTP/1.9", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1", b"http/1.1",
        b"HTTP/1,1", b"HTTP /1.1", b"HTTPS/1.1", b"HTTP/1.1x", b"HTTP/1.\xb9", b"HTTP/+1.1", b"", b"HTTP/1.1\x00", b"ICY/1.1",
    ):  # fmt: skip
        raw = _message(line=b"GET {target} " + version, body=SMUGGLED)
        yield Mutation(f"version {_show(version)}", raw, "refused")
    for ending in (
        b"#a",
        b"#",
        b"/\x00",
        b"/ x",
        b"/\tx",
        b"/\x0bx",
        b"/\x7f",
        b"/\rX: y",
        b"/%00#x",
        b"/x HTTP/1.1 HTTP/1.1",
        b"/\x1f",
    ):
        raw = _message(line=b"GET {target}" + ending + b" HTTP/1.1", body=SMUGGLED)
        yield Mutation(f"target with {_show(ending)}", raw, "refused")
    for ending in (
        b"/\xff",
        b"/%2e%2e/x",
        b"/..;/x",
        b"/%0d%0aX:%20y",
        b"/%20HTTP/1.1",
        b"//x",
        b"/\\x",
        b"/|",
        b"/%",
        b"?a=b?c",
        b'/"<>',
    ):
        raw = _message(line=b"GET {target}" + ending + b" HTTP/1.1")
        yield Mutation(f"target with {_show(ending)} is one", raw, "either")
    for target in (b"*", b"{host}", b"?x", b"x", b"http:", b"http:///x", b"//x/{mark}", b"ftp://{host}/x", b"{host}/x", b"http:/x",
                   b"http://{host}@other.test/", b"http://{host}#/x", b"http://{host}?x", b"http://{host}\\x/"):  # fmt: skip
        raw = _message(line=b"GET " + target + b" HTTP/1.1", body=SMUGGLED)
        # In origin-form, a path may begin with two slashes; it goes to the proven host, as a path.
        fate: Fate = "either" if target == b"//x/{mark}" else "refused"
        yield Mutation(f"target {_show(target)}", raw, fate, judged=2)
    for between in (b"  ", b"\t", b"\x0b", b"\x0c", b" \x0b", b"\r", b" \r ", b"\x1c", b"\x85", b"\xa0"):
        raw = _message(line=b"GET" + between + b"{target} HTTP/1.1", body=SMUGGLED)
        yield Mutation(f"{_show(between)} behind the method", raw, "either", judged=2)
        raw = _message(line=b"GET {target}" + between + b"HTTP/1.1", body=SMUGGLED)
        yield Mutation(f"{_show(between)} in front of the version", raw, "either", judged=2)
    for end in (b" \r\n", b"\t\r\n", b"\r\r\n", b"\n", b" x\r\n", b"\x00\r\n", b"\x0b\r\n"):
        raw = b"GET {target} HTTP/1.1" + end + b"Host: {host}\r\n\r\n"
        yield Mutation(f"the request line ends in {_show(end)}", raw, "either")
    for front in (b"\r\n", b"\n", b"\r\n\r\n", b"\r", b" ", b"\t", b"\x00", b"\r\n ", b"\xef\xbb\xbf"):
        yield Mutation(f"{_show(front)} in front", front + _message(), "either")
    for value in (
        b"", b" ", b"{host} other.test", b"{host},other.test", b"{host}, {host}", b"user@{host}", b"{host}/x", b"{host}#x",
        b"{host}?x", b"{host}\\x", b"{host}\x00", b"http://{host}", b"{host}:1", b"other.test", b"[{host}]", b"{host}\xa0",
        b"..", b"{host}:", b"%7b{host}", b"{host};x",
    ):  # fmt: skip
        raw = b"POST {target} HTTP/1.1\r\nHost: " + value + b"\r\nContent-Length: 3\r\n\r\nabc"
        yield Mutation(f"Host: {_show(value)}", raw, "refused")
    for lines in (
        (b"Host: {host}", b"Host: {host}"),
        (b"Host: {host}", b"host: other.test"),
        (b"Host: other.test", b"Host: {host}"),
    ):
        raw = b"\r\n".join((b"GET {target} HTTP/1.1", *lines)) + b"\r\n\r\n"
        yield Mutation(f"two hosts: {_show(b' and '.join(lines))}", raw, "refused")
    yield Mutation("no Host", b"GET {target} HTTP/1.1\r\nX-A: b\r\n\r\n", "either")
    yield Mutation(
        "Host behind a folded line",
        b"GET {target} HTTP/1.1\r\nX-A: b\r\n Host: other.test\r\nHost: {host}\r\n\r\n",
        "refused",
    )


def _sequences() -> Iterator[Mutation]:
    """Several requests on one connection, by any reading."""
    empty = _message(b"Content-Length: 0")
    for between in (b"", b"\r\n", b"\n", b"\r\n\r\n", b"\x00", b" ", b"\r"):
        raw = empty + between + SMUGGLED
        yield Mutation(f"{_show(between)} between two requests", raw, "either", judged=2)
    yield Mutation("a request behind the end of the chunks", _message(_CHUNKED, body=_WHOLE) + SMUGGLED, "forwarded", 2)
    yield Mutation("a request behind a body", _message(b"Content-Length: 3", body=b"abc") + SMUGGLED, "forwarded", 2)
    yield Mutation("a body that is a request", _message(b"Content-Length: %d", body=SMUGGLED), "refused")
    yield Mutation("a request in a chunk", _message(_CHUNKED, body=b"5\r\nGET /\r\n0\r\n\r\n"), "forwarded")
    yield Mutation("less of a body than was said", _message(b"Content-Length: 5000", body=b"abc"), "cut")
    yield Mutation("chunks without end", _message(_CHUNKED, body=b"3\r\nabc\r\n"), "cut")
    yield Mutation("a head without end", _message()[:-2], "cut")
    yield Mutation(
        "an upgrade to WebSocket with a body",
        _message(
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Content-Length: 3",
            body=b"abc",
        ),
        "forwarded",
    )
    yield Mutation(
        "an upgrade to WebSocket of a version that there isn't, and a request behind it",
        _message(
            b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 1337", line=b"GET {target} HTTP/1.1"
        )
        + SMUGGLED,
        "forwarded",
        2,
    )
    yield Mutation(
        "an upgrade to h2c, and its preface",
        _message(
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAAA",
            line=b"GET {target} HTTP/1.1",
        )
        + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "either",
    )


MUTATIONS: Final = (*_framing(), *_names(), *_values(), *_chunks(), *_lines(), *_sequences())
