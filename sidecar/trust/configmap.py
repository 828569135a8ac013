"""ConfigMaps for pods that nobody prepares: a bundle, and OpenSSL's directory for the session CA alone."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.trust.anchors import Anchors
from sidecar.trust.bundle import trust_bundle
from sidecar.trust.env import JKS, PKCS12
from sidecar.trust.errors import TrustError
from sidecar.trust.hashed_dir import SYSTEM_BUNDLE, hashed_directory
from sidecar.trust.keystore import PASSWORD, jks, pkcs12

MAX_BYTES: Final = 1024 * 1024  # of all values together; the API server refuses more

type Json = dict[str, Any]

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")  # RFC 1123 subdomain
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_KEY: Final = re.compile(r"(?!\.\.?\Z)[-._a-zA-Z0-9]{1,253}\Z")
_WORD: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY: Final = re.compile(rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_WORD}\Z")
_LABEL_VALUE: Final = re.compile(rf"({_WORD})?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """
    What the ConfigMaps are called.

    Attributes:
        name: Of the one with the bundle; that of the session CA alone has ``-only`` behind it.
        namespace: None: kubectl's.
        labels: Of both.
        key: Of the bundle.
        keystores: Whether Java's are beside it, as ``binaryData``.
        password: Of the keystores; None where they have none.
    """

    name: str = "egress-trust"
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    key: str = SYSTEM_BUNDLE
    keystores: bool = False
    password: str | None = PASSWORD


def config_maps(anchors: Anchors, wanted: Wanted) -> list[Json]:
    """
    Make both ConfigMaps.

    Returns:
        First the bundle of everybody, under *wanted.key*; then the session CA alone, as ``ca-certificates.crt`` and
        ``<hash>.0``, to be mounted over ``/etc/ssl/certs``.

    Raises:
        TrustError: A name isn't one, or Kubernetes wouldn't take so much.
    """
    _check(wanted)
    bundle: dict[str, bytes] = {wanted.key: trust_bundle(anchors.all)}
    binary: dict[str, bytes] = {}
    if wanted.keystores:
        binary = {PKCS12: pkcs12(anchors.all, wanted.password), JKS: jks(anchors.all, wanted.password)}
    return [
        _config_map(wanted, wanted.name, bundle, binary),
        _config_map(wanted, f"{wanted.name}-only", hashed_directory(anchors.session), {}),
    ]


def parse_label(text: str) -> tuple[str, str]:
    """
    Read ``key=value``.

    Raises:
        TrustError: It isn't a label.
    """
    key, equals, value = text.partition("=")
    if not equals or not _LABEL_KEY.match(key) or not _LABEL_VALUE.match(value):
        raise TrustError(f"--label {text!r} is no label; write one such as 'team=payments'")
    return key, value


def _check(wanted: Wanted) -> None:
    if not _NAME.match(f"{wanted.name}-only"):
        raise TrustError(f"--name {wanted.name!r} is no name of a ConfigMap; write lower-case letters, digits and '-'")
    if wanted.namespace is not None and not _NAMESPACE.match(wanted.namespace):
        raise TrustError(f"--namespace {wanted.namespace!r} is no name of a namespace; write one such as 'team-a'")
    if not _KEY.match(wanted.key) or wanted.key in (PKCS12, JKS):
        raise TrustError(f"--key {wanted.key!r} is no key for the bundle; write one such as {SYSTEM_BUNDLE!r}")


def _config_map(wanted: Wanted, name: str, texts: Mapping[str, bytes], binary: Mapping[str, bytes]) -> Json:
    size = sum(len(value) for value in (*texts.values(), *binary.values()))
    if size > MAX_BYTES:
        raise TrustError(
            f"ConfigMap {name} would hold {size} bytes, and Kubernetes takes {MAX_BYTES}; "
            "leave the keystores out, or trust fewer roots"
        )
    metadata: Json = {"name": name}
    if wanted.namespace is not None:
        metadata["namespace"] = wanted.namespace
    if wanted.labels:
        metadata["labels"] = dict(wanted.labels)
    made: Json = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {key: value.decode("ascii") for key, value in texts.items()},
    }
    if binary:
        made["binaryData"] = {key: base64.b64encode(value).decode() for key, value in binary.items()}
    return made
