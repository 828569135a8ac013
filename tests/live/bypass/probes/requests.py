"""HTTP, in TLS or not, to a name or an address: what is sent is exactly what the row says."""

import os
import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress

import h2.config
import h2.connection

from tests.live.bypass import places
from tests.live.bypass.probes.streams import connect, heard, words
from tests.live.wire import Http2Client, answer

# Status, and reason or the Internet's body, of each answer in a stream.
_ANSWERS = re.compile(rb'HTTP/1\.1 ([0-9]{3}).*?(?:"reason": ?"([a-z_]+)"|internet\n)', re.DOTALL)


def secured(sock: socket.socket, sni: str | None, *alpn: str) -> ssl.SSLSocket:
    """TLS that trusts everyone: who answers is looked at by `opened`."""
    context = ssl._create_unverified_context()
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context.wrap_socket(sock, server_hostname=sni or None)


def opened(sock: ssl.SSLSocket) -> str:
    """Whose certificate that is: an interception's, or the Internet's own."""
    return "end to end" if b"upstream root" in (sock.getpeercert(True) or b"") else "intercepted"


def plain(token: str, address: str, port: int, *texts: str) -> str:
    """Each text in one write, with ``{token}`` filled in; the answer to the last."""
    with connect(address, port) as sock:
        return _exchange(sock, token, texts)


def trusting(token: str, address: str, name: str, ca: str, text: str) -> str:
    """TLS that trusts this one CA, then a request."""
    context = ssl.create_default_context(cafile=ca)
    with context.wrap_socket(connect(address, 443), server_hostname=name) as sock:
        return _exchange(sock, token, (text,))


def tls(token: str, address: str, port: int, sni: str | None, *texts: str) -> str:
    with secured(connect(address, port), sni) as sock:
        whose = opened(sock)
        return f"{_exchange(sock, token, texts)}, {whose}"


def _exchange(sock: socket.socket, token: str, texts: Sequence[str]) -> str:
    said = ""
    for text in texts:
        sock.sendall(text.replace("{token}", token).encode("latin-1"))
        said = heard(sock)
    return said


def pipelined(token: str, address: str, port: int, first: str, second: str) -> str:
    """Two requests in one write; what the second is answered."""
    with connect(address, port) as sock:
        sock.sendall((first + second).replace("{token}", token).encode())
        said = b""
        while (last := _ANSWERS.findall(said)[1:]) == []:
            if not (data := sock.recv(65536)):
                return "closed"
            said += data
        return f"{last[0][0].decode()} {(last[0][1] or b'internet').decode()}"


def one_byte_segments(token: str, address: str, sni: str, host: str) -> str:
    """The whole ClientHello a byte at a time."""
    sock = connect(address, 443)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = ssl._create_unverified_context().wrap_bio(incoming, outgoing, server_hostname=sni)
    slow = True
    while True:
        try:
            session.do_handshake()
            break
        except ssl.SSLWantReadError:
            _send(sock, outgoing.read(), 1 if slow else 65536)
            slow = False
            if not (data := sock.recv(65536)):
                return "closed"
            incoming.write(data)
    whose = "end to end" if b"upstream root" in (session.getpeercert(True) or b"") else "intercepted"
    session.write(f"GET /{token} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    sock.sendall(outgoing.read())
    while True:
        try:
            head = session.read(4096)
            return f"{head.split(b' ')[1].decode()} {_reason(head)}, {whose}"
        except ssl.SSLWantReadError:
            if not (data := sock.recv(65536)):
                return "closed"
            incoming.write(data)


def _reason(head: bytes) -> str:
    return "refused" if b"problem+json" in head else "internet"


def _send(sock: socket.socket, data: bytes, size: int) -> None:
    for at in range(0, len(data), size):
        sock.sendall(data[at : at + size])


def client_hello(token: str, sni: str) -> bytes:
    """A ClientHello with encrypted_client_hello (0xfe0d), in which a token stands for another name (RFC 9849)."""
    outgoing = ssl.MemoryBIO()
    session = ssl._create_unverified_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=sni)
    with suppress(ssl.SSLWantReadError):
        session.do_handshake()
    record = outgoing.read()
    body = record[9:]  # behind the record's and the message's head
    at = 34
    at += 1 + body[at]
    at += 2 + int.from_bytes(body[at : at + 2])
    at += 1 + body[at]
    payload = token.encode() * 8
    ech = b"\0\0\x01\0\x01\x07" + (32).to_bytes(2) + bytes(32) + len(payload).to_bytes(2) + payload
    extensions = body[at + 2 :] + b"\xfe\x0d" + len(ech).to_bytes(2) + ech
    body = body[:at] + len(extensions).to_bytes(2) + extensions
    message = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16\x03\x01" + len(message).to_bytes(2) + message


