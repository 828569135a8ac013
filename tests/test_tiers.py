"""The two options of bootstrap that make a CA's leak matter less: two tiers, and name constraints."""

import base64
import re
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from sidecar.bootstrap import CaState, Order, bootstrap
from sidecar.errors import SidecarError
from sidecar.pki.coverage import constraints_for
from sidecar.pki.pem import to_pem
from sidecar.policy import parse_policy
from sidecar.secrets import load_ca
from tests.pki.authorities import NOW, openssl
from tests.test_bootstrap import HOUR, app, contents, folders, listing, run


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(common_name="session-7", ca_dir=tmp_path / "ca", trust_dir=tmp_path / "trust")


POLICY = "version: 1\nrules:\n  - allow: ['*.example.com', 'api.example.org']\n"


def test_two_tiers_are_a_root_whose_key_nobody_has_and_the_ca_below_it(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    make = ec.generate_private_key

    def noted(curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        keys.append(make(curve))
        return keys[-1]

    monkeypatch.setattr(ec, "generate_private_key", noted)
    ca = bootstrap(replace(order, two_tier=True), NOW).ca

    (root_key,) = (key for key in keys if key.public_key() == ca.root.public_key())
    secret = root_key.private_numbers().private_value.to_bytes(32)
    assert ca.key.public_key() != root_key.public_key()
    for data in contents(tmp_path).values():
        ders = [base64.b64decode(block) for block in re.findall(rb"-----\n([^-]+)-----END", data)]
        assert not any(secret in der for der in (data, *ders))
    assert load_ca(order.ca_dir, NOW) == ca
    assert (ca.chain, ca.root) == ((ca.certificate,), ca.certificates[1])
    assert (order.trust_dir / "ca.pem").read_bytes() == to_pem([ca.root])
    assert (order.ca_dir / "ca.pem").read_bytes() == to_pem([ca.certificate, ca.root])


def test_the_root_signs_one_tier_and_the_ca_signs_leaves(order: Order) -> None:
    ca = bootstrap(replace(order, two_tier=True), NOW).ca

    assert (ca.root.subject.rfc4514_string(), ca.common_name) == ("CN=session-7,OU=Root,O=Egress Sidecar", "session-7")
    for certificate, length, signs in ((ca.root, 1, False), (ca.certificate, 0, True)):
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert constraints.critical
        assert usage.critical
        assert constraints.value == x509.BasicConstraints(True, length)
        assert usage.value == x509.KeyUsage(signs, False, False, False, False, True, True, False, False)


def test_two_tiers_are_kept_like_one(order: Order) -> None:
    two = replace(order, two_tier=True)
    first = bootstrap(two, NOW)

    again = bootstrap(two, NOW + HOUR)

    assert (again.state, again.written, again.ca, again.warnings) == (CaState.KEPT, (), first.ca, ())


def test_a_kept_ca_of_another_kind_is_a_warning(order: Order) -> None:
    bootstrap(order, NOW)
    constraints = constraints_for(parse_policy(POLICY))

    report = bootstrap(replace(order, two_tier=True, constraints=constraints), NOW)

    assert report.state is CaState.KEPT
    assert [text.partition(" is kept, and it ")[2] for text in report.warnings] == [
        "is its own root; --force makes one of two tiers",
        "has other name constraints than the policy asks for; --force makes a new one",
    ]


@pytest.mark.parametrize("two_tier", [pytest.param(False, id="one tier"), pytest.param(True, id="two tiers")])
def test_constraints_are_critical_and_stand_in_every_certificate(order: Order, two_tier: bool) -> None:
    wanted = constraints_for(parse_policy(POLICY))
    constrained = replace(order, two_tier=two_tier, constraints=wanted)

    ca = bootstrap(constrained, NOW).ca

    assert len(ca.certificates) == 1 + two_tier
    for certificate in ca.certificates:
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints)
        assert found.critical
        assert found.value == wanted
    assert bootstrap(constrained, NOW).warnings == ()


def test_the_command_makes_a_constrained_ca_of_two_tiers_that_openssl_takes_strictly(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)

    code, out, err = run(tmp_path, "--common-name", "s", "--two-tier", "--constrain-to", str(tmp_path / "policy.yaml"))

    assert (code, err) == (0, "")
    assert out.startswith("created CA 's'")
    root, ca = tmp_path / "trust" / "ca.pem", tmp_path / "ca" / "ca.pem"
    openssl("verify", "-x509_strict", "-no-CApath", "-CAfile", root, ca)
    text = openssl("x509", "-in", ca, "-noout", "-ext", "nameConstraints")
    assert [line.strip() for line in text.splitlines()] == [
        "X509v3 Name Constraints: critical",
        *("Permitted:", "DNS:example.com", "DNS:api.example.org", "DNS:trust.egress.internal"),
        *("Excluded:", "IP:0.0.0.0/0.0.0.0", "IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0"),
    ]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        pytest.param("version: 1\ndefault: allow\n", "default: 'allow' can't be written", id="default: allow"),
        pytest.param("version: 1\nrules: [{allow: ['**']}]\n", "end it with a domain", id="every name"),
        pytest.param("version: 2\n", "version", id="an invalid policy"),
    ],
)
def test_a_policy_that_is_no_constraint_is_refused_and_nothing_is_written(
    tmp_path: Path, policy: str, says: str
) -> None:
    (tmp_path / "policy.yaml").write_text(policy)

    order = ["--common-name", "s", "--constrain-to", str(tmp_path / "policy.yaml")]
    with pytest.raises(SidecarError, match=re.escape(says)):
        CliRunner().invoke(app(), [*folders(tmp_path), *order], catch_exceptions=False)

    assert listing(tmp_path) == ["policy.yaml"]
