"""The names that the load asks for. All of them lead to loopback, in both proxies, without a resolver."""

from typing import Final

DOMAIN: Final = "bench.test"
KNOWN: Final = f"known.{DOMAIN}"
BODY_BYTES: Final = 1024

# mitmproxy's certificate store holds 100 names, and each beyond costs it 2 ms more: a defect that shall not flatter us.
CONTACTS: Final = 90


def contacts() -> list[str]:
    """Names that a freshly started proxy has never seen."""
    return [f"host{number}.{DOMAIN}" for number in range(CONTACTS)]
