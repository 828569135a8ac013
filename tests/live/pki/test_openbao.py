"""
The PKI of deploy/pki, made by its own commands on a real OpenBao: who may have what signed, which clients accept it.

No API server, controller or kubelet runs here: `tests.live.pki.cluster` plays their part.
"""

import ssl
import urllib.error
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.live import verifiers
from tests.live.pki import api
from tests.live.pki.made import NAMESPACE, SECRET, Pki, certificate
from tests.live.sidecars import running, until
from tests.live.test_upstream_proxy import proxying
from tests.live.upstreams import Root, serving

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

PERMITTED, EXCLUDED = "api.example.com", "api.example.org"
POLICY = """
version: 1
rules:
  - allow: ["api.example.com"]
    ports: [{port}]
network:
  allow_addresses: ["127.0.0.1"]
"""

# The root has the constraints, the intermediate hasn't. To these a root is a key and a name, whatever its certificate
# says, which RFC 5280 leaves to them (section 6.1.1): the sidecar keeps to the constraints, a thief of its key doesn't.
HEED_NO_ROOT = {"Java"}


def test_the_root_is_constrained_and_its_key_stays_inside(pki: Pki) -> None:
    root = certificate(pki.cluster.data("secret", "cert-manager", "egress-roots")["ca.crt"])
    basic = root.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage)
    names = root.extensions.get_extension_for_class(x509.NameConstraints)

    assert basic.critical and usage.critical and names.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 1)
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)
    assert [name.value for name in names.value.permitted_subtrees or ()] == [
        "example.com",
        "example.net",
        "trust.egress.internal",
    ]
    (key,) = api.ask(pki.bao.address, "egress-pki/keys?list=true", pki.bao.token)["data"]["keys"]
    assert "private_key" not in api.ask(pki.bao.address, f"egress-pki/key/{key}", pki.bao.token)["data"]


def intermediate(pki: Pki) -> x509.Certificate:
    return certificate(pki.cluster.data("secret", NAMESPACE, SECRET)["tls.crt"])


def test_the_intermediate_signs_leaves_and_nothing_else(pki: Pki) -> None:
    secret, issued = pki.cluster.data("secret", NAMESPACE, SECRET), intermediate(pki)
    basic = issued.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = issued.extensions.get_extension_for_class(x509.KeyUsage).value

    assert set(secret) == {"tls.crt", "tls.key", "ca.crt"}
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    issued.verify_directly_issued_by(certificate(secret["ca.crt"]))
    assert (issued.not_valid_after_utc - issued.not_valid_before_utc).days == 90


def test_what_is_published_is_certificates_alone(pki: Pki) -> None:
    secret = pki.cluster.data("secret", "cert-manager", "egress-roots")

    assert set(secret) == {"ca.crt"}
    assert b"PRIVATE KEY" not in secret["ca.crt"] + pki.bundle.read_bytes()
    assert secret["ca.crt"].strip() in pki.bundle.read_bytes()


