"""``sidecar trust``: one part of the trust folder, alone, is that of the folder."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sidecar.bootstrap import Order, bootstrap
from sidecar.cli import app
from sidecar.errors import SidecarError
from sidecar.pki import issue_session_ca
from sidecar.pki.pem import certificates_in
from sidecar.trust.load import Sources
from tests.pki.authorities import authority
from tests.trust.roots import listing, write


@dataclass(frozen=True)
class Scene:
    folder: Path

    @property
    def trust(self) -> Path:
        return self.folder / "trust"

    def run(self, *words: str | Path) -> tuple[bytes, str]:
        command, *more = map(str, words)
        result = CliRunner().invoke(app, ["trust", command, *more], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout_bytes, result.stderr


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("trust")
    now = datetime.now(UTC)
    kinds = {
        "roots": authority("root", begin=now, end=now + timedelta(days=9)).pem,
        "old": issue_session_ca(common_name="session-6", now=now).root_pem(),
        "expired": authority("gone", begin=now - timedelta(days=9), end=now - timedelta(days=1)).pem,
    }
    write(folder, {f"{name}.pem": pem for name, pem in kinds.items()})
    order = Order(
        common_name="session-7",
        ca_dir=folder / "ca",
        trust_dir=folder / "trust",
        sources=Sources(roots=str(folder / "roots.pem")),
    )
    bootstrap(order, now)
    return Scene(folder)


@pytest.fixture
def common(scene: Scene) -> list[str]:
    return ["--ca", str(scene.trust / "ca.pem"), "--roots", str(scene.folder / "roots.pem")]


def test_the_bundle(scene: Scene, common: list[str]) -> None:
    assert scene.run("bundle", *common) == ((scene.trust / "bundle.pem").read_bytes(), "")


def test_the_bundle_with_a_former_ca_and_with_the_session_s_alone(scene: Scene, common: list[str]) -> None:
    ca = certificates_in((scene.trust / "ca.pem").read_bytes(), "ca")
    old = certificates_in((scene.folder / "old.pem").read_bytes(), "old")

    both, _ = scene.run("bundle", *common[:2], "--only", "--also", scene.folder / "old.pem")
    alone, _ = scene.run("bundle", *common[:2], "--only")

    assert certificates_in(both, "both") == old + ca
    assert certificates_in(alone, "alone") == ca


def test_an_expired_root_is_warned_of(scene: Scene, common: list[str]) -> None:
    _, said = scene.run("bundle", *common, "--add", scene.folder / "expired.pem")

    assert said.startswith(f"warning: {scene.folder}/expired.pem: 'CN=gone' is left out: it expired at ")


@pytest.mark.parametrize(("kind", "name"), [("pkcs12", "truststore.p12"), ("jks", "truststore.jks")])
def test_a_keystore(scene: Scene, common: list[str], tmp_path: Path, kind: str, name: str) -> None:
    out = tmp_path / "store"

    scene.run("keystore", *common, "--type", kind, "--out", out)
    plain, _ = scene.run("keystore", *common, "--type", kind, "--no-keystore-password")

    assert out.read_bytes() == (scene.trust / name).read_bytes() != plain


def test_the_hashed_directory_and_what_is_stale_in_it(scene: Scene, common: list[str], tmp_path: Path) -> None:
    write(tmp_path, {"0badcafe.0": b"stale", "README": b"mine"})
    (tmp_path / "0badcafe.1").symlink_to("README")

    said, _ = scene.run("hashed", *common, "--out", tmp_path)

    assert said.decode() == f"{tmp_path}: 3 files written, 1 removed, 0 were current\n"
    assert set(listing(tmp_path)) == {*listing(scene.trust / "certs"), "README", "0badcafe.1"}


@pytest.mark.parametrize("family", ["debian", "alpine", "rhel", "distroless"])
def test_a_layout(scene: Scene, common: list[str], tmp_path: Path, family: str) -> None:
    scene.run("layout", family, *common, "--out", tmp_path / "out")

    assert listing(tmp_path / "out") == listing(scene.trust / "layouts" / family)


@pytest.mark.parametrize("form", ["shell", "dotenv", "kubernetes", "json"])
def test_the_variables(scene: Scene, form: str) -> None:
    name = {"shell": "sh", "kubernetes": "yaml"}.get(form, form)

    out, _ = scene.run("env", "--format", form, "--mount", scene.trust)

    assert out == (scene.trust / f"env.{name}").read_bytes()


def test_the_configmaps(scene: Scene, common: list[str]) -> None:
    out, _ = scene.run("configmap", *common, "--namespace", "team-a", "--label", "a=b", "--name", "roots")

    assert out.count(b"kind: ConfigMap") == 2
    assert b"name: roots-only\n  namespace: team-a\n  labels:\n    a: b\n" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["bundle", "--ca", "KEY"], "ca-key.pem:1: holds a private key", id="the CA's key"),
        pytest.param(["bundle", "--ca", "/missing"], "/missing: No such file.*--ca", id="no CA"),
        pytest.param(["bundle", "--ca", "CA", "--only", "--add", "CA"], "--only", id="alone and not alone"),
        pytest.param(["keystore", "--ca", "CA", "--keystore-password", "ab"], "6 to 128", id="a short password"),
        pytest.param(["env", "--mount", "here"], "'here' is relative", id="a relative mount"),
        pytest.param(["configmap", "--ca", "CA", "--label", "a"], "--label 'a'", id="half a label"),
        pytest.param(["hashed", "--ca", "CA", "--only", "--out", "/proc/x"], "/proc/x: ", id="nowhere to write"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(scene: Scene, words: list[str], says: str) -> None:
    paths = {"CA": scene.trust / "ca.pem", "KEY": scene.folder / "ca" / "ca-key.pem"}

    with pytest.raises(SidecarError, match=says) as raised:
        scene.run(*(paths.get(word, word) for word in words))

    assert "\n" not in str(raised.value)


def test_bootstrap_takes_the_same_options(tmp_path: Path, scene: Scene) -> None:
    folders = ["--ca-dir", str(tmp_path / "ca"), "--trust-dir", str(tmp_path / "trust"), "--common-name", "s", "--json"]
    options = ["--only", "--also", str(scene.folder / "old.pem"), "--no-keystore-password", "--no-layouts"]

    result = CliRunner().invoke(app, ["bootstrap", *folders, *options])

    assert result.exit_code == 0, result.output
    assert len(certificates_in((tmp_path / "trust" / "bundle.pem").read_bytes(), "bundle")) == 2
    assert "trustStorePassword" not in (tmp_path / "trust" / "env.json").read_text()
    assert not (tmp_path / "trust" / "layouts").exists()
    assert json.loads(result.stdout)["removed"] == []
