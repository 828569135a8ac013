"""DNS questions and resource records as values: types, classes, response codes, and how they are written."""

from dataclasses import dataclass
from enum import IntEnum

IN = 1  # the only class that is answered (RFC 1035, section 3.2.4)


class Type(IntEnum):
    """The record types that are treated each in its own way; any other is a plain number."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    HINFO = 13
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    DNAME = 39
    OPT = 41
    TKEY = 249
    TSIG = 250
    IXFR = 251
    AXFR = 252
    MAILB = 253
    MAILA = 254
    ANY = 255
    SVCB = 64
    HTTPS = 65
    CAA = 257


class Rcode(IntEnum):
    """Response codes (RFC 1035, section 4.1.1)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


ADDRESS_TYPES: dict[int, int] = {Type.A: 4, Type.AAAA: 6}  # to the IP version
# About the message or the zone, not about a name: no data is ever found under them (RFC 6895, section 3.1).
META_TYPES = frozenset(
    {Type.OPT, Type.TKEY, Type.TSIG, Type.IXFR, Type.AXFR, Type.MAILB, Type.MAILA},
)


def type_name(number: int) -> str:
    """``AAAA`` or, where it has no name here, ``TYPE65280`` (RFC 3597, section 5)."""
    try:
        return Type(number).name
    except ValueError:
        return f"TYPE{number}"


@dataclass(frozen=True, slots=True)
class Question:
    """One question, as the workload asked it."""

    name: str  # any case, with or without trailing dot; "" is the root
    type: int
    class_: int = IN


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record of class IN."""

    name: str  # its owner, without trailing dot
    type: int
    ttl: int  # seconds
    data: bytes  # RDATA as on the wire, names in it uncompressed
