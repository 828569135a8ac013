"""A sidecar with small limits, its upstreams, and a bystander: a connection that makes requests all the time."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.live.sidecars import SECONDS, Line, Sidecar, running, until
from tests.live.upstreams import Root, Seen, serving
from tests.live.wire import Http2Client, ask, get, secure, trusting, tunnel

MIB: Final = 1 << 20
POLICY: Final = """
version: 1
rules:
  - deny: ["denied.test"]
  - allow: ["*.test"]
    ports: ["1024-65535"]
network: {allow_addresses: ["127.0.0.0/8"]}
"""
NAMES: Final = ("up.test", "other.test")


@dataclass
class Scene:
    sidecar: Sidecar
    root: Root
    port: int
    seen: Seen
    port_http2: int
    seen_http2: Seen
    context: ssl.SSLContext | None = None

    @property
    def authority(self) -> str:
        return f"up.test:{self.port}"

    @property
    def authority_http2(self) -> str:
        return f"up.test:{self.port_http2}"

    def http2(self, authority: str | None = None) -> Http2Client:
        return Http2Client(secure(self.sidecar, authority or self.authority_http2, alpn=("h2",)))

    def connect(self, authority: str) -> ssl.SSLSocket:
        """As `secure`, with a context that is made once: for tests with many connections."""
        if self.context is None:
            self.context = trusting(self.sidecar)
        return self.context.wrap_socket(tunnel(self.sidecar, authority), server_hostname=authority.partition(":")[0])

    def reached(self, limit: str, **fields: object) -> Line:
        return self.sidecar.event("limit_reached", limit=limit, **fields)

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.sidecar.process.pid}/fd").iterdir()))

    @contextmanager
    def flat(self, most: int = 24 * MIB) -> Iterator[None]:
        """What happens inside grows the sidecar's peak memory by less than *most*."""
        Path(f"/proc/{self.sidecar.process.pid}/clear_refs").write_text("5")  # the peak starts again from here
        before = self.sidecar.rss()
        yield
        growth = self.sidecar.peak_rss() - before
        assert growth < most, f"grew by {growth / MIB:.0f} MiB"

    @contextmanager
    def bystander(self) -> Iterator[None]:
        """Another connection, which is answered during all of what happens inside, and after it."""
        answered: list[int] = []
        failures: list[BaseException] = []
        stop, begun = threading.Event(), threading.Event()
        with secure(self.sidecar, self.authority) as sock:

            def requests() -> None:
                try:
                    while not stop.is_set():
                        answered.append(ask(sock, get(self.authority, "/bystander")).status)
                        begun.set()
                        stop.wait(0.005)
                except BaseException as e:
                    failures.append(e)
                    begun.set()

            thread = threading.Thread(target=requests, daemon=True)
            thread.start()
            try:
                assert begun.wait(SECONDS)
                before = len(answered)
                yield
                until(lambda: len(answered) > before or failures, "answer to the bystander")
            finally:
                stop.set()
                thread.join(SECONDS)
            assert not failures, failures
            assert not thread.is_alive(), "the bystander waits"
            assert ask(sock, get(self.authority, "/bystander")).status == 200
            assert set(answered) == {200}


@contextmanager
def scene_with(folder: Path, *limits: str) -> Iterator[Scene]:
    """A sidecar with these limits, before an HTTP/1.1 and an HTTP/2 upstream."""
    root = Root(folder)
    with ExitStack() as stack:
        port, seen = stack.enter_context(serving(root.context(*NAMES)))
        port_http2, seen_http2 = stack.enter_context(serving(root.context(*NAMES, alpn=("h2",)), http2=True))
        arguments = ["--upstream-ca", str(root.pem)]
        for name in NAMES:
            arguments += ["--resolve", f"{name}:127.0.0.1"]
        for limit in limits:
            arguments += ["--limit", limit]
        sidecar = stack.enter_context(running(folder / "sidecar", POLICY, *arguments))
        scene = Scene(sidecar, root, port, seen, port_http2, seen_http2)
        for _ in range(2):  # what is loaded once isn't growth
            with secure(sidecar, scene.authority) as sock:
                assert ask(sock, get(scene.authority, "/bytes/100000")).status == 200
            client = scene.http2()
            assert client.ask(scene.authority_http2) is not None
            client.sock.close()
        yield scene


@contextmanager
def upstream(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """An upstream of which each connection is handled by *talk*, in a thread of its own; gives its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:

        def one(sock: socket.socket) -> None:
            with sock, suppress(OSError):
                sock.settimeout(SECONDS)
                talk(sock)

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(sock,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def drain(sock: socket.socket) -> bytes:
    """All that comes until the connection's end, however it ends."""
    got = b""
    with suppress(OSError):
        while data := sock.recv(65_536):
            got += data
    return got


def send(sock: socket.socket, data: bytes) -> None:
    """Send as much of it as the peer takes before it hangs up."""
    with suppress(OSError):
        sock.sendall(data)