def hello(token: str, address: str, port: int, sni: str, split: Sequence[int]) -> str:
    """Only a ClientHello, cut at *split*: whether a ServerHello comes back."""
    data = client_hello(token, sni)
    with connect(address, port) as sock:
        for start, end in zip([0, *split], [*split, len(data)], strict=True):
            sock.sendall(data[start:end])
        first = sock.recv(1)
        return {b"\x16": "ServerHello", b"\x15": "alert", b"": "closed"}.get(first, "other")


def streams(token: str, address: str, sni: str, *heads: tuple[str, list[tuple[str, str]]]) -> str:
    """HTTP/2: each (authority, more headers) on one connection, the last with the token; what that is answered."""
    with secured(connect(address, 443), sni, "h2", "http/1.1") as sock:
        if sock.selected_alpn_protocol() != "h2":
            return "no h2"
        client, said = Http2Client(sock), ""
        for n, (authority, more) in enumerate(heads, 1):
            path = f"/{token}" if n == len(heads) else "/"
            got = client.ask(authority, path, *((name, value) for name, value in more))
            said = "stream reset" if got is None else words(got)
        return said


def prior_knowledge(token: str, address: str, authority: str) -> str:
    """HTTP/2 without TLS or upgrade (RFC 9113, section 3.3)."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    head = [(":method", "POST"), (":scheme", "http"), (":authority", authority), (":path", "/")]
    client.send_headers(1, head)
    client.send_data(1, f"{token}\r\n\r\n".encode())  # which a server that knows no HTTP/2 answers
    with connect(address, 80) as sock:
        sock.sendall(client.data_to_send())
        return heard(sock)


def follow(token: str, host: str) -> str:
    """A redirect of an allowed host to a denied one, followed."""
    with connect(host, 80) as sock:
        sock.sendall(f"GET /redirect HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        location = answer(sock).headers["location"].removeprefix("http://").strip("/")
    return plain(token, location, 80, f"GET /{{token}} HTTP/1.1\r\nHost: {location}\r\n\r\n")


def alternative(token: str, host: str) -> str:
    """Whether the answer leads to HTTP/3."""
    with connect(host, 80) as sock:
        sock.sendall(f"GET /{token} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        return answer(sock).headers.get("alt-svc", "no alt-svc")


def rebound(token: str) -> str:
    """A name of which the first answer is public, and the next are private; another name, if an answer was lost."""
    for attempt in range(5):
        try:
            return _rebound(token, f"u{os.getuid()}-{attempt}.{places.REBIND}")
        except socket.gaierror:  # asked again, it led to where no answer may lead
            continue
    return "no address"


def _rebound(token: str, name: str) -> str:
    for _ in range(2):
        address = socket.gethostbyname(name)
        if address != places.ALLOWED_V4:
            break
        said = plain(token, address, 80, f"GET /{{token}} HTTP/1.1\r\nHost: {name}\r\n\r\n")
    else:
        return said
    return plain(token, address, 80, f"GET /{{token}} HTTP/1.1\r\nHost: {name}\r\n\r\n")


def through_proxy(token: str, target: str, *texts: str) -> str:
    """CONNECT by way of the explicit proxy, then each text; an answer other than 200 to the CONNECT is the result."""
    with connect("127.0.0.1", 14101) as sock:
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        got = answer(sock, method="CONNECT")
        return words(got) if got.status != 200 else _exchange(sock, token, texts)


def tls_through_proxy(token: str, target: str, sni: str, text: str) -> str:
    with connect("127.0.0.1", 14101) as sock:
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        got = answer(sock, method="CONNECT")
        return words(got) if got.status != 200 else _exchange(secured(sock, sni), token, (text,))
