"""What does a client speak? Told from its first bytes, which may come one at a time."""

import re
from enum import Enum

MAX_FIRST_LINE = 16 * 1024  # bytes of an HTTP/1 request line

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} [^ \r\n]+ HTTP/1\.[01]\r?\n")


class Speaks(Enum):
    """What the first bytes are; ``UNDECIDED`` asks for more of them."""

    TLS = "tls"
    HTTP = "http"
    OTHER = "other"
    UNDECIDED = "undecided"


def sniff(data: bytes) -> Speaks:
    """
    Tell TLS (a handshake record of version 3.x, RFC 8446 section 5.1) and HTTP/1 (a whole request line, RFC 9112
    section 3) from everything else. A prefix that may still become either is undecided, never "other": a first
    segment of one byte must not turn interception into a raw tunnel.
    """
    if not data:
        return Speaks.UNDECIDED
    if data[0] == 0x16:
        if len(data) >= 2 and data[1] != 3:
            return Speaks.OTHER
        if len(data) >= 3 and data[2] > 4:
            return Speaks.OTHER
        return Speaks.TLS if len(data) >= 3 else Speaks.UNDECIDED
    if b"\n" in data:
        return Speaks.HTTP if _REQUEST_LINE.match(data) else Speaks.OTHER
    if len(data) > MAX_FIRST_LINE:
        return Speaks.OTHER
    method = _METHOD.match(data)
    if method is None:
        return Speaks.OTHER
    rest = data[method.end() :]
    return Speaks.UNDECIDED if not rest or rest[:1] == b" " else Speaks.OTHER
