"""
Addons of the user's own (``--addon FILE``), where they can't weaken a verdict.

They stand behind the session's addons: they see what was decided, may refuse or answer what was allowed, and may change
it. What they must not change is kept before their turn and put back, judged again or refused after it.
"""

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from mitmproxy import connection, exceptions, http, tcp, tls
from mitmproxy.proxy import layer, server_hooks

from addons.gate import discard_body
from addons.guard import REFUSALS, fails_closed, guarded
from addons.responses import problem_response
from sidecar.errors import SidecarError
from sidecar.hosts import HostError, parse_host
from sidecar.ledger import Ledger
from sidecar.policy import Policy, Verdict, judge_request
from sidecar.problem import Problem
from sidecar.reasons import Reason

_log = logging.getLogger(__name__)
_KEPT = "_egress_kept"
_OTHER = "an addon has changed where this request goes, after it was judged"


class AddonError(SidecarError):
    """An addon's file can't be used."""


class Guest:
    """An object of the user's with hooks; one that guards refuses when it fails, as ours do."""

    def __init__(self, inner: Any, name: str, ledger: Ledger) -> None:
        self.ledger, self.name, self._inner = ledger, name, inner
        self.addons = [Guest(each, f"{name}_{n}", ledger) for n, each in enumerate(getattr(inner, "addons", ()))]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in REFUSALS or not callable(found):
            return found

        def hook(_: Guest, data: Any) -> Any:
            try:
                return found(data)
            except exceptions.AddonHalt:
                return None  # what stands behind it are our own checks

        wrapped = guarded(hook, name, REFUSALS[name])
        return lambda data: wrapped(self, data)


def load_guests(path: Path, ledger: Ledger) -> list[Guest]:
    """
    Run an addon's file, as ``mitmdump -s`` does: its ``addons``, else the module itself.

    Raises:
        AddonError: It isn't there, or fails.
    """
    spec = spec_from_file_location(f"egress_addon_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise AddonError(f"--addon {path}: no Python file is there; name one that ends in .py and can be read")
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look it up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        raise AddonError(
            f"--addon {path}{_line_of(e, path)}: {type(e).__name__}: {e}; mend it, or leave it out"
        ) from None
    found = getattr(module, "addons", [module])
    if not isinstance(found, Sequence):
        raise AddonError(f"--addon {path}: 'addons' is not a list; write 'addons = [MyAddon()]'")
    return [Guest(inner, f"addon_{path.stem}_{number}", ledger) for number, inner in enumerate(found)]


def _line_of(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f":{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f":{lines[-1]}" if lines else ""


def target_of(request: http.Request) -> tuple[Any, ...]:
    """What says where a request goes."""
    return (request.scheme, request.host, request.port, request.authority, tuple(request.headers.get_all("host")))


def _of_request(flow: http.HTTPFlow) -> tuple[Any, ...]:
    request = flow.request
    return target_of(request), (request.method, request.path), request.stream, flow.response


def _of_response(flow: http.HTTPFlow) -> Any:
    return flow.response.stream if flow.response else None


def _of_hello(data: tls.ClientHelloData) -> tuple[bool, bool]:
    return data.ignore_connection, data.establish_server_tls_first


_KEEP: dict[str, Callable[[Any], Any]] = {
    "client_connected": lambda client: client.error,
    "http_connect": _of_request,
    "requestheaders": _of_request,
    "request": _of_request,
    "responseheaders": _of_response,
    "server_connect": lambda data: (data.server.address, data.server.error),
    "tls_clienthello": _of_hello,
    "tls_start_client": lambda data: data.ssl_conn,
    "tls_start_server": lambda data: data.ssl_conn,
    "next_layer": lambda data: data.layer,
    "tcp_start": lambda flow: flow.server_conn.error,
}


class BeforeGuests:
    """Keeps what the guests must not change."""

    name = "egress_before_guests"

    def __getattr__(self, name: str) -> Any:
        if (keep := _KEEP.get(name)) is None:
            raise AttributeError(name)
        return lambda data: setattr(data, _KEPT, keep(data))


@fails_closed
class AfterGuests:
    """
    Puts it back, judges it again, or refuses.

    Args:
        policy: Gives the policy in force.
        ledger: Knows what was decided.
        check_options: Raises where an option would undo a promise.
    """

    name = "egress_after_guests"

    def __init__(self, policy: Callable[[], Policy], ledger: Ledger, check_options: Callable[[], None]) -> None:
        self.ledger = ledger
        self._policy, self._check_options = policy, check_options

    def configure(self, _: set[str]) -> None:
        self._check_options()

    def client_connected(self, client: connection.Client) -> None:
        client.error = getattr(client, _KEPT) or client.error

    def http_connect(self, flow: http.HTTPFlow) -> None:
        target, *_, response = getattr(flow, _KEPT)
        if response is not None:
            flow.response = response
        if target_of(flow.request) != target:
            raise ValueError(_OTHER)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self._check(flow)

    def request(self, flow: http.HTTPFlow) -> None:
        """A request without a body leaves only now; of one whose body is streamed the head has gone, as it was."""
        if flow.request.raw_content is not None:
            self._check(flow)

    def _check(self, flow: http.HTTPFlow) -> None:
        target, said, stream, response = getattr(flow, _KEPT)
        request = flow.request
        if response is not None:
            flow.response = response  # a denial, or the sidecar's own answer
        elif target_of(request) != target:
            self._refuse(flow, Problem(403, Reason.IDENTITY_MISMATCH, _OTHER))
        elif (request.method, request.path) != said:
            try:
                decision = judge_request(
                    self._policy(), parse_host(request.host), request.port, request.method, request.path
                )
            except HostError as e:
                self._refuse(flow, Problem(403, Reason.IDENTITY_MISMATCH, str(e)))
            else:
                if decision.verdict is Verdict.DENY:
                    self._refuse(flow, Problem.of_decision(decision, f"{request.method} {request.path}"))
        request.stream = _after(request.stream, stream)

    def _refuse(self, flow: http.HTTPFlow, problem: Problem) -> None:
        record = self.ledger.of(flow.client_conn.id)
        if (request := record.requests.get(flow.id)) is not None:
            self.ledger.deny_request(record, request, problem, self._policy())
        flow.response = problem_response(flow, problem)
        discard_body(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if flow.response is not None:
            flow.response.stream = _after(flow.response.stream, getattr(flow, _KEPT))

    def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        address, error = getattr(data, _KEPT)
        data.server.error = error or data.server.error
        if data.server.address != address:
            raise ValueError(_OTHER)

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        data.ignore_connection, data.establish_server_tls_first = getattr(data, _KEPT)

    def tls_start_client(self, data: tls.TlsData) -> None:
        data.ssl_conn = getattr(data, _KEPT)

    def tls_start_server(self, data: tls.TlsData) -> None:
        data.ssl_conn = getattr(data, _KEPT)

    def next_layer(self, data: layer.NextLayer) -> None:
        data.layer = getattr(data, _KEPT)

    def tcp_start(self, flow: tcp.TCPFlow) -> None:
        flow.server_conn.error = getattr(flow, _KEPT) or flow.server_conn.error


def _after(theirs: Any, ours: Any) -> Any:
    """A stream's function: theirs, if there is one, and then ours, which counts. A body is streamed in any case."""
    if theirs is ours or not callable(theirs) or not callable(ours):
        return ours

    def both(data: bytes) -> Any:
        changed = theirs(data)
        for piece in [changed] if isinstance(changed, bytes) else changed:
            ours(piece)
            yield piece

    return both
