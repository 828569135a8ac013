import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sidecar import files
from sidecar.bootstrap import BootstrapError, CaState, Order, bootstrap, write_trust
from sidecar.cli.bootstrap import bootstrap as command
from sidecar.errors import SidecarError
from sidecar.pki import issue_session_ca
from sidecar.secrets import load_ca
from sidecar.trust import TrustError, public_roots
from sidecar.trust.hashed_dir import subject_hash
from sidecar.trust.load import Sources
from tests.pki.authorities import NOW, openssl
from tests.test_files import Died, die_at_rename

HOUR = timedelta(hours=1)
ROOTS = public_roots()[:3]
PATHS = {
    *("ca/ca-key.pem", "ca/ca.pem", "trust/bundle.pem", "trust/ca.pem", "trust/truststore.jks", "trust/truststore.p12"),
    *("trust/env", "trust/env.sh", "trust/env.dotenv", "trust/env.yaml", "trust/env.json"),
    *("trust/certs", "trust/only", "trust/layouts"),
}


@pytest.fixture(autouse=True)
def few_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whom else the workload trusts is tested elsewhere; all of Mozilla's roots would only take time here."""
    monkeypatch.setattr("sidecar.trust.load.public_roots", lambda: ROOTS)


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(common_name="session-7", ca_dir=tmp_path / "ca", trust_dir=tmp_path / "trust")


def listing(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in listing(folder)}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_both_folders_are_made(order: Order, tmp_path: Path) -> None:
    report = bootstrap(order, NOW)

    assert report.state is CaState.CREATED
    assert {"/".join(Path(name).parts[:2]) for name in listing(tmp_path)} == PATHS
    assert sorted(str(p.relative_to(tmp_path)) for p in report.written) == listing(tmp_path)
    assert load_ca(order.ca_dir, NOW) == report.ca
    assert (order.trust_dir / "ca.pem").read_bytes() == report.ca.root_pem()
    assert f"SSL_CERT_FILE={order.trust_dir}/bundle.pem" in (order.trust_dir / "env").read_text()


def test_the_sidecars_files_are_secret_and_the_workloads_are_public(order: Order) -> None:
    bootstrap(order, NOW)

    assert mode(order.ca_dir) == 0o700
    assert {mode(p) for p in order.ca_dir.iterdir()} == {0o600}
    assert mode(order.trust_dir) == 0o755
    assert {mode(p) for p in order.trust_dir.rglob("*") if p.is_file()} == {0o644}
    assert {mode(p) for p in order.trust_dir.rglob("*") if p.is_dir()} == {0o755}


def test_the_trust_folder_holds_no_key(order: Order) -> None:
    bootstrap(order, NOW)

    key = (order.ca_dir / "ca-key.pem").read_bytes()
    body = key.splitlines()[1]
    assert not any(b"PRIVATE KEY" in data or body in data for data in contents(order.trust_dir).values())
    with pytest.raises(ValueError, match="private key"):
        write_trust(order.trust_dir, {"ca.pem": key})


def test_running_again_changes_nothing(order: Order, tmp_path: Path) -> None:
    bootstrap(order, NOW)
    before = contents(tmp_path)

    report = bootstrap(order, NOW + HOUR)

    assert (report.state, report.written) == (CaState.KEPT, ())
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: path.write_bytes(b"stale"), id="stale"),
        pytest.param(lambda path: path.chmod(0o600), id="unreadable for the workload"),
    ],
)
@pytest.mark.parametrize("name", ["ca.pem", "bundle.pem", "env", "only/ca-certificates.crt", "truststore.p12"])
def test_running_again_repairs_a_trust_file(order: Order, name: str, damage: Callable[[Path], None]) -> None:
    bootstrap(order, NOW)
    before = contents(order.trust_dir)
    damage(order.trust_dir / name)

    report = bootstrap(order, NOW)

    assert (report.state, report.written) == (CaState.KEPT, (order.trust_dir / name,))
    assert contents(order.trust_dir) == before
    assert mode(order.trust_dir / name) == 0o644


