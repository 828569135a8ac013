"""deploy/pki on a real OpenBao."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.pki import kubectl, openbao, token_review
from tests.live.pki.cluster import Cluster
from tests.live.pki.made import PAGES, Pki, blocks
from tests.live.pki.openbao import Shell
from tests.live.upstreams import Root


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pki]:
    """OpenBao and cluster, set up by the commands of deploy/pki/README.md; tests leave it as good as they find it."""
    folder = tmp_path_factory.mktemp("openbao")
    shutil.copytree(PAGES, folder / "pki")
    root = Root(folder)
    with openbao.serving(folder) as bao:
        cluster = Cluster(folder / "cluster", bao.address)
        cluster.apply(folder / "pki" / "kubernetes" / "token-review.yaml")
        (folder / "reviewer").write_text(cluster.token("openbao", "openbao", "https://kubernetes.default.svc"))
        with token_review.serving(cluster, root.context("127.0.0.1")) as api:
            variables = kubectl.install(folder / "bin", folder / "cluster", bao.address)
            variables |= bao.environment | {
                "HOME": str(folder),
                "KUBERNETES_HOST": api,
                "KUBERNETES_CA": str(root.pem),
                "KUBERNETES_REVIEWER": str(folder / "reviewer"),
            }
            with Shell(folder / "pki", variables) as shell:
                for block in blocks("README.md", "## Order"):
                    shell.run(block)
            yield Pki(bao, cluster, folder / "pki", variables)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verifiers")
