"""The tests' own clients leave on the socket what belongs to who reads next."""

import socket

import pytest

from tests.live.wire import answer


def test_what_follows_a_connects_answer_in_the_same_segment_is_the_tunnels() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.sendall(b"HTTP/1.1 200 OK\r\n\r\nthe server speaks first")

        assert answer(ours, method="CONNECT").status == 200
        assert ours.recv(100) == b"the server speaks first"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"content-length: 4\r\n\r\nno!\n", id="of a known length"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n4\r\nno!\n\r\n0\r\n\r\n", id="in chunks"),
    ],
)
def test_a_refusal_of_a_connect_is_read_with_its_body(body: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 403 Forbidden\r\n" + body)

        refused = answer(ours, method="CONNECT")

    assert (refused.status, refused.body) == (403, b"no!\n")
