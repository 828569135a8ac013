# ruff: noqa: E501 (a table)
"""What RFC 6455 and RFC 7692 ask of two peers, and of a proxy between them: to be as good as absent."""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20
TEXT, BINARY, CLOSE, PING, PONG, MORE = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10


def frame(
    first: int,
    payload: bytes = b"",
    *,
    mask: bytes | None = b"\x12\x34\x56\x78",
    size: int | None = None,
    wide: int = 0,
) -> bytes:
    """Section 5.2; *wide* forces a length of 2 or 8 bytes, *mask* None leaves it out."""
    length, bit = len(payload) if size is None else size, 0 if mask is None else 0x80
    if length < 126 and not wide:
        head = bytes([first, bit | length])
    elif length < 65_536 and wide < 8:
        head = bytes([first, bit | 126]) + struct.pack("!H", length)
    else:
        head = bytes([first, bit | 127]) + struct.pack("!Q", length)
    if mask is None:
        return head + payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return head + mask + (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))


def deflated(payload: bytes) -> bytes:
    """RFC 7692, section 7.2.1."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(FIN | CLOSE, struct.pack("!H", code) + reason)


@dataclass(frozen=True, slots=True)
class Case:
    """
    Attributes:
        section: Of RFC 6455, or 7692.
        pieces: What the client writes, each by itself; a close comes behind.
        deflate: Whether permessage-deflate is offered.
    """

    section: str
    sent: str
    pieces: tuple[bytes, ...]
    deflate: bool = False


_UTF8: Final = "κόσμε 🙂".encode()
_BAD_UTF8: Final = (b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", _UTF8[:-1], b"\xce\xba\xe1\xbd")

CASES: Final = (
    *(Case("5.6", f"text of {size} bytes", (frame(FIN | TEXT, b"*" * size),)) for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536)),
    *(Case("5.6", f"binary of {size} bytes", (frame(FIN | BINARY, b"\xfe" * size),)) for size in (0, 125, 126, 65_536, MIB)),
    Case("5.2", "a length in more bytes than it needs", (frame(FIN | TEXT, b"ab", wide=2),)),
    Case("5.2", "a length in eight bytes", (frame(FIN | TEXT, b"ab", wide=8),)),
    Case("5.2", "a length above 2^63", (bytes([FIN | TEXT, 0xFF]) + b"\xff" * 8 + b"mask",)),
    Case("5.2", "a frame one byte at a time", tuple(bytes([byte]) for byte in frame(FIN | TEXT, b"hello"))),
    Case("5.2", "two frames in one write", (frame(FIN | TEXT, b"one") + frame(FIN | TEXT, b"two"),)),
    *(Case("5.2", f"reserved bit {bit:#x}", (frame(FIN | bit | TEXT, b"a"),)) for bit in (RSV1, RSV2, RSV3)),
    *(Case("5.2", f"opcode {opcode:#x}", (frame(FIN | opcode, b"a"),)) for opcode in (3, 7, 0xB, 0xF)),
    Case("5.1", "a frame without a mask", (frame(FIN | TEXT, b"a", mask=None),)),
    Case("5.3", "a mask of zeros", (frame(FIN | TEXT, b"abc", mask=bytes(4)),)),
    Case("5.4", "a message in two fragments", (frame(TEXT, b"one "), frame(FIN | MORE, b"two"))),
    Case("5.4", "in five, some of them empty", (frame(TEXT), frame(MORE, b"a"), frame(MORE), frame(MORE, b"b"), frame(FIN | MORE))),
    Case("5.4", "a PING between fragments", (frame(TEXT, b"a"), frame(FIN | PING, b"p"), frame(FIN | MORE, b"b"))),
    Case("5.4", "a fragment of nothing", (frame(FIN | MORE, b"a"),)),
    Case("5.4", "a new message inside of one", (frame(TEXT, b"a"), frame(FIN | TEXT, b"b"))),
    Case("5.4", "a million bytes in fragments", tuple(frame(BINARY if n == 0 else FIN | MORE if n == 15 else MORE, b"z" * 65_536) for n in range(16))),
    *(Case("5.5.2", f"PING of {size} bytes", (frame(FIN | PING, b"p" * size),)) for size in (0, 1, 125)),
    Case("5.5", "PING of 126 bytes", (frame(FIN | PING, b"p" * 126),)),
    Case("5.5", "a fragmented PING", (frame(PING, b"a"), frame(FIN | MORE, b"b"))),
    Case("5.5.2", "ten PINGs", (b"".join(frame(FIN | PING, bytes([48 + n])) for n in range(10)),)),
    Case("5.5.3", "PONG that nobody asked for", (frame(FIN | PONG, b"x"), frame(FIN | TEXT, b"a"))),
    *(Case("7.4", f"close with {code}", (closing(code, b"bye"),)) for code in (1000, 1001, 1002, 1003, 1007, 1011, 3000, 4999)),
    *(Case("7.4", f"close with {code}, which may not be sent", (closing(code),)) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)),
    Case("5.5.1", "close without a code", (frame(FIN | CLOSE),)),
    Case("5.5.1", "close with half a code", (frame(FIN | CLOSE, b"\x03"),)),
    Case("5.5.1", "close with a reason that is no UTF-8", (closing(1000, b"\xff"),)),
    Case("5.5.1", "close with a reason of 124 bytes", (closing(1000, b"x" * 124),)),
    Case("5.5.1", "text behind close", (closing(1000), frame(FIN | TEXT, b"late"))),
    Case("8.1", "text of many scripts", (frame(FIN | TEXT, _UTF8),)),
    Case("8.1", "a character cut by a fragment", (frame(TEXT, _UTF8[:3]), frame(FIN | MORE, _UTF8[3:]))),
    *(Case("8.1", f"text that is no UTF-8: {bad!r}", (frame(FIN | TEXT, bad),)) for bad in _BAD_UTF8),
    *(Case("7692, 7.2", f"a compressed message of {size} bytes", (frame(FIN | RSV1 | TEXT, deflated(b"a b " * (size // 4))),), deflate=True) for size in (4, 4096, MIB)),
    Case("7692, 6.1", "a message that isn't compressed", (frame(FIN | TEXT, b"plain"),), deflate=True),
    Case("7692, 6.1", "a compressed message in fragments", (frame(RSV1 | TEXT, (data := deflated(b"abcabc" * 50))[:9]), frame(FIN | MORE, data[9:])), deflate=True),
    Case("7692, 6.1", "the reserved bit in a later fragment", (frame(RSV1 | TEXT, data[:9]), frame(FIN | RSV1 | MORE, data[9:])), deflate=True),
    Case("7692, 6.1", "a compressed PING", (frame(FIN | RSV1 | PING, b"p"),), deflate=True),
    Case("7692, 7.2.2", "what can't be inflated", (frame(FIN | RSV1 | TEXT, b"\xff\xff\xff\xff"),), deflate=True),
)  # fmt: skip
