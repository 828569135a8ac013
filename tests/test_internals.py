"""What of mitmproxy's inside we replace is still what we have replaced: a new mitmproxy that differs fails here."""

import hashlib
import inspect

import pytest
from h2 import utilities
from h2.connection import H2Connection
from h2.frame_buffer import FrameBuffer
from h11._readers import ChunkedReader
from mitmproxy import version
from mitmproxy.net.http import validate
from mitmproxy.net.http.http1 import read
from mitmproxy.proxy import server, tunnel
from mitmproxy.proxy.layers import http, tcp, tls, websocket
from mitmproxy.proxy.layers.http import _http1, _http2

from addons import connections, http1, http2, http2_places, idle, internals, waiting
from sidecar.runtime import lookups, plumbing, tls_io

# Methods that addons/internals.py and addons/layers.py replace or lean on, as they read in 12.2.3.
KNOWN = {
    "HttpStream.state_wait_for_request_headers": (http.HttpStream.state_wait_for_request_headers, "3706d5d5ce01dcd4"),
    "HttpStream.send_response": (internals._stock_send_response, "d581bc106152e369"),
    "HttpStream.flow_done": (http.HttpStream.flow_done, "ad9969744785c572"),
    "HttpStream.state_consume_request_body": (http.HttpStream.state_consume_request_body, "45459c1bbd8bdb1a"),
    "HttpLayer.get_connection": (internals._stock_get_connection, "1aa1c63e3175766c"),
    "HttpStream.__init__": (waiting._stock_init, "9892a5f6b47b7b7b"),
    "Http2Connection.protocol_error": (http2._stock_protocol_error, "461f5e7de9c9b687"),
    "BufferedH2Connection.__init__": (http2._stock_init, "73fce8e17f54112a"),
    "BufferedH2Connection.receive_data": (http2._stock_receive_data, "7dd57c12dc7ead79"),
    "Http2Client._handle_event": (_http2.Http2Client._handle_event, "02de05a5b89f087b"),
    "Http2Client.__init__": (http2_places._stock_client_init, "e4b5d0162e44ceaa"),
    "FrameBuffer.__next__": (FrameBuffer.__next__, "6d36dd5061e8a22a"),
    "FrameBuffer._update_header_buffer": (FrameBuffer._update_header_buffer, "754ab91814882ca9"),
    "H2Connection.receive_data": (H2Connection.receive_data, "23c10edc87abe72d"),
    "TCPLayer.relay_messages": (tcp.TCPLayer.relay_messages, "3b3d49a9f63b7d40"),
    "ClientTLSLayer.receive_handshake_data": (tls.ClientTLSLayer.receive_handshake_data, "a0ee021f92f6d0ff"),
    "ConnectionHandler.handle_connection": (connections._stock_handle_connection, "95c3f93e9824e527"),
    "ConnectionHandler.on_timeout": (idle._stock_on_timeout, "0d1e6b0aa6e41173"),
    "Http2Connection._handle_event": (http2._stock_handle_event, "a7f4a7a71d31074b"),
    "ConnectionHandler.drain_writers": (http2._stock_drain_writers, "6b57434604561e3e"),
    "Http1Connection._handle_event": (http1._stock_handle_event, "2ac8db3e43ae743f"),
    "Http1Client.read_headers": (http1._stock_read_headers, "415454c5fa8b5981"),
    "Http1Server.read_headers": (http1._stock_read_request, "3fe0945216bcf7bc"),
    "Http1Client.send": (http1._stock_send_request, "35d961e20d481204"),
    "Http1Server.send": (http1._stock_send_answer, "cc218a1337c0f5cf"),
    "validate_headers": (validate.validate_headers, "e7647a94704363e7"),
    "read.expected_http_body_size": (read.expected_http_body_size, "bf258f07286cf770"),
    "h2 _check_host_authority_header": (http2._stock_check_host, "461dcbf2b50ea821"),
    "h2 _validate_host_authority_header": (utilities._validate_host_authority_header, "ef2c4fc67fdd31c3"),
    "HttpStream.start_request_stream": (internals._stock_start_request_stream, "46f03368a2a54362"),
    "ConnectionHandler.server_event": (server.ConnectionHandler.server_event, "a2b42657ebe8bf6d"),
    "HttpStream.handle_protocol_error": (internals._stock_handle_protocol_error, "59fc3b2eeeabf63a"),
    "HttpStream.check_invalid": (internals._stock_check_invalid, "ef0a126eef45d903"),
    "HttpStream.check_killed": (http.HttpStream.check_killed, "368cad352d1e82b6"),
    "HttpLayer._handle_event": (http.HttpLayer._handle_event, "6ba31883cc7a06b3"),
    "ServerTLSLayer.start_handshake": (internals._stock_start_handshake, "0dcfcb2a69b9608b"),
    "TunnelLayer._handshake_finished": (tunnel.TunnelLayer._handshake_finished, "586a787f8895d9dd"),
    "TLSLayer.receive_handshake_data": (tls.TLSLayer.receive_handshake_data, "721fe6313c0979fe"),
    "Http1Client.__init__": (http1._stock_client_init, "6c975dd0d7a7f98d"),
    "Http1Connection.mark_done": (_http1.Http1Connection.mark_done, "dc5ed395ce4f0763"),
    "TLSLayer.receive_close": (internals._stock_receive_close, "244aa237c481fc55"),
    "TLSLayer.send_close": (tls.TLSLayer.send_close, "d9b1161f42db9992"),
    "ChunkedReader.__call__": (ChunkedReader.__call__, "2618d847a89a1505"),
    "WebsocketLayer.start": (websocket.WebsocketLayer.start, "8445ad1cfb2fcca5"),
    "ConnectionHandler.open_connection": (server.ConnectionHandler.open_connection, "5e0b3cbaf7a4030a"),
}


