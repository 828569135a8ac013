"""What of mitmproxy's inside we replace is still what we have replaced: a new mitmproxy that differs fails here."""

import hashlib
import inspect

import pytest
from mitmproxy import version
from mitmproxy.proxy import server
from mitmproxy.proxy.layers import http, tcp, tls

from addons import internals

# Methods that addons/internals.py and addons/layers.py replace or lean on, as they read in 12.2.3.
KNOWN = {
    "HttpStream.state_wait_for_request_headers": (http.HttpStream.state_wait_for_request_headers, "3706d5d5ce01dcd4"),
    "HttpStream.send_response": (http.HttpStream.send_response, "d581bc106152e369"),
    "HttpStream.flow_done": (http.HttpStream.flow_done, "ad9969744785c572"),
    "HttpStream.state_consume_request_body": (http.HttpStream.state_consume_request_body, "45459c1bbd8bdb1a"),
    "HttpLayer.get_connection": (http.HttpLayer.get_connection, "1aa1c63e3175766c"),
    "TCPLayer.relay_messages": (tcp.TCPLayer.relay_messages, "3b3d49a9f63b7d40"),
    "TLSLayer.receive_data": (tls.TLSLayer.receive_data, "85c0e6b656c324e5"),
    "ClientTLSLayer.receive_handshake_data": (tls.ClientTLSLayer.receive_handshake_data, "a0ee021f92f6d0ff"),
    "ConnectionHandler.open_connection": (server.ConnectionHandler.open_connection, "5e0b3cbaf7a4030a"),
}


def digest(function: object) -> str:
    return hashlib.sha256(inspect.getsource(inspect.unwrap(function)).encode()).hexdigest()[:16]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KNOWN)
def test_mitmproxys_inside_is_the_one_we_know(name: str) -> None:
    function, known = KNOWN[name]
    assert digest(function) == known, f"{name} differs in mitmproxy {version.VERSION}: read it, then ours"


def test_what_we_replace_is_replaced() -> None:
    internals.install()
    internals.install()

    assert http.HttpStream.start_request_stream is internals._start_request_stream
    assert http.HttpStream.make_server_connection is internals._make_server_connection
    assert internals._stock_start_request_stream is not internals._start_request_stream