def request(common_name: str = "Egress intermediate") -> dict[str, str]:
    """What cert-manager asks for."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return {"csr": csr.public_bytes(Encoding.PEM).decode(), "common_name": common_name, "ttl": "2160h0m0s"}


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        pytest.param("root/sign-intermediate", {"max_path_length": 1}, id="a longer path"),
        pytest.param("root/sign-intermediate", {"use_csr_values": True}, id="extensions of its own"),
        pytest.param("root/sign-intermediate", {"ttl": "87600h"}, id="ten years"),
        pytest.param("root/sign-intermediate", {"common_name": "Some other CA"}, id="another name"),
        pytest.param("root/sign-intermediate", {"alt_names": "api.example.com"}, id="a name in the SAN"),
        pytest.param("root/sign-intermediate", {"issuer_ref": "default"}, id="a root of its choice"),
        pytest.param("issuer/default/sign-intermediate", {}, id="a root of its choice, by path"),
        pytest.param("sign-verbatim", {}, id="a leaf"),
        pytest.param("root/rotate/exported", {"key_type": "ec"}, id="a root whose key it gets"),
    ],
)
def test_cert_managers_token_is_good_for_its_intermediate_alone(
    pki: Pki, path: str, changes: dict[str, object]
) -> None:
    own = pki.cluster.token(NAMESPACE, "egress-issuer", f"vault://{NAMESPACE}/egress-root")
    token = pki.cluster.login("egress-issuer", own)
    assert api.ask(pki.bao.address, "egress-pki/root/sign-intermediate", token, request())["data"]["certificate"]

    with pytest.raises(urllib.error.HTTPError) as refused:
        api.ask(pki.bao.address, f"egress-pki/{path}", token, request() | changes)

    assert refused.value.code == 403


@pytest.mark.parametrize(
    ("role", "namespace", "account", "audience"),
    [
        pytest.param("egress-issuer", NAMESPACE, "egress-issuer", "https://kubernetes.default.svc", id="its API token"),
        pytest.param("egress-issuer", NAMESPACE, "egress-issuer", "vault://other/egress-root", id="another issuer's"),
        pytest.param("egress-issuer", "cert-manager", "egress-roots", "vault://agents/egress-root", id="another's"),
        pytest.param("egress-roots", NAMESPACE, "egress-issuer", "egress-roots", id="an issuer's, for the roots"),
    ],
)
def test_other_tokens_open_nothing(pki: Pki, role: str, namespace: str, account: str, audience: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        pki.cluster.login(role, pki.cluster.token(namespace, account, audience))

    assert refused.value.code in (400, 403)


def test_the_sidecar_serves_permitted_names_and_no_others(pki: Pki, built: Path, tmp_path: Path) -> None:
    root, roots = Root(tmp_path), pki.roots(tmp_path / "roots.pem")
    with (
        serving(root.context(PERMITTED, EXCLUDED)) as (port, upstream),
        running(
            tmp_path / "sidecar",
            POLICY.format(port=port),
            *("--ca-dir", str(pki.ca_dir), "--upstream-ca", str(root.pem), "--resolve", f"{PERMITTED}:127.0.0.1"),
        ) as sidecar,
    ):
        for name in verifiers.VERIFIERS:
            permitted, excluded = (
                verifiers.ask(name, built, proxy=sidecar.port, host=host, port=port, roots=roots)
                for host in (PERMITTED, EXCLUDED)
            )
            assert (permitted.accepted, excluded.accepted) == (True, False), (name, permitted, excluded)

        def denied() -> list[dict[str, Any]]:
            return sidecar.events("connection_denied", reason="ca_constraint", host=EXCLUDED)

        until(lambda: len(denied()) == len(verifiers.VERIFIERS), "a denial for each client")
        details = {event["detail"] for event in denied()}

    assert len(verifiers.VERIFIERS) == len(upstream.requests)
    assert all("example.com" in detail for detail in details), "it says what is permitted"


@pytest.mark.parametrize("name", verifiers.VERIFIERS)
def test_a_thief_of_the_intermediate_is_held_by_the_roots_constraints(
    pki: Pki, built: Path, tmp_path: Path, name: str
) -> None:
    roots, key = pki.roots(tmp_path / "roots.pem"), tmp_path / "thief.pem"
    for host, accepted in ((PERMITTED, True), (EXCLUDED, name in HEED_NO_ROOT)):
        key.write_bytes(forged(pki, host))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(key)
        with serving(context) as (port, _), proxying() as (proxy, _):
            verdict = verifiers.ask(name, built, proxy=proxy, host=host, port=port, roots=roots)

        assert (verdict.accepted, verdict.refused) == (accepted, not accepted), verdict


def forged(pki: Pki, host: str) -> bytes:
    """A leaf for any name by the intermediate's key, with key and chain: what a thief can make."""
    secret = pki.cluster.data("secret", NAMESPACE, SECRET)
    signer, issuer = serialization.load_pem_private_key(secret["tls.key"], None), intermediate(pki)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    own = ec.generate_private_key(ec.SECP256R1())
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_before_utc + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    private = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + leaf.public_bytes(Encoding.PEM) + secret["tls.crt"]
