"""
The wire format of DNS, as far as an upstream resolver is asked: queries out, answers in (RFC 1035, section 4).

Names within record data are written out, so that a record stays right in a message of another shape. Names with
bytes that no host name has (a dot inside a label, anything but printable ASCII) are errors.
"""

import struct
from dataclasses import dataclass

from sidecar.errors import SidecarError
from sidecar.names.records import IN, Question, Record, Type

_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!2H")
_RECORD = struct.Struct("!2HIH")
EDNS_SIZE = 1232  # bytes of a UDP answer that pass any path without fragments
_RD, _TC, _QR = 1 << 8, 1 << 9, 1 << 15
# Types whose data ends in names that may be compressed: fixed bytes in front, names, fixed bytes behind.
_NAMES_IN = {
    Type.NS: (0, 1, 0),
    Type.CNAME: (0, 1, 0),
    Type.PTR: (0, 1, 0),
    Type.DNAME: (0, 1, 0),
    Type.MX: (2, 1, 0),
    Type.SRV: (6, 1, 0),
    Type.SOA: (0, 2, 20),
}


class WireError(SidecarError):
    """The bytes are no DNS message."""


@dataclass(frozen=True, slots=True)
class Message:
    """An answer, without its authority and additional sections; without records where it is truncated."""

    id: int
    is_response: bool
    truncated: bool
    rcode: int
    question: Question | None
    answers: tuple[Record, ...]


def encode_name(name: str) -> bytes:
    """
    Labels with their lengths in front, uncompressed.

    Raises:
        WireError: Not ASCII, an empty label, a label of more than 63 bytes, more than 255 bytes in all.
    """
    out = b""
    for label in name.removesuffix(".").split(".") if name not in ("", ".") else []:
        if not label or len(label) > 63 or not label.isascii():
            raise WireError(f"{name!r} can't be asked for: a label is empty, too long or not ASCII")
        out += bytes([len(label)]) + label.encode()
    if len(out) > 254:
        raise WireError(f"{name!r} can't be asked for: it is longer than 255 bytes")
    return out + b"\0"


def encode_query(id_: int, question: Question) -> bytes:
    """A recursive query with EDNS (RFC 6891, section 6.1), no options."""
    header = _HEADER.pack(id_, _RD, 1, 0, 0, 1)
    body = encode_name(question.name) + _QUESTION.pack(question.type, question.class_)
    return header + body + b"\0" + _RECORD.pack(Type.OPT, EDNS_SIZE, 0, 0)


def decode_message(data: bytes) -> Message:
    """
    Read an answer; records that aren't of class IN are left out.

    Raises:
        WireError: Cut off, a loop of compression pointers, a name that is no text.
    """
    try:
        id_, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
        offset = _HEADER.size
        question = None
        if questions == 1:
            name, offset = decode_name(data, offset)
            question = Question(name, *_QUESTION.unpack_from(data, offset))
            offset += _QUESTION.size
        elif questions:
            raise WireError("the upstream's answer has more than one question")
        if flags & _TC:
            answers = 0  # cut off anywhere, perhaps inside a record: it's asked for again
        records = []
        for _ in range(answers):
            name, offset = decode_name(data, offset)
            type_, class_, ttl, length = _RECORD.unpack_from(data, offset)
            offset += _RECORD.size
            if offset + length > len(data):
                raise WireError("the upstream's answer is cut off")
            if class_ == IN:
                # A TTL with its highest bit set is 0 (RFC 2181, section 8).
                records.append(Record(name, type_, ttl if ttl < 1 << 31 else 0, _data(data, type_, offset, length)))
            offset += length
    except struct.error as e:
        raise WireError("the upstream's answer is cut off") from e
    return Message(id_, bool(flags & _QR), bool(flags & _TC), flags & 15, question, tuple(records))


def decode_name(data: bytes, offset: int) -> tuple[str, int]:
    """
    The name at *offset*, and where the bytes behind it begin.

    Raises:
        WireError: As `decode_message`.
    """
    labels: list[str] = []
    end, limit, size = None, offset, 1
    while True:
        if offset >= len(data):
            raise WireError("a name is cut off")
        length = data[offset]
        if length >= 0xC0:
            if offset + 2 > len(data):
                raise WireError("a name is cut off")
            end = end or offset + 2
            offset = (length & 0x3F) << 8 | data[offset + 1]
            if offset >= limit:  # pointers lead backwards only, so they end
                raise WireError("a name points forwards")
            limit = offset
            continue
        if length > 63 or offset + 1 + length > len(data):
            raise WireError("a name is cut off")
        offset += 1
        if not length:
            return ".".join(labels), end or offset
        label = data[offset : offset + length].decode("latin-1")
        size += length + 1
        if "." in label or not label.isascii() or not label.isprintable() or size > 255:
            raise WireError("a name has characters that no name has, or is too long")
        labels.append(label)
        offset += length


def _data(data: bytes, type_: int, offset: int, length: int) -> bytes:
    """Record data with its names written out."""
    shape = next((shape for known, shape in _NAMES_IN.items() if known == type_), None)
    if shape is None:
        return data[offset : offset + length]
    before, names, after = shape
    at = offset + before
    out = data[offset:at]
    for _ in range(names):
        name, at = decode_name(data, at)
        out += encode_name(name)
    if at + after != offset + length:
        raise WireError("record data has the wrong length")
    return out + data[at : at + after]
