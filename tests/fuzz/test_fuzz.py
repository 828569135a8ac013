"""Changed bytes of every kind, the same ones in each run; `make fuzz` goes on from there."""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import CUT, TARGETS, laboratory
from tests.hostile.http2 import PREFACE
from tests.live.test_client_hello import HELLO

EXAMPLES = 400  # of each target; a conversation with the whole proxy takes a millisecond


@st.composite
def changed(draw: st.DrawFn, beginnings: tuple[bytes, ...]) -> bytes:
    """One of *beginnings* with pieces replaced, doubled, left out, or sent apart."""
    data = draw(st.sampled_from(beginnings))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 16)))
        match draw(st.sampled_from(("replace", "double", "drop", "cut", "splice"))):
            case "replace":
                data = data[:at] + draw(st.binary(max_size=8)) + data[until:]
            case "double":
                data = data[:until] + data[at:until] * draw(st.integers(1, 3)) + data[until:]
            case "drop":
                data = data[:at] + data[until:]
            case "cut":
                data = data[:at] + CUT + data[at:]
            case "splice":
                data = data[:at] + draw(st.sampled_from(beginnings))[at:]
    return data


def test_the_laboratory_is_a_proxy_to_those_who_talk_to_it() -> None:
    """Else nothing that it survives would prove anything."""
    proxy, ok = laboratory(), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    assert proxy.talk(b"GET http://up.test/ HTTP/1.1\r\n", b"Host: up.test\r\n\r\n", answer=[ok]) == ok
    assert proxy.dialled == [("up.test", 80)]
    assert b"403" in proxy.talk(b"GET http://denied.test/ HTTP/1.1\r\nHost: denied.test\r\n\r\n")
    assert proxy.dialled == []
    connect = b"CONNECT pinned.test:443 HTTP/1.1\r\nHost: pinned.test:443\r\n\r\n"
    assert proxy.talk(connect, HELLO, answer=[b"unopened"]).endswith(b"unopened")
    assert proxy.dialled == [("pinned.test", 443)]
    connect = connect.replace(b"pinned", b"denied")
    answered = proxy.talk(connect, tls=[PREFACE, *seeds("http2")[:1]])
    assert b"default_deny" in answered
    assert proxy.dialled == []


@pytest.mark.parametrize("target", TARGETS)
def test_whatever_comes_is_read_or_refused(target: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(changed(seeds(target)))
    def check(data: bytes) -> None:
        TARGETS[target](data)

    for seed in seeds(target):
        TARGETS[target](seed)
    check()


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_two_minutes_by_coverage_find_nothing() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing found") == len(TARGETS), done.stdout
