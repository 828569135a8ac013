"""``sidecar bootstrap``: make the session CA and the trust folder."""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from sidecar.bootstrap import Order, Report
from sidecar.bootstrap import bootstrap as run
from sidecar.cli.trust_options import (
    PASSWORD,
    Add,
    Also,
    Keep,
    NoPassword,
    Only,
    Password,
    Roots,
    keystore_password,
    sources,
)
from sidecar.pki.coverage import constraints_for
from sidecar.pki.session_ca import ORGANIZATION
from sidecar.policy import load_policy
from sidecar.trust.load import CERTIFI


def bootstrap(
    common_name: Annotated[
        str, typer.Option(help="Common name of the CA, usually the session's id.", envvar="EGRESS_COMMON_NAME")
    ],
    ca_dir: Annotated[
        Path, typer.Option(help="Folder for the CA and its key; only the sidecar may see it.", envvar="EGRESS_CA_DIR")
    ] = Path("/etc/egress/ca"),
    trust_dir: Annotated[
        Path, typer.Option(help="Folder for what the workload trusts; never a key.", envvar="EGRESS_TRUST_DIR")
    ] = Path("/etc/egress/trust"),
    trust_mount: Annotated[
        Path | None,
        typer.Option(help="Where the workload will find the trust folder, if elsewhere.", envvar="EGRESS_TRUST_MOUNT"),
    ] = None,
    validity_hours: Annotated[
        int, typer.Option(help="Validity of a new CA, from now.", envvar="EGRESS_VALIDITY_HOURS", min=1, max=876_000)
    ] = 24,
    skew_hours: Annotated[
        int,
        typer.Option(
            help="Added before and after, for clocks that disagree.", envvar="EGRESS_SKEW_HOURS", min=0, max=8_760
        ),
    ] = 1,
    organization: Annotated[
        str, typer.Option(help="Organization in the CA's subject.", envvar="EGRESS_ORGANIZATION")
    ] = ORGANIZATION,
    two_tier: Annotated[
        bool,
        typer.Option(
            "--two-tier", envvar="EGRESS_TWO_TIER", help="Sign the CA by a root, and destroy the root's key at once."
        ),
    ] = False,
    constrain_to: Annotated[
        Path | None,
        typer.Option(
            envvar="EGRESS_CONSTRAIN_TO",
            metavar="POLICY",
            help="Have clients accept the CA for the hosts that this policy allows, and for no others.",
        ),
    ] = None,
    roots: Roots = CERTIFI,
    keep: Keep = None,
    add: Add = None,
    also: Also = None,
    only: Only = False,
    password: Password = PASSWORD,
    no_password: NoPassword = False,
    layouts: Annotated[
        bool, typer.Option("--layouts/--no-layouts", help="With or without the distributions' folders (3 MB).")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Make a new CA even if there is one.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
) -> None:
    """Make the session CA and what the workload trusts; run again, it repairs what is missing and keeps a valid CA."""
    order = Order(
        common_name=common_name,
        ca_dir=ca_dir,
        trust_dir=trust_dir,
        trust_mount=trust_mount,
        validity=timedelta(hours=validity_hours),
        skew=timedelta(hours=skew_hours),
        organization=organization,
        two_tier=two_tier,
        constraints=constraints_for(load_policy(constrain_to)) if constrain_to is not None else None,
        force=force,
        sources=sources(roots, keep, add, also, only),
        keystore_password=keystore_password(password, no_password),
        layouts=layouts,
    )
    report = run(order, datetime.now(UTC))
    typer.echo(as_object(report) if as_json else as_text(report, order))
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)


def as_object(report: Report) -> str:
    """The report as one line of JSON; times in RFC 3339, UTC."""
    return json.dumps(
        {
            "ca": report.state,
            "common_name": report.ca.common_name,
            "fingerprint_sha256": report.ca.fingerprint(),
            "not_before": f"{report.ca.not_before:%Y-%m-%dT%H:%M:%SZ}",
            "not_after": f"{report.ca.not_after:%Y-%m-%dT%H:%M:%SZ}",
            "trust_mount": str(report.mount),
            "written": [str(path) for path in report.written],
            "removed": [str(path) for path in report.removed],
            "unchanged": [str(path) for path in report.unchanged],
            "warnings": list(report.warnings),
        }
    )


def as_text(report: Report, order: Order) -> str:
    """The report for people; its last lines are the next step."""
    until = f"{report.ca.not_after:%Y-%m-%dT%H:%M:%SZ}"
    return "\n".join(
        [
            f"{report.state} CA {report.ca.common_name!r}, valid until {until}",
            *_grouped("wrote", report.written, order),
            *_grouped("removed", report.removed, order),
            *([] if report.written or report.removed else ["everything was current"]),
            f"Next: give {order.ca_dir} to the sidecar alone; mount {order.trust_dir} read-only into the workload",
            f"at {report.mount}, and set the variables in {order.trust_dir / 'env'} there.",
        ]
    )


def _grouped(did: str, paths: Collection[Path], order: Order) -> Iterator[str]:
    """One line for each file of either folder, and one for each folder in them."""
    grouped = Counter(_entry(path, order) for path in paths)
    for entry, count in grouped.items():
        yield f"{did} {entry}" if entry in paths else f"{did} {entry}/ ({count} {'file' if count == 1 else 'files'})"


def _entry(path: Path, order: Order) -> Path:
    inside = path.relative_to(order.trust_dir) if path.is_relative_to(order.trust_dir) else None
    return path if inside is None else order.trust_dir / inside.parts[0]
