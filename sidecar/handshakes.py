"""
Why a TLS handshake failed, concluded from what OpenSSL and mitmproxy say: the one place that knows their words.

The words vary with OpenSSL's version; the tests hold recorded ones.
"""

import re
from dataclasses import dataclass

from sidecar.reasons import HandshakeReason

_ALERT = re.compile(r"(?:sslv3|tlsv1|tlsv13|ssl/tls|tls) (?:alert )?([a-z0-9 ]+)")
# The alerts of RFC 8446, section 6, and RFC 5246, section 7.2, as OpenSSL spells them.
_ALERTS = frozenset(
    alert.strip()
    for alert in [
        "\n    close notify",
        " unexpected message",
        " bad record mac",
        " record overflow",
        " handshake failure",
        " no certificate",
        "\n    bad certificate",
        " unsupported certificate",
        " certificate revoked",
        " certificate expired",
        " certificate unknown",
        "\n    illegal parameter",
        " unknown ca",
        " access denied",
        " decode error",
        " decrypt error",
        " protocol version",
        "\n    insufficient security",
        " internal error",
        " inappropriate fallback",
        " user cancelled",
        " no renegotiation",
        "\n    missing extension",
        " unsupported extension",
        " certificate unobtainable",
        " unrecognized name",
        "\n    bad certificate status response",
        " unknown psk identity",
        " certificate required",
        " no application protocol\n    ",
    ]
)
_TRUST = "the client doesn't trust the session CA: give it the trust bundle (see `env` in the trust folder)"
_PIN = "the client refuses this certificate although it may know the CA: it pins, or it reads another trust store"


_NO_CIPHERS = (
    "the upstream has no cipher suite in common with the sidecar, or wants a client certificate; one that has only CBC "
    "or static RSA suites needs accept: [cbc] or [static_rsa] in the policy's upstreams"
)
_CLIENT_CERTIFICATE = (
    "the upstream wants a client certificate that it trusts: client_certificate in the policy's upstreams"
)
# Alerts that speak of the other side's certificate; what we show is a client certificate, or none.
_OF_OUR_CERTIFICATE = frozenset(
    (
        *("certificate_required", "no_certificate", "bad_certificate", "unsupported_certificate", "unknown_ca"),
        *("certificate_revoked", "certificate_expired", "certificate_unknown", "access_denied"),
    )
)

