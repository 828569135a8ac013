"""
Messages that readers take apart in different ways: settled, or refused, before anything of them is forwarded.

mitmproxy's own validation lets by what is left open here. `addons.internals` puts this in its place; it is asked for
each request and each answer, before any addon is.
"""

import re
from typing import Any, Final

from mitmproxy.http import HTTPFlow, Message, Response
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy.layers import http

MOST_BYTES: Final = 1 << 62  # that a body may be said to have: readers with 64 bits overflow above

# RFC 9110, section 5.5: a field value has no control characters but HTAB.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_FOLD: Final = b"\r\n "  # what mitmproxy makes of each line that continues another one
# What says where a message ends, or whom it is for, isn't for one hop alone.
_NEVER_DROPPED: Final = frozenset({"content-length", "transfer-encoding", "host", "connection"})
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_FOR_THE_HOP: Final = frozenset({"close", "keep-alive", "upgrade"})


def install() -> None:
    """Replace mitmproxy's validation; a second call changes nothing."""
    http.validate_headers = settle  # type: ignore[attr-defined]


def settle(message: Message) -> None:
    """
    Leave one reading of where *message* ends, or none.

    Raises:
        ValueError: It has several.
    """
    if isinstance(message, Response):
        _settle_answer(message)
    validate_headers(message)
    headers = message.headers
    fields = headers.fields
    if _CONTROL.search(b"\t".join([value for _, value in fields])):
        name = next(name for name, value in fields if _CONTROL.search(value))
        raise ValueError(f"a control character in the value of header {name.decode('ascii', 'replace')!r}")
    if b"_" in b" ".join([name for name, _ in fields]):
        for name, _ in fields:
            if name.lower().replace(b"_", b"-") in _FRAMING and b"_" in name:
                raise ValueError(f"header {name.decode()!r}, which CGI takes for the one with a hyphen")
    if int(headers.get("content-length", 0)) > MOST_BYTES:
        raise ValueError("a content-length that overflows")
    if (coding := headers.get("transfer-encoding")) is not None:
        # RFC 9112, section 6.1: others are for whoever knows them, and many don't.
        if coding.lower() != "chunked":
            raise ValueError(f"a transfer-encoding that is not chunked: {coding!r}")
        headers["transfer-encoding"] = "chunked"
    if "connection" in headers:
        _settle_connection(message)


def settle_exchange(flow: HTTPFlow) -> None:
    """What an answer may be depends on what was asked; one that may not be is given a status that `settle` refuses."""
    assert flow.response is not None
    unasked = flow.response.status_code == 101 and "upgrade" not in flow.request.headers
    if unasked or (flow.response.is_http2 and flow.server_conn.alpn != b"h2"):
        flow.response.status_code = 100
    if flow.request.http_version == "HTTP/1.0":
        # RFC 9112, section 6.1: such a client knows no chunks. What they held is sent, and its end closes.
        flow.response.headers.pop("transfer-encoding", None)


def _settle_answer(answer: Response) -> None:
    status, headers = answer.status_code, answer.headers
    if answer.http_version not in ("HTTP/1.1", "HTTP/1.0", "HTTP/2.0"):
        raise ValueError(f"version {answer.http_version}")
    if not (200 <= status <= 999 or status == 101):
        raise ValueError(f"status {status}, which ends nothing")  # an interim one that isn't written as one
    if _CONTROL.search(answer.data.reason):
        answer.data.reason = b""
    # RFC 9112, section 5.2: a folded line becomes one line.
    if _FOLD in b"\t".join([value for _, value in headers.fields]):
        headers.fields = tuple((name, value.replace(_FOLD, b" ")) for name, value in headers.fields)
    if "transfer-encoding" in headers and headers["transfer-encoding"].lower() == "identity":
        headers.pop("transfer-encoding")  # RFC 9112, appendix C.2.1: was never one, and the end says the same
    if status in (101, 204):
        headers.pop("content-length", None)  # RFC 9110, section 8.6
    if status == 304:
        headers.pop(
            "transfer-encoding", None
        )  # says what another answer would have; mitmproxy would send the end of it


def _settle_connection(message: Message) -> None:
    """
    Obey ``Connection`` and forward no more of it than is ours to say (RFC 9110, section 7.6.1).

    A next proxy that obeyed it would drop what frames the message.
    """
    headers: Any = message.headers
    options = [
        option for value in headers.get_all("connection") for option in re.split(r"[\t ]*,[\t ]*", value.strip())
    ]
    named = {option.lower() for option in options if option and option.lower() not in _FOR_THE_HOP}
    for name in named:
        if name in _NEVER_DROPPED or not _TOKEN.fullmatch(name):
            raise ValueError(f"a connection header that names {name!r}")
        headers.pop(name, None)
    kept = [option for option in options if option.lower() in _FOR_THE_HOP]
    if not kept:
        headers.pop("connection")
    elif kept != options or len(headers.get_all("connection")) > 1:
        headers["connection"] = ", ".join(kept)
