"""What an upstream's chain is refused for although OpenSSL verifies it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509

from sidecar.pki.extensions import extensions_of
from sidecar.policy.upstreams import Accept

LONGEST = timedelta(days=3650)  # ten years: a leaf that is valid for so long or longer is refused


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a chain is refused, and what the policy may accept of it; None: nothing."""

    words: str
    accept: Accept | None = None


def objections(chain: Iterable[x509.Certificate]) -> Iterator[Objection]:
    """
    Say what is wrong with a chain that OpenSSL has verified.

    Args:
        chain: The leaf first, then its issuers.

    Returns:
        What can't be accepted comes first: an extension of the leaf that can't be parsed (OpenSSL ignores those that it
        doesn't need), or a wildcard name that stands for names which an issuer's constraints exclude (CVE-2025-61727 in
        Go; OpenSSL compares the wildcard as if it were a label). Then a leaf that is a CA's, or valid for too long.

    RFC 5280, sections 4.1.2.5, 4.2, 4.2.1.9 and 4.2.1.10.
    """
    leaf, *issuers = chain
    try:
        extensions = list(leaf.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        yield Objection(f"an extension of the certificate can't be parsed: {e}")
        return
    if (reach := _reach(extensions, issuers)) is not None:
        yield Objection(reach)
    if any(isinstance(extension.value, x509.BasicConstraints) and extension.value.ca for extension in extensions):
        yield Objection("the certificate is a CA's, not a server's (basicConstraints CA:TRUE)", Accept.CA_LEAF)
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    if lifetime >= LONGEST:
        words = f"the certificate is valid for {lifetime.days} days; {LONGEST.days} days, ten years, are too many"
        yield Objection(words, Accept.LONG_LIVED)


def _reach(extensions: Iterable[x509.Extension[x509.ExtensionType]], issuers: Iterable[x509.Certificate]) -> str | None:
    wildcards = [
        name[2:].lower()
        for extension in extensions
        if isinstance(extension.value, x509.SubjectAlternativeName)
        for name in extension.value.get_values_for_type(x509.DNSName)
        if name.startswith("*.")
    ]
    if not wildcards:
        return None
    for issuer in issuers:
        for excluded in _excluded(issuer):
            for base in wildcards:
                # "*.example.com" is any name one label below: also the excluded "secret.example.com".
                if excluded == base or excluded.endswith(f".{base}") or base.endswith(f".{excluded}"):
                    return f"the certificate's name *.{base} reaches into {excluded}, which its issuer excludes"
    return None


def _excluded(issuer: x509.Certificate) -> list[str]:
    try:
        constraints = extensions_of(issuer).get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return []
    subtrees = constraints.excluded_subtrees or ()
    return [name.value.lower().removeprefix(".") for name in subtrees if isinstance(name, x509.DNSName)]