_HUNG_UP = re.compile(r"disconnected during the handshake|connection closed|closed early|unexpected eof", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a failed handshake means; *suspected* if the peer only left, without an alert."""

    reason: HandshakeReason
    detail: str
    hint: str
    alert: str | None = None
    suspected: bool = False


def alert_of(words: str) -> str | None:
    """The name of the TLS alert in OpenSSL's words, in RFC 8446's spelling (``unknown_ca``); None if there is none."""
    for found in _ALERT.findall(words):
        if (name := found.strip()) in _ALERTS:
            return "user_canceled" if name == "user cancelled" else name.replace(" ", "_")
    return None


def diagnose_client(words: str, *, answered: bool = False) -> Diagnosis:
    """
    The workload's handshake failed with these words of OpenSSL or mitmproxy.

    Args:
        answered: The client has been sent the certificate. One that hangs up then, without an alert, has most likely
            refused it: Node is known to.
    """
    reason = HandshakeReason
    match alert := alert_of(words):
        case "unknown_ca":
            return Diagnosis(reason.CLIENT_REJECTED_CA, words, _TRUST, alert)
        case "bad_certificate" | "certificate_unknown":
            # Go, Java, NSS and Schannel say so for a CA that they don't know; so do pins.
            return Diagnosis(
                reason.CLIENT_REJECTED_CA, words, f"{_TRUST}; if it has it, the client pins: use passthrough", alert
            )
        case "certificate_expired" | "certificate_revoked" | "unsupported_certificate" | "access_denied":
            return Diagnosis(
                reason.CLIENT_REJECTED_CERTIFICATE, words, f"{_PIN}; compare clocks, or use passthrough", alert
            )
        case "protocol_version":
            return Diagnosis(reason.CLIENT_VERSION, words, "the client speaks neither TLS 1.2 nor 1.3", alert)
        case "handshake_failure" | "insufficient_security":
            return Diagnosis(
                reason.CLIENT_CIPHERS, words, "the client has no cipher suite in common with the sidecar", alert
            )
        case str():
            return Diagnosis(reason.CLIENT_OTHER, words, "the alert says what the client objected to", alert)
        case None:
            pass
    if words.startswith("Cannot parse ClientHello"):
        return Diagnosis(reason.CLIENT_HELLO, "the ClientHello can't be parsed", "the client sent no valid TLS")
    if _HUNG_UP.search(words):
        if answered:
            return _hung_up_on_the_certificate(words)
        return Diagnosis(
            reason.CLIENT_CLOSED,
            words,
            "the client hung up before it was answered: it gave up, or was stopped",
            suspected=True,
        )
    if re.search(r"unsupported protocol|version too low|cannot agree on a TLS version", words):
        return Diagnosis(reason.CLIENT_VERSION, words, "the client speaks neither TLS 1.2 nor 1.3")
    if "no shared cipher" in words or "no suitable" in words:
        return Diagnosis(reason.CLIENT_CIPHERS, words, "the client has no cipher suite in common with the sidecar")
    return Diagnosis(reason.CLIENT_OTHER, words, "see detail")


def _hung_up_on_the_certificate(words: str) -> Diagnosis:
    hint = f"the client hung up on the certificate without an alert: perhaps {_TRUST}; or it pins, or gave up"
    return Diagnosis(HandshakeReason.CLIENT_REJECTED_CA, words, hint, suspected=True)


def established_but_unused(alert_words: str | None) -> Diagnosis:
    """The handshake was completed, then the client left without a byte: in order, as a pin does, or not."""
    alert = alert_of(alert_words) if alert_words is not None else None
    if alert_words is not None and alert is not None and alert != "close_notify":
        return diagnose_client(alert_words)
    if alert is None:
        # As Node does under TLS 1.2, which looks at the certificate after the handshake.
        return _hung_up_on_the_certificate("the client completed the handshake and hung up without sending a byte")
    return Diagnosis(
        HandshakeReason.CLIENT_CLOSED_AFTER_HANDSHAKE,
        "the client completed the handshake and closed the connection in order, without sending a byte",
        f"perhaps {_PIN}; if so, use passthrough for this host",
        suspected=True,
    )


def diagnose_server(words: str, *, accept: str | None = None) -> Diagnosis:
    """
    The upstream's handshake failed with these words of OpenSSL or mitmproxy, or ours.

    Args:
        accept: What the policy could accept, by its word there; None if nothing can be.
    """
    reason = HandshakeReason
    if verify := re.search(r"[Cc]ertificate verify failed: (.+)", words):
        why = verify.group(1)
        if "mismatch" in why:
            return Diagnosis(reason.UPSTREAM_NAME, words, "the upstream's certificate is for another name")
        return Diagnosis(reason.UPSTREAM_CERTIFICATE, words, _hint_on_certificate(why, accept))
    alert = alert_of(words)
    if "cannot agree on a TLS version" in words or "unsupported protocol" in words or alert == "protocol_version":
        return Diagnosis(
            reason.UPSTREAM_VERSION, words, "the upstream speaks neither TLS 1.2 nor 1.3", alert or "protocol_version"
        )
    if "does not speak TLS" in words or "wrong version number" in words:
        return Diagnosis(reason.UPSTREAM_NOT_TLS, words, "the upstream doesn't speak TLS on this port")
    if alert in ("handshake_failure", "insufficient_security"):
        return Diagnosis(reason.UPSTREAM_CIPHERS, words, _NO_CIPHERS, alert)
    if alert in _OF_OUR_CERTIFICATE:
        return Diagnosis(reason.UPSTREAM_CLIENT_CERTIFICATE, words, _CLIENT_CERTIFICATE, alert)
    if "connection closed" in words or "unexpected eof" in words.lower():
        return Diagnosis(reason.UPSTREAM_CLOSED, words, "the upstream hung up during the handshake", suspected=True)
    return Diagnosis(reason.UPSTREAM_OTHER, words, "see detail", alert)


def _hint_on_certificate(why: str, accept: str | None) -> str:
    if accept is not None:
        return f"if that is meant, an entry of the policy's upstreams may say accept: [{accept}] for this host"
    if "revoked" in why:
        return "who issued the certificate has taken it back; the upstream needs another one"
    if "CRL" in why:
        return "the crl of the policy's upstreams must hold a current list of every CA of the chain, the root included"
    if any(word in why for word in ("parsed", "issuer excludes", "has expired", "not yet valid")):
        return "the upstream needs another certificate; there is no option against this"
    return (
        "the upstream's chain doesn't verify; a private root (the certificate that is its own issuer) is given with "
        "--add-upstream-ca, or add_roots in the policy's upstreams"
    )
