"""What is served: health for probes, control for those who hold the socket. JSON; nothing secret."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from sidecar import __version__
from sidecar.control.http import Answer, Refused, Routes
from sidecar.control.messages import MessageError, parse_announcement, parse_report, report_json
from sidecar.control.readiness import Condition, Facts, not_ready, not_started, notes
from sidecar.fence.canaries import Canaries, is_nonce
from sidecar.fence.plan import Listener
from sidecar.fence.verdict import Report
from sidecar.metrics import CONTENT_TYPE, Metrics


@dataclass(frozen=True, slots=True)
class Status:
    """What the sidecar says of itself."""

    session: str
    facts: Facts
    policy_hash: str
    ca_fingerprint_sha256: str
    listeners: tuple[Listener, ...]

    def json(self) -> dict[str, Any]:
        facts, missing = self.facts, not_ready(self.facts)
        fence = json.loads(report_json(facts.fence)) | {"held": facts.fence.held} if facts.fence else None
        return {
            "session": self.session,
            "version": __version__,
            "policy": {"generation": facts.generation, "hash": self.policy_hash},
            "ca": {"fingerprint_sha256": self.ca_fingerprint_sha256, "not_after": f"{facts.not_after:%FT%TZ}"},
            "listeners": [asdict(listener) for listener in self.listeners],
            "started": not not_started(facts),
            "ready": not missing,
            "reasons": [asdict(condition) for condition in missing],
            "notes": [asdict(condition) for condition in notes(facts)],
            "fence": {"mode": facts.fence_mode.value, "report": fence},
        }


def health_routes(facts: Callable[[], Facts], metrics: Metrics) -> Routes:
    """``/startupz``, ``/livez`` and ``/readyz``: 200, or 503 with the reasons; ``/metrics`` in Prometheus' format."""

    def readyz(_: str, __: bytes) -> Answer:
        now = facts()
        return _probe("ready", not_ready(now), notes(now))

    return {
        ("GET", "/livez"): lambda _, __: Answer.json({"live": True}),
        ("GET", "/startupz"): lambda _, __: _probe("started", not_started(facts())),
        ("GET", "/readyz"): readyz,
        ("GET", "/metrics"): lambda _, __: Answer(200, metrics.text(), CONTENT_TYPE),
    }


def control_routes(status: Callable[[], Status], canaries: Canaries, reported: Callable[[Report], None]) -> Routes:
    """
    The control API.

    ``GET /v1/status``; ``POST /v1/canaries`` announces nonces; ``GET /v1/canaries/NONCE`` says whether one has arrived;
    ``POST /v1/fence`` takes a check's report.
    """

    def announce(_: str, body: bytes) -> Answer:
        canaries.announce(_understood(parse_announcement, body))
        return Answer(204)

    def seen(nonce: str, _: bytes) -> Answer:
        if not is_nonce(nonce):
            raise Refused(400, "a nonce is 32 digits of lower-case hexadecimal")
        return Answer.json({"seen": canaries.seen(nonce)})

    def fence(_: str, body: bytes) -> Answer:
        report = _understood(parse_report, body)
        reported(report)
        return Answer.json({"held": report.held})

    return {
        ("GET", "/v1/status"): lambda _, __: Answer.json(status().json()),
        ("POST", "/v1/canaries"): announce,
        ("GET", "/v1/canaries/"): seen,
        ("POST", "/v1/fence"): fence,
    }


def _understood[T](parse: Callable[[bytes], T], body: bytes) -> T:
    try:
        return parse(body)
    except MessageError as e:
        raise Refused(400, str(e)) from None


def _probe(what: str, missing: tuple[Condition, ...], noted: tuple[Condition, ...] = ()) -> Answer:
    body: dict[str, Any] = {what: not missing, "reasons": [asdict(condition) for condition in missing]}
    if noted:
        body["notes"] = [asdict(condition) for condition in noted]
    return Answer.json(body, 503 if missing else 200)
