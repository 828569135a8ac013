"""Name constraints as clients read them: OpenSSL is asked about each verdict."""

from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError

from sidecar.hosts import parse_host
from sidecar.pki import CaConstraint, LeafMinter, SessionCa
from sidecar.pki.constraints import constraints_of
from sidecar.pki.extensions import extensions_of
from tests.pki.authorities import NOW, Authority, authority, constraints

KEY = ec.generate_private_key(ec.SECP256R1())


def constrained(
    permitted: Sequence[str] = (), excluded: Sequence[str] = (), under: Authority | None = None
) -> SessionCa:
    ca = authority("constrained", under, key=KEY, extra=[constraints(permitted, excluded)])
    return SessionCa(ca.key, (ca.certificate,), under.certificate if under else ca.certificate)


def refusal(ca: SessionCa, host: str) -> str | None:
    return LeafMinter(ca, lambda: NOW, key=KEY).refusal(parse_host(host))


def openssl_accepts(ca: SessionCa, host: str) -> bool:
    """A leaf for *host* under *ca*, made without asking, as OpenSSL sees it."""
    leaf = unchecked(ca, host)
    store = X509Store()
    store.add_cert(X509.from_cryptography(ca.root))
    store.set_time(NOW.replace(tzinfo=None))
    try:
        X509StoreContext(
            store, X509.from_cryptography(leaf), [X509.from_cryptography(each) for each in ca.chain]
        ).verify_certificate()
    except X509StoreContextError as e:
        assert "subtree violation" in str(e), e
        return False
    return True


def unchecked(ca: SessionCa, host: str) -> x509.Certificate:
    minter = LeafMinter(ca, lambda: NOW, key=KEY)
    minter.refusal = lambda host: None  # type: ignore[method-assign]
    return minter.mint(parse_host(host))


@pytest.mark.parametrize(
    ("permitted", "excluded", "host", "served"),
    [
        pytest.param(["example.com"], [], "example.com", True, id="a domain permits itself"),
        pytest.param(["example.com"], [], "a.b.example.com", True, id="and all below it"),
        pytest.param(["example.com"], [], "badexample.com", False, id="but no name that only ends alike"),
        pytest.param(["example.com"], [], "example.org", False, id="nor another domain"),
        pytest.param(["EXAMPLE.com"], [], "www.example.com", True, id="in any case"),
        pytest.param([".example.com"], [], "www.example.com", True, id="a leading dot permits what is below"),
        pytest.param([".example.com"], [], "example.com", False, id="a leading dot doesn't permit the domain itself"),
        pytest.param(["a.test", "b.test"], [], "x.b.test", True, id="one of several domains is enough"),
        pytest.param(["example.com"], ["example.com"], "example.com", False, id="an exclusion wins"),
        pytest.param(["example.com"], ["a.example.com"], "x.a.example.com", False, id="an exclusion below wins"),
        pytest.param([], ["internal.test"], "example.com", True, id="what isn't excluded is permitted"),
        pytest.param([""], [], "example.com", True, id="the empty domain is every name"),
        pytest.param([], [""], "example.com", False, id="also where it is excluded"),
        pytest.param(["example.com"], [], "192.0.2.1", True, id="domains say nothing of addresses"),
        pytest.param(["example.com"], ["0.0.0.0/0"], "192.0.2.1", False, id="all IPv4 is excluded"),
        pytest.param(["example.com"], ["0.0.0.0/0"], "2001:db8::1", True, id="which says nothing of IPv6"),
        pytest.param(["10.1.0.0/16"], [], "10.1.2.3", True, id="an address in a permitted network"),
        pytest.param(["10.1.0.0/16"], [], "10.2.2.3", False, id="an address outside of it"),
        pytest.param(["10.1.0.0/16"], [], "2001:db8::1", False, id="IPv6 where only IPv4 is permitted"),
        pytest.param(["10.1.0.0/16"], [], "example.com", True, id="networks say nothing of names"),
        pytest.param(["*.redhat.com"], [], "registry.redhat.com", False, id="a star is no wildcard"),
        pytest.param(["redhat.com"], ["*"], "registry.redhat.com", True, id="an excluded star excludes no host"),
    ],
)  # fmt: skip
def test_a_leaf_is_made_where_clients_accept_it(
    permitted: list[str], excluded: list[str], host: str, served: bool
) -> None:
    ca = constrained(permitted, excluded)

    assert (refusal(ca, host) is None) is served
    assert openssl_accepts(ca, host) is served
    if not served:
        with pytest.raises(CaConstraint, match=f"no leaf for {host}: the name constraints of CN=constrained "):
            LeafMinter(ca, lambda: NOW).mint(parse_host(host))