# What the engine replaces in the plumbing around the layers, or takes for what it does.
KNOWN_TO_THE_ENGINE = {
    "Layer.handle_event": "fd88b0fb09ceddbb",
    "Layer.__process": "37153ddd561f2019",
    "Layer.__continue": "1b275367b37bed01",
    "NextLayer._ask": "4d8ace76d8488336",
    "TunnelLayer.event_to_child": "119a33642637d420",
    "HttpLayer.event_to_child": "1095f6e1581d1780",
    "HttpLayer.make_stream": "654959c6e74548e1",
    "HttpLayer._handle_event": "6ba31883cc7a06b3",
    "TunnelLayer._handle_event": "00676a887c456cec",
    "TunnelLayer._handle_command": "11ede598b3b37965",
    "ServerTLSLayer.event_to_child": "72ccc54bbf633c15",
    "ClientTLSLayer.on_handshake_error": "04a3a2530293d19b",
    "HttpStream.passthrough": "a6df32aba1ae251a",
    "HttpProxy._handle_event": "8147a0c98455987c",
    "DestinationKnown.finish_start": "91f47432073a2bf6",
    "Http1Connection.make_pipe": "a3af8fb481541632",
    "Context.fork": "cad9374a0689f10a",
    "Headers.get_all": "367b3317bc2ba45c",
    "Headers.__getitem__": "482e7414c932e3e8",
    "TLSLayer.tls_interact": "62d6d57d43dd1a2e",
    "TLSLayer.receive_data": "85c0e6b656c324e5",
}


def digest(function: object) -> str:
    return hashlib.sha256(inspect.getsource(inspect.unwrap(function)).encode()).hexdigest()[:16]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KNOWN_TO_THE_ENGINE)
def test_what_the_engine_replaces_is_the_one_we_know(name: str) -> None:
    function = (plumbing.STOCK | lookups.STOCK | tls_io.STOCK)[name]
    assert digest(function) == KNOWN_TO_THE_ENGINE[name], f"{name} differs in mitmproxy {version.VERSION}"


def test_all_that_the_engine_replaces_is_known() -> None:
    assert set(plumbing.STOCK | lookups.STOCK | tls_io.STOCK) == set(KNOWN_TO_THE_ENGINE)


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
