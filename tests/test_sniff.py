"""What a client speaks, told from first bytes that may come one at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.sniff import MAX_FIRST_LINE, Speaks, sniff

HELLO = bytes.fromhex("160301020001")
REQUEST = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "speaks"),
    [
        pytest.param(b"", Speaks.UNDECIDED, id="nothing yet"),
        pytest.param(b"\x16", Speaks.UNDECIDED, id="one byte of a TLS record isn't raw TCP"),
        pytest.param(b"\x16\x03", Speaks.UNDECIDED, id="two bytes of a TLS record aren't raw TCP"),
        pytest.param(b"\x16\x03\x01", Speaks.TLS, id="three bytes of a TLS record are enough"),
        pytest.param(b"\x16\x03\x03", Speaks.TLS, id="TLS 1.2 in the record"),
        pytest.param(b"\x16\x02\x00", Speaks.OTHER, id="SSL 2's version"),
        pytest.param(b"\x16\x03\x09", Speaks.OTHER, id="no version of TLS"),
        pytest.param(b"\x17\x03\x03", Speaks.OTHER, id="application data without a handshake"),
        pytest.param(b"G", Speaks.UNDECIDED, id="one letter may become a method"),
        pytest.param(b"GET /", Speaks.UNDECIDED, id="a request line isn't judged by halves"),
        pytest.param(REQUEST, Speaks.HTTP, id="a request"),
        pytest.param(b"CONNECT a:1 HTTP/1.0\r\n", Speaks.HTTP, id="CONNECT"),
        pytest.param(b"M-SEARCH * HTTP/1.1\n", Speaks.HTTP, id="a bare LF ends the line for mitmproxy, too"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Speaks.OTHER, id="HTTP/2 without TLS isn't spoken"),
        pytest.param(b"GET / HTTP/0.9\r\n", Speaks.OTHER, id="a version that isn't spoken"),
        pytest.param(b"GET /\r\n", Speaks.OTHER, id="HTTP/0.9 has no version at all"),
        pytest.param(b"XYZ hello\n", Speaks.OTHER, id="a line that only looks like a request"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", Speaks.OTHER, id="SSH's greeting"),
        pytest.param(b"SSH-2.0-Open", Speaks.UNDECIDED, id="half of SSH's greeting is still a token"),
        pytest.param(b"A" * 33, Speaks.OTHER, id="no method is that long"),
        pytest.param(b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Speaks.OTHER, id="PostgreSQL's SSLRequest"),
        pytest.param(b" GET / HTTP/1.1\r\n", Speaks.OTHER, id="white space in front"),
        pytest.param(b"GET  / HTTP/1.1\r\n", Speaks.OTHER, id="two spaces"),
        pytest.param(b"GET / HTTP/1.1 \r\n", Speaks.OTHER, id="white space behind"),
        pytest.param(b"GET /" + b"a" * MAX_FIRST_LINE, Speaks.OTHER, id="a line without an end"),
    ],
)
def test_sniff(data: bytes, speaks: Speaks) -> None:
    assert sniff(data) is speaks


@pytest.mark.parametrize("whole", [HELLO, REQUEST], ids=["TLS", "HTTP"])
def test_no_prefix_is_taken_for_something_else(whole: bytes) -> None:
    final = sniff(whole)

    for length in range(len(whole)):
        assert sniff(whole[:length]) in (Speaks.UNDECIDED, final)


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_decision_is_never_taken_back(head: bytes, tail: bytes) -> None:
    if (decided := sniff(head)) is not Speaks.UNDECIDED:
        assert sniff(head + tail) is decided
