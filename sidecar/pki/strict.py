"""What an upstream's chain is refused for although OpenSSL verifies it."""

from collections.abc import Iterable

from cryptography import x509


def objection(chain: Iterable[x509.Certificate]) -> str | None:
    """
    Say what is wrong with a chain that OpenSSL has verified.

    Args:
        chain: The leaf first, then its issuers.

    Returns:
        None, or why the chain is refused: an extension of the leaf that can't be parsed (OpenSSL ignores those that
        it doesn't need), or a wildcard name that stands for names which an issuer's constraints exclude
        (CVE-2025-61727 in Go; OpenSSL compares the wildcard as if it were a label).

    RFC 5280, sections 4.2 and 4.2.1.10.
    """
    leaf, *issuers = chain
    try:
        extensions = list(leaf.extensions)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        return f"an extension of the certificate can't be parsed: {e}"
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
        constraints = issuer.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return []
    subtrees = constraints.excluded_subtrees or ()
    return [name.value.lower().removeprefix(".") for name in subtrees if isinstance(name, x509.DNSName)]
