"""JSON of what a client has sent: whatever its bytes were, it is valid UTF-8, one line, and of bounded length."""

from dataclasses import asdict, is_dataclass
from typing import Any, Final

import orjson

MAX_TEXT: Final = 4096  # characters of one text; what is cut off is marked by an ellipsis
_FINE: Final = 4096  # bytes of a document in which no text can be too long
_INTEGER: Final = 1 << 53  # from here on readers of JSON disagree (RFC 8259, section 6)


def dumps(value: Any) -> bytes:
    """
    *value*, a dataclass or a mapping, as JSON. Never fails for a text.

    Bytes that aren't UTF-8 (which mitmproxy decodes to lone surrogates, PEP 383) are written as in a URL: ``%FF``.
    """
    try:
        document = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return orjson.dumps(_plain(value))
    return document if len(document) <= _FINE else orjson.dumps(_plain(value))


def printable(text: str) -> str:
    """*text* as valid Unicode; undecodable bytes as in a URL."""
    if text.isascii():
        return text
    return "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else _scalar(c) for c in text)


def _scalar(character: str) -> str:
    return "\ufffd" if "\ud800" <= character <= "\udfff" else character


def _plain(value: Any) -> Any:
    match value:
        case str():
            text = printable(value[: MAX_TEXT + 1])
            return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
        case dict():
            return {printable(str(key)): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case int() if not -_INTEGER < value < _INTEGER:  # an upstream's status may be any number
            return _INTEGER if value > 0 else -_INTEGER
        case _ if is_dataclass(value) and not isinstance(value, type):
            return _plain(asdict(value))
        case _:
            return value
