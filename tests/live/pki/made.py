"""What the commands of deploy/pki have made, and where its pages have more of them."""

import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tests.live.pki.cluster import Cluster
from tests.live.pki.openbao import OpenBao

PAGES = Path(__file__).parents[3] / "deploy" / "pki"
NAMESPACE, SECRET, BUNDLE = "agents", "egress-intermediate", "egress-trust"


@dataclass(frozen=True)
class Pki:
    """What deploy/pki has made."""

    bao: OpenBao
    cluster: Cluster
    folder: Path  # a copy of deploy/pki, to run commands in
    variables: dict[str, str]

    def roots(self, file: Path) -> Path:
        """Our roots alone, without the public ones: those that External Secrets has brought."""
        file.write_bytes(self.cluster.data("secret", "cert-manager", "egress-roots")["ca.crt"])
        return file

    @property
    def ca_dir(self) -> Path:
        return self.cluster.volume("secret", NAMESPACE, SECRET)

    @property
    def bundle(self) -> Path:
        return self.cluster.volume("configmap", NAMESPACE, BUNDLE) / "bundle.pem"


def blocks(page: str, heading: str) -> list[str]:
    """The shell commands below a heading of a page, one text for each block."""
    text = (PAGES / page).read_text()
    level, _, _ = heading.partition(" ")
    section = re.split(rf"^#{{1,{len(level)}}} ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no commands below {heading!r}"
    return found


def certificate(pem: bytes) -> x509.Certificate:
    (only,) = x509.load_pem_x509_certificates(pem)
    return only
