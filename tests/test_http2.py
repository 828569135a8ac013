"""What our HTTP/2 forgets, and what not yet."""

from typing import Any, cast

import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, Server
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode
from mitmproxy.proxy.layers.http._events import RequestData
from mitmproxy.proxy.layers.http._http2 import Http2Client
from mitmproxy.test import taddons

from addons import bounds, http2, internals
from sidecar.limits import Limits


def upstream(alive: tuple[int, ...]) -> Any:
    """An upstream connection that 300 requests have had their streams on; of the client's, those *alive* go on."""
    internals.install()
    with taddons.context(Proxyserver()) as tctx:
        client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), timestamp_start=0.0)
        context = Context(client, tctx.options)
        context.server = Server(address=("up.test", 443))
        layer = HttpLayer(context, HTTPMode.transparent)
        connection = Http2Client(context)
    for number in range(300):
        connection.our_stream_id[2 * number + 1] = 2 * number + 1
        connection.their_stream_id[2 * number + 1] = 2 * number + 1
    connection.h2_conn.highest_outbound_stream_id = 599
    layer.streams.update(dict.fromkeys(alive, cast(Any, None)))
    return connection


def test_streams_that_have_ended_are_forgotten() -> None:
    connection = upstream(alive=())

    http2._sweep(connection)

    assert (connection.our_stream_id, connection.their_stream_id) == ({}, {})


def test_a_request_that_may_still_say_something_keeps_its_number() -> None:
    """Else it would be given that of the next request, and what it says would be in that one's body."""
    connection = upstream(alive=(7,))

    http2._sweep(connection)

    assert connection.our_stream_id == {7: 7}


def test_what_waits_for_a_place_is_counted_and_ends_its_client_where_it_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached: list[tuple[str, str]] = []
    monkeypatch.setattr(bounds, "limits", Limits(held_bytes=65_536, most_held_bytes=131_072))
    monkeypatch.setattr(bounds, "reached", lambda client, limit, _: reached.append((client, limit)))
    monkeypatch.setattr(bounds, "end_soon", lambda client: reached.append((client, "ended")))
    connection = upstream(alive=())
    client, server = connection.context.client, connection.conn

    connection.stream_queue[1].append(RequestData(1, bytes(60_000)))
    assert (http2.is_full(server), reached) == (False, [])
    connection.stream_queue[3].append(RequestData(3, bytes(60_000)))
    assert (http2.is_full(server), reached) == (True, [])
    connection.stream_queue[3].append(RequestData(3, bytes(60_000)))
    assert reached == [(client.id, "most_held_bytes"), (client.id, "ended")]
    for stream in (1, 3):
        connection.stream_queue.pop(stream)
    assert not http2.is_full(server)
