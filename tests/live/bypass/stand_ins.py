"""
What listens in a pod beside the sidecar, or without one in its place.

With ``proxy``: a proxy that connects to whatever it is told, as a baseline for attempts through the sidecar's own.
"""

import socket
import sys
import threading
from contextlib import suppress
from typing import Final

from tests.live.pod import POD_V4, POD_V6

PORTS: Final = (14100, 14102, 14120, 14153)
PROXY: Final = 14101


def listen(port: int) -> list[socket.socket]:
    """On all addresses; where somebody listens on loopback already, on the pod's own."""
    found = []
    for family, every, own in ((socket.AF_INET, "0.0.0.0", POD_V4), (socket.AF_INET6, "::", POD_V6)):
        try:
            found.append(socket.create_server((every, port), family=family))
        except OSError:
            with suppress(OSError):
                found.append(socket.create_server((str(own), port), family=family))
    return found


def greet(client: socket.socket) -> None:
    with suppress(OSError), client:
        client.settimeout(5)
        client.sendall(b"sidecar's port")
        client.recv(1000)


def forward(client: socket.socket) -> None:
    """CONNECT, or a request with an absolute target, to anywhere."""
    with suppress(OSError, ValueError, IndexError), client:
        client.settimeout(5)
        head = client.recv(65536)
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        authority = target if method == "CONNECT" else target.split("/")[2]
        host, _, port = authority.rpartition(":") if ":" in authority else (authority, "", "80")
        upstream = socket.create_connection((host.strip("[]"), int(port)), 3)
        if method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            upstream.sendall(head)
        threading.Thread(target=copy, args=(upstream, client), daemon=True).start()
        copy(client, upstream)


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def accept(listener: socket.socket, *, proxy: bool) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=forward if proxy else greet, args=(client,), daemon=True).start()


def main(*, proxy: bool) -> None:
    for port in (*PORTS, *((PROXY,) if proxy else ())):
        for listener in listen(port):
            threading.Thread(target=accept, args=(listener,), kwargs={"proxy": port == PROXY}, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(proxy="proxy" in sys.argv)
