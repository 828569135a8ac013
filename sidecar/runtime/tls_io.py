"""
TLS in memory, as mitmproxy's `TLSLayer` has it, at a fraction of its calls.

pyOpenSSL says "nothing there" by an exception, which is made for each piece of data, in both directions; and each read
makes a buffer of 64 KiB. Here OpenSSL's memory BIOs are asked how much they hold, and one buffer serves all reads.
"""

from logging import WARNING
from typing import Any, Final

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.tls import TLSLayer
from OpenSSL import SSL

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]

_RECORD: Final = 16_384  # bytes of plaintext that one SSL_read gives at most (RFC 8446, section 5.1)
_BUFFER: Final = _ffi.new("char[]", _RECORD)  # used within one call, by the one thread that drives the layers
_POINTER: Final = _ffi.new("char **")

STOCK: Final = {"TLSLayer.tls_interact": TLSLayer.tls_interact, "TLSLayer.receive_data": TLSLayer.receive_data}
"""What is replaced, as mitmproxy has it."""


def install() -> None:
    """Replace the two methods; a second call changes nothing."""
    TLSLayer.tls_interact = _tls_interact  # type: ignore[method-assign]
    TLSLayer.receive_data = _receive_data  # type: ignore[method-assign]


def outgoing(tls: SSL.Connection) -> bytes:
    """What is to be sent to the peer, all of it."""
    bio = tls._from_ssl
    size = _lib.BIO_get_mem_data(bio, _POINTER)
    if size <= 0:
        return b""
    data: bytes = _ffi.buffer(_POINTER[0], size)[:]
    # Consumed by reading it: the mem BIO has no other way.
    buffer = _BUFFER if size <= _RECORD else _ffi.new("char[]", size)
    SSL._openssl_assert(_lib.BIO_read(bio, buffer, size) == size)
    return data


def incoming(tls: SSL.Connection) -> int:
    """Bytes that have come and that OpenSSL hasn't looked at."""
    size: int = _lib.BIO_get_mem_data(tls._into_ssl, _POINTER)
    return size


def read(tls: SSL.Connection, pieces: list[bytes]) -> None:
    """
    Append what can be read now to *pieces*.

    Raises:
        SSL.WantReadError: More must come first. Not raised where that is plain without asking OpenSSL.
        SSL.Error: As `SSL.Connection.recv` does: `ZeroReturnError` at the end.
    """
    ssl = tls._ssl
    while True:
        size = _lib.SSL_read(ssl, _BUFFER, _RECORD)
        if size <= 0:
            tls._raise_ssl_error(ssl, size)
        pieces.append(_ffi.buffer(_BUFFER, size)[:])
        if size < _RECORD and not _lib.SSL_pending(ssl) and not incoming(tls):
            return


def _tls_interact(self: TLSLayer) -> layer.CommandGenerator[None]:
    """As stock, in one piece."""
    assert self.tls is not None
    if data := outgoing(self.tls):
        yield commands.SendData(self.conn, data)


def receive(tls: SSL.Connection, data: bytes) -> tuple[list[bytes], SSL.Error | None]:
    """What can be read once *data* has come, and what ended that, if it was more than the lack of more."""
    if data:
        tls.bio_write(data)
    pieces: list[bytes] = []
    try:
        read(tls, pieces)
    except SSL.WantReadError:
        pass
    except SSL.Error as e:  # ZeroReturnError: the peer's close_notify
        return pieces, e
    return pieces, None


def write(tls: SSL.Connection, data: bytes) -> None:
    """
    Encrypt *data*, all of it: memory has room.

    Raises:
        SSL.Error: As `SSL.Connection.sendall` does.
    """
    ssl, at, size = tls._ssl, 0, len(data)
    buffer = _ffi.from_buffer(data)
    while at < size:
        written = _lib.SSL_write(ssl, buffer + at, size - at)  # a record at a time, as pyOpenSSL's contexts have it
        if written <= 0:
            tls._raise_ssl_error(ssl, written)
        at += written


def keep(layer: TLSLayer, pieces: list[bytes], failure: SSL.Error) -> None:
    """Have the layer's next `receive_data` begin with this: it has been read already."""
    layer.__dict__["_read_already"] = pieces, failure


def _receive_data(self: TLSLayer, data: bytes) -> layer.CommandGenerator[None]:
    """As stock, but for how it is read and written."""
    tls = self.tls
    assert tls is not None
    pieces, failure = self.__dict__.pop("_read_already", None) or receive(tls, data)
    if failure is not None and not isinstance(failure, SSL.ZeroReturnError):
        yield commands.Log(f"TLS Error: {failure}", WARNING)
    # After reading, which may have made something to send: an answer to a key update, or an alert.
    if answer := outgoing(tls):
        yield commands.SendData(self.conn, answer)
    if pieces:
        plaintext = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        yield from self.event_to_child(events.DataReceived(self.conn, plaintext))
    if isinstance(failure, SSL.ZeroReturnError):
        self.conn.state &= ~ConnectionState.CAN_READ
        yield from self.event_to_child(events.ConnectionClosed(self.conn))
