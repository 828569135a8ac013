import json
import os
import shlex
import ssl
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from ruamel.yaml import YAML

from sidecar.inject.names import Json
from sidecar.pki import issue_session_ca
from sidecar.trust import Anchors, TrustError, client_files, env_file, env_variables
from sidecar.trust.env import java_options, java_proxy_options, pem_variables, with_java_options
from sidecar.trust.env_formats import Format, env_files, env_text
from tests.pki.authorities import NOW
from tests.trust.roots import tool

MOUNT = PurePosixPath("/etc/egress/trust")


def test_clients_that_add_get_the_ca_and_clients_that_replace_get_the_bundle() -> None:
    variables = pem_variables(MOUNT)

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
    for name, data in client_files(Anchors(session=(ca.root,))).items():
        (tmp_path / name).write_bytes(data)
    script = "import ssl; print(ssl.create_default_context().get_ca_certs(binary_form=True)[-1].hex())"

    done = subprocess.run(
        [sys.executable, "-c", script], env=env_variables(tmp_path), capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == ssl.PEM_cert_to_DER_cert(ca.root_pem().decode()).hex()


STORE = "-Djavax.net.ssl.trustStore=/etc/egress/trust/truststore.p12"
OPTIONS = f"{STORE} -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit"
SPACED = PurePosixPath("/a b/$HOME `c`;#%d")


@pytest.mark.parametrize(
    ("present", "appended"),
    [
        ("", OPTIONS),
        ("-Xmx1g", f"-Xmx1g {OPTIONS}"),
        (OPTIONS, OPTIONS),
        (f"-Xmx1g {OPTIONS} -ea", f"-Xmx1g {OPTIONS} -ea"),
        (f"{OPTIONS}2", f"{OPTIONS}2 {OPTIONS}"),
    ],
)
def test_java_s_options_are_appended_once(present: str, appended: str) -> None:
    assert with_java_options(present, OPTIONS) == appended
    assert env_variables(MOUNT, java=present)["JAVA_TOOL_OPTIONS"] == appended


def test_without_a_password_java_is_told_of_none() -> None:
    assert "Password" not in java_options(MOUNT, None)


@pytest.mark.parametrize("mount", ["/a'b", '/a"b', "/a\nb"])
def test_a_path_that_java_would_read_otherwise_is_refused(mount: str) -> None:
    with pytest.raises(TrustError, match="quotation marks"):
        java_options(PurePosixPath(mount))


def test_java_is_led_through_a_proxy_by_options() -> None:
    made = java_proxy_options("http://127.0.0.1:14101", "localhost,*.svc")

    assert "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=14101" in made
    assert made.endswith("-Dhttp.nonProxyHosts=localhost|*.svc")


def shell(script: str, **variables: str) -> dict[str, str]:
    """The variables that a POSIX shell passes on after *script*."""
    done = subprocess.run(
        ["sh", "-euc", f"{script}\nenv -0"],
        env={"PATH": "/usr/bin:/bin"} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)


@pytest.mark.parametrize("mount", [MOUNT, SPACED, PurePosixPath("/Főkönyvtár/*")])
def test_a_shell_takes_every_path_as_it_stands(mount: PurePosixPath) -> None:
    assert env_variables(mount).items() <= shell(env_text(Format.SHELL, mount)).items()


def test_a_shell_appends_to_what_the_user_has_and_only_once() -> None:
    script = env_text(Format.SHELL, MOUNT)

    assert shell(script, JAVA_TOOL_OPTIONS="-Xmx1g  -ea")["JAVA_TOOL_OPTIONS"] == f"-Xmx1g  -ea {OPTIONS}"
    assert shell(script + script, JAVA_TOOL_OPTIONS="-Xmx1g")["JAVA_TOOL_OPTIONS"] == f"-Xmx1g {OPTIONS}"
    assert shell(script, JAVA_TOOL_OPTIONS="")["JAVA_TOOL_OPTIONS"] == OPTIONS


def test_dotenv_is_read_by_a_shell_and_by_node(tmp_path: Path) -> None:
    (tmp_path / "env").write_text(env_text(Format.DOTENV, SPACED), encoding="utf-8")
    code = "process.stdout.write(JSON.stringify(process.env))"

    node = tool("env", "-i", f"PATH={os.environ['PATH']}", "node", f"--env-file={tmp_path / 'env'}", "-e", code)

    assert env_variables(SPACED).items() <= shell(f"set -a; . {tmp_path / 'env'}").items()
    assert env_variables(SPACED).items() <= json.loads(node).items()


def test_docker_takes_lines_as_they_stand() -> None:
    lines = env_text(Format.DOCKER, SPACED).splitlines()

    assert dict(line.split("=", 1) for line in lines) == env_variables(SPACED)


def test_kubernetes_takes_a_list_and_replaces_nothing_in_it() -> None:
    made: Json = YAML(typ="safe").load(env_text(Format.KUBERNETES, PurePosixPath("/$(HOME)/a: b")))

    assert {one["name"]: one["value"].replace("$$(", "$(") for one in made["env"]} == env_variables(
        PurePosixPath("/$(HOME)/a: b")
    )
    assert all(one["value"].count("$(") == one["value"].count("$$(") for one in made["env"])


def test_json_is_an_object_of_texts() -> None:
    assert json.loads(env_text(Format.JSON, SPACED)) == env_variables(SPACED)


@pytest.mark.parametrize(("form", "mount"), [(Format.DOTENV, "/a\\b"), (Format.DOCKER, "/a\vb\rc")])
def test_what_a_format_cannot_hold_is_refused(form: Format, mount: str) -> None:
    with pytest.raises(TrustError):
        env_text(form, PurePosixPath(mount))


def test_the_folder_s_env_file_is_read_alike_by_docker_and_by_a_shell(tmp_path: Path) -> None:
    files = env_files(MOUNT)
    (tmp_path / "env").write_bytes(files["env"])
    lines = dict(line.split("=", 1) for line in files["env"].decode().splitlines())

    assert lines == pem_variables(MOUNT) | {"JAVA_TOOL_OPTIONS": STORE}
    assert lines.items() <= shell(f"set -a; . {tmp_path / 'env'}").items()
    assert sorted(files) == ["env", "env.dotenv", "env.json", "env.sh", "env.yaml"]
