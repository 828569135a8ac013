"""An HTTP/2 client that sends any frames, in any order, and says what came of them."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

from h2.errors import ErrorCodes
from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_ASKED: Final = b"answered"  # of a PING: what came before its answer is all that came

type Fields = Sequence[tuple[str | bytes, str | bytes]]


class RawHttp2:
    """
    Over a connected socket.

    Args:
        sock: Whose ALPN is h2.
        begin: What to say first, instead of preface and SETTINGS.
    """

    def __init__(self, sock: ssl.SSLSocket, begin: bytes = PREFACE + SettingsFrame(0).serialize()) -> None:
        self._sock = sock
        self._encoder, self._decoder = Encoder(), Decoder()
        self._received = b""
        self.frames: list[Frame] = []  # as far as they were read
        if begin:
            self.send(begin)

    def head(self, fields: Fields, stream: int = 1, *flags: str) -> HeadersFrame:
        """A whole header block in one frame; flags are END_STREAM and the like, END_HEADERS always."""
        block = self._encoder.encode([(_bytes(name), _bytes(value)) for name, value in fields])
        return HeadersFrame(stream, data=block, flags=["END_HEADERS", *flags])

    def block(self, fields: Fields) -> bytes:
        return self._encoder.encode([(_bytes(name), _bytes(value)) for name, value in fields])

    def send(self, *frames: Frame | bytes) -> None:
        data = b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
        with suppress(ConnectionError, ssl.SSLError):  # the end has come; what was said before it is still to be read
            self._sock.sendall(data)

    def read(self) -> Iterator[Frame]:
        """What comes, until the connection ends."""
        while True:
            while len(self._received) < 9:
                if not self._more():
                    return
            frame, length = Frame.parse_frame_header(memoryview(self._received[:9]))
            while len(self._received) < 9 + length:
                if not self._more():
                    return
            frame.parse_body(memoryview(self._received[9 : 9 + length]))
            self._received = self._received[9 + length :]
            self.frames.append(frame)
            if isinstance(frame, DataFrame) and frame.flow_controlled_length:
                size = frame.flow_controlled_length
                self.send(WindowUpdateFrame(0, size), WindowUpdateFrame(frame.stream_id, size))
            yield frame

    def _more(self) -> bool:
        try:
            piece = self._sock.recv(65_536)
        except (ConnectionError, ssl.SSLError):
            return False
        self._received += piece
        return bool(piece)

    def outcome(self, stream: int = 1, *, ends: bool = True) -> str:
        """
        What became of *stream*, or of the whole connection: ``200``, ``RST_STREAM CODE``, ``GOAWAY CODE``, ``closed``,
        ``nothing``.

        Args:
            ends: Whether anything has to come; if not, what has come by the time a PING is answered is all there is.
        """
        status = "nothing"
        if not ends:
            self.send(PingFrame(0, _ASKED))
        for frame in self.read():
            match frame:
                case GoAwayFrame():
                    return f"GOAWAY {_code(frame.error_code)}"
                case RstStreamFrame(stream_id=which) if which == stream:
                    return f"RST_STREAM {_code(frame.error_code)}"
                case HeadersFrame(stream_id=which):
                    fields = dict(self._decoder.decode(frame.data, raw=True))
                    if which == stream and b":status" in fields:
                        status = bytes(fields[b":status"]).decode()
                        if "END_STREAM" in frame.flags:
                            return status
                case DataFrame(stream_id=which) if which == stream and "END_STREAM" in frame.flags:
                    return status
                case PingFrame() if not ends and frame.opaque_data == _ASKED and "ACK" in frame.flags:
                    return status
        return "closed" if status == "nothing" else f"{status}, cut"


def request(authority: str, path: str, *more: tuple[str | bytes, str | bytes], method: str = "GET") -> Fields:
    return [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path), *more]


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def _code(number: int) -> str:
    return ErrorCodes(number).name if number in ErrorCodes else str(number)
