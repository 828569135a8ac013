"""The recorder: mitmproxy's hooks become the ledger's records, so that everything opened is closed by one event."""

import time

from mitmproxy import connection, http, tls
from mitmproxy.proxy import mode_specs

from addons.http1 import plain
from addons.responses import problem_response
from sidecar.events.text import printable
from sidecar.handshakes import diagnose_client
from sidecar.ledger import Ledger, RequestRecord
from sidecar.problem import Failure, Problem
from sidecar.reasons import Reason


class Recorder:
    """Stands first among the addons: what others decide is written into the records that it opens."""

    name = "egress_recorder"

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def client_connected(self, client: connection.Client) -> None:
        if not isinstance(client.proxy_mode, mode_specs.DnsMode):  # questions aren't connections
            self.ledger.connection(client.id)

    def client_disconnected(self, client: connection.Client) -> None:
        self.ledger.disconnect(client.id, tls_version=client.tls_version)

    def tls_established_client(self, data: tls.TlsData) -> None:
        self.ledger.of(data.context.client.id).tls_established = True

    def tls_failed_client(self, data: tls.TlsData) -> None:
        record = self.ledger.of(data.context.client.id)
        # A connection object is made when the ClientHello is whole, and answers it at once.
        diagnosis = diagnose_client(data.conn.error or "", answered=data.ssl_conn is not None and not record.left_early)
        # Chosen by the ServerHello, which may have been sent; without one it's the highest that OpenSSL would speak.
        version = data.ssl_conn.get_protocol_version_name() if data.ssl_conn else None
        self.ledger.handshake_failed(record, diagnosis, tls_version=version)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        record = self.ledger.of(flow.client_conn.id)
        request = flow.request
        self.ledger.open_request(
            record,
            RequestRecord(
                id=flow.id,
                host=request.host,
                port=request.port,
                scheme=request.scheme,
                method=printable(request.method),
                path=printable(request.path.partition("?")[0]),
                http_version=request.http_version,
                opened=time.monotonic(),
            ),
        )

    def response(self, flow: http.HTTPFlow) -> None:
        record = self.ledger.of(flow.client_conn.id)
        request = record.requests.get(flow.id)
        if request is None or flow.response is None:
            return  # denied: recorded when it was
        if flow.websocket is not None:
            request.websocket = True  # ends with websocket_end
            return
        self.ledger.close_request(record, request, flow.response.status_code)

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        record = self.ledger.of(flow.client_conn.id)
        if (request := record.requests.get(flow.id)) is not None:
            self.ledger.close_request(record, request, 101)

    def error(self, flow: http.HTTPFlow) -> None:
        record = self.ledger.of(flow.client_conn.id)
        request = record.requests.get(flow.id)
        if request is None or flow.error is None:
            return
        if not request.allowed:
            # Not judged at all: mitmproxy found no valid request in it, and answers 400 by itself.
            problem = Problem(400, Reason.MALFORMED_REQUEST, plain(flow.error.msg))
            self.ledger.deny_request(record, request, problem, None)
            return
        failure = request.revoked or record.failures.get((request.host, request.port)) or _failure(flow)
        if failure.is_denial:
            self.ledger.deny_request(record, request, Problem.of_failure(failure), None)
        else:
            self.ledger.fail_request(record, request, failure)
        if flow.response is None:
            flow.response = problem_response(flow, Problem.of_failure(failure, 403 if request.revoked else None))


def _failure(flow: http.HTTPFlow) -> Failure:
    assert flow.error is not None
    if not flow.client_conn.connected or "client" in flow.error.msg:
        return Failure(Reason.CLIENT_DISCONNECTED, flow.error.msg)
    if "closed" in flow.error.msg or "disconnected" in flow.error.msg:
        return Failure(Reason.UPSTREAM_DISCONNECTED, flow.error.msg)
    return Failure(Reason.UPSTREAM_PROTOCOL, flow.error.msg)
