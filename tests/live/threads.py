"""Servers beside a test, each in a thread with a loop of its own."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.live.sidecars import SECONDS


@contextmanager
def serving_protocol(make: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None) -> Iterator[int]:
    """Serve with a protocol for each connection; gives the port, a free one of loopback."""
    loop, stop, started, port = asyncio.new_event_loop(), asyncio.Event(), threading.Event(), 0

    async def main() -> None:
        nonlocal port
        server = await loop.create_server(make, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(SECONDS)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(SECONDS)
