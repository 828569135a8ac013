"""
The load client, a process of its own: ``python -m bench.client JSON``.

It warms up, writes ``ready``, waits for a line, runs the measured part and writes an `Outcome` as JSON. Every answer is
checked; a wrong one ends it with an error. Blocking sockets and prebuilt bytes: it costs less than what it measures.
"""

import json
import socket
import ssl
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import repeat
from statistics import median

from bench.names import BODY_BYTES, KNOWN, contacts
from bench.rows import Row

TIMEOUT_SECONDS = 20.0
WARM_UP = {Row.KEEP_ALIVE: 200, Row.NEW_CONNECTION: 20, Row.FIRST_CONTACT: 20}  # operations


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to do, and through which proxy."""

    row: Row
    proxy_port: int
    upstream_port: int
    ca_file: str  # the proxy's CA, the only one that is trusted
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was done in the measured part."""

    operations: int
    seconds: float
    p50_ms: float
    warm_up: int  # operations before it


class WrongAnswer(Exception):
    """An answer that isn't the upstream's: nothing that was measured with it counts."""


class Tunnel:
    """One TLS connection through one CONNECT."""

    def __init__(self, load: Load, context: ssl.SSLContext, host: str) -> None:
        authority = f"{host}:{load.upstream_port}"
        plain = socket.create_connection(("127.0.0.1", load.proxy_port), TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            if not (piece := plain.recv(4096)):
                raise WrongAnswer(f"CONNECT was answered {answer!r}")
            answer += piece
        if answer.split(b" ", 2)[1] != b"200":
            raise WrongAnswer(f"CONNECT was answered {answer!r}")
        self._socket = context.wrap_socket(plain, server_hostname=host)
        self._request = f"GET /1k HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()

    def get(self) -> None:
        """One request and its whole answer."""
        self._socket.sendall(self._request)
        answer = self._socket.recv(65536)
        while (left := missing(answer)) != 0:
            if left < 0 or not (piece := self._socket.recv(65536)):
                raise WrongAnswer(f"not a 200 with {BODY_BYTES} bytes: {answer[:200]!r}")
            answer += piece

    def close(self) -> None:
        self._socket.close()


def missing(answer: bytes) -> int:
    """
    Bytes of the expected answer that are still to come: 0 if it is complete, at least 1 while its head is.

    Returns:
        A negative number if it never will be the expected answer: another status, or too long.
    """
    if not answer.startswith(b"HTTP/1.1 200 "[: len(answer)]):
        return -1
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return 1
    return BODY_BYTES - (len(answer) - end - 4)


def client_context(ca_file: str) -> ssl.SSLContext:
    """TLS 1.3, HTTP/1.1; a session is never offered again."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    return context


def operations(load: Load, context: ssl.SSLContext) -> tuple[Iterator[None], Iterator[None]]:
    """The warm-up's operations and the measured ones: each step of an iterator is one of them."""

    def connections(hosts: Iterable[str]) -> Iterator[None]:
        for host in hosts:
            tunnel = Tunnel(load, context, host)
            tunnel.get()
            tunnel.close()
            yield

    def requests(times: Iterable[None]) -> Iterator[None]:
        for _ in times:
            tunnel.get()
            yield

    warm_up = WARM_UP[load.row]
    if load.row is Row.KEEP_ALIVE:
        tunnel = Tunnel(load, context, KNOWN)
        return requests(repeat(None, warm_up)), requests(repeat(None))
    hosts = repeat(KNOWN) if load.row is Row.NEW_CONNECTION else iter(contacts())
    return connections(repeat(KNOWN, warm_up)), connections(hosts)


def main(load: Load) -> Outcome:
    """Warm up, say so, wait for the word, run."""
    first, measured = operations(load, client_context(load.ca_file))
    for _ in first:
        pass
    print("ready", flush=True)
    sys.stdin.readline()
    clock = time.perf_counter
    times: list[float] = []
    start = before = clock()
    deadline = start + load.seconds
    for _ in measured:
        now = clock()
        times.append(now - before)
        before = now
        if now > deadline:
            break
    return Outcome(
        operations=len(times),
        seconds=round(before - start, 3),
        p50_ms=round(median(times) * 1000, 3),
        warm_up=WARM_UP[load.row],
    )


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    try:
        print(json.dumps(asdict(main(Load(**fields | {"row": Row(fields["row"])})))), flush=True)
    except (WrongAnswer, OSError) as e:
        sys.exit(f"bench.client: {fields['row']}: {e}")