def test_force_renews_the_ca_and_what_is_trusted(order: Order) -> None:
    old = bootstrap(order, NOW).ca

    report = bootstrap(replace(order, force=True), NOW)

    assert report.state is CaState.RENEWED
    assert report.ca != old
    assert load_ca(order.ca_dir, NOW) == report.ca
    assert (order.trust_dir / "ca.pem").read_bytes() == report.ca.root_pem()


def test_force_without_a_ca_creates_one(order: Order) -> None:
    assert bootstrap(replace(order, force=True), NOW).state is CaState.CREATED


def test_who_isn_t_trusted_any_more_is_in_no_hashed_directory(order: Order) -> None:
    old = bootstrap(order, NOW).ca
    stranger = order.trust_dir / "only" / "README"
    stranger.touch()

    report = bootstrap(replace(order, common_name="session-8", force=True), NOW)

    held = [path for path in order.trust_dir.rglob("*") if path.is_file() and old.root_pem() in path.read_bytes()]
    assert held == []
    assert {path.name for path in report.removed} == {f"{subject_hash(old.root)}.0"}
    assert len(report.removed) == 5, "certs, only, and three distributions"
    assert stranger.exists()


def test_a_former_ca_stays_trusted_while_it_is_asked_for(order: Order, tmp_path: Path) -> None:
    old = bootstrap(order, NOW).ca
    (tmp_path / "old.pem").write_bytes(old.root_pem())

    bootstrap(replace(order, force=True, sources=Sources(also=(tmp_path / "old.pem",))), NOW)

    hashed = sorted(path.name for path in (order.trust_dir / "only").iterdir() if path.name[0] != "c")
    assert hashed == [f"{subject_hash(old.root)}.0", f"{subject_hash(old.root)}.1"]
    assert old.root_pem() in (order.trust_dir / "bundle.pem").read_bytes()


def test_layouts_can_be_left_out_and_those_that_are_there_are_kept_current(order: Order, tmp_path: Path) -> None:
    without = replace(order, layouts=False)
    bootstrap(without, NOW)
    assert not (order.trust_dir / "layouts").exists()

    bootstrap(order, NOW)
    ca = bootstrap(replace(without, force=True), NOW).ca

    assert ca.root_pem() in (order.trust_dir / "layouts/alpine/etc/ssl/cert.pem").read_bytes()


def test_a_key_among_the_roots_stops_everything(order: Order, tmp_path: Path) -> None:
    (tmp_path / "company.pem").write_bytes(issue_session_ca(common_name="x", now=NOW).key_pem())

    with pytest.raises(TrustError, match=r"company\.pem:1: holds a private key"):
        bootstrap(replace(order, sources=Sources(add=(tmp_path / "company.pem",))), NOW)

    assert listing(order.ca_dir) == []
    assert not order.trust_dir.exists()


def test_a_link_among_the_folders_is_not_followed(order: Order, tmp_path: Path) -> None:
    order.trust_dir.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (order.trust_dir / "only").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(files.CannotWrite, match="only: is a link"):
        bootstrap(order, NOW)

    assert listing(tmp_path / "elsewhere") == []


def test_folders_can_be_read_by_the_workload_whatever_the_umask(order: Order) -> None:
    before = os.umask(0o077)
    try:
        bootstrap(order, NOW)
    finally:
        os.umask(before)

    assert {mode(p) for p in (order.trust_dir, *order.trust_dir.rglob("*")) if p.is_dir()} == {0o755}


def test_the_mount_is_where_the_variables_point(order: Order) -> None:
    report = bootstrap(replace(order, trust_mount=Path("/mnt/trust")), NOW)

    assert report.mount == Path("/mnt/trust")
    assert "GIT_SSL_CAINFO=/mnt/trust/bundle.pem" in (order.trust_dir / "env").read_text()


