"""``sidecar render``: the manifests of one session."""

import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from sidecar.cli.inject import read_text
from sidecar.errors import Exit
from sidecar.inject.config import SidecarDocument
from sidecar.inject.names import Refusal
from sidecar.pki import issue_session_ca
from sidecar.render.documents import dump, read_pod
from sidecar.render.preset import parse_api_address, with_kubernetes_api
from sidecar.render.session import Order, manifests


class CaPlace(StrEnum):
    """Where the session's CA is made."""

    POD = "pod"
    SECRET = "secret"  # noqa: S105 - no password


def render(
    session: Annotated[str, typer.Option(metavar="ID", help="The session's id: part of names, and the CA's name.")],
    policy: Annotated[Path, typer.Option(metavar="FILE", help="The policy.")],
    pod: Annotated[Path, typer.Option(metavar="POD.yaml", help="The Pod as it would be without the sidecar.")],
    image: Annotated[str | None, typer.Option(envvar="EGRESS_IMAGE", help="The sidecar's image.")] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A webhook's configuration, for its `sidecar` settings.")
    ] = None,
    form: Annotated[
        Literal["native", "classic"] | None,
        typer.Option(help="native: Kubernetes 1.29 and later; classic: a container among the others."),
    ] = None,
    profile: Annotated[
        Literal["transparent", "restricted"], typer.Option(help="restricted: no NET_ADMIN, proxy variables instead.")
    ] = "transparent",
    ca: Annotated[
        CaPlace, typer.Option(help="pod: made there, its key never leaves it; secret: made here, and printed.")
    ] = CaPlace.POD,
    validity_hours: Annotated[int, typer.Option(min=1, help="Validity of the CA.")] = 24,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Of all objects.")] = None,
    owner_uid: Annotated[
        str | None, typer.Option(metavar="UID", help="The created Pod's: the other objects are deleted with it.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="KIND", help="Print this kind alone; repeatable.")] = None,
    kubernetes_api: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Let the workload talk to the cluster's API there; repeatable."),
    ] = None,
    probes: Annotated[bool, typer.Option("--probes/--no-probes", help="With or without probes of the sidecar.")] = True,
) -> None:
    """Print everything that one session needs: NetworkPolicy, ConfigMap, Secret with --ca secret, and the Pod."""
    from sidecar.inject.server import ConfigFile

    settings = ConfigFile(config).config.sidecar if config else SidecarDocument()
    changes: dict[str, object] = {"probes": probes and settings.probes}
    if image is not None:
        changes["image"] = image
    settings = settings.model_copy(update=changes)
    now, text = datetime.now(UTC), read_text(policy)
    if kubernetes_api:
        text = with_kubernetes_api(text, str(policy), [parse_api_address(address) for address in kubernetes_api])
    order = Order(
        session=session,
        policy=text,
        pod=read_pod(read_text(pod), str(pod)),
        settings=settings,
        form=form or settings.form,
        profile=profile,
        validity_hours=validity_hours,
        ca=issue_session_ca(common_name=session, now=now, validity=timedelta(hours=validity_hours))
        if ca is CaPlace.SECRET
        else None,
        namespace=namespace,
        owner_uid=owner_uid,
    )
    try:
        made = manifests(order)
    except Refusal as e:
        typer.echo(f"{pod}: {e}", err=True)
        raise typer.Exit(Exit.NO) from None
    wanted = [one for one in made if not only or one["kind"] in only]
    sys.stdout.write(dump(wanted))
