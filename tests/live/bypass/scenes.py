"""What holds when the sidecar doesn't: killed, stopped, started again."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.live.bypass import places
from tests.live.bypass.lab import Lab
from tests.live.bypass.side import WORKLOADS, new_token
from tests.live.bypass.vector import REFUSED, Row, in_words
from tests.live.sidecars import until

_GET: Final = f"GET /{{token}} HTTP/1.1\r\nHost: {places.ALLOWED}\r\n\r\n"
_ATTEMPTS: Final[tuple[tuple[str, tuple[object, ...]], ...]] = (
    ("streams.raw", (places.V4, 443)),
    ("streams.raw", (places.V6, 443)),
    ("streams.raw", (places.ALLOWED_V4, 443)),
    ("streams.raw", (places.UNKNOWN_SYNTHETIC_V4, 443)),
    ("datagrams.udp", (places.V4, 443)),
    ("names.ask", (places.RESOLVER_V4, "{token}.example.net", 1)),
    ("names.ask_by_tcp", (places.RESOLVER_V6, "{token}.example.net", 1)),
    ("datagrams.ping", (places.V4,)),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """Something that is done to the sidecar, and what is tried then."""

    id: str
    play: Callable[[Lab], Row]


def _try_all(lab: Lab, id: str, expected: tuple[str, ...]) -> Row:
    said, problems = set[str](), list[str]()
    for probe, arguments in _ATTEMPTS:
        token = new_token()
        lab.unfenced.ask("user", probe, *arguments, token=token)
        if token not in lab.unfenced.left().tokens:
            problems.append(f"shows nothing: without the fence {probe} doesn't get through")
        for who in WORKLOADS:
            answer = lab.fenced.ask(who, probe, *arguments, token=new_token())
            said.add(answer)
            if answer not in expected:
                problems.append(f"{who}: {probe} {arguments}: the answer is {answer!r}")
    problems += _leaks(lab)
    return Row(id, "arrives", in_words(expected), ", ".join(sorted(said)), "", tuple(problems))


def _leaks(lab: Lab) -> list[str]:
    left = lab.fenced.left()
    return [f"left: {left}"] if left.tokens or left.astray else []


def _stopped(lab: Lab) -> Row:
    """It takes no connection; those that wait are refused when it goes on."""
    token, said = new_token(), set[str]()
    lab.unfenced.ask("user", "streams.impatient", places.V4, 443, token=token)
    problems = [] if token in lab.unfenced.left().tokens else ["shows nothing"]
    lab.events.skip()
    lab.sidecar.send_signal(signal.SIGSTOP)
    try:
        for who in WORKLOADS:
            said.add(lab.fenced.ask(who, "streams.impatient", places.V4, 443, token=new_token()))
        problems += _leaks(lab)
    finally:
        lab.sidecar.send_signal(signal.SIGCONT)
    until(lambda: lab.events.find("connection_denied not_http"), "denial of what waited")
    problems += _leaks(lab) + ([] if said == {"timeout"} else [f"the answers are {said}"])
    return Row(STOPPED, "arrives", "timeout", ", ".join(sorted(said)), "connection_denied not_http", tuple(problems))


def _killed(lab: Lab) -> Row:
    _kill(lab)
    return _try_all(lab, KILLED, REFUSED)


def _started_again(lab: Lab) -> Row:
    """Works again for who kept the CA and the address of a name."""
    if lab.sidecar.poll() is not None:
        lab.start_sidecar()
    address = lab.fenced.ask("user", "names.address_of", places.ALLOWED)
    _kill(lab)
    lab.start_sidecar()
    problems, said = [], set[str]()
    for who in WORKLOADS:
        if lab.fenced.ask(who, "names.address_of", places.ALLOWED) != address:
            problems.append(f"{who}: the name has another address than {address}")
        token = new_token()
        said.add(lab.fenced.ask(who, "requests.trusting", address, places.ALLOWED, "{ca}", _GET, token=token))
        if token not in lab.fenced.left().tokens:
            problems.append(f"{who}: the request didn't arrive")
    until(lambda: lab.events.find("request_closed"), "request_closed")
    expected = "200 internet"
    problems += [] if said == {expected} else [f"the answers are {said}"]
    return Row(AGAIN, "arrives", expected, ", ".join(sorted(said)), "request_closed", tuple(problems))


def _kill(lab: Lab) -> None:
    if lab.sidecar.poll() is None:
        lab.sidecar.send_signal(signal.SIGKILL)
        lab.sidecar.wait(10)


STOPPED: Final = "the sidecar is stopped (SIGSTOP)"
KILLED: Final = "the sidecar is killed (SIGKILL)"
AGAIN: Final = "it is started again: the same CA, the same address for a name"
SCENES: Final = (Scene(STOPPED, _stopped), Scene(KILLED, _killed), Scene(AGAIN, _started_again))
