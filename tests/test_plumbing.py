"""What replaces mitmproxy's plumbing gives what mitmproxy gives."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.http import Headers
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator, Layer, NextLayerHook
from mitmproxy.proxy.layers.http._hooks import HttpResponseHook
from OpenSSL import SSL

from sidecar.hosts import parse_host
from sidecar.pki.leaf import LeafMinter
from sidecar.pki.session_ca import issue_session_ca
from sidecar.runtime import lookups, plumbing, tls_io
from sidecar.tls_profile import client_context, server_context

NAMES = st.sampled_from([b"Host", b"host", b"HOST", b"accept", b"Accept", b"x", b"\xff", "\u00c4".encode()])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=6)), max_size=6)


@given(FIELDS, NAMES, st.booleans())
def test_a_headers_value_is_found_as_mitmproxy_finds_it(
    fields: list[tuple[bytes, bytes]], name: bytes, as_text: bool
) -> None:
    key = name.decode("utf-8", "surrogateescape") if as_text else name
    expected = lookups.STOCK["Headers.get_all"](Headers(fields), key)

    headers = Headers(fields)

    assert lookups._get_all(headers, key) == expected
    assert lookups._get(headers, key, "none") == (", ".join(expected) if expected else "none")
    assert lookups._contains(headers, key) is bool(expected)
    if not expected:
        with pytest.raises(KeyError):
            lookups._getitem(headers, key)


def test_a_changed_header_is_found_changed() -> None:
    headers = Headers([(b"host", b"a.test")])
    assert lookups._get(headers, "Host") == "a.test"

    headers["host"] = "b.test"
    headers.add("accept", "*/*")

    assert (lookups._get(headers, "Host"), lookups._get(headers, "Accept")) == ("b.test", "*/*")
    assert lookups._get(headers.copy(), "host") == "b.test"


def test_an_option_that_changes_is_seen() -> None:
    options = Options()
    seen: Any = lookups.Snapshot(options)

    options.update(http2_ping_keepalive=7)
    options.add_option("later", int, 3, "declared since")

    assert (seen.http2_ping_keepalive, seen.later) == (7, 3)


class Asks(Layer):
    """Asks two hooks, with what it sends between them."""

    def __init__(self, context: Context, hook: type[commands.StartHook]) -> None:
        super().__init__(context)
        self.hook = hook
        self.heard: list[events.Event] = []

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        self.heard.append(event)
        if isinstance(event, events.Start):
            yield commands.SendData(self.context.client, b"before")
            yield self.hook(object())
            yield commands.SendData(self.context.client, b"after")


def asked(hook: type[commands.StartHook], *, answers: bool) -> tuple[Asks, list[str]]:
    """The layer, and what has come out of it at once."""
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), state=ConnectionState.OPEN)
    layer = Asks(Context(client, Options()), hook)
    plumbing.call_inline(client, lambda _: answers)
    out = [
        command.data.decode() if isinstance(command, commands.SendData) else type(command).__name__
        for command in plumbing._handle_event(layer, events.Start())
    ]
    return layer, out


def test_a_hook_that_is_answered_at_once_pauses_nothing() -> None:
    layer, out = asked(NextLayerHook, answers=True)

    assert out == ["before", "after"]
    assert layer._paused is None


@pytest.mark.parametrize(
    ("hook", "answers"),
    [
        pytest.param(NextLayerHook, False, id="one that has to be awaited"),
        pytest.param(HttpResponseHook, True, id="the one after which the next request may begin"),
    ],
)
def test_another_hook_pauses_the_layer_as_mitmproxy_does(hook: type[commands.StartHook], answers: bool) -> None:
    layer, out = asked(hook, answers=answers)
    assert out == ["before", hook.__name__]
    assert layer._paused is not None

    asking = layer._paused.command
    list(plumbing._handle_event(layer, events.DataReceived(layer.context.client, b"waits")))
    then = [command.data for command in plumbing._handle_event(layer, events.HookCompleted(asking))]  # type: ignore[arg-type, attr-defined]

    assert then == [b"after"]
    assert [type(event) for event in layer.heard] == [events.Start, events.DataReceived]


def handshaken() -> tuple[SSL.Connection, SSL.Connection]:
    """Both ends of TLS in memory, after the handshake."""
    now = datetime.now(UTC)
    minter = LeafMinter(issue_session_ca(common_name="t", now=now, validity=timedelta(hours=1)), lambda: now)
    context = server_context()
    context.use_certificate(minter.mint(parse_host("a.test")))
    context.use_privatekey(minter.key)
    server, client = SSL.Connection(context), SSL.Connection(client_context())
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            if data := tls_io.outgoing(one):
                other.bio_write(data)
    return server, client


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 100_000, 1_000_000])
@pytest.mark.parametrize("cut", [0, 1, 5, 20_000])
def test_all_that_was_sent_is_read_wherever_it_is_cut(size: int, cut: int) -> None:
    server, client = handshaken()
    data = bytes(i % 251 for i in range(size))
    tls_io.write(client, data)
    wire = tls_io.outgoing(client)
    assert tls_io.outgoing(client) == b""

    pieces: list[bytes] = []
    for part in (wire[:cut], wire[cut:]):
        if part:
            server.bio_write(part)
            with suppress(SSL.WantReadError):
                tls_io.read(server, pieces)

    assert b"".join(pieces) == data


def test_the_end_is_told_even_behind_data() -> None:
    server, client = handshaken()
    client.sendall(b"last")
    client.shutdown()
    server.bio_write(tls_io.outgoing(client))
    pieces: list[bytes] = []

    with pytest.raises(SSL.ZeroReturnError):
        tls_io.read(server, pieces)

    assert pieces == [b"last"]
