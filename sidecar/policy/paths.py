"""
Paths of requests and of rules, compared on every reading that a server may take.

Servers disagree about encoded slashes, path parameters, empty segments and double encoding. A path with none of
these has one reading. Any other has several, and rules are to ask each: `sidecar.policy.rules.Rule.takes_path`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from sidecar.errors import SidecarError
from sidecar.policy.globs import MANY, ONE, Step, glob_matches

# Decoded wherever they stand: RFC 3986's pchar, but for `;` (parameters) and `*` (a wildcard, in a rule).
_PCHAR = r"A-Za-z0-9\-._~!$&'()+,=:@"
_LITERAL = re.compile(f"[{_PCHAR}]")
_PLAIN = re.compile(rf"(?:/(?!\.\.?(?:/|\Z))[{_PCHAR}]+)*/?\Z")
_BYTE = re.compile(r"%([0-9A-Fa-f]{2})|([^/;#?*" + _PCHAR + "])", re.DOTALL)
_SLASH = re.compile("%2F|%5C")
_NESTED = re.compile("%(?:25|3B|23|3F)")
_CUT = re.compile("[#?]|%00")
_PARAMETERS = re.compile(";[^/]*")
_EMPTY = re.compile("//+")
_MAX_LENGTH = 4096
_MAX_SLASHES = 256  # comparing with `**` takes time for each segment, of each reading, by each rule
_MAX_STATES = 128  # what is odd in so many ways at once is refused, not understood
_MAX_DECODING = 8  # rounds; no honest path is encoded more often


class PathError(SidecarError):
    """The text is no path pattern. Says what to write instead."""


class Mode(NamedTuple):
    """How a server may read a path. Dot segments are removed in each mode, and trailing slashes make no difference."""

    decoded: int = 0  # 0: as RFC 3986 has it; 1: encoded slashes and backslashes are slashes; 2: decoded to the end
    cut: bool = False  # ends at a NUL or at "#" (and "?", once decoded)
    stripped: bool = False  # ";parameters" dropped from each segment (RFC 3986, section 3.3)
    merged: bool = False  # empty segments dropped


_AS_IS = Mode()


class Reading(NamedTuple):
    """A path as one kind of server reads it: normalised segments, without the slashes."""

    mode: Mode
    segments: tuple[str, ...]

    def __str__(self) -> str:
        return _joined(self.segments)


def normalise(path: str) -> tuple[str, ...]:
    """The different texts among the readings of a request's path, RFC 3986's (section 6.2.2) first."""
    return tuple(dict.fromkeys(str(reading) for reading in readings(path)))


def readings(path: str) -> tuple[Reading, ...]:
    """
    All readings of a request's path.

    Args:
        path: As it stands in the request; from the first ``?`` on it is ignored. Empty and ``*`` (RFC 9112,
            section 3.2.4) are read as ``/``, the server as a whole.

    Returns:
        At least one; none for what isn't a path (an authority, a URL), has more than 256 slashes, is encoded more than
        eight times over, needs a second reading and is longer than 4096 characters, or is odd in too many ways at once.
    """
    path = path.partition("?")[0]
    if path in ("", "/", "*"):
        return (Reading(_AS_IS, ()),)
    if path.count("/") > _MAX_SLASHES:
        return ()
    if _PLAIN.match(path):
        return (Reading(_AS_IS, tuple(path.strip("/").split("/"))),)
    if not path.startswith("/") or len(path) > _MAX_LENGTH:
        return ()
    try:
        first = _canonical(path.encode("utf-8", "surrogateescape").decode("latin-1")).replace("*", "%2A")
    except UnicodeEncodeError:
        return ()
    # What stands between client and handler may each take one of these steps, in any order.
    states = [(_AS_IS, first)]
    seen = set(states)
    for mode, text in states:
        for state in _next(mode, text):
            if not state[1] or len(states) > _MAX_STATES:
                return ()
            if state not in seen:
                seen.add(state)
                states.append(state)
    return tuple(dict.fromkeys(Reading(mode, _segments(text)) for mode, text in states))


def _next(mode: Mode, text: str) -> Iterator[tuple[Mode, str]]:
    """What one step makes of *text*, for each step that changes it; the text is empty if decoding never ends."""
    if "/." in text:
        yield mode, _joined(_segments(text))
    if _SLASH.search(text):
        yield mode._replace(decoded=max(mode.decoded, 1)), _decoded(text, 1)
    if _NESTED.search(text) and (decoded := _decoded(text, 2)) != text:
        yield mode._replace(decoded=2), decoded
    if _CUT.search(text):
        yield mode._replace(cut=True), _CUT.split(text, maxsplit=1)[0]
    if ";" in text:
        yield mode._replace(stripped=True), _PARAMETERS.sub("", text)
    if "//" in text:
        yield mode._replace(merged=True), _EMPTY.sub("/", text)


def _canonical(text: str) -> str:
    """Escapes decoded where that changes nothing (RFC 3986, section 6.2.2.2), all else that needs it escaped."""

    def one(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16)) if match[1] else match[2]
        return character if _LITERAL.match(character) else f"%{ord(character):02X}"

    return _BYTE.sub(one, text)


def _decoded(text: str, level: int) -> str:
    """*text* with its slashes decoded (1) or with everything decoded (2); empty if that never ends."""
    if level == 2:
        for _ in range(_MAX_DECODING):
            before, text = text, _canonical(text.replace("%25", "%"))
            if text == before:
                break
        else:
            return ""
        text = text.replace("%3B", ";").replace("%23", "#").replace("%3F", "?")
    return _SLASH.sub("/", text) if level else text


def _segments(text: str, mode: Mode = _AS_IS) -> tuple[str, ...]:
    if mode.cut:
        text = _CUT.split(text, maxsplit=1)[0]
    kept: list[str] = []
    for part in text.split("/")[1:]:
        segment = part.partition(";")[0] if mode.stripped else part
        if segment == "..":
            del kept[-1:]
        elif segment != "." and (segment or not mode.merged):
            kept.append(segment)
    while kept and not kept[-1]:
        kept.pop()
    return tuple(kept)


def _joined(segments: tuple[str, ...]) -> str:
    return "/" + "/".join(segments)


@dataclass(frozen=True, slots=True)
class PathPattern:
    """``*`` is one whole segment, ``**`` any number of them, none included."""

    text: str  # as it was written

    def matches(self, reading: Reading) -> bool:
        """Whether the reading fits the pattern, the pattern being read in the same mode."""
        return glob_matches(_steps(self.text, reading.mode), reading.segments, least=0)


@lru_cache(maxsize=65536)
def _steps(text: str, mode: Mode) -> tuple[Step, ...]:
    canonical = _canonical(text.encode("utf-8", "surrogateescape").decode("latin-1"))
    return tuple(_step(segment) for segment in _segments(_decoded(canonical, mode.decoded), mode))


def _step(segment: str) -> Step:
    if segment in (ONE, MANY) or "*" not in segment:
        return segment
    # `/@scope%2f*`: the slash is encoded and the wildcard stands for what is between slashes of either kind.
    return re.compile(re.escape(segment).replace(r"\*", "(?:(?!%2F|%5C).)+"))


def parse_path(text: str) -> PathPattern:
    """
    Parse a path pattern.

    Raises:
        PathError: No leading slash, a query or fragment, dot segments, empty segments, a wildcard for a part of
            a segment, a NUL, an escape that isn't one.
    """
    if not text.startswith("/"):
        path = "/" + (text.partition("://")[2].partition("/")[2] if "://" in text else text)
        raise PathError(f"{text!r} is not a path, which begins with a slash; write {path!r}")
    for mark, what in (("?", "query"), ("#", "fragment")):
        if mark in text:
            raise PathError(f"{text!r} has a {what}, which no rule sees; write {text.partition(mark)[0]!r}")
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise PathError(f"{text!r} has a '%' without two hexadecimal digits; write '%25' for a percent sign")
    try:
        canonical = _canonical(text.encode("utf-8", "surrogateescape").decode("latin-1"))
    except UnicodeEncodeError:
        raise PathError(f"{text!r} holds characters that are none in UTF-8; leave them out") from None
    if "%00" in canonical or not _decoded(canonical, 2):
        raise PathError(f"{text!r} can match no path that is judged; leave out the '%00' and the nested escapes")
    segments = canonical.split("/")[1:]
    if any(segment in (".", "..") for segment in segments):
        straight = _joined(_segments(canonical, Mode(merged=True)))
        raise PathError(f"{text!r} has dot segments, which are removed before paths are compared; write {straight!r}")
    if "" in segments[:-1]:
        raise PathError(f"{text!r} has an empty segment; write {_EMPTY.sub('/', text)!r}")
    for i, segment in enumerate(segments):
        if segment != MANY and any("*" in piece and piece != ONE for piece in _SLASH.split(segment)):
            whole = _joined((*segments[:i], MANY if MANY in segment else ONE, *segments[i + 1 :]))
            raise PathError(
                f"{text!r}: '*' stands for one whole segment and '**' for any number of them, not for a part of one; "
                f"write {whole!r}, or '%2A' for an asterisk"
            )
    return PathPattern(text)
