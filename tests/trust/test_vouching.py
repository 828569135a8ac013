"""A file vouches for what the sidecar serves by its certificates' signatures, not by their names."""

from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.hosts import parse_host
from sidecar.pki.leaf import LeafMinter
from sidecar.pki.session_ca import issue_session_ca
from sidecar.trust.roots import public_roots
from sidecar.trust.vouching import certificates_of, vouches

NOW = datetime.now(UTC)
CA, NAMESAKE = (issue_session_ca(common_name="session", now=NOW) for _ in range(2))
LEAF = LeafMinter(CA, lambda: NOW).mint(parse_host("a.test"))


@pytest.mark.parametrize(
    ("certificates", "expected"),
    [
        pytest.param([*public_roots(), CA.root], True, id="the session CA among the public roots"),
        pytest.param(public_roots(), False, id="the public roots alone"),
        pytest.param([NAMESAKE.root], False, id="another session's CA of the same name"),
        pytest.param([LEAF], False, id="a leaf is no anchor"),
        pytest.param([], False, id="nothing"),
    ],
)  # fmt: skip
def test_vouches(certificates: list[object], expected: bool) -> None:
    assert vouches(certificates, [LEAF]) is expected  # type: ignore[arg-type]


def test_an_intermediate_that_is_served_is_an_anchor_itself() -> None:
    assert vouches([CA.root], [LEAF, CA.root])


def test_what_is_no_certificate_is_passed_over() -> None:
    pem = CA.root.public_bytes(Encoding.PEM)
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

    assert certificates_of(b"\xff" + broken + pem + b"-----BEGIN CERTIFICATE-----") == (CA.root,)
