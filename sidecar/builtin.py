"""The one host that the sidecar answers for itself, so that a client's trust can be tried without an upstream."""

from typing import Final

TRUST_HOST: Final = "trust.egress.internal"
"""Answered whatever the policy says, on any port, and never dialled. ``.internal`` is a top-level domain of no zone."""

METHODS: Final = ("GET", "HEAD")
MEDIA_TYPE: Final = "application/json"
BODY: Final = b'{"answered_by":"egress-sidecar","trusted":true}\n'


def objection(method: str, *, tls: bool) -> tuple[int, str] | None:
    """Why a request to `TRUST_HOST` isn't answered with `BODY`, which says that TLS was completed: status, detail."""
    if not tls:
        return 403, f"{TRUST_HOST} is answered within TLS only; ask for https://{TRUST_HOST}/"
    if method not in METHODS:
        return 405, f"{TRUST_HOST} answers {' and '.join(METHODS)}, not {method}"
    return None
