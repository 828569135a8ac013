"""Every form of CA that loads: curl and OpenSSL, which trust its root alone, accept what the sidecar answers with."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sidecar.bootstrap import Order, bootstrap
from sidecar.pki.session_ca import CaKey
from sidecar.secrets import load_ca
from tests.live.inprocess import InProcess, in_process
from tests.live.wire import environment
from tests.pki.authorities import DAY, Authority, authority, openssl

pytestmark = pytest.mark.live

type Files = Mapping[str, bytes]

NOW = datetime.now(UTC)
P256: Callable[[], CaKey] = lambda: ec.generate_private_key(ec.SECP256R1())  # noqa: E731


def made(name: str, parent: Authority | None = None, *, path_length: int | None = None, **more: object) -> Authority:
    return authority(name, parent, begin=NOW - DAY, end=NOW + DAY, path_length=path_length, **more)  # type: ignore[arg-type]


def own(ca: Authority, *above: Authority) -> Files:
    return {"ca.pem": b"".join(each.pem for each in (ca, *above)), "ca-key.pem": ca.key_pem}


def secret(ca: Authority, *above: Authority, roots: tuple[Authority, ...] = ()) -> Files:
    files = {"tls.crt": b"".join(each.pem for each in (ca, *above)), "tls.key": ca.key_pem}
    return files | ({"ca.crt": b"".join(root.pem for root in roots)} if roots else {})


def below(key: CaKey, **more: object) -> Callable[[], tuple[Files, Authority]]:
    """An intermediate of this key, in a Secret, with its root beside it."""

    def make() -> tuple[Files, Authority]:
        root = made("root", path_length=1)
        return secret(made("issuing", root, path_length=0, key=key, **more), roots=(root,)), root

    return make


def alone(key: CaKey) -> Callable[[], tuple[Files, Authority]]:
    def make() -> tuple[Files, Authority]:
        ca = made("alone", key=key)
        return own(ca), ca

    return make


def three_tiers(spread: bool) -> Callable[[], tuple[Files, Authority]]:
    """A chain of three: whole in one file, or with the middle in ca.crt."""

    def make() -> tuple[Files, Authority]:
        root = made("root", path_length=2)
        middle = made("middle", root, path_length=1, key=rsa.generate_private_key(65537, 2048))
        issuing = made("issuing", middle, path_length=0)
        return (secret(issuing, roots=(root, middle)) if spread else own(issuing, middle, root)), root

    return make


def traditional() -> tuple[Files, Authority]:
    ca = made("traditional", key=rsa.generate_private_key(65537, 2048))
    pem = ca.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return {**own(ca), "ca-key.pem": pem}, ca


def rfc7093(key: CaKey) -> bytes:
    """Method 1: the leftmost 160 bits of the SHA-256 of the key's bits."""
    spki = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return hashlib.sha256(spki).digest()[:20]


def truncated() -> tuple[Files, Authority]:
    top, key = P256(), P256()
    root = made("root", path_length=1, key=top, identifier=rfc7093(top))
    return secret(made("issuing", root, path_length=0, key=key, identifier=rfc7093(key)), roots=(root,)), root


def unidentified() -> tuple[Files, Authority]:
    root = made("root", path_length=1, identified=False)
    return secret(made("issuing", root, path_length=0, identified=False), roots=(root,)), root


FORMS = [
    pytest.param(alone(P256()), 1, id="a root of its own, P-256"),
    pytest.param(alone(rsa.generate_private_key(65537, 3072)), 1, id="a root of its own, RSA 3072"),
    pytest.param(traditional, 1, id="a traditional RSA key"),
    pytest.param(below(ec.generate_private_key(ec.SECP384R1())), 2, id="an intermediate, P-384"),
    pytest.param(below(ec.generate_private_key(ec.SECP521R1())), 2, id="an intermediate, P-521"),
    pytest.param(below(rsa.generate_private_key(65537, 2048)), 2, id="an intermediate, RSA 2048"),
    pytest.param(truncated, 2, id="key identifiers by RFC 7093"),
    pytest.param(unidentified, 2, id="no key identifiers"),
    pytest.param(three_tiers(spread=False), 3, id="three tiers in one file"),
    pytest.param(three_tiers(spread=True), 3, id="three tiers, the middle in ca.crt"),
]


@pytest.mark.parametrize(("make", "sent"), FORMS)
def test_clients_that_trust_the_root_alone_accept_it(
    make: Callable[[], tuple[Files, Authority]], sent: int, tmp_path: Path
) -> None:
    files, root = make()
    folder = tmp_path / "ca"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (tmp_path / "root.pem").write_bytes(root.pem)
    ca = load_ca(folder, datetime.now(UTC))

    with in_process(tmp_path, "version: 1", upstream_ca=None, names=(), ca=ca) as sidecar:
        assert ca.root == root.certificate
        accepted(sidecar, tmp_path / "root.pem", sent)


def test_a_ca_of_two_tiers_is_accepted_by_its_root(tmp_path: Path) -> None:
    order = Order(common_name="two", ca_dir=tmp_path / "ca", trust_dir=tmp_path / "trust", two_tier=True)
    bootstrap(order, datetime.now(UTC))
    ca = load_ca(order.ca_dir, datetime.now(UTC))

    with in_process(tmp_path, "version: 1", upstream_ca=None, names=(), ca=ca) as sidecar:
        accepted(sidecar, order.trust_dir / "ca.pem", 2)


def accepted(sidecar: InProcess, root: Path, sent: int) -> None:
    """A denied name's 403, by curl and by OpenSSL; leaf and intermediates are sent, the root isn't."""
    body = subprocess.run(
        [
            "curl",
            "--silent",
            "--show-error",
            "--cacert",
            root,
            "--proxy",
            f"http://{sidecar.listen}",
            "https://a.test/",
        ],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert body.returncode == 0, body.stderr
    assert json.loads(body.stdout)["reason"] == "default_deny"

    shown = openssl(
        "s_client", "-proxy", sidecar.listen, "-connect", "a.test:443", "-servername", "a.test", "-showcerts",
        "-verify_return_error", "-verify_hostname", "a.test", "-no-CApath", "-CAfile", root, stdin="",
    )  # fmt: skip
    assert shown.count("-----BEGIN CERTIFICATE-----") == sent
