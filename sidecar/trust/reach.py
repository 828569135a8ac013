"""The doctor's own request, which trusts anybody: is the sidecar there, and which certificates does it show?"""

import base64
import re
import socket
import struct
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from cryptography import x509
from OpenSSL import SSL

from sidecar.builtin import BODY, TRUST_HOST
from sidecar.errors import CannotRun, SidecarError

_MOST_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; the credentials are those of its URL."""

    url: str
    host: str
    port: int
    credentials: str | None

    @property
    def name(self) -> str:
        """The URL without credentials, for people."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse_proxy(text: str) -> Proxy:
    """
    Parse ``http://[USER:PASSWORD@]HOST:PORT``, also without the scheme, as the proxy variables have it.

    Raises:
        SidecarError: It is something else.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, parts = None, None
    if parts is None or not host or parts.scheme != "http":
        shown = re.sub(r"//[^/@]*@", "//…@", text)
        raise SidecarError(f"the proxy {shown!r} isn't http://HOST:PORT; write 'http://127.0.0.1:14101'")
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username is not None else None
    return Proxy(parts.geturl(), host, port, user)


def served_chain(proxy: Proxy | None, seconds: float) -> list[x509.Certificate]:
    """
    Ask the built-in host, through *proxy* or, where connections are redirected, straight.

    Returns:
        What the sidecar shows to clients: its leaf first, then what stands between that and a root.

    Raises:
        CannotRun: There is no sidecar that way.
    """
    way = f"through {proxy.name}" if proxy else "without a proxy"
    hint = (
        "is the sidecar running there?"
        if proxy
        else "give --proxy URL, or set HTTPS_PROXY; without either, connections must be redirected to the sidecar"
    )
    try:
        address = (proxy.host, proxy.port) if proxy else (TRUST_HOST, 443)
        with socket.create_connection(address, seconds) as sock:
            # OpenSSL reads the descriptor itself: the kernel keeps the time.
            sock.settimeout(None)
            limit = struct.pack("ll", int(seconds), 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            if proxy is not None:
                _connect(sock, proxy)
            chain, answer = _ask(sock)
    except (OSError, SSL.Error) as e:
        words = e.strerror if isinstance(e, OSError) and e.strerror else str(e) or type(e).__name__
        raise CannotRun(f"{TRUST_HOST} can't be reached {way} ({words}); {hint}") from None
    if BODY not in answer:
        raise CannotRun(f"{TRUST_HOST} was answered by somebody else than the sidecar {way}; {hint}")
    return chain


def _connect(sock: socket.socket, proxy: Proxy) -> None:
    lines = [f"CONNECT {TRUST_HOST}:443 HTTP/1.1", f"Host: {TRUST_HOST}:443"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.credentials.encode()).decode()}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _MOST_BYTES and (part := sock.recv(1)):
        head += part
    if not re.match(rb"HTTP/1\.[01] 200 ", head):
        raise OSError(0, f"the proxy says {head[:60].split(b'\r\n')[0].decode(errors='replace')!r}")


def _ask(sock: socket.socket) -> tuple[list[x509.Certificate], bytes]:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)  # nothing is said or believed: the question is what clients are shown
    tls = SSL.Connection(context, sock)
    tls.set_tlsext_host_name(TRUST_HOST.encode())
    tls.set_connect_state()
    tls.do_handshake()
    chain = tls.get_peer_cert_chain(as_cryptography=True) or []
    tls.sendall(f"GET / HTTP/1.1\r\nHost: {TRUST_HOST}\r\nConnection: close\r\n\r\n".encode())
    answer = b""
    while len(answer) < _MOST_BYTES and BODY not in answer:
        try:
            answer += tls.recv(4096)
        except (SSL.ZeroReturnError, SSL.SysCallError):
            break
    return chain, answer
