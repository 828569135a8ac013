"""Readers of HTTP/1 requests, each by itself: what one takes for two requests, another must not take for one."""

import asyncio
import base64
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Final

import h11
import httptools
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from tests.live.sidecars import SECONDS, until

PROGRAMS: Final = Path(__file__).with_name("programs")


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request, as a reader has read it."""

    method: str
    target: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """
    What a reader makes of all bytes of one connection.

    Attributes:
        requests: Those that are whole.
        rest: "" where nothing is left; "unfinished" where a request has begun; else why nothing more can be read.
    """

    requests: tuple[Request, ...]
    rest: str


def by_h11(data: bytes) -> Reading:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    requests: list[Request] = []
    head: Any = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            match event:
                case h11.Request():
                    head, body = event, b""
                case h11.Data():
                    body += bytes(event.data)
                case h11.EndOfMessage():
                    requests.append(Request(head.method.decode(), head.target.decode("latin-1"), body))
                    head = None
                    connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                    connection.send(h11.EndOfMessage())
                case h11.PAUSED if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
                    connection.start_next_cycle()
                case _:  # NEED_DATA, or the end after "Connection: close"
                    left = connection.trailing_data[0]
                    return Reading(tuple(requests), "unfinished" if head is not None or left.strip() else "")
    except h11.ProtocolError as e:
        return Reading(tuple(requests), str(e))


class _Callbacks:
    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.begun = False
        self.target, self.body = b"", b""
        self.parser: Any = None

    def on_message_begin(self) -> None:
        self.begun, self.target, self.body = True, b"", b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.begun = False
        method = self.parser.get_method().decode()
        self.requests.append(Request(method, self.target.decode("latin-1"), self.body))


def by_llhttp(data: bytes) -> Reading:
    seen = _Callbacks()
    seen.parser = httptools.HttpRequestParser(seen)
    try:
        seen.parser.feed_data(data)
    except httptools.HttpParserUpgrade as e:
        # Its server would speak the other protocol, or go on with HTTP; we ask what HTTP it would read.
        left = by_llhttp(data[e.args[0] :])
        return Reading((*seen.requests, *left.requests), left.rest)
    except httptools.HttpParserError as e:
        return Reading(tuple(seen.requests), str(e))
    return Reading(tuple(seen.requests), "unfinished" if seen.begun else "")


def by_aiohttp(data: bytes) -> Reading:
    """The parser in C, where it is built."""

    async def read() -> Reading:
        loop = asyncio.get_running_loop()
        parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16, max_line_size=1 << 20, max_field_size=1 << 20)
        try:
            messages, _, tail = parser.feed_data(data)
        except HttpProcessingError as e:
            return Reading((), e.message or type(e).__name__)
        whole = [(message, payload) for message, payload in messages if payload.is_eof()]
        requests = [Request(m.method, m.path, await p.read() if not p.at_eof() else b"") for m, p in whole]
        # Behind an upgrade it hands over what is left: we ask what HTTP it would read there.
        left = await loop.run_in_executor(None, by_aiohttp, tail) if tail else Reading((), "")
        return Reading((*requests, *left.requests), left.rest if len(whole) == len(messages) else "unfinished")

    return asyncio.run(read())


_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD: Final = re.compile(
    rb"(?P<method>" + _TOKEN + rb") (?P<target>/[^\x00-\x20#\x7f]*|\*) HTTP/1\.[01]\r\n"
    rb"(?P<fields>(?:" + _TOKEN + rb": (?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?\r\n)*)\r\n"
)
_CHUNK: Final = re.compile(rb"([0-9a-f]{1,8})\r\n")


def by_grammar(data: bytes) -> Reading:
    """RFC 9112 without anything that is optional: no leniency, no extension, one way to write each thing."""
    requests: list[Request] = []
    while data:
        head = _HEAD.match(data)
        if head is None:
            unfinished = b"\r\n\r\n" not in data
            return Reading(tuple(requests), "unfinished" if unfinished else f"no canonical head: {data[:200]!r}")
        data = data[head.end() :]
        lines = [line.partition(b": ") for line in head["fields"].split(b"\r\n") if line]
        framing = [(n.lower(), v) for n, _, v in lines if n.lower() in (b"content-length", b"transfer-encoding")]
        hosts = [v for n, _, v in lines if n.lower() == b"host"]
        if len(framing) > 1 or len(hosts) != 1:
            return Reading(tuple(requests), f"framed by {framing}, hosts {hosts}")
        name, value = framing[0] if framing else (b"content-length", b"0")
        body = b""
        if name == b"content-length":
            if not re.fullmatch(rb"0|[1-9][0-9]{0,18}", value):
                return Reading(tuple(requests), f"length {value!r}")
            if len(data) < int(value):
                return Reading(tuple(requests), "unfinished")
            body, data = data[: int(value)], data[int(value) :]
        elif value != b"chunked":
            return Reading(tuple(requests), f"coding {value!r}")
        else:
            size = -1
            while size:
                chunk = _CHUNK.match(data)
                if chunk is None:
                    return Reading(tuple(requests), "unfinished" if len(data) < 10 else f"no chunk: {data[:20]!r}")
                size = int(chunk[1], 16)
                data = data[chunk.end() :]
                if len(data) < size + 2:
                    return Reading(tuple(requests), "unfinished")
                if data[size : size + 2] != b"\r\n":
                    return Reading(tuple(requests), f"no end of a chunk: {data[size : size + 2]!r}")
                body, data = body + data[:size], data[size + 2 :]
        requests.append(Request(head["method"].decode(), head["target"].decode("latin-1"), body))
    return Reading(tuple(requests), "")


def _by_program(command: Sequence[str]) -> Callable[[Sequence[bytes]], list[Reading]]:
    """Of a program that reads a line of base64 for each connection, and prints what it has read as a line of JSON."""

    def read(connections: Sequence[bytes]) -> list[Reading]:
        lines = b"\n".join(base64.b64encode(data) for data in connections) + b"\n"
        done = subprocess.run(command, input=lines, capture_output=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr.decode()
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(connections), done.stderr.decode()
        return [
            Reading(
                tuple(Request(r["method"], r["target"], base64.b64decode(r["body"])) for r in answer["requests"]),
                answer["rest"],
            )
            for answer in answers
        ]

    return read


def _each(read: Callable[[bytes], Reading]) -> Callable[[Sequence[bytes]], list[Reading]]:
    return lambda connections: [read(data) for data in connections]


def by_nginx(connections: Sequence[bytes]) -> list[Reading]:
    """What nginx writes into its access log; it keeps no bodies."""
    with TemporaryDirectory() as made, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        folder, port = Path(made), probe.getsockname()[1]
        probe.close()
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port))
        process = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-p", made], stderr=subprocess.PIPE)
        try:
            until(lambda: _answers(port) or None, "nginx")
            (folder / "access.log").write_bytes(b"")
            for number, data in enumerate(connections):
                with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
                    end = f"GET /end-{number} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
                    sock.sendall(f"GET /begin-{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + data + end)
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65_536):
                        pass
        finally:
            process.terminate()
            process.wait(SECONDS)
        return _of_log((folder / "access.log").read_text(), len(connections))


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), SECONDS):
        return True
    return False


def _of_log(text: str, count: int) -> list[Reading]:
    requests: list[list[Request]] = [[] for _ in range(count)]
    broken: list[str] = [""] * count
    number = {}
    for line in text.splitlines():
        connection, status, method, target = line.split(" ", 3)
        if target.startswith("/begin-"):
            number[connection] = int(target.removeprefix("/begin-"))
        elif not target.startswith("/end-"):
            if status == "400":
                # The head was one: a body that doesn't end, and what this reader has put behind it is no chunk.
                in_body = target.startswith("/")
                broken[number[connection]] = "unfinished" if in_body else f"400 {method} {target}"
            elif status != "000":
                requests[number[connection]].append(Request(method, target, b""))
    assert len(number) == count
    return [Reading(tuple(found), rest) for found, rest in zip(requests, broken, strict=True)]


def by_go(connections: Sequence[bytes]) -> list[Reading]:
    """By net/http; the program is built first."""
    with TemporaryDirectory() as folder:
        built = str(Path(folder) / "read")
        subprocess.run(["go", "build", "-o", built, str(PROGRAMS / "read.go")], check=True, env=_GO | dict(os.environ))
        return _by_program([built])(connections)


_GO: Final = {"GOFLAGS": "-mod=mod", "GO111MODULE": "off", "GOCACHE": str(Path(gettempdir()) / "go-cache")}
_NGINX: Final = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  log_format read escape=none '$connection $status $request_method $request_uri';
  access_log {folder}/access.log read;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok"; }} }}
}}
"""

READERS: Final[dict[str, Callable[[Sequence[bytes]], list[Reading]]]] = {
    "the grammar": _each(by_grammar),
    "h11": _each(by_h11),
    "llhttp": _each(by_llhttp),
    "aiohttp": _each(by_aiohttp),
    "Node": _by_program(["node", str(PROGRAMS / "read.js")]),
}
# These take longer: for make test-heavy.
PROGRAM_READERS: Final[dict[str, Callable[[Sequence[bytes]], list[Reading]]]] = {"Go": by_go, "nginx": by_nginx}
