"""Metrics: what each event adds, what stays bounded, and that a running sidecar serves them."""

import re
import socket
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.events.log import EventLog
from sidecar.events.model import (
    CanaryFailed,
    CaReloadFailed,
    CaRotated,
    ConnectionAllowed,
    ConnectionClosed,
    ConnectionDenied,
    DnsDenied,
    Event,
    IdentityMismatch,
    InternalError,
    PolicyLoaded,
    PolicyReloadFailed,
    RequestAllowed,
    RequestClosed,
    RequestDenied,
    RequestFailed,
    TlsHandshakeFailed,
)
from sidecar.metrics import COUNTERS, Gauges, Metrics
from sidecar.names.outcomes import DnsReason
from sidecar.reasons import HandshakeReason, Reason, RotationReason
from tests.live.sidecars import SECONDS, running, until

ROOT = Path(__file__).parents[1]
QUIET = Gauges(
    connections=0,
    connections_open=0,
    requests_open=0,
    policy_generation=1,
    ca_seconds=3600.5,
    ca_reload_ok=True,
    events_dropped=0,
    ready=True,
)
REQUEST: dict[str, Any] = {
    "connection_id": "c",
    "request_id": "r",
    "host": "a.test",
    "port": 443,
    "scheme": "https",
    "method": "GET",
    "path": "/",
    "http_version": "HTTP/1.1",
}
POLICY: dict[str, Any] = {"rule": None, "policy_generation": 1, "policy_hash": "h"}
CONNECTION: dict[str, Any] = {"connection_id": "c", "host": "a.test", "port": 443, "sni": None}
CARRIED: dict[str, Any] = {"upstream_address": None, "bytes_out": 3, "bytes_in": 4}


def handshake(side: Any, reason: HandshakeReason) -> TlsHandshakeFailed:
    return TlsHandshakeFailed(
        **CONNECTION, side=side, reason=reason, alert=None, tls_version=None, suspected=False, detail="", hint=""
    )


def loaded(revoked: int = 0) -> PolicyLoaded:
    return PolicyLoaded(source="p", policy_hash="h", generation=2, rules=1, default="deny", revoked_connections=revoked)


FAILED = RequestFailed(**REQUEST, **CARRIED, reason=Reason.TIMEOUT, detail="", duration_ms=400)
CLOSED = RequestClosed(**REQUEST, **CARRIED, status=200, duration_ms=10.5)
RELOAD_FAILED = PolicyReloadFailed(source="p", problems=("x",), generation=1, policy_hash="h")
ROTATED = CaRotated(
    subject="CN=new", fingerprint_sha256="n", old_fingerprint_sha256="o", not_before="b", not_after="a", chain_length=1,
    root_changed=False, reason=RotationReason.SAME_ROOT,
)  # fmt: skip
CA_FAILED = CaReloadFailed(source="ca", problems=("x",), fingerprint_sha256="o")


