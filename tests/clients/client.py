"""What a client of the matrix is, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

MARKER: Final = "47.11.815"  # a version, so that package managers print it, too; stands in all that the upstream says


class Trust(StrEnum):
    """What a client is given; the value is part of the host that it asks for."""

    NOTHING = "nothing"  # must fail, or the row shows nothing
    VARIABLES = "variables"
    SYSTEM = "system"
    BOTH = "both"


@dataclass(frozen=True, kw_only=True)
class Client:
    """
    A program that fetches what the upstream serves.

    Attributes:
        name: Its row's; unique.
        tls: The library that verifies for it.
        command: Its command line. ``{url}`` is filled in, ``{host}``, ``{home}`` (fresh, its working directory), and
            as `tests.clients.tools.Tools` knows: ``{python}``, ``{venv}``, ``{modules}``, ``{built}``.
        shows: What it prints once it has read the upstream's answer.
        version: The command that says its version; the first number with a dot in it is taken.
        files: What lies in its home; filled in as well.
        variables: More of its environment, which has nothing to do with trust; filled in as well.
        quick: Whether ``make test`` runs it: with what .ci/run installs for all tests, and within a second or two.
        exception: Why neither variables nor the system's files make it trust; "" where they must.
        proxy_exception: Why it fails with ``HTTPS_PROXY`` though it trusts; "" where it must work.
        note: What else its user wants to know.
    """

    name: str
    tls: str
    command: tuple[str, ...]
    version: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    shows: str = MARKER
    quick: bool = False
    exception: str = ""
    proxy_exception: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """
    What was seen of one client.

    Attributes:
        trusts: Whether it got the upstream's answer; `Trust.NOTHING` isn't in it.
        proxy: Whether it took the way that ``HTTPS_PROXY`` says; else it was redirected. None: it failed.
        problems: Why the row shows nothing, or not what it must.
    """

    client: Client
    version: str
    trusts: Mapping[Trust, bool]
    proxy: bool | None
    problems: tuple[str, ...] = ()
