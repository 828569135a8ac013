"""The distributions' own paths, and that their readers take what is there."""

from pathlib import Path

import pytest

from sidecar.pki import issue_session_ca
from sidecar.pki.pem import certificates_in
from sidecar.trust import Anchors, public_roots
from sidecar.trust.hashed_dir import HASHED_NAME
from sidecar.trust.layouts import Family, layout, stores
from tests.pki.authorities import NOW
from tests.trust.roots import der, listing, tool, write

CA = issue_session_ca(common_name="session-7", now=NOW)
STORES = stores(Anchors(session=(CA.root,), public=public_roots()))
EVERYBODY = {*map(der, public_roots()), der(CA.root)}


@pytest.mark.parametrize(
    ("family", "paths"),
    [
        (Family.DEBIAN, {"etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/java/cacerts"}),
        (Family.ALPINE, {"etc/ssl/cert.pem", "etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/java/cacerts"}),
        (
            Family.RHEL,
            {
                "etc/pki/tls/cert.pem",
                "etc/pki/tls/certs/ca-bundle.crt",
                "etc/pki/tls/certs/ca-bundle.trust.crt",
                "etc/pki/java/cacerts",
                "etc/pki/ca-trust/extracted/java/cacerts",
                "etc/pki/ca-trust/extracted/openssl/ca-bundle.trust.crt",
                "etc/pki/ca-trust/extracted/pem/directory-hash/ca-certificates.crt",
                "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
            },
        ),
        (Family.DISTROLESS, {"etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/java/cacerts"}),
    ],
)
def test_the_paths_are_those_of_the_distribution(family: Family, paths: set[str]) -> None:
    made = layout(family, STORES)

    hashed = {path for path in made if HASHED_NAME.match(path.rpartition("/")[2])}
    assert set(made) - hashed == paths
    assert len(hashed) == (0 if family is Family.DISTROLESS else len(EVERYBODY))


@pytest.mark.parametrize("family", Family)
def test_every_bundle_and_every_keystore_holds_everybody(tmp_path: Path, family: Family) -> None:
    for path, content in layout(family, STORES).items():
        if path.endswith("cacerts"):
            assert content == STORES.cacerts
        elif not HASHED_NAME.match(path.rpartition("/")[2]) and "trust.crt" not in path:
            assert set(map(der, certificates_in(content, path))) == EVERYBODY


def test_openssl_reads_whom_rhel_trusts_for_servers_alone(tmp_path: Path) -> None:
    made = layout(Family.RHEL, stores(Anchors(session=(CA.root,))))
    write(tmp_path, {"trusted.pem": made["etc/pki/tls/certs/ca-bundle.trust.crt"]})

    said = tool("openssl", "x509", "-text", "-in", tmp_path / "trusted.pem")

    assert "Trusted Uses:\n  TLS Web Server Authentication" in said
    assert certificates_in(said.encode(), "openssl") == (CA.root,)


def test_openssl_reads_every_certificate_of_rhel_s_trusted_bundle(tmp_path: Path) -> None:
    write(tmp_path, {"trusted.pem": layout(Family.RHEL, STORES)["etc/pki/tls/certs/ca-bundle.trust.crt"]})

    said = tool("openssl", "storeutl", "-noout", "-certs", tmp_path / "trusted.pem")

    assert f"Total found: {len(EVERYBODY)}" in said


@pytest.mark.parametrize("family", Family)
def test_a_verifier_finds_the_session_ca_in_the_mounted_folder(tmp_path: Path, family: Family) -> None:
    write(tmp_path, layout(family, STORES))
    write(tmp_path, {"ca.pem": CA.root_pem()})
    verify = ["openssl", "verify", "-attime", str(int(NOW.timestamp())), "-no-CAstore"]

    for bundle in (path for path in listing(tmp_path) if path.endswith(("ca-certificates.crt", "ca-bundle.crt"))):
        tool(*verify, "-no-CApath", "-CAfile", tmp_path / bundle, tmp_path / "ca.pem")
        if family is not Family.DISTROLESS and bundle.endswith("ca-certificates.crt"):
            tool(*verify, "-no-CAfile", "-CApath", (tmp_path / bundle).parent, tmp_path / "ca.pem")
