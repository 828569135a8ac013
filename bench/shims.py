"""
Peers as they come, but for names: ``python -m bench.shims mitmdump|proxy ARGUMENTS``.

What a resolver costs isn't measured: the sidecar gets the names by ``--resolve``, Squid by its ``hosts_file``, these
two by a ``getaddrinfo`` that knows them.
"""

import asyncio
import socket
import sys
from typing import Any

from bench.names import DOMAIN

_stock, _stock_async = socket.getaddrinfo, asyncio.BaseEventLoop.getaddrinfo


def _known(host: Any, port: Any) -> list[Any] | None:
    if isinstance(host, bytes):
        host = host.decode()
    if isinstance(host, str) and host.endswith(f".{DOMAIN}"):
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]
    return None


def _getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
    return _known(host, port) or _stock(host, port, *arguments, **options)


async def _getaddrinfo_async(self: asyncio.BaseEventLoop, host: Any, port: Any, **options: Any) -> Any:
    return _known(host, port) or await _stock_async(self, host, port, **options)


if __name__ == "__main__":
    socket.getaddrinfo = _getaddrinfo
    asyncio.BaseEventLoop.getaddrinfo = _getaddrinfo_async  # type: ignore[method-assign]
    program = sys.argv.pop(1)
    if program == "mitmdump":
        from mitmproxy.tools.main import mitmdump

        mitmdump()
    else:
        from proxy import main

        main()
