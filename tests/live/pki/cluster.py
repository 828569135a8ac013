"""
What of a cluster the PKI's manifests need, played by this file: no API server, controller or kubelet can run here.

It acts on the manifests themselves. cert-manager's part makes the key, and asks OpenBao as cert-manager does, with a
token of the ServiceAccount that the Issuer names; External Secrets' part reads what the ExternalSecret says;
trust-manager's fills the ConfigMap; the kubelet's swaps the ``..data`` link of the volume. All state is in a folder, so
that the ``kubectl`` of `tests.live.pki.kubectl` works on the same cluster from another process.
"""

import base64
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.live.pki.api import ask

type Object = dict[str, Any]

SERVER = "https://openbao.openbao.svc:8200"  # in the manifests
CERT_MANAGER = {"kind": "ServiceAccount", "name": "cert-manager", "namespace": "cert-manager"}


class Cluster:
    """One cluster in *folder*; *openbao* is the address behind the name in the manifests."""

    def __init__(self, folder: Path, openbao: str) -> None:
        self._folder, self._openbao = folder, openbao

    def apply(self, path: Path) -> None:
        """``kubectl apply -f``."""
        for document in yaml.safe_load_all(path.read_text()):
            metadata = document["metadata"]
            file = self._folder / "objects" / document["kind"] / metadata.get("namespace", "") / metadata["name"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(document))
        self.sync()

    def sync(self) -> None:
        """External Secrets reads anew, and what depends on it follows."""
        for external in self._objects("ExternalSecret"):
            self._sync(external)
        self.reconcile()

    def reconcile(self) -> None:
        """What cert-manager and trust-manager do at once."""
        for certificate in self._objects("Certificate"):
            if not self.data("secret", certificate["metadata"]["namespace"], certificate["spec"]["secretName"]):
                self._issue(certificate)
        for bundle in self._objects("Bundle"):
            self._distribute(bundle)

    def delete_secret(self, namespace: str, name: str) -> None:
        """Gone from the API; pods keep what they have mounted until there is another."""
        (self._store("secret", namespace, name)).unlink()
        self.reconcile()

    def data(self, kind: str, namespace: str, name: str) -> dict[str, bytes]:
        """What a Secret or ConfigMap holds; empty if it isn't there."""
        store = self._store(kind, namespace, name)
        texts = json.loads(store.read_text()) if store.exists() else {}
        return {key: base64.b64decode(text) for key, text in texts.items()}

    def volume(self, kind: str, namespace: str, name: str) -> Path:
        """The folder in which a pod sees a Secret or ConfigMap."""
        return self._folder / "volumes" / kind / namespace / name

    def token(self, namespace: str, account: str, audience: str) -> str:
        """A ServiceAccount's token, signed by this cluster's key."""
        assert self._object("ServiceAccount", namespace, account)
        now = int(time.time())
        claims = {
            "iss": "https://kubernetes.default.svc",
            "sub": f"system:serviceaccount:{namespace}:{account}",
            "aud": [audience],
            "iat": now,
            "exp": now + 600,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": f"uid-of-{account}"}},
        }
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, claims))
        signature = self._key().sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        return f"{signed}.{_base64url(signature)}"

    def review(self, token: str, audiences: list[str]) -> Object:
        """The status of a TokenReview."""
        try:
            signed, _, signature = token.rpartition(".")
            self._key().public_key().verify(
                base64.urlsafe_b64decode(signature + "=="), signed.encode(), ec.ECDSA(hashes.SHA256())
            )
        except Exception as e:
            return {"authenticated": False, "error": f"{type(e).__name__}"}
        claims = json.loads(base64.urlsafe_b64decode(signed.split(".")[1] + "=="))
        if audiences and not set(audiences) & set(claims["aud"]):
            return {"authenticated": False, "error": "token audiences don't match"}
        account = claims["kubernetes.io"]["serviceaccount"]
        return {
            "authenticated": True,
            "user": {"username": claims["sub"], "uid": account["uid"]},
            "audiences": audiences or claims["aud"],
        }

    def may_review(self, token: str) -> bool:
        """Whether a ClusterRoleBinding lets the token's ServiceAccount review others."""
        name = self.review(token, []).get("user", {}).get("username")
        return any(
            f"system:serviceaccount:{subject['namespace']}:{subject['name']}" == name
            for binding in self._objects("ClusterRoleBinding")
            if binding["roleRef"]["name"] == "system:auth-delegator"
            for subject in binding["subjects"]
        )

    def login(self, role: str, token: str, mount: str = "auth/kubernetes") -> str:
        """OpenBao's token for a ServiceAccount's."""
        answer = ask(self._openbao, f"{mount}/login", None, {"role": role, "jwt": token})
        return str(answer["auth"]["client_token"])

    def _issue(self, certificate: Object) -> None:
        """As cert-manager's Vault issuer, with a new key (rotationPolicy Always)."""
        namespace, spec = certificate["metadata"]["namespace"], certificate["spec"]
        issuer = self._object("Issuer", namespace, spec["issuerRef"]["name"])
        vault = issuer["spec"]["vault"]
        login = vault["auth"]["kubernetes"]
        account = login["serviceAccountRef"]["name"]
        assert vault["server"] == SERVER
        assert (spec["privateKey"]["algorithm"], spec["privateKey"]["size"]) == ("ECDSA", 256)
        assert self._may_create_token(namespace, account), "cert-manager may not ask for the ServiceAccount's token"
        audience = f"vault://{namespace}/{issuer['metadata']['name']}"
        token = self.login(
            login["role"], self.token(namespace, account, audience), login["mountPath"].removeprefix("/v1/")
        )
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, spec["commonName"])])
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        body = {
            "common_name": spec["commonName"],
            "alt_names": ",".join(spec.get("dnsNames", [])),
            "ip_sans": "",
            "uri_sans": "",
            "ttl": f"{spec['duration']}0m0s",  # Go's way to write a duration
            "csr": request.public_bytes(Encoding.PEM).decode(),
            "exclude_cn_from_sans": "true",
        }
        answer = ask(self._openbao, vault["path"], token, body)["data"]
        chain = x509.load_pem_x509_certificates("\n".join([answer["certificate"], *answer["ca_chain"]]).encode())
        issued = list(dict.fromkeys(link for link in chain if link.subject != link.issuer))
        root = next(link for link in chain if link.subject == link.issuer)
        self._write(
            "secret",
            namespace,
            spec["secretName"],
            {
                "tls.crt": b"".join(link.public_bytes(Encoding.PEM) for link in issued),
                "tls.key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
                "ca.crt": root.public_bytes(Encoding.PEM),
            },
        )

    def _may_create_token(self, namespace: str, account: str) -> bool:
        return any(
            rule["resources"] == ["serviceaccounts/token"]
            and account in rule["resourceNames"]
            and "create" in rule["verbs"]
            for binding in self._objects("RoleBinding", namespace)
            if CERT_MANAGER in binding["subjects"]
            for rule in self._object("Role", namespace, binding["roleRef"]["name"])["rules"]
        )

    def _sync(self, external: Object) -> None:
        namespace, spec = external["metadata"]["namespace"], external["spec"]
        store = self._object("ClusterSecretStore", "", spec["secretStoreRef"]["name"])["spec"]
        vault = store["provider"]["vault"]
        login = vault["auth"]["kubernetes"]
        account = login["serviceAccountRef"]
        assert vault["server"] == SERVER
        assert any(namespace in condition["namespaces"] for condition in store["conditions"])
        own = self.token(account["namespace"], account["name"], account["audiences"][0])
        token = self.login(login["role"], own, f"auth/{login['mountPath']}")
        values = {}
        for item in spec["data"]:
            answer = ask(self._openbao, f"{vault['path']}/data/{item['remoteRef']['key']}", token)
            values[item["secretKey"]] = answer["data"]["data"][item["remoteRef"]["property"]].encode()
        self._write("secret", namespace, spec["target"]["name"], values)

    def _distribute(self, bundle: Object) -> None:
        parts: list[bytes] = []
        for source in bundle["spec"]["sources"]:
            if source.get("useDefaultCAs"):
                parts.append(Path(certifi.where()).read_bytes())
            else:
                found = self.data("secret", "cert-manager", source["secret"]["name"])
                if not found:
                    return  # trust-manager waits until all its sources are there
                parts.append(found[source["secret"]["key"]])
        target = bundle["spec"]["target"]
        for namespace in self._objects("Namespace"):
            labels = namespace["metadata"]["labels"]
            if target["namespaceSelector"]["matchLabels"].items() <= labels.items():
                name = namespace["metadata"]["name"]
                data = {target["configMap"]["key"]: b"\n".join(parts)}
                self._write("configmap", name, bundle["metadata"]["name"], data)

    def _write(self, kind: str, namespace: str, name: str, data: dict[str, bytes]) -> None:
        if self.data(kind, namespace, name) == data:
            return
        store = self._store(kind, namespace, name)
        store.parent.mkdir(parents=True, exist_ok=True)
        store.write_text(json.dumps({key: base64.b64encode(value).decode() for key, value in data.items()}))
        _mount(self.volume(kind, namespace, name), data)

    def _store(self, kind: str, namespace: str, name: str) -> Path:
        return self._folder / "data" / kind / namespace / name

    def _object(self, kind: str, namespace: str, name: str) -> Object:
        found: Object = json.loads((self._folder / "objects" / kind / namespace / name).read_text())
        return found

    def _objects(self, kind: str, namespace: str = "*") -> Iterator[Object]:
        folder = self._folder / "objects" / kind
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            found = json.loads(path.read_text())
            if namespace in ("*", found["metadata"].get("namespace", "")):
                yield found

    def _key(self) -> ec.EllipticCurvePrivateKey:
        file = self._folder / "key"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            file.write_text(str(secrets.randbelow(2**200) + 1))
        return ec.derive_private_key(int(file.read_text()), ec.SECP256R1())


def _mount(volume: Path, data: dict[str, bytes]) -> None:
    """As the kubelet writes a volume: a new folder, then one link is swapped."""
    volume.mkdir(parents=True, exist_ok=True)
    old = volume / "..data"
    before = old.resolve() if old.is_symlink() else None
    folder = volume / f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{secrets.token_hex(4)}"
    folder.mkdir()
    for name, value in data.items():
        (folder / name).write_bytes(value)
        (folder / name).chmod(0o600)
    (volume / "..data_tmp").symlink_to(folder.name)
    (volume / "..data_tmp").replace(old)
    for name in data:
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    if before is not None:
        for file in before.iterdir():
            file.unlink()
        before.rmdir()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
