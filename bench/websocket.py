"""WebSocket's framing (RFC 6455, section 5.2), as far as an echo of short messages needs it."""

import base64
import os
from hashlib import sha1

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FINAL_BINARY = 0x82


def handshake_key() -> str:
    return base64.b64encode(os.urandom(16)).decode()


def accept_key(key: str) -> str:
    """``Sec-WebSocket-Accept`` for a client's key; section 4.2.2."""
    return base64.b64encode(sha1(f"{key}{_GUID}".encode()).digest()).decode()


def client_frame(message: bytes) -> tuple[bytes, bytes]:
    """A masked frame with *message*, of up to 125 bytes, and the frame that a server answers it with."""
    head, mask = bytes([_FINAL_BINARY, 0x80 | len(message)]), os.urandom(4)
    return head + mask + masked(message, mask), bytes([_FINAL_BINARY, len(message)]) + message


def masked(data: bytes, mask: bytes) -> bytes:
    """Masked, or unmasked: it's the same."""
    size = len(data)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return (int.from_bytes(data) ^ key).to_bytes(size)


def echo(data: bytes) -> tuple[bytes, bytes]:
    """
    Answer the frames in *data*.

    Returns:
        What to send, and what is left: the beginning of a frame.

    Raises:
        ValueError: A frame that the benchmark never sends.
    """
    out = bytearray()
    while len(data) >= 6:
        size = data[1] & 0x7F
        if data[1] < 0x80 or size > 125:
            raise ValueError(f"neither short nor masked: {data[:2]!r}")
        if len(data) < 6 + size:
            break
        message = masked(data[6 : 6 + size], data[2:6])
        # A close is answered by a close; what isn't one goes back as it came.
        out += bytes([data[0], size]) + message
        data = data[6 + size :]
    return bytes(out), data
