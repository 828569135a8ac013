"""The names and paths that the load asks for. Every name leads to loopback, in every proxy, without a resolver."""

from typing import Final

DOMAIN: Final = "bench.test"
KNOWN: Final = f"known.{DOMAIN}"
PASSED: Final = f"passed.{DOMAIN}"  # its TLS is forwarded unopened
NAMES: Final = 1000  # that the upstream answers to, besides

BODY_BYTES: Final = 1024
BODY: Final = b"x" * BODY_BYTES
SMALL: Final = "/1k"
BIG: Final = "/big"
DENIED: Final = "/denied"

# mitmproxy's certificate store holds 100 names, and each beyond costs it 2 ms more: a defect that shall not flatter us.
CONTACTS: Final = 90


def contacts(number: int) -> list[str]:
    """Names that a proxy which was started for round *number* has never seen; another round has others."""
    first = number * CONTACTS % (NAMES - NAMES % CONTACTS)
    return [f"host{n}.{DOMAIN}" for n in range(first, first + CONTACTS)]
