"""Options that say whom a workload is to trust: `sidecar bootstrap` and each part of `sidecar trust` have them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sidecar.trust.keystore import PASSWORD, checked_password
from sidecar.trust.load import Sources

Roots = Annotated[
    str,
    typer.Option(
        "--roots",
        envvar="EGRESS_TRUST_ROOTS",
        metavar="certifi|system|FILE",
        help="The public roots: Mozilla's by default.",
    ),
]
Keep = Annotated[
    list[Path] | None,
    typer.Option("--keep", metavar="FILE", help="A bundle that the workload has had: stays trusted. Repeatable."),
]
Add = Annotated[list[Path] | None, typer.Option("--add", metavar="FILE", help="A bundle of more roots. Repeatable.")]
Also = Annotated[
    list[Path] | None,
    typer.Option("--also", metavar="OLD", help="A former session CA, while clients go over to the new. Repeatable."),
]
Only = Annotated[bool, typer.Option("--only", help="Trust the session CA and nobody else.")]
Password = Annotated[
    str,
    typer.Option(
        "--keystore-password",
        envvar="EGRESS_KEYSTORE_PASSWORD",
        metavar="TEXT",
        help="Of Java's trust stores. It keeps nothing secret.",
    ),
]
NoPassword = Annotated[bool, typer.Option("--no-keystore-password", help="Java's trust stores have none.")]


def sources(
    roots: str, keep: Sequence[Path] | None, add: Sequence[Path] | None, also: Sequence[Path] | None, only: bool
) -> Sources:
    """The options as one value."""
    return Sources(roots=roots, keep=tuple(keep or ()), add=tuple(add or ()), also=tuple(also or ()), only=only)


def keystore_password(password: str, none: bool) -> str | None:
    """
    The password, or None for no password.

    Raises:
        TrustError: It can't be one.
    """
    return None if none else checked_password(password)


__all__ = ["PASSWORD", "Add", "Also", "Keep", "NoPassword", "Only", "Password", "Roots", "keystore_password", "sources"]
