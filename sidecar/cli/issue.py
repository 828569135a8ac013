"""``sidecar issue``: a certificate of this pod's own, made in an init container."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from sidecar import files
from sidecar.cli.options import words
from sidecar.errors import SidecarError
from sidecar.hardening import harden
from sidecar.hosts import Host, HostError, IPAddress, parse_host
from sidecar.issue import CERTIFICATE, Order, Report
from sidecar.issue import issue as run
from sidecar.pki.held import names_in
from sidecar.pki.pod_names import CLUSTER_DOMAIN, Pod, hosts_of
from sidecar.pki.serving import KeyType, Usage, Wish

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def issue(
    ca_dir: Annotated[
        Path, typer.Option(help="Folder with the CA and its key; mounted here alone.", envvar="EGRESS_CA_DIR")
    ] = Path("/etc/egress/ca"),
    out: Annotated[
        Path, typer.Option(help="Folder for tls.crt, tls.key and ca.crt.", envvar="EGRESS_ISSUE_OUT", metavar="FOLDER")
    ] = Path("/etc/egress/tls"),
    pod_ip: Annotated[
        list[str] | None,
        typer.Option(
            envvar=["POD_IPS", "POD_IP"], metavar="ADDRESS", help="The pod's addresses (status.podIPs). Several."
        ),
    ] = None,
    pod_name: Annotated[str | None, typer.Option(envvar="POD_NAME", metavar="NAME", help="metadata.name.")] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", envvar="POD_NAMESPACE", metavar="NAME", help="metadata.namespace."),
    ] = None,
    service: Annotated[
        list[str] | None,
        typer.Option(
            envvar="EGRESS_ISSUE_SERVICES", metavar="NAME", help="A Service of the namespace that leads here. Several."
        ),
    ] = None,
    subdomain: Annotated[
        str | None,
        typer.Option(envvar="POD_SUBDOMAIN", metavar="NAME", help="spec.subdomain: a StatefulSet's serviceName."),
    ] = None,
    hostname: Annotated[
        str | None,
        typer.Option(
            envvar=["POD_HOSTNAME", "HOSTNAME"], metavar="NAME", help="With --subdomain. Default: the pod's name."
        ),
    ] = None,
    cluster_domain: Annotated[
        str, typer.Option(envvar="EGRESS_CLUSTER_DOMAIN", metavar="NAME", help="The cluster's own domain.")
    ] = CLUSTER_DOMAIN,
    name: Annotated[
        list[str] | None,
        typer.Option(envvar="EGRESS_ISSUE_NAMES", metavar="HOST", help="Another name of this pod, whole. Several."),
    ] = None,
    ip: Annotated[
        list[str] | None,
        typer.Option(envvar="EGRESS_ISSUE_IPS", metavar="ADDRESS", help="Another address of this pod. Several."),
    ] = None,
    usage: Annotated[
        Usage, typer.Option(envvar="EGRESS_ISSUE_USAGE", help="To be connected to, to connect with, or both.")
    ] = Usage.BOTH,
    key_type: Annotated[
        KeyType, typer.Option(envvar="EGRESS_ISSUE_KEY_TYPE", help="rsa-2048 for what reads no other.")
    ] = KeyType.P256,
    days: Annotated[
        int,
        typer.Option(envvar="EGRESS_ISSUE_DAYS", min=1, max=825, help="Validity; less if the CA ends before."),
    ] = 90,
    key_mode: Annotated[
        str, typer.Option(envvar="EGRESS_ISSUE_KEY_MODE", metavar="MODE", help="0600; 0640 for a pod with an fsGroup.")
    ] = "0600",
    owner: Annotated[
        str | None,
        typer.Option(
            envvar="EGRESS_ISSUE_OWNER", metavar="UID:GID", help="Of the files, if not this user; needs CHOWN."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make a new pair, whatever is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
) -> None:
    """
    Make this pod's own key and certificate, signed by the CA in --ca-dir; run again, it keeps a pair that is good.

    For an init container: the CA is mounted there alone, and is out of reach when the workload starts. What other
    issuers or people have put into --out is never written over without --force.
    """
    harden()  # from here on, the CA's key is in this process's memory
    pod = Pod(
        addresses=tuple(_address(word, "--pod-ip") for word in words(pod_ip)),
        name=pod_name or None,
        namespace=namespace or None,
        services=tuple(words(service)),
        hostname=hostname or None,
        subdomain=subdomain or None,
        cluster_domain=cluster_domain,
        extra=(
            *(_name(word) for word in words(name)),
            *(Host(str(address), address) for address in (_address(word, "--ip") for word in words(ip))),
        ),
    )
    order = Order(
        ca_dir=ca_dir,
        out=out,
        wish=Wish(hosts=hosts_of(pod), usage=usage, key_type=key_type, validity=timedelta(days=days)),
        key_mode=_mode(key_mode),
        owner=_owner(owner) if owner else None,
        force=force,
    )
    report = run(order, datetime.now(UTC))
    typer.echo(as_object(report, order) if as_json else as_text(report, order))
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)


def as_object(report: Report, order: Order) -> str:
    """The report as one line of JSON; times in RFC 3339, UTC."""
    certificate = report.serving.certificate
    return json.dumps(
        {
            "certificate": report.state,
            "because": report.because,
            "names": sorted(names_in(certificate)),
            "usage": order.wish.usage,
            "issuer": report.ca.common_name,
            "fingerprint_sha256": report.serving.fingerprint(),
            "not_before": f"{certificate.not_valid_before_utc:{_TIME}}",
            "not_after": f"{certificate.not_valid_after_utc:{_TIME}}",
            "written": [str(path) for path in report.written],
            "unchanged": [str(path) for path in report.unchanged],
            "warnings": list(report.warnings),
        }
    )


def as_text(report: Report, order: Order) -> str:
    """The report for people."""
    because = f" because {report.because}" if report.because else ""
    until = f"{report.serving.certificate.not_valid_after_utc:{_TIME}}"
    return "\n".join(
        [
            f"{report.state} {order.out / CERTIFICATE}{because}: by {report.ca.common_name!r}, valid until {until}",
            *(f"for {host}" for host in order.wish.hosts),
            *(f"wrote {path}" for path in report.written),
            *([] if report.written else ["everything was current"]),
        ]
    )


def _address(text: str, option: str) -> IPAddress:
    try:
        address = parse_host(text).address
    except HostError:
        address = None
    if address is None:
        raise SidecarError(f"{option} {text!r} is no address; write '10.1.2.3' or 'fd00::3', and names with --name")
    return address


def _name(text: str) -> Host:
    if text.startswith("*"):
        raise SidecarError(
            f"--name {text!r} would be a certificate for other pods, too; name this one, as --subdomain does "
            "for a StatefulSet"
        )
    host = parse_host(text)
    if host.is_address:
        raise SidecarError(f"--name {text!r} is an address; give it with --ip")
    return host


def _mode(text: str) -> int:
    mode = int(text, 8) if re.fullmatch(r"[0-7]{3,4}", text) else -1
    if mode & 0o400 == 0 or mode & ~0o640:
        raise SidecarError(
            f"--key-mode {text!r} isn't for a private key; write 0600, or 0640 for a group that reads it"
        )
    return mode


def _owner(text: str) -> files.Owner:
    found = re.fullmatch(r"([0-9]{1,10})(?::([0-9]{1,10}))?", text)
    owner = (int(found[1]), int(found[2] or found[1])) if found else (-1, -1)
    if not all(0 <= number < 2**32 - 1 for number in owner):
        raise SidecarError(f"--owner {text!r} isn't UID or UID:GID; write numbers, as '20000:20000'")
    return owner