def test_validity_skew_and_organization_are_options(order: Order) -> None:
    ca = bootstrap(replace(order, validity=2 * HOUR, skew=timedelta(0), organization="Acme"), NOW).ca

    assert (ca.not_before, ca.not_after) == (NOW, NOW + 2 * HOUR)
    assert "O=Acme" in ca.certificate.subject.rfc4514_string()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda ca: (ca / "ca-key.pem").unlink(), "ca-key.pem is missing", id="no key"),
        pytest.param(lambda ca: (ca / "ca.pem").unlink(), "ca.pem is missing", id="no certificate"),
        pytest.param(
            lambda ca: (ca / "ca-key.pem").write_bytes(issue_session_ca(common_name="x", now=NOW).key_pem()),
            "does not belong to",
            id="the key of another session",
        ),
        pytest.param(
            lambda ca: (ca / "ca.pem").write_bytes(
                issue_session_ca(common_name="x", now=NOW - timedelta(days=9)).chain_pem()
            ),
            "does not belong to",
            id="the certificate of another session",
        ),
    ],
)
def test_a_spoiled_pair_is_an_error_and_force_renews_it(order: Order, spoil: Callable[[Path], None], says: str) -> None:
    bootstrap(order, NOW)
    spoil(order.ca_dir)

    with pytest.raises(SidecarError, match=rf"{says}.*--force"):
        bootstrap(order, NOW)

    assert bootstrap(replace(order, force=True), NOW).state is CaState.RENEWED


def test_an_expired_ca_is_an_error_and_force_renews_it(order: Order) -> None:
    bootstrap(order, NOW)
    late = NOW + 25 * HOUR

    with pytest.raises(SidecarError, match=r"ca\.pem expired at 2026-05-05T13:00:00Z.*--force"):
        bootstrap(order, late)

    assert bootstrap(replace(order, force=True), late).state is CaState.RENEWED


def test_a_kept_ca_of_another_name_is_a_warning(order: Order) -> None:
    bootstrap(order, NOW)

    report = bootstrap(replace(order, common_name="session-8"), NOW)

    assert report.state is CaState.KEPT
    assert "'session-7', not 'session-8'; --force" in report.warnings[0]


@pytest.mark.parametrize(
    ("ca", "trust"),
    [
        pytest.param("a", "a", id="one folder for both"),
        pytest.param("a", "a/trust", id="the trust folder in the CA's"),
        pytest.param("a/ca", "a", id="the CA's folder in the trust folder"),
        pytest.param("a", "b/../a", id="one folder in two spellings"),
        pytest.param("a", "link", id="one folder behind a link"),
    ],
)
def test_the_workload_must_not_see_the_key(order: Order, tmp_path: Path, ca: str, trust: str) -> None:
    (tmp_path / "link").symlink_to("a")

    with pytest.raises(BootstrapError, match="neither lies in the other"):
        bootstrap(replace(order, ca_dir=tmp_path / ca, trust_dir=tmp_path / trust), NOW)

    assert listing(tmp_path) == ["link"]


@pytest.mark.parametrize("name", ["ca-key.pem", "tls.key"])
def test_a_trust_folder_that_holds_a_key_is_refused(order: Order, name: str) -> None:
    order.trust_dir.mkdir()
    (order.trust_dir / name).touch()

    with pytest.raises(BootstrapError, match=f"{name} is a private key"):
        bootstrap(order, NOW)


def test_a_mounted_secret_is_used_and_never_replaced(order: Order, tmp_path: Path) -> None:
    ca = issue_session_ca(common_name="session-7", now=NOW)
    order.ca_dir.mkdir()
    (order.ca_dir / "tls.crt").write_bytes(ca.chain_pem())
    (order.ca_dir / "tls.key").write_bytes(ca.key_pem())

    assert bootstrap(order, NOW).state is CaState.KEPT
    assert (order.trust_dir / "ca.pem").read_bytes() == ca.root_pem()
    with pytest.raises(BootstrapError, match="its issuer renews"):
        bootstrap(replace(order, force=True), NOW)


