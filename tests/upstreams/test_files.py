"""The files that a policy names for upstreams: all whole, or none; each problem where the policy names its file."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa, x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from sidecar.errors import SidecarError
from sidecar.hosts import parse_host
from sidecar.policy import Policy, PolicyError, parse_policy
from sidecar.upstreams.files import files_of, load_upstreams
from sidecar.upstreams.roots import RootFiles
from tests.live.tls_upstream import certificate, revocation_list

ROOT = certificate("root", ca=True)
CLIENT = certificate("client", ROOT)
OTHER = certificate("other", ROOT)
PKCS8 = (Encoding.PEM, PrivateFormat.PKCS8)

ENTRY = """\
version: 1
upstreams:
  - hosts: [a.test]
    roots: roots.pem
    client_certificate: {certificate: tls.crt, key: tls.key}
    crl: crl.pem
"""
PLACES = {
    "roots.pem": "4:12: upstreams[0].roots: ",
    "tls.crt": "5:39: upstreams[0].client_certificate.certificate: ",
    "tls.key": "5:53: upstreams[0].client_certificate.key: ",
    "crl.pem": "6:10: upstreams[0].crl: ",
}
GOOD = {
    "roots.pem": ROOT.pem,
    "tls.crt": CLIENT.pem + ROOT.pem,
    "tls.key": CLIENT.key_pem,
    "crl.pem": b"issued today\n" + revocation_list(ROOT) + revocation_list(OTHER),
}


def policy_in(folder: Path, **contents: bytes | None) -> Policy:
    """A policy with its files beside it, some of them others; None: there is none."""
    for name, content in (GOOD | {name.replace("_", "."): content for name, content in contents.items()}).items():
        if content is not None:
            (folder / name).write_bytes(content)
    return parse_policy(ENTRY, str(folder / "policy.yaml"))


def test_whole_files_are_loaded_and_count_for_their_hosts(tmp_path: Path) -> None:
    policy = policy_in(tmp_path)

    upstreams = load_upstreams(policy, RootFiles())

    entry, default = (upstreams.context_for(parse_host(host)) for host in ("A.test.", "b.test"))
    assert entry is not default
    assert upstreams.context_for(parse_host("192.0.2.1")) is default
    assert set(files_of(policy, RootFiles(besides=Path("/x")))) == {Path("/x"), *(tmp_path / name for name in GOOD)}


def test_another_content_has_another_digest(tmp_path: Path) -> None:
    policy = policy_in(tmp_path)
    first, again = (load_upstreams(policy, RootFiles()).digest for _ in range(2))
    policy_in(tmp_path, tls_crt=CLIENT.pem)

    assert first == again
    assert load_upstreams(policy, RootFiles()).digest != first


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        pytest.param("roots.pem", None, "can't be read: No such file", id="no roots"),
        pytest.param("roots.pem", b"", "is empty", id="empty roots"),
        pytest.param("roots.pem", b"\x30\x82", "holds no certificate", id="roots that are DER"),
        pytest.param("roots.pem", ROOT.pem + ROOT.key_pem, "holds a private key; write certificates alone", id="a key"),
        pytest.param("roots.pem", ROOT.pem[:99], "can't be read; copy the file again", id="half a certificate"),
        pytest.param("tls.crt", None, "can't be read: No such file", id="no client certificate"),
        pytest.param("tls.key", None, "can't be read: No such file", id="no client key"),
        pytest.param("tls.key", b"", "holds no private key", id="an empty key"),
        pytest.param("tls.key", OTHER.key_pem, "does not belong to the first certificate", id="another's key"),
        pytest.param("tls.key", CLIENT.key_pem[:60], "holds no private key that can be read", id="half a key"),
        pytest.param(
            "tls.key",
            CLIENT.key.private_bytes(*PKCS8, BestAvailableEncryption(b"x")),
            "is encrypted; decrypt it",
            id="an encrypted key",
        ),
        pytest.param(
            "tls.key",
            x25519.X25519PrivateKey.generate().private_bytes(*PKCS8, NoEncryption()),
            "of a kind that TLS doesn't take",
            id="a key that can't sign",
        ),
        pytest.param("crl.pem", None, "can't be read: No such file", id="no list"),
        pytest.param("crl.pem", ROOT.pem, "holds no revocation list", id="a certificate as a list"),
        pytest.param(
            "crl.pem",
            b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "list that can't be read",
            id="a broken list",
        ),
    ],
)
def test_a_file_that_can_not_be_used_is_an_error_of_the_policy(
    file: str, content: bytes | None, problem: str, tmp_path: Path
) -> None:
    policy = policy_in(tmp_path, **{file.replace(".", "_"): content})

    with pytest.raises(PolicyError) as raised:
        load_upstreams(policy, RootFiles())

    said = str(raised.value)
    assert said.startswith(f"{tmp_path}/policy.yaml:{PLACES[file]}")
    assert str(tmp_path / file) in said
    assert problem in said
    assert not any(line in said for line in CLIENT.key_pem.decode().splitlines()[1:-1])


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    policy = policy_in(tmp_path, roots_pem=b"", tls_key=b"", crl_pem=None)

    with pytest.raises(PolicyError) as raised:
        load_upstreams(policy, RootFiles())

    assert len(raised.value.problems) == 3


def test_a_client_certificate_that_openssl_refuses_is_an_error(tmp_path: Path) -> None:
    weak = certificate("client", ROOT, key=rsa.generate_private_key(65537, 1024))
    policy = policy_in(tmp_path, tls_crt=weak.pem, tls_key=weak.key_pem)

    with pytest.raises(PolicyError, match="ee key too small; renew it"):
        load_upstreams(policy, RootFiles())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(None, "can't be read: No such file", id="no file"),
        pytest.param(b"", "is empty", id="an empty file"),
        pytest.param(ROOT.pem + ROOT.key_pem, "holds a private key", id="a key"),
        pytest.param(ROOT.pem[:99], "can't be read; copy the file again", id="half a certificate"),
    ],
)
@pytest.mark.parametrize("flag", ["alone", "besides"])
def test_the_flags_files_must_be_whole_as_well(flag: str, content: bytes | None, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SidecarError, match=f"{file}.*{problem}"):
        load_upstreams(parse_policy("version: 1"), RootFiles(**{flag: file}))
