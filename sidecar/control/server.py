"""The two HTTP applications: health for probes, control for those who hold the socket. JSON; nothing secret."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from sidecar import __version__
from sidecar.control.messages import MessageError, parse_announcement, parse_report, report_json
from sidecar.control.readiness import Condition, Facts, not_ready, not_started, notes
from sidecar.fence.canaries import Canaries, is_nonce
from sidecar.fence.plan import Listener
from sidecar.fence.verdict import Report
from sidecar.metrics import CONTENT_TYPE, Metrics

MAX_BODY = 256 * 1024  # bytes


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


def health_app(facts: Callable[[], Facts], metrics: Metrics) -> web.Application:
    """``/startupz``, ``/livez`` and ``/readyz``: 200, or 503 with the reasons; ``/metrics`` in Prometheus' format."""

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def startupz(_: web.Request) -> web.Response:
        return _probe("started", not_started(facts()))

    async def readyz(_: web.Request) -> web.Response:
        now = facts()
        return _probe("ready", not_ready(now), notes(now))

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    app = web.Application(client_max_size=1024)
    app.on_response_prepare.append(_unsigned)
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/startupz", startupz),
            web.get("/readyz", readyz),
            web.get("/metrics", get_metrics),
        ]
    )
    return app


def control_app(
    status: Callable[[], Status], canaries: Canaries, reported: Callable[[Report], None]
) -> web.Application:
    """
    The control API.

    ``GET /v1/status``; ``POST /v1/canaries`` announces nonces; ``GET /v1/canaries/NONCE`` says whether one has arrived;
    ``POST /v1/fence`` takes a check's report.
    """

    async def get_status(_: web.Request) -> web.Response:
        return web.json_response(status().json())

    async def announce(request: web.Request) -> web.Response:
        canaries.announce(parse_announcement(await request.read()))
        return web.Response(status=204)

    async def seen(request: web.Request) -> web.Response:
        nonce = request.match_info["nonce"]
        if not is_nonce(nonce):
            raise MessageError("a nonce is 32 digits of lower-case hexadecimal")
        return web.json_response({"seen": canaries.seen(nonce)})

    async def fence(request: web.Request) -> web.Response:
        report = parse_report(await request.read())
        reported(report)
        return web.json_response({"held": report.held})

    @web.middleware
    async def explained(request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            answer: web.StreamResponse = await handler(request)
        except MessageError as e:
            return web.json_response({"error": str(e)}, status=400)
        return answer

    app = web.Application(client_max_size=MAX_BODY, middlewares=[explained])
    app.on_response_prepare.append(_unsigned)
    app.add_routes(
        [
            web.get("/v1/status", get_status),
            web.post("/v1/canaries", announce),
            web.get("/v1/canaries/{nonce}", seen),
            web.post("/v1/fence", fence),
        ]
    )
    return app


async def _unsigned(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)  # versions of libraries are nobody's business


def _probe(what: str, missing: tuple[Condition, ...], noted: tuple[Condition, ...] = ()) -> web.Response:
    body: dict[str, Any] = {what: not missing, "reasons": [asdict(condition) for condition in missing]}
    if noted:
        body["notes"] = [asdict(condition) for condition in noted]
    return web.json_response(body, status=503 if missing else 200)
