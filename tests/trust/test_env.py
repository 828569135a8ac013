import shlex
import ssl
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from sidecar.pki import issue_session_ca
from sidecar.trust import TrustError, env_file, env_variables, trust_files
from tests.pki.authorities import NOW

MOUNT = PurePosixPath("/etc/egress/trust")


def test_clients_that_add_get_the_ca_and_clients_that_replace_get_the_bundle() -> None:
    variables = env_variables(MOUNT)

    assert variables.pop("NODE_EXTRA_CA_CERTS") == "/etc/egress/trust/ca.pem"
    assert variables.pop("UV_SYSTEM_CERTS") == "true"
    assert set(variables.values()) == {"/etc/egress/trust/bundle.pem"}


@pytest.mark.parametrize(
    "name",
    ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE",
     "CARGO_HTTP_CAINFO", "DENO_CERT", "NPM_CONFIG_CAFILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"],
)  # fmt: skip
def test_the_usual_clients_are_served(name: str) -> None:
    assert name in env_variables(MOUNT)


def test_the_images_own_directory_of_certificates_stays() -> None:
    assert "SSL_CERT_DIR" not in env_variables(MOUNT)


def test_a_relative_mount_is_refused() -> None:
    with pytest.raises(TrustError, match="absolute"):
        env_variables(PurePosixPath("trust"))


@pytest.mark.parametrize("mount", ["/a b", "/a'b", "/$HOME", "/a\nEVIL=1", "/a;b", "/a`b`", "/a#b"])
def test_a_path_that_a_shell_would_read_otherwise_is_refused(mount: str) -> None:
    with pytest.raises(TrustError, match="--trust-mount"):
        env_file(PurePosixPath(mount))


def test_a_shell_reads_the_file_as_it_is_meant(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(env_file(MOUNT))
    script = f"set -a; . {shlex.quote(str(tmp_path / 'env'))}; env"

    done = subprocess.run(
        ["sh", "-c", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )

    assert set(env_file(MOUNT).decode().splitlines()) <= set(done.stdout.splitlines())


def test_python_trusts_the_session_ca_by_the_variables(tmp_path: Path) -> None:
    ca = issue_session_ca(common_name="session-7", now=NOW)
    for name, data in trust_files(ca, tmp_path).items():
        (tmp_path / name).write_bytes(data)
    script = "import ssl; print(ssl.create_default_context().get_ca_certs(binary_form=True)[-1].hex())"

    done = subprocess.run(
        [sys.executable, "-c", script], env=env_variables(tmp_path), capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == ssl.PEM_cert_to_DER_cert(ca.root_pem().decode()).hex()
