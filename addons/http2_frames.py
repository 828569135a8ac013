"""
HTTP/2 frames as they come in, counted before they are understood: what costs the sender nothing is bounded.

h2's own buffer copies all that is left with each frame, which is quadratic in the number of frames that are read at
once, and takes any number of them: floods of PING, SETTINGS, RST_STREAM (CVE-2023-44487), CONTINUATION (CVE-2024-27316)
and empty DATA. `addons.http2` puts this in place.
"""

from h2.errors import ErrorCodes
from h2.exceptions import FrameDataMissingError, ProtocolError
from h2.frame_buffer import FrameBuffer
from hyperframe.exceptions import InvalidDataError, InvalidFrameError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
)

from addons import bounds

_HEAD_BYTES = 9  # of a frame (RFC 9113, section 4.1)
_PER_REQUEST = 8.0  # frames that carry nothing and go with a request: window updates, an acknowledgement
_PER_BYTE = 1 / 1024


class TooMuch(ProtocolError):
    """Beyond one of the limits."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit


class Frames(FrameBuffer):
    """
    Stock, with two differences: what was read is dropped once, not with each frame; and frames are counted.

    Args:
        server: Reads what a client sends.
    """

    def __init__(self, server: bool) -> None:
        super().__init__(server=server)
        self._server, self._start = server, 0
        self._idle = bounds.Allowance(bounds.limits.http2_frames_per_minute)
        self._resets = bounds.Allowance(bounds.limits.http2_resets_per_minute)
        self._block_bytes = 0  # of a head that isn't whole
        self.heads = 0  # that were whole

    @property
    def begun(self) -> bool:
        """Whether part of a head is there."""
        return bool(self._headers_buffer)

    def carried(self, size: int) -> None:
        """So many bytes were sent to the peer, for which it may open its window."""
        self._idle.give(2 + size * _PER_BYTE)

    def reset(self) -> None:
        """
        A stream was reset, by the peer or for what it did.

        Raises:
            TooMuch: That's one too many.
        """
        if self._server and not self._resets.take():
            most = bounds.limits.http2_resets_per_minute
            raise TooMuch("http2_resets_per_minute", f"the client has reset more than {most} streams")

    def __next__(self) -> Frame:
        while True:
            data, start = self._data, self._start
            if len(data) - start < _HEAD_BYTES:
                self._drop()
                raise StopIteration
            try:
                frame, size = Frame.parse_frame_header(memoryview(data[start : start + _HEAD_BYTES]))
            except (InvalidDataError, InvalidFrameError) as e:
                raise ProtocolError(f"Received frame with invalid header: {e}") from e
            end = start + _HEAD_BYTES + size
            self._validate_frame_length(size)
            if len(data) < end:
                self._drop()
                raise StopIteration
            self._count(frame, size)
            try:
                frame.parse_body(memoryview(data[start + _HEAD_BYTES : end]))
            except InvalidDataError as e:
                if isinstance(frame, SettingsFrame):  # an acknowledgement with a payload (RFC 9113, section 6.5)
                    raise FrameDataMissingError("Frame data where none may be") from e
                raise ProtocolError("Received frame with non-compliant data") from e
            except InvalidFrameError as e:
                raise FrameDataMissingError("Frame data missing or invalid") from e
            self._start = end
            if size and len(data) > end and isinstance(frame, DataFrame):
                self._merge(frame)
            whole = self._update_header_buffer(frame)
            if not self._headers_buffer and self._block_bytes:
                self._block_bytes = 0
                self.heads += 1
            if whole is not None:
                return whole

    def _merge(self, frame: DataFrame) -> None:
        """Make one frame of those that follow each other: what is done for each is dear, and some send bytes singly."""
        data, start, pieces = self._data, self._start, [frame.data]
        room = self.max_frame_size - len(frame.data)
        while len(data) - start >= _HEAD_BYTES and frame.flags.isdisjoint(("END_STREAM", "PADDED")):
            size = int.from_bytes(data[start : start + 3])
            # A frame of DATA without padding, of the same stream, that is there whole and carries something.
            same = data[start + 3] == 0 and data[start + 4] in (0, 1)
            same = same and int.from_bytes(data[start + 5 : start + 9]) & 0x7FFFFFFF == frame.stream_id
            if not same or not 0 < size <= room or len(data) - start < _HEAD_BYTES + size:
                break
            pieces.append(bytes(data[start + _HEAD_BYTES : start + _HEAD_BYTES + size]))
            if data[start + 4] == 1:
                frame.flags.add("END_STREAM")
            room -= size
            start += _HEAD_BYTES + size
        if len(pieces) > 1:
            frame.data, self._start = b"".join(pieces), start
            frame.body_len = len(frame.data)

    def _drop(self) -> None:
        """What was read isn't needed any longer."""
        del self._data[: self._start]
        self._start = 0

    def _count(self, frame: Frame, size: int) -> None:
        if isinstance(frame, HeadersFrame | ContinuationFrame | PushPromiseFrame):
            self._block_bytes += size
            if self._block_bytes > (most := bounds.limits.http2_head_bytes):
                raise TooMuch("http2_head_bytes", f"a head is larger than {most} bytes")
        if isinstance(frame, HeadersFrame) and (self._server or "END_STREAM" in frame.flags):
            self._idle.give(_PER_REQUEST)
            self._resets.give(0.5)
        elif isinstance(frame, DataFrame) and size:
            self._idle.give(1 + size * _PER_BYTE)
        elif isinstance(frame, RstStreamFrame) and self._server:
            self.reset()
        elif not self._idle.take():
            most = bounds.limits.http2_frames_per_minute
            who = "client" if self._server else "upstream"
            raise TooMuch("http2_frames_per_minute", f"the {who} has sent more than {most} frames that carry nothing")