LABELS = st.sampled_from(["a", "b", "example", "com"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
BASES = st.one_of(
    NAMES,
    NAMES.map(lambda name: f".{name}"),
    NAMES.map(lambda name: f"*.{name}"),
    st.sampled_from(["", "*", "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "::/0", "2001:db8::/32"]),
)
HOSTS = st.one_of(NAMES, st.sampled_from(["10.1.2.3", "10.2.0.1", "192.0.2.1", "2001:db8::1", "::1"]))


@given(permitted=st.lists(BASES, max_size=3), excluded=st.lists(BASES, max_size=2), host=HOSTS)
@settings(max_examples=300, deadline=None)
def test_openssl_is_of_the_same_mind(permitted: list[str], excluded: list[str], host: str) -> None:
    if not permitted and not excluded:
        return
    ca = constrained(permitted, excluded)

    assert (refusal(ca, host) is None) is openssl_accepts(ca, host)


def test_every_certificate_of_the_chain_has_its_say() -> None:
    root = authority("root", extra=[constraints(["example.com"])])
    ca = constrained(["www.example.com", "example.org"], under=root)

    assert refusal(ca, "www.example.com") is None
    assert "CN=constrained permit only" in (refusal(ca, "api.example.com") or "")
    assert "CN=root permit only example.com" in (refusal(ca, "example.org") or "")
    assert openssl_accepts(ca, "www.example.com")
    assert not openssl_accepts(ca, "example.org")


@pytest.mark.parametrize("host", ["www.example.com", "192.0.2.1"])
def test_constraints_on_names_are_not_broken_by_the_subject(host: str) -> None:
    leaf = LeafMinter(constrained(["example.com"]), lambda: NOW).mint(parse_host(host))

    # OpenSSL takes a common name for a host's, as in "CN=192.0.2.1", and a permitted directory name for the subject.
    assert list(leaf.subject) == []
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_constraints_with_a_star_are_read_though_the_library_refuses_them() -> None:
    ca = authority("konflux", extra=[constraints(["*.redhat.com"], ["*"])])

    (found,) = constraints_of([ca.certificate])

    assert found.permitted.domains == ("*.redhat.com",)
    assert found.excluded.domains == ("*",)
    assert found.have_stars
    assert extensions_of(ca.certificate).get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(ValueError, match="wildcard"):
        _ = ca.certificate.extensions


def test_what_else_the_library_refuses_stays_refused() -> None:
    broken = authority("broken", extra=[(x509.UnrecognizedExtension(x509.NameConstraints.oid, b"\x30\x01"), True)])

    with pytest.raises(ValueError):
        extensions_of(broken.certificate)


def test_the_copy_that_is_read_is_never_the_certificate_that_is_sent() -> None:
    ca = authority("konflux", extra=[constraints(["*.redhat.com"])])
    before = ca.certificate.public_bytes(Encoding.DER)

    extensions_of(ca.certificate)

    assert ca.certificate.public_bytes(Encoding.DER) == before
    assert ca.certificate.fingerprint(hashes.SHA256()) == x509.load_der_x509_certificate(before).fingerprint(
        hashes.SHA256()
    )
