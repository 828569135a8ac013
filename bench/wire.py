"""What the load client says to a proxy: blocking sockets and prebuilt bytes, so it costs less than what it measures."""

import socket
import ssl
from dataclasses import dataclass, replace
from functools import cache

from bench.names import BODY
from bench.rows import Row

TIMEOUT_SECONDS = 60.0
PIECE_BYTES = 1 << 18
ZEROS = bytes(PIECE_BYTES)


class WrongAnswer(Exception):
    """An answer that isn't the upstream's: nothing that was measured with it counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to do, and through which proxy."""

    row: Row
    proxy_port: int  # 0: directly, or redirected by the kernel
    upstream_port: int  # nginx
    live_port: int  # the server for uploads, server-sent events and WebSocket
    ca_file: str  # the proxy's CA, the only one that is trusted
    seconds: float
    round: int = 0
    megabytes: float = 0.0  # of a download or an upload
    connections: int = 8  # of the keep-alive row; those to hold open
    requests: int = 0  # so many instead of *seconds*; 0: as many as it takes
    resolve: bool = False  # names by the system's resolver, else all are loopback

    def at(self, port: int) -> "Load":
        return replace(self, upstream_port=port)


def client_context(ca_file: str, alpn: str = "http/1.1") -> ssl.SSLContext:
    """TLS 1.3; a session is offered only by whoever passes it on."""
    context = ssl.create_default_context(cafile=ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Squid's leaves name no authority key
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([alpn])
    return context


class Tunnel:
    """One TLS connection through one CONNECT, or straight to the upstream."""

    def __init__(self, load: Load, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None = None) -> None:
        self.authority = f"{host}:{load.upstream_port}"
        address = _address(host) if load.resolve else "127.0.0.1"
        plain = socket.create_connection((address, load.proxy_port or load.upstream_port), TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if load.proxy_port:
            plain.sendall(f"CONNECT {self.authority} HTTP/1.1\r\nHost: {self.authority}\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                if not (piece := plain.recv(4096)):
                    raise WrongAnswer(f"CONNECT was answered {answer!r}")
                answer += piece
            if answer.split(b" ", 2)[1] != b"200":
                raise WrongAnswer(f"CONNECT was answered {answer!r}")
        self.socket = context.wrap_socket(plain, server_hostname=host, session=session)

    def request(self, path: str, *, method: str = "GET", more: str = "") -> bytes:
        """The head of a request, to be sent any number of times."""
        fields = f"Host: {self.authority}\r\nUser-Agent: bench\r\nAccept: */*\r\n{more}"
        return f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode()

    def small(self) -> None:
        """Read the whole answer of `bench.names.SMALL`."""
        answer = self.socket.recv(65536)
        while (left := missing(answer)) != 0:
            if left < 0 or not (piece := self.socket.recv(65536)):
                raise WrongAnswer(f"not a 200 with the expected body: {answer[:200]!r}")
            answer += piece
        if not answer.endswith(BODY):
            raise WrongAnswer(f"another body: {answer[-200:]!r}")

    def head(self, status: bytes) -> tuple[bytes, bytes]:
        """The head of an answer with *status*, and what came behind it."""
        answer = b""
        while b"\r\n\r\n" not in answer:
            if not (piece := self.socket.recv(65536)):
                raise WrongAnswer(f"no answer but {answer!r}")
            answer += piece
        head, _, rest = answer.partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1] != status:
            raise WrongAnswer(f"not {status!r} but {head[:200]!r}")
        return head.lower(), rest

    def close(self) -> None:
        self.socket.close()


@cache
def _address(host: str) -> str:
    """Asked once: the resolver isn't what is measured."""
    return socket.gethostbyname(host)


def missing(answer: bytes, length: int = len(BODY)) -> int:
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
    return length - (len(answer) - end - 4)


def content_length(head: bytes) -> int:
    """Of a head in lower case; 0 if it says none."""
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0
