"""
Failing closed: mitmproxy logs an addon's exception and lets the flow go on, so refusing is this wrapper's job.

`fails_closed` wraps every guarding hook of an addon. Whatever goes wrong inside one, an exception or an await that
never ends, the connection or request at hand is refused with ``internal_error`` and an event says where.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from mitmproxy import connection, exceptions, http, tcp, tls
from mitmproxy.proxy import layer, server_hooks

from addons import bounds
from addons.layers import Refuse
from addons.responses import problem_response
from sidecar.ledger import Ledger
from sidecar.problem import Failure, Problem
from sidecar.reasons import Reason

_log = logging.getLogger(__name__)
_FAILURE = Failure(Reason.INTERNAL_ERROR, "the sidecar failed while judging this, and refuses when in doubt")


class Guarding(Protocol):
    """What `fails_closed` needs of an addon."""

    ledger: Ledger


def _refuse_client(_: Guarding, client: connection.Client) -> str:
    client.error = _FAILURE.detail
    return client.id


def _refuse_flow(addon: Guarding, flow: http.HTTPFlow) -> str:
    problem = Problem.of_failure(_FAILURE)
    flow.response = problem_response(flow, problem)
    flow.request.stream = True
    flow.request.headers.pop("expect", None)  # no 100 Continue before a 503
    connection_record = addon.ledger.of(flow.client_conn.id)
    if (request := connection_record.requests.get(flow.id)) is not None:
        addon.ledger.deny_request(connection_record, request, problem, None)
    return flow.client_conn.id


def _refuse_whole(addon: Guarding, flow: http.HTTPFlow) -> str:
    if flow.request.raw_content is not None:
        return _refuse_flow(addon, flow)
    flow.kill()  # its body was streamed: the head is upstream already
    connection_record = addon.ledger.of(flow.client_conn.id)
    if (request := connection_record.requests.get(flow.id)) is not None:
        addon.ledger.fail_request(connection_record, request, _FAILURE)
    return flow.client_conn.id


def _refuse_connect(addon: Guarding, flow: http.HTTPFlow) -> str:
    flow.response = problem_response(flow, Problem.of_failure(_FAILURE))
    addon.ledger.deny_connection(addon.ledger.of(flow.client_conn.id), Reason.INTERNAL_ERROR, _FAILURE.detail)
    return flow.client_conn.id


def _refuse_answer(addon: Guarding, flow: http.HTTPFlow) -> str:
    connection_record = addon.ledger.of(flow.client_conn.id)
    flow.kill()
    if (request := connection_record.requests.get(flow.id)) is not None:
        addon.ledger.fail_request(connection_record, request, _FAILURE)
    return flow.client_conn.id


def _refuse_dial(addon: Guarding, data: server_hooks.ServerConnectionHookData) -> str:
    data.server.error = _FAILURE.detail
    if data.server.address:
        host, port = data.server.address[:2]
        addon.ledger.of(data.client.id).failed(host, port, _FAILURE)
    return data.client.id


def _refuse_hello(addon: Guarding, data: tls.ClientHelloData) -> str:
    # tls_start_client refuses as well, since this error holds only while the request's host stays what it was.
    data.context.server.error = _FAILURE.detail
    data.establish_server_tls_first = data.ignore_connection = False
    connection_record = addon.ledger.of(data.context.client.id)
    connection_record.refusal = Problem.of_failure(_FAILURE)
    connection_record.cleared.clear()
    return data.context.client.id


def _refuse_handshake(addon: Guarding, data: tls.TlsData) -> str:
    data.ssl_conn = None
    client = data.context.client
    if data.conn is client:
        addon.ledger.deny_connection(addon.ledger.of(client.id), Reason.INTERNAL_ERROR, _FAILURE.detail)
    elif data.conn.address:  # type: ignore[attr-defined]
        host, port = data.conn.address[:2]  # type: ignore[attr-defined]
        addon.ledger.of(client.id).failed(host, port, _FAILURE)
    return client.id


def _refuse_layer(addon: Guarding, data: layer.NextLayer) -> str:
    data.layer = Refuse(data.context)
    client = data.context.client
    addon.ledger.deny_connection(addon.ledger.of(client.id), Reason.INTERNAL_ERROR, _FAILURE.detail)
    return client.id


def _refuse_tcp(addon: Guarding, flow: tcp.TCPFlow) -> str:
    flow.server_conn.error = _FAILURE.detail
    addon.ledger.deny_connection(addon.ledger.of(flow.client_conn.id), Reason.INTERNAL_ERROR, _FAILURE.detail)
    return flow.client_conn.id


REFUSALS: dict[str, Callable[[Any, Any], str]] = {
    "client_connected": _refuse_client,
    "http_connect": _refuse_connect,
    "requestheaders": _refuse_flow,
    "request": _refuse_whole,
    "responseheaders": _refuse_answer,
    "server_connect": _refuse_dial,
    "tls_clienthello": _refuse_hello,
    "tls_start_client": _refuse_handshake,
    "tls_start_server": _refuse_handshake,
    "next_layer": _refuse_layer,
    "tcp_start": _refuse_tcp,
}
# After these, another addon might fill in what was refused.
_HALT = frozenset({"tls_start_client", "tls_start_server", "next_layer"})


def fails_closed[T: type[Guarding]](addon: T) -> T:
    """Wrap the guarding hooks of an addon class, so that each refuses when it fails."""
    for name, refuse in REFUSALS.items():
        if name in vars(addon):
            setattr(addon, name, guarded(vars(addon)[name], name, refuse))
    return addon


def guarded(hook: Callable[..., Any], name: str, refuse: Callable[[Any, Any], str]) -> Callable[..., Any]:
    """A hook that refuses when it fails or never ends."""

    def failed(addon: Guarding, data: Any, error: Exception) -> None:
        _log.error("%s.%s failed; refused", type(addon).__name__, name, exc_info=error)
        try:
            connection_id = refuse(addon, data)
            request_id = data.id if isinstance(data, http.HTTPFlow) else None
            addon.ledger.internal_error(f"{type(addon).__name__}.{name}", error, connection_id, request_id)
        except Exception:
            _log.exception("%s.%s could not be refused as it should", type(addon).__name__, name)
            # What was to be said couldn't be; that nothing goes through matters more.
            if isinstance(data, http.HTTPFlow) and data.response is None and data.killable:
                data.kill()
        finally:
            if name in _HALT:
                raise exceptions.AddonHalt from None

    async def finish(addon: Guarding, data: Any, pending: Awaitable[None]) -> None:
        try:
            # The idle timeout is off while a hook runs.
            async with asyncio.timeout(bounds.limits.hook_seconds):
                await pending
        except exceptions.AddonHalt:
            raise
        except Exception as e:
            failed(addon, data, e)

    @functools.wraps(hook)
    def guarded(addon: Guarding, data: Any) -> Awaitable[None] | None:
        try:
            pending = hook(addon, data)
        except exceptions.AddonHalt:
            raise
        except Exception as e:
            failed(addon, data, e)
            return None
        return finish(addon, data, pending) if inspect.isawaitable(pending) else None

    # mitmproxy refuses coroutine functions in some places; ours never is one, whatever the hook is.
    guarded.__dict__.pop("_is_coroutine_marker", None)
    return guarded
