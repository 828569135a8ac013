"""What a row of the matrix is made of."""

from dataclasses import dataclass
from typing import Final

# A refusal at once, as the kernel spells it: rules of output give EPERM, a reset ECONNREFUSED, an ICMP error EACCES.
REFUSED: Final = ("EPERM", "EACCES", "ECONNREFUSED", "EHOSTUNREACH")
DENIED: Final = ("403 default_deny",)
MISMATCH: Final = ("421 identity_mismatch", "403 identity_mismatch")
MALFORMED: Final = ("400 malformed_request",)
CLOSED: Final = ("closed",)

WITHOUT_RAW: Final = "no NET_RAW"
WITHOUT_ADMIN: Final = "no NET_ADMIN"
WITHOUT_SETUID: Final = "no SETUID"
WITHOUT_TRACING: Final = "no SYS_PTRACE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """
    One attempt.

    Args:
        id: The row's name.
        probe: ``module.function`` below `tests.live.bypass.probes`.
        arguments: What it is called with, behind the row's token; see `Side.places` for what is filled in.
        expected: The answers of which each shows that the attempt was held.
        event: Kind and, where there is one, reason of the event that tells of it; None where the kernel refuses.
        precondition: What the workload must not have, where the row is held by that. Without the fence, the attempt
            is then made by root with all capabilities.
        shown: Whether the matrix also shows what happens within the fence where the precondition isn't met.
        through: Without the fence the row counts if the token arrives at the Internet; or, if this is given, if this
            is the answer.
        arrives: Whether the token may arrive with the fence, too, since the sidecar has judged the request.
        asks_resolver: Whether the sidecar itself asks the Internet's resolver on the way.
    """

    id: str
    probe: str
    arguments: tuple[object, ...] = ()
    expected: tuple[str, ...]
    event: str | None = None
    precondition: str | None = None
    shown: bool = False
    through: str | None = None
    arrives: bool = False
    asks_resolver: bool = False

    @property
    def condition(self) -> str:
        """What the table says of `expected`."""
        return in_words(self.expected)


@dataclass(frozen=True, slots=True)
class Row:
    """What was seen of one vector; the table's columns."""

    id: str
    without: str
    expected: str
    seen: str
    event: str
    problems: tuple[str, ...]  # empty where it was held
    precondition: str = ""


def in_words(expected: tuple[str, ...]) -> str:
    """The answers, with one word for all the kernel's refusals."""
    others = [answer for answer in expected if answer not in REFUSED]
    return " or ".join((["refused"] if len(others) < len(expected) else []) + others)
