"""
Plain mitmdump, but for names: ``python -m bench.mitmdump ARGUMENTS``.

What a resolver costs isn't measured: the sidecar gets the names by ``--resolve``, mitmdump by this.
"""

import asyncio
import socket
from typing import Any

from mitmproxy.tools.main import mitmdump

from bench.names import DOMAIN

_stock = asyncio.BaseEventLoop.getaddrinfo


async def _getaddrinfo(self: asyncio.BaseEventLoop, host: Any, port: Any, **options: Any) -> Any:
    if isinstance(host, str) and host.endswith(f".{DOMAIN}"):
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]
    return await _stock(self, host, port, **options)


if __name__ == "__main__":
    asyncio.BaseEventLoop.getaddrinfo = _getaddrinfo  # type: ignore[method-assign]
    mitmdump()