@pytest.mark.parametrize("force", [pytest.param(False, id="first run"), pytest.param(True, id="renewal")])
def test_a_crash_between_the_two_renames_is_finished_by_the_next_run(
    order: Order, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    if force:
        bootstrap(order, NOW)
    with monkeypatch.context() as patched:
        die_at_rename(patched, order.ca_dir / "ca.pem")
        with pytest.raises(Died):
            bootstrap(replace(order, force=force), NOW)
    key = (order.ca_dir / "ca-key.pem").read_bytes()
    assert files.staged(order.ca_dir / "ca.pem").exists()

    report = bootstrap(order, NOW)

    assert report.state is CaState.KEPT
    assert report.ca.key_pem() == key
    assert listing(order.ca_dir) == ["ca-key.pem", "ca.pem"]
    assert (order.trust_dir / "ca.pem").read_bytes() == report.ca.root_pem()


def test_a_crash_before_the_first_rename_leaves_the_old_ca(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    old = bootstrap(order, NOW).ca
    with monkeypatch.context() as patched:
        die_at_rename(patched, order.ca_dir / "ca-key.pem")
        with pytest.raises(Died):
            bootstrap(replace(order, force=True), NOW)

    assert bootstrap(order, NOW).ca == old
    assert listing(order.ca_dir) == ["ca-key.pem", "ca.pem"]


def test_a_folder_that_cannot_be_made_is_explained(order: Order, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(files.CannotWrite, match="Not a directory"):
        bootstrap(replace(order, ca_dir=tmp_path / "file" / "ca"), NOW)


def run(tmp_path: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app(), [*folders(tmp_path), *arguments], env=environment)
    return done.exit_code, done.stdout, done.stderr


def app() -> typer.Typer:
    found = typer.Typer()
    found.command()(command)
    return found


def folders(tmp_path: Path) -> list[str]:
    return ["--ca-dir", str(tmp_path / "ca"), "--trust-dir", str(tmp_path / "trust")]


def test_the_command_says_what_it_wrote_and_what_comes_next(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "--common-name", "session-7")

    assert (code, err) == (0, "")
    assert out.startswith("created CA 'session-7', valid until ")
    assert f"wrote {tmp_path}/trust/bundle.pem\n" in out
    assert f"wrote {tmp_path}/trust/only/ (2 files)\n" in out
    assert "Next: give" in out
    assert "PRIVATE" not in out
    bundle, ca = tmp_path / "trust" / "bundle.pem", tmp_path / "ca" / "ca.pem"
    openssl("verify", "-x509_strict", "-no-CApath", "-CAfile", bundle, ca)


def test_the_command_prints_json_for_scripts(tmp_path: Path) -> None:
    run(tmp_path, "--common-name", "session-7")

    code, out, err = run(tmp_path, "--json", EGRESS_COMMON_NAME="session-8")

    answer = json.loads(out)
    assert code == 0
    assert (answer["ca"], answer["common_name"], answer["written"]) == ("kept", "session-7", [])
    assert len(answer["fingerprint_sha256"]) == 64
    assert err.startswith("warning: the CA in")


def test_the_command_reads_its_settings_from_the_environment(tmp_path: Path) -> None:
    code, out, _ = run(
        tmp_path,
        "--json",
        EGRESS_COMMON_NAME="s",
        EGRESS_TRUST_MOUNT="/mnt/trust",
        EGRESS_VALIDITY_HOURS="2",
        EGRESS_SKEW_HOURS="0",
        EGRESS_ORGANIZATION="Acme",
    )

    assert code == 0
    assert json.loads(out)["trust_mount"] == "/mnt/trust"
    assert "/mnt/trust/bundle.pem" in (tmp_path / "trust" / "env").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no common name"),
        pytest.param(["--common-name", "s", "--validity-hours", "0"], id="no validity"),
        pytest.param(["--common-name", "s", "--skew-hours", "-1"], id="negative skew"),
    ],
)
def test_bad_options_end_with_2(tmp_path: Path, arguments: list[str]) -> None:
    assert run(tmp_path, *arguments)[0] == 2
    assert listing(tmp_path) == []
