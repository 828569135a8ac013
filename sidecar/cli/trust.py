"""``sidecar trust``: each part of what a workload is told to trust, alone."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sidecar import files
from sidecar.bootstrap import remove_stale, write_trust
from sidecar.cli.trust_doctor import doctor
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
from sidecar.errors import CannotRun
from sidecar.render.documents import dump
from sidecar.trust.anchors import Anchors, certificates_only
from sidecar.trust.bundle import trust_bundle
from sidecar.trust.configmap import Wanted, config_maps, parse_label
from sidecar.trust.env_formats import Format, env_text
from sidecar.trust.hashed_dir import SYSTEM_BUNDLE, hashed_directory
from sidecar.trust.keystore import jks, pkcs12
from sidecar.trust.layouts import Family, layout, stores
from sidecar.trust.load import CERTIFI, Sources, load_anchors

app = typer.Typer(help="What the workload is told to trust, part by part.", no_args_is_help=True)

Ca = Annotated[
    Path,
    typer.Option(
        "--ca", envvar="EGRESS_TRUST_CA", metavar="FILE", help="The session CA's root: ca.pem of the trust folder."
    ),
]
_CA = Path("/etc/egress/trust/ca.pem")
OutFile = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Default: standard output.")]
OutFolder = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder; made if it isn't there.")]


class StoreType(StrEnum):
    PKCS12 = "pkcs12"
    JKS = "jks"


@app.callback()
def _group() -> None:
    pass


@app.command()
def bundle(
    ca: Ca = _CA,
    roots: Roots = CERTIFI,
    keep: Keep = None,
    add: Add = None,
    also: Also = None,
    only: Only = False,
    out: OutFile = None,
) -> None:
    """Write the bundle: the public roots and the session CA, in PEM."""
    _write(trust_bundle(_anchors(ca, sources(roots, keep, add, also, only)).all), out)


@app.command()
def hashed(
    out: OutFolder,
    ca: Ca = _CA,
    roots: Roots = CERTIFI,
    keep: Keep = None,
    add: Add = None,
    also: Also = None,
    only: Only = False,
) -> None:
    """Write a directory as OpenSSL wants it: to be mounted over /etc/ssl/certs, or for SSL_CERT_DIR."""
    _write_folder(hashed_directory(_anchors(ca, sources(roots, keep, add, also, only)).all), out)


@app.command()
def keystore(
    ca: Ca = _CA,
    type_: Annotated[StoreType, typer.Option("--type", help="PKCS#12, or Java's own.")] = StoreType.PKCS12,
    password: Password = PASSWORD,
    no_password: NoPassword = False,
    roots: Roots = CERTIFI,
    keep: Keep = None,
    add: Add = None,
    also: Also = None,
    only: Only = False,
    out: OutFile = None,
) -> None:
    """Write Java's trust store."""
    make = jks if type_ is StoreType.JKS else pkcs12
    secret = keystore_password(password, no_password)
    _write(make(_anchors(ca, sources(roots, keep, add, also, only)).all, secret), out)


@app.command(name="layout")
def layout_(
    family: Annotated[Family, typer.Argument(help="Whose paths.")],
    out: OutFolder,
    ca: Ca = _CA,
    password: Password = PASSWORD,
    no_password: NoPassword = False,
    roots: Roots = CERTIFI,
    keep: Keep = None,
    add: Add = None,
    also: Also = None,
    only: Only = False,
) -> None:
    """Write the files in which a distribution keeps what it trusts, below DIR as below / in its images."""
    secret = keystore_password(password, no_password)
    _write_folder(layout(family, stores(_anchors(ca, sources(roots, keep, add, also, only)), secret)), out)


@app.command()
def env(
    form: Annotated[Format, typer.Option("--format", "-f", help="Who is going to read it.")] = Format.SHELL,
    mount: Annotated[
        Path, typer.Option(envvar="EGRESS_TRUST_MOUNT", help="Where the workload finds the trust folder.")
    ] = _CA.parent,
    password: Password = PASSWORD,
    no_password: NoPassword = False,
) -> None:
    """Print the variables that lead clients to the trust folder."""
    sys.stdout.write(env_text(form, mount, keystore_password(password, no_password)))


@app.command()
def configmap(
    ca: Ca = _CA,
    name: Annotated[str, typer.Option(help="Of the bundle's; the session CA's has -only behind it.")] = "egress-trust",
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Of both.")] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Of both. Repeatable.")
    ] = None,
    key: Annotated[str, typer.Option(help="Of the bundle.")] = SYSTEM_BUNDLE,
    keystores: Annotated[bool, typer.Option("--keystores", help="With Java's trust stores beside the bundle.")] = False,
    password: Password = PASSWORD,
    no_password: NoPassword = False,
    roots: Roots = CERTIFI,
    keep: Keep = None,
    add: Add = None,
    also: Also = None,
    only: Only = False,
) -> None:
    """Print two ConfigMaps, for `kubectl apply --server-side -f -`: the bundle, and OpenSSL's directory of one CA."""
    wanted = Wanted(
        name=name,
        namespace=namespace,
        labels=dict(parse_label(text) for text in label or ()),
        key=key,
        keystores=keystores,
        password=keystore_password(password, no_password),
    )
    sys.stdout.write(dump(config_maps(_anchors(ca, sources(roots, keep, add, also, only)), wanted)))


app.command(short_help="Say which clients here trust the session CA, and what the others need.")(doctor)


def _anchors(ca: Path, sources: Sources) -> Anchors:
    try:
        session = certificates_only(ca.read_bytes(), str(ca))
    except OSError as e:
        raise CannotRun(f"{ca}: {e.strerror}; name the session CA's certificate with --ca") from None
    anchors, warnings = load_anchors(session, sources, datetime.now(UTC))
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    return anchors


def _write(content: bytes, out: Path | None) -> None:
    if out is None:
        sys.stdout.buffer.write(content)
    else:
        files.write_file(out, content, files.PUBLIC)


def _write_folder(content: Mapping[str, bytes], out: Path) -> None:
    written, unchanged = write_trust(out, content)
    removed = remove_stale(out, content)
    typer.echo(f"{out}: {len(written)} files written, {len(removed)} removed, {len(unchanged)} were current")
