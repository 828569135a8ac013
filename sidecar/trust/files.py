"""The trust folder, whole: every part in the form in which some client reads it."""

from pathlib import PurePath
from typing import Final

from sidecar.pki.pem import to_pem
from sidecar.trust.anchors import Anchors
from sidecar.trust.bundle import trust_bundle
from sidecar.trust.env import BUNDLE, CA, JKS, PKCS12
from sidecar.trust.env_formats import env_files
from sidecar.trust.hashed_dir import hashed_directory
from sidecar.trust.keystore import PASSWORD, jks, pkcs12
from sidecar.trust.layouts import Family, layout, stores

CERTS: Final = "certs"  # everybody, as OpenSSL wants it
ONLY: Final = "only"  # the session CA alone, as OpenSSL wants it
LAYOUTS: Final = "layouts"


def client_files(anchors: Anchors, password: str | None = PASSWORD) -> dict[str, bytes]:
    """What the variables lead to: ``ca.pem``, ``bundle.pem``, ``truststore.p12``, ``truststore.jks``."""
    return {
        CA: to_pem(anchors.session),
        BUNDLE: trust_bundle(anchors.all),
        PKCS12: pkcs12(anchors.all, password),
        JKS: jks(anchors.all, password),
    }


def trust_files(
    anchors: Anchors, mount: PurePath, *, password: str | None = PASSWORD, layouts: bool = True
) -> dict[str, bytes]:
    """
    Make the files that a workload is given.

    Args:
        anchors: Whom it is to trust.
        mount: Where the workload will find the folder; absolute.
        password: Of the keystores; None for none.
        layouts: Whether the distributions' folders are wanted: they are most of the size.

    Returns:
        Paths in the folder to contents. ``client_files``, the variables in five forms, ``certs/`` and ``only/`` hashed,
        ``layouts/<family>/``. No file holds a key. The same input makes the same bytes.

    Raises:
        TrustError: *mount* can't be written into variables.
    """
    made = stores(anchors, password)
    folders = {CERTS: made.hashed, ONLY: hashed_directory(anchors.session)}
    if layouts:
        folders |= {f"{LAYOUTS}/{family}": layout(family, made) for family in Family}
    below = {f"{folder}/{name}": data for folder, content in folders.items() for name, data in content.items()}
    return client_files(anchors, password) | env_files(mount, password) | below