def samples(text: bytes) -> dict[str, float]:
    """Every line of a scrape: ``name{label="value",…}`` -> value, labels in the order of the alphabet."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def scrape(*events: Event, gauges: Gauges = QUIET) -> dict[str, float]:
    metrics = Metrics(lambda: gauges)
    for event in events:
        metrics.count(event)
    return samples(metrics.text())


@pytest.mark.parametrize(
    ("events", "name", "value"),
    [
        pytest.param(
            [RequestAllowed(**REQUEST, **POLICY, reason=Reason.RULE_ALLOW)] * 2,
            'egress_requests_total{reason="rule_allow",verdict="allowed"}', 2,
            id="an allowed request, by its reason",
        ),
        pytest.param(
            [RequestDenied(**REQUEST, **POLICY, reason=Reason.DEFAULT_DENY, detail="", status=403)],
            'egress_requests_total{reason="default_deny",verdict="denied"}', 1,
            id="a denied request, by its reason",
        ),
        pytest.param(
            [FAILED], 'egress_requests_failed_total{reason="timeout"}', 1, id="a request that failed is no verdict"
        ),
        pytest.param([CLOSED, FAILED], 'egress_bytes_total{direction="out"}', 6, id="bytes of closed and failed ones"),
        pytest.param(
            [ConnectionClosed(connection_id="c", host=None, port=None, protocol="tcp", reason=None, detail=None,
                              duration_ms=1, **CARRIED)],
            'egress_bytes_total{direction="in"}', 4,
            id="bytes of what is forwarded unopened",
        ),
        pytest.param([CLOSED], 'egress_request_duration_seconds_bucket{le="0.01"}', 0, id="10.5 ms are above 10 ms"),
        pytest.param([CLOSED], 'egress_request_duration_seconds_bucket{le="0.025"}', 1, id="and below 25 ms"),
        pytest.param([CLOSED, FAILED], 'egress_request_duration_seconds_bucket{le="+Inf"}', 2, id="buckets add up"),
        pytest.param([replace(CLOSED, duration_ms=1e7)], 'egress_request_duration_seconds_bucket{le="300"}', 0,
                     id="hours are beyond the last bucket"),
        pytest.param([CLOSED, FAILED], "egress_request_duration_seconds_sum", 0.4105, id="in seconds"),
        pytest.param(
            [ConnectionAllowed(**CONNECTION, **POLICY, protocol="passthrough", reason=Reason.RULE_ALLOW)],
            'egress_connection_verdicts_total{reason="rule_allow",verdict="allowed"}', 1,
            id="a connection that is passed through",
        ),
        pytest.param(
            [ConnectionDenied(**CONNECTION, reason=Reason.NOT_HTTP, rule=None, detail="")],
            'egress_connection_verdicts_total{reason="not_http",verdict="denied"}', 1,
            id="a connection that can't be answered",
        ),
        pytest.param(
            [handshake("client", HandshakeReason.CLIENT_REJECTED_CA)],
            'egress_tls_handshake_failures_total{reason="tls_client_rejected_ca",side="client"}', 1,
            id="a client that doesn't trust the CA",
        ),
        pytest.param(
            [handshake("server", HandshakeReason.UPSTREAM_CLOSED)],
            'egress_tls_handshake_failures_total{reason="tls_upstream_closed",side="server"}', 1,
            id="an upstream that hangs up",
        ),
        pytest.param(
            [IdentityMismatch(connection_id="c", request_id=None, authority=None, sni=None, hosts=(), detail="")],
            "egress_identity_mismatches_total", 1,
            id="several names for one request",
        ),
        pytest.param(
            [DnsDenied(query="x.test", type="TXT", reason=DnsReason.TYPE, suppressed=41)],
            'egress_dns_denied_total{reason="dns_type"}', 42,
            id="questions that the rate limit left out count, too",
        ),
        pytest.param([RELOAD_FAILED], "egress_policy_reload_failures_total", 1, id="an invalid policy"),
        pytest.param([RELOAD_FAILED], "egress_policy_reload_ok", 0, id="an invalid policy is the newest"),
        pytest.param([RELOAD_FAILED, loaded()], "egress_policy_reload_ok", 1, id="until a valid one comes"),
        pytest.param([loaded(revoked=5)], "egress_connections_revoked_total", 5, id="connections that lost something"),
        pytest.param([ROTATED], "egress_ca_rotations_total", 1, id="another CA"),
        pytest.param([CA_FAILED], "egress_ca_reload_failures_total", 1, id="a CA that can't be used"),
        pytest.param(
            [CanaryFailed(canary="c", expected="held", seen="got through")],
            "egress_canaries_failed_total", 1,
            id="a hole in the fence",
        ),
        pytest.param(
            [InternalError(where="w", error="E", connection_id=None, request_id=None)],
            "egress_internal_errors_total", 1,
            id="a defect",
        ),
    ],
)  # fmt: skip
def test_what_an_event_adds(events: list[Event], name: str, value: float) -> None:
    assert scrape(*events)[name] == pytest.approx(value)


@pytest.mark.parametrize(
    ("gauges", "name", "value"),
    [
        pytest.param(replace(QUIET, connections=7), "egress_connections_total", 7, id="connections"),
        pytest.param(replace(QUIET, connections_open=3), "egress_connections_open", 3, id="open connections"),
        pytest.param(replace(QUIET, requests_open=2), "egress_requests_open", 2, id="open requests"),
        pytest.param(replace(QUIET, policy_generation=9), "egress_policy_generation", 9, id="generation"),
        pytest.param(QUIET, "egress_ca_expiry_seconds", 3600.5, id="the CA's end"),
        pytest.param(replace(QUIET, ca_seconds=-1), "egress_ca_expiry_seconds", -1, id="past the CA's end"),
        pytest.param(replace(QUIET, ca_reload_ok=False), "egress_ca_reload_ok", 0, id="the mounted CA is invalid"),
        pytest.param(replace(QUIET, events_dropped=4), "egress_events_dropped_total", 4, id="dropped events"),
        pytest.param(replace(QUIET, ready=False), "egress_ready", 0, id="not ready"),
    ],
)
def test_what_is_read_at_a_scrape(gauges: Gauges, name: str, value: float) -> None:
    assert scrape(gauges=gauges)[name] == value


def test_a_workload_cannot_add_time_series() -> None:
    def denied(number: int) -> Event:
        fields = REQUEST | {"host": f"host{number}.test", "path": f"/{number}"}
        return RequestDenied(**fields, **POLICY, reason=Reason.DEFAULT_DENY, detail="", status=403)

    assert len(scrape(*(denied(number) for number in range(100)))) == len(scrape(denied(0)))


@pytest.mark.parametrize("name", ["canaries_failed", "events_dropped", "identity_mismatches", "internal_errors"])
def test_what_is_alerted_on_is_there_from_the_start(name: str) -> None:
    assert scrape()[f"egress_{name}_total"] == 0


class Nowhere:
    """A sink that takes nothing."""

    def offer(self, line: bytes) -> bool:
        return False

    def close(self) -> None:
        pass


def test_events_are_counted_whatever_their_level_and_whoever_reads_them() -> None:
    log, seen = EventLog(session="s", sink=Nowhere(), level="error"), list[Event]()
    log.observe(seen.append)
    log.emit(CLOSED)
    log.emit(RELOAD_FAILED)
    log.connection_opened()

    assert seen == [CLOSED, RELOAD_FAILED]
    assert (log.dropped, log.connections) == (1, 1)


def labels_of(name: str) -> tuple[str, ...]:
    counter = COUNTERS.get(name.removeprefix("egress_").removesuffix("_total"))
    return counter.labels if counter else ("version",) if name == "egress_info" else ()


def test_the_documented_table_is_what_a_scrape_has() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    documented = {
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(egress_\w+)` \| (\w+) \|([^|]*)\|", page, re.MULTILINE)
    }

    text = Metrics(lambda: QUIET).text().decode()
    found = set()
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found.add((name, family.type, labels_of(name)))
    assert documented == found


@pytest.mark.live
def test_a_running_sidecar_serves_its_metrics_on_the_health_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        health = f"127.0.0.1:{free.getsockname()[1]}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def metrics() -> dict[str, float]:
        with opener.open(f"http://{health}/metrics", timeout=SECONDS) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            return samples(answer.read())

    with running(tmp_path, "version: 1\ndefault: deny\n", "--health-listen", health) as sidecar:
        before = metrics()
        assert (before["egress_policy_generation"], before["egress_ready"]) == (1, 1)
        assert 86_000 < before["egress_ca_expiry_seconds"] <= 90_000

        with socket.create_connection(("127.0.0.1", sidecar.port), SECONDS) as stream:
            stream.sendall(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n")
            assert b" 403 " in stream.recv(4096)
            assert metrics()["egress_connections_open"] == 1
        after = metrics()
        assert after['egress_requests_total{reason="default_deny",verdict="denied"}'] == 1
        assert after["egress_connections_total"] == 1
        until(lambda: metrics()["egress_connections_open"] == 0, "end of the connection in the metrics")

        (tmp_path / "policy.yaml").write_text("version: 2\n")
        sidecar.event("policy_reload_failed")
        assert metrics()["egress_policy_reload_ok"] == 0
