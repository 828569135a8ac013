# ruff: noqa: E501 (lists of bytes)
"""HTTP/2 requests that are none, or two, and bodies without an end: each with what has to become of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from hyperframe.frame import DataFrame, Frame

from tests.hostile.http2 import Fields, RawHttp2, request

type Fate = Literal["refused", "forwarded", "either"]

_SMUGGLED: Final = b"GET /{mark}/smuggled HTTP/1.1\r\nHost: up.test\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Mutation:
    """
    One stream.

    Attributes:
        fields: With ``{host}`` and ``{mark}`` in them.
        data: The body's frames; None where the head ends the stream.
        trailers: Behind the body.
    """

    id: str
    fields: Fields
    fate: Fate
    data: tuple[bytes, ...] | None = None
    trailers: Fields = ()

    def frames(self, client: RawHttp2, host: str, mark: str) -> list[Frame]:
        fields = [(_put(name, host, mark), _put(value, host, mark)) for name, value in self.fields]
        if self.data is None and not self.trailers:
            return [client.head(fields, 1, "END_STREAM")]
        frames: list[Frame] = [client.head(fields, 1)]
        frames += [DataFrame(1, data=_put(data, host, mark)) for data in self.data or ()]
        if self.trailers:
            frames.append(client.head(self.trailers, 1, "END_STREAM"))
        else:
            frames[-1].flags.add("END_STREAM")
        return frames

    def body(self, mark: str) -> bytes:
        return b"".join(_put(data, "", mark) for data in self.data or ())


def _put(text: str | bytes, host: str, mark: str) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode("latin-1")
    return raw.replace(b"{host}", host.encode()).replace(b"{mark}", mark.encode())


def _get(*more: tuple[str | bytes, str | bytes], method: str = "GET", path: str = "") -> Fields:
    return request("{host}", path or "/{mark}", *more, method=method)


def _pseudo() -> Iterator[Mutation]:
    whole = {":method": "GET", ":scheme": "https", ":authority": "{host}", ":path": "/{mark}"}
    for name in whole:
        without = [(n, v) for n, v in whole.items() if n != name]
        yield Mutation(f"no {name}", without, "refused")
        yield Mutation(f"{name} twice", [*whole.items(), (name, whole[name])], "refused")
        yield Mutation(f"{name} behind a field", [*without, ("x-note", "a"), (name, whole[name])], "refused")
        yield Mutation(
            f"{name} empty",
            [(n, "" if n == name else v) for n, v in whole.items()],
            "refused" if name in (":method", ":path") else "either",
        )
        yield Mutation(f"{name.upper()}", [(n.upper() if n == name else n, v) for n, v in whole.items()], "refused")
    for name, value in (
        (":status", "200"),
        (":protocol", "websocket"),
        (":x", "a"),
        (":", "a"),
        ("::path", "/"),
        (":path ", "/"),
    ):
        yield Mutation(f"{name!r} as well", [*whole.items(), (name, value)], "refused")
    for method in (
        "GET /x HTTP/1.1",
        "GET\r\n",
        "G ET",
        "",
        "get",
        "connect",
        "CONNECT",
        "PRI",
        "GET\x00",
        "GE\tT",
        "G" * 40,
        "\xc7",
        "{get}",
    ):
        yield Mutation(f":method {method!r}", _get(method=method), "either" if method == "get" else "refused")
    for path in (
        "*", "{mark}", "http://other.test/{mark}", "//other.test/{mark}", "/{mark} HTTP/1.1\r\nX: y", "/{mark} x", "/{mark}#x", "/{mark}\tx",
        "/{mark}\x00", "/{mark}\x7f", "/{mark}\r", "/{mark}\n", "{host}/{mark}", "?{mark}", "/{mark} HTTP/1.1", " /{mark}", "/{mark} ", "https:/{mark}",
    ):  # fmt: skip
        yield Mutation(f":path {path!r}", _get(path=path), "either" if path.startswith("//") else "refused")
    for path in ("/{mark}/\xe4", "/{mark}?a=b", "/{mark}/%00", "/{mark}/..;/x", "/{mark}/\\x"):
        yield Mutation(f":path {path!r} is one", _get(path=path), "forwarded")
    for scheme in ("ftp", "http\r\n", "https://other.test/?", "ht tp", "HTTPS "):
        fields = [(n, scheme if n == ":scheme" else v) for n, v in whole.items()]
        yield Mutation(f":scheme {scheme!r}", fields, "refused")
    fields = [(n, "http" if n == ":scheme" else v) for n, v in whole.items()]
    yield Mutation(":scheme http inside of TLS", fields, "either")
    for authority in (
        "other.test", "{host}@other.test", "other.test@{host}", "{host}:1", "{host}/x", "{host} other.test", "{host}\r\nX: y", "{host}#x", "{host}\x00",
        "up.test,other.test", "[up.test]",
    ):  # fmt: skip
        fields = [(n, authority if n == ":authority" else v) for n, v in whole.items()]
        yield Mutation(f":authority {authority!r}", fields, "refused")
    fields = [(n, "UP.test." if n == ":authority" else v) for n, v in whole.items() if n != ":authority"]
    yield Mutation("host instead of :authority", [*fields, ("host", "{host}")], "forwarded")
    for host in ("other.test", "{host}, other.test", "", "{host}:1", "{host}/x"):
        yield Mutation(f"host {host!r} beside :authority", _get(("host", host)), "refused")
    yield Mutation("host that says what :authority says", _get(("host", "{host}")), "forwarded")
    yield Mutation("two hosts", _get(("host", "{host}"), ("host", "{host}")), "refused")
    yield Mutation("two hosts, one of them another", _get(("host", "{host}"), ("host", "other.test")), "refused")


def _fields() -> Iterator[Mutation]:
    for name, value in (
        ("Content-Length", "0"), ("X-Note", "a"), ("transfer-encoding", "chunked"), ("connection", "close"), ("connection", "content-length"),
        ("keep-alive", "timeout=5"), ("proxy-connection", "keep-alive"), ("upgrade", "websocket"), ("upgrade", "h2c"), ("te", "gzip"),
        ("te", "trailers, chunked"), ("x note", "a"), ("x-note:", "a"), ("x:note", "a"), ("", "a"), ("x-note\r\ny", "a"), ("x-note\n", "a"), ("x\x00", "a"),
        ("x\xe4", "a"), ("x-note", "a\r\nx: y"), ("x-note", "a\nx: y"), ("x-note", "a\rx: y"), ("x-note", "a\x00b"), ("x-note", "a\x0bb"),
        ("x-note", "a\x7fb"), ("x-note", " a"), ("x-note", "a "), ("x-note", "\ta"), ("x-note", "a\r\n b"), ("x(y)", "a"), ("x/y", "a"), ("transfer_encoding", "chunked"),
        ("x-note: a\r\ntransfer-encoding", "chunked"),
    ):  # fmt: skip
        yield Mutation(f"{name!r}: {value!r}", _get((name, value)), "refused")
    for name, value in (
        ("te", "trailers"),
        ("x-note", ""),
        ("x-note", "\xe4"),
        ("cookie", "a=b"),
        ("expect", "100-continue"),
        ("http2-settings", "AA"),
    ):
        yield Mutation(f"{name!r}: {value!r} is one", _get((name, value)), "forwarded")
    yield Mutation("cookies in pieces", _get(("cookie", "a=b"), ("cookie", "c=d")), "forwarded")


def _bodies() -> Iterator[Mutation]:
    honest: tuple[tuple[str, tuple[bytes, ...]], ...] = (
        ("3", (b"abc",)), ("3", (b"a", b"", b"bc")), ("0", (b"",)), ("3", (b"abc", b"")),
    )  # fmt: skip
    for length, data in honest:
        yield Mutation(f"length {length} of {data}", _get(("content-length", length), method="POST"), "forwarded", data)
    bodies: tuple[tuple[str, tuple[bytes, ...]], ...] = (
        ("2", (b"abc",)), ("4", (b"abc",)), ("0", (b"abc",)), ("0", (_SMUGGLED,)), ("3", ()), ("3", (b"abc" + _SMUGGLED,)), ("1", (b"a", _SMUGGLED)),
    )  # fmt: skip
    for length, data in bodies:
        yield Mutation(
            f"length {length} of {data}", _get(("content-length", length), method="POST"), "either", data or None
        )
    for length in ("+3", "-3", "0x3", "3 ", "3, 3", "", "03", "3_0", "99999999999999999999", "x", "3\x00", "\xd9\xa3"):
        yield Mutation(f"length {length!r}", _get(("content-length", length), method="POST"), "refused", (b"abc",))
    yield Mutation(
        "two lengths", _get(("content-length", "3"), ("content-length", "3"), method="POST"), "refused", (b"abc",)
    )
    yield Mutation(
        "two lengths that differ",
        _get(("content-length", "3"), ("content-length", "0"), method="POST"),
        "refused",
        (b"abc",),
    )
    for data in (
        (b"abc",),
        (_SMUGGLED,),
        (b"", _SMUGGLED, b"x"),
        (b"0\r\n\r\n", _SMUGGLED),
        (b"",),
        (b"3\r\nabc\r\n0\r\n\r\n",),
    ):
        for method in ("POST", "GET", "HEAD") if data[0] == b"abc" else ("POST",):
            yield Mutation(f"{method} without a length, {data}", _get(method=method), "forwarded", data)
    for trailers in (
        (("x-note", "a"),),
        (("content-length", "5"),),
        (("transfer-encoding", "chunked"),),
        ((":path", "/x"),),
        (("x-note", "a\r\nb: c"),),
    ):
        for head in ((), (("content-length", "3"),)):
            yield Mutation(f"trailers {trailers}, {head}", _get(*head, method="POST"), "either", (b"abc",), trailers)
    yield Mutation("trailers without a body", _get(method="POST"), "either", None, (("x-note", "a"),))


MUTATIONS: Final = (*_pseudo(), *_fields(), *_bodies())
