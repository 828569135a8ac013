"""What the demo shows: each scene is one client's request, what must come of it, and what it proves."""

from dataclasses import dataclass
from typing import Any, Literal

from demo.upstream import API, EXPIRED, MISNAMED, NAMES, PINNED, ROOT_NAME, TELEMETRY

SESSION = "demo-session"

_UNTRUSTED = 60  # the exit code of curl, and of client.py, for a certificate that they don't trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """
    One request.

    Attributes:
        arguments: The client's, before the URL.
        status: What the client is answered; None where it gets no answer, and ends with *code*.
        prints: Words that the client's output must have.
        events: The lines that it causes, all of them and in this order; of each the fields that must be so.
        reaches: How far it comes: the upstream gets the ``request``, at most a ``connection``, or ``nothing``.
        trusting: Whether the client has the trust variables.
    """

    title: str
    why: str
    host: str
    path: str = "/"
    arguments: tuple[str, ...] = ("-sSi",)
    status: int | None = None
    code: int = 0
    prints: tuple[str, ...] = ()
    whole: bool = False  # print the whole problem document
    events: tuple[dict[str, Any], ...]
    reaches: Literal["request", "connection", "nothing"]
    trusting: bool = True
    proves: str


def policy(port: int) -> str:
    """The policy of the demo, for upstreams on *port*."""
    return f"""\
version: 1
default: deny
rules:
  - name: api-read
    allow: ["{API}"]
    ports: [{port}]
    methods: [GET, HEAD]
    paths: ["/repos/**"]
  - name: pinned
    passthrough: ["{PINNED}"]
    ports: [{port}]
  - name: careless
    allow: ["{EXPIRED}", "{MISNAMED}"]
    ports: [{port}]
network:
  allow_addresses: ["127.0.0.1"]   # private addresses are refused otherwise
"""


def resolve() -> tuple[str, ...]:
    """The options that lead the demo's names to loopback."""
    return tuple(word for name in NAMES for word in ("--resolve", f"{name}:127.0.0.1"))


def _denied(reason: str, **fields: Any) -> dict[str, Any]:
    return {"event": "request_denied", "reason": reason, "status": 403} | fields


def _unproven(title: str, host: str, reason: str, proves: str) -> Scene:
    return Scene(
        title=title,
        why="Chain, name and validity of an upstream are always verified; no option relaxes that.",
        host=host,
        status=502,
        prints=('"upstream_tls"',),
        events=(
            {"event": "tls_handshake_failed", "side": "server", "reason": reason},
            {"event": "request_allowed", "host": host},
            {"event": "request_failed", "reason": "upstream_tls"},
        ),
        reaches="connection",
        proves=proves,
    )


SCENES = (
    Scene(
        title="An allowed request",
        why="The rule api-read allows it. The client's TLS ends at the sidecar: see the certificate's issuer.",
        host=API,
        path="/repos/hello",
        arguments=("-sSv",),
        status=200,
        prints=(f"hello from {API}", SESSION),
        events=(
            {"event": "request_allowed", "rule": "rules[0] 'api-read'"},
            {"event": "request_closed", "status": 200},
        ),
        reaches="request",
        proves="200 through interception; two lines: what was decided, and how it ended",
    ),
    Scene(
        title="A denied host",
        why="No rule names it, so the default decides. TLS is completed, so that the client can read why.",
        host=TELEMETRY,
        path="/collect",
        status=403,
        prints=("application/problem+json", '"default_deny"'),
        whole=True,
        events=(_denied("default_deny", host=TELEMETRY),),
        reaches="nothing",
        proves="403 with the reason; the upstream wasn't dialled",
    ),
    Scene(
        title="A denied method on an allowed host",
        why="api-read allows GET and HEAD.",
        host=API,
        path="/repos/hello",
        arguments=("-sSi", "-X", "DELETE"),
        status=403,
        prints=("application/problem+json", '"default_deny"'),
        events=(_denied("default_deny", method="DELETE"),),
        reaches="connection",
        proves="403; the upstream, which answered 200 above, got no request",
    ),
    Scene(
        title="A denied path on an allowed host",
        why="api-read allows /repos/** alone. Query strings are neither judged nor recorded.",
        host=API,
        path="/admin/users?token=secret",
        status=403,
        prints=("application/problem+json", '"default_deny"'),
        events=(_denied("default_deny", path="/admin/users"),),
        reaches="connection",
        proves="403; the event has the path without its query",
    ),
    Scene(
        title="Another host inside of the connection",
        why=f"Opened for {API}, but the request inside names {TELEMETRY}.",
        host=API,
        path="/repos/hello",
        arguments=("-sSi", "-H", f"Host: {TELEMETRY}"),
        status=421,
        prints=("application/problem+json", '"identity_mismatch"'),
        events=(
            {"event": "identity_mismatch"},
            {"event": "request_denied", "reason": "identity_mismatch", "status": 421},
        ),
        reaches="connection",
        proves="421; CONNECT, SNI and Host must be one name, in every request",
    ),
    Scene(
        title="A passthrough host",
        why="Judged by its name, forwarded unopened: the client sees the upstream's own certificate.",
        host=PINNED,
        arguments=("-sSv", "--cacert", "upstream-root.pem"),
        status=200,
        prints=(f"hello from {PINNED}", ROOT_NAME),
        events=(
            {"event": "connection_allowed", "protocol": "passthrough", "rule": "rules[1] 'pinned'"},
            {"event": "connection_closed", "protocol": "passthrough", "reason": None},
        ),
        reaches="request",
        proves="200; the issuer is the upstream's, not the session CA; no method or path in the events",
    ),
    Scene(
        title="A client without the trust bundle",
        why="The most frequent mishap: the client's error is vague, the event says what to do.",
        host=API,
        path="/repos/hello",
        arguments=("-sS",),
        code=_UNTRUSTED,
        events=(
            {
                "event": "tls_handshake_failed",
                "side": "client",
                "reason": "tls_client_rejected_ca",
                "alert": "unknown_ca",
            },
        ),
        reaches="connection",
        trusting=False,
        proves="reason, TLS alert and fix in one line; the upstream got no request",
    ),
    _unproven(
        "An upstream whose certificate has expired",
        EXPIRED,
        "tls_upstream_certificate",
        "502 and why; nothing was sent to the unproven server",
    ),
    _unproven(
        "An upstream with a certificate for another name",
        MISNAMED,
        "tls_upstream_name",
        "502 and why; the name is proven, not only the chain",
    ),
)
