"""What a client hears that is turned away at the door: of an explicit proxy, a problem document; else nothing."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.net.http.http1 import assemble_response

from sidecar.problem import MEDIA_TYPE, Failure, Problem
from sidecar.reasons import Reason

READ_SECONDS: Final = 1.0  # for the client to read it: a socket that is closed with a request unread is reset
AT_ONCE: Final = 64  # that are given this time; descriptors are short now

_leaving = 0


def turn_away(wire: Any, client: Client, end: Callable[[], None]) -> None:
    """Close a client's connection that isn't admitted; *end* does it."""
    global _leaving
    reads_http = getattr(client.proxy_mode, "type_name", "") == "explicit"
    if not reads_http or client.error != Reason.TOO_MANY_CONNECTIONS or _leaving >= AT_ONCE:
        end()
        return
    problem = Problem.of_failure(Failure(Reason.TOO_MANY_CONNECTIONS, "too many connections are open"))
    headers = {"content-type": MEDIA_TYPE, "cache-control": "no-store", "connection": "close"}
    wire.send(assemble_response(http.Response.make(problem.status, problem.body(), headers)))
    wire.end_writing()
    _leaving += 1

    def leave() -> None:
        global _leaving
        _leaving -= 1
        end()

    asyncio.get_running_loop().call_later(READ_SECONDS, leave)
