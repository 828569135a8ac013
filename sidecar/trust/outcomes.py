"""What a client said, and what that means: trust, its lack, or something that has to do with neither."""

import re
from dataclasses import dataclass
from enum import StrEnum

from sidecar.trust.clients import Client


class Outcome(StrEnum):
    """What became of a client's one request."""

    TRUSTED = "trusted"
    UNTRUSTED = "not trusted"
    BYPASSED = "goes around"  # NO_PROXY sends it past the sidecar
    DENIED = "denied"
    UNREACHABLE = "can't connect"
    TIMED_OUT = "timed out"
    FAILED = "failed"  # before or beside TLS: that is about the client


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a client's run has brought: its exit code (None: it was stopped), standard output and error as one text."""

    code: int | None
    text: str


# Words of the TLS libraries: OpenSSL, GnuTLS, NSS, Go, rustls, Java, Node, curl, and what is said of a missing file.
_UNTRUSTED = re.compile(
    r"certificate verif\w+ (failed|error)|in the certificate verification|SSL certificate problem|x509: "
    r"|unable to (get|verify) .{0,30}certificate|self[- ]signed cert|SELF_SIGNED_CERT|UNABLE_TO_(VERIFY|GET_ISSUER)"
    r"|unknown authority|UnknownIssuer|invalid peer certificate|PKIX path|valid certification path|ERR_CERT_"
    r"|certificate .{0,60}not trusted|doesn't have a known issuer|CERTIFICATE_VERIFY_FAILED"
    r"|UntrustedRoot|PartialChain|trustAnchors parameter must be non-empty"
    r"|error setting certificate|TLS CA certificate (bundle|file)|error adding trust anchors|loading cafile"
    r"|problem with the SSL CA cert",
    re.IGNORECASE,
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_DENIED = re.compile(r"Refused by the egress sidecar|\b403\b|\b407\b|ERR_TUNNEL_CONNECTION_FAILED", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"could not resolve|not known|no such host|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|connection (was )?(refused|"
    r"reset)|unreachable|failed to connect|couldn't connect|can't connect|timed? ?out|UnknownHost|ConnectException|"
    r"ERR_(NAME_NOT|CONNECTION|PROXY)|unable to resolve|name resolution",
    re.IGNORECASE,
)


def outcome(client: Client, said: Said) -> Outcome:
    """Tell trust from its lack, and both from what has nothing to do with it."""
    if client.proof and re.search(client.proof, said.text, re.MULTILINE):
        return Outcome.TRUSTED
    if said.code == 0 and not client.proof:
        return Outcome.TRUSTED
    for pattern, found in (
        (_UNTRUSTED, Outcome.UNTRUSTED),
        (_DENIED, Outcome.DENIED),
        (_UNREACHABLE, Outcome.UNREACHABLE),
    ):
        if pattern.search(said.text):
            return found
    return Outcome.TIMED_OUT if said.code is None else Outcome.FAILED


def plain(text: str) -> str:
    """Without what a terminal would obey: a workload chooses its variables and what its programs say."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in _COLOUR.sub("", text))


def words(text: str) -> str:
    """The line that says most of what went wrong: the first with a word for it, else the last."""
    if (problem := re.search(r'"detail":"([^"]*)"', text)) is not None:
        return problem[1]  # the sidecar's own words
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|fail|unable|refus|cannot|can't|not ", line, re.IGNORECASE)]
    line = telling[0] if telling else lines[-1] if lines else ""
    return line if len(line) <= 160 else line[:159] + "…"
