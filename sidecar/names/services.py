"""HTTPS and SVCB records without what would lead around the sidecar (RFC 9460, RFC 9848)."""

import struct

_MANDATORY, _ALPN, _NO_DEFAULT_ALPN = 0, 1, 2
_IPV4_HINT, _ECH, _IPV6_HINT = 4, 5, 6
_REMOVED = frozenset({_IPV4_HINT, _ECH, _IPV6_HINT})


def plain_service(data: bytes) -> bytes | None:
    """
    The record's data without ``ech``, address hints and ``h3``; None where nothing usable stays.

    An encrypted ClientHello would hide the name that is judged, hints would name addresses that we didn't hand out,
    and HTTP/3 isn't served. None, too, where the record makes one of them mandatory, or can't be read.

    Parameters as in RFC 9460, section 2.2 and 14.3.2.
    """
    try:
        start = _end_of_name(data, 2)
        params = _params(data, start)
    except (struct.error, IndexError):
        return None
    kept = {key: value for key, value in params.items() if key not in _REMOVED}
    if _ALPN in kept:
        protocols = [p for p in _protocols(kept.pop(_ALPN)) if not p.startswith(b"h3")]
        if protocols:
            kept[_ALPN] = b"".join(bytes([len(p)]) + p for p in protocols)
        elif _NO_DEFAULT_ALPN in kept:
            return None
    mandatory = kept.get(_MANDATORY, b"")
    if any(int.from_bytes(mandatory[at : at + 2]) not in kept for at in range(0, len(mandatory), 2)):
        return None
    return data[:start] + b"".join(struct.pack("!2H", key, len(kept[key])) + kept[key] for key in sorted(kept))


def _end_of_name(data: bytes, offset: int) -> int:
    while length := data[offset]:
        offset += 1 + length
    return offset + 1


def _params(data: bytes, offset: int) -> dict[int, bytes]:
    params = {}
    while offset < len(data):
        key, length = struct.unpack_from("!2H", data, offset)
        offset += 4
        if offset + length > len(data):
            raise IndexError(offset)
        params[key] = data[offset : offset + length]
        offset += length
    return params


def _protocols(value: bytes) -> list[bytes]:
    protocols = []
    while value:
        protocols.append(value[1 : 1 + value[0]])
        value = value[1 + value[0] :]
    return protocols
