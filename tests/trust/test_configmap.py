"""The ConfigMaps are what Kubernetes takes, and what pods can mount."""

import base64
import ssl
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from ruamel.yaml import YAML

from sidecar.pki import issue_session_ca
from sidecar.pki.pem import certificates_in
from sidecar.render.documents import dump
from sidecar.trust import Anchors, TrustError, public_roots, trust_bundle
from sidecar.trust.configmap import MAX_BYTES, Wanted, config_maps, parse_label
from sidecar.trust.keystore import jks, pkcs12
from tests.pki.authorities import NOW
from tests.trust.roots import tool, write

CA = issue_session_ca(common_name="session-7", now=NOW)
ANCHORS = Anchors(session=(CA.root,), public=public_roots())


def printed(wanted: Wanted) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all(dump(config_maps(ANCHORS, wanted))))


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(),
        Wanted(name="trust.a", namespace="team-a", labels={"a.test/b": "c", "d": ""}, key="roots.pem", keystores=True),
    ],
    ids=["as it is", "with everything"],
)
def test_kubernetes_takes_them(wanted: Wanted) -> None:
    for document in printed(wanted):
        kubernetes_validate.validate(document, "1.37", strict=True)
        assert (
            sum(len(value) for part in ("data", "binaryData") for value in document.get(part, {}).values()) < MAX_BYTES
        )


def test_what_is_printed_is_what_was_made() -> None:
    wanted = Wanted(namespace="team-a", labels={"a": "b"}, keystores=True)

    bundle, only = printed(wanted)

    assert [bundle, only] == config_maps(ANCHORS, wanted)
    assert bundle["metadata"] == {"name": "egress-trust", "namespace": "team-a", "labels": {"a": "b"}}
    assert only["metadata"] == {"name": "egress-trust-only", "namespace": "team-a", "labels": {"a": "b"}}
    assert bundle["data"] == {"ca-certificates.crt": trust_bundle(ANCHORS.all).decode()}
    stores = {name: base64.b64decode(text) for name, text in bundle["binaryData"].items()}
    assert stores == {"truststore.p12": pkcs12(ANCHORS.all), "truststore.jks": jks(ANCHORS.all)}


def test_the_pair_for_one_ca_is_a_directory_that_openssl_reads(tmp_path: Path) -> None:
    _, only = printed(Wanted())
    write(tmp_path, {name: text.encode() for name, text in only["data"].items()})
    write(tmp_path / "outside", {"ca.pem": CA.root_pem()})

    hashed = tool("openssl", "x509", "-noout", "-subject_hash", "-in", tmp_path / "outside" / "ca.pem").strip()

    assert set(only["data"]) == {"ca-certificates.crt", f"{hashed}.0"}
    when = ["-attime", str(int(NOW.timestamp())), "-no-CAfile", "-no-CAstore"]
    tool("openssl", "verify", *when, "-CApath", tmp_path, tmp_path / "outside" / "ca.pem")


def test_same_input_same_text() -> None:
    assert dump(config_maps(ANCHORS, Wanted(keystores=True))) == dump(config_maps(ANCHORS, Wanted(keystores=True)))


def test_what_kubernetes_would_not_take_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(trust_bundle(ANCHORS.all))
    monkeypatch.setattr("sidecar.trust.configmap.MAX_BYTES", size - 1)

    with pytest.raises(TrustError, match=rf"egress-trust would hold {size} bytes.*takes {size - 1}"):
        config_maps(ANCHORS, Wanted())


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (Wanted(name="Upper"), "--name 'Upper'"),
        (Wanted(name="a" * 250), "--name"),
        (Wanted(namespace="a.b"), "--namespace 'a.b'"),
        (Wanted(key="a/b"), "--key 'a/b'"),
        (Wanted(key=".."), "--key"),
        (Wanted(key="truststore.p12"), "--key"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_name_that_is_none_is_refused(wanted: Wanted, says: str) -> None:
    with pytest.raises(TrustError, match=says):
        config_maps(ANCHORS, wanted)


def test_labels() -> None:
    assert parse_label("a.test/b=c") == ("a.test/b", "c")
    assert parse_label("a=") == ("a", "")
    for text in ("a", "=b", "a b=c", "a=b c", "a=" + "x" * 64, "A/b=c"):
        with pytest.raises(TrustError, match="--label"):
            parse_label(text)


def test_python_s_ssl_reads_the_bundle() -> None:
    bundle, _ = printed(Wanted())

    context = ssl.create_default_context(cadata=bundle["data"]["ca-certificates.crt"])

    assert len(context.get_ca_certs()) == len(certificates_in(bundle["data"]["ca-certificates.crt"].encode(), "b"))
