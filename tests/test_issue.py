import json
import os
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sidecar.errors import CannotRun, SidecarError
from sidecar.hosts import parse_host
from sidecar.issue import Order, State, issue
from sidecar.pki import SessionCa, issue_session_ca
from sidecar.pki.held import names_in
from sidecar.pki.serving import ServingError, Wish
from tests.pki.authorities import DAY, NOW, openssl, shake_hands
from tests.test_files import Died, die_at_rename

FILES = ["ca.crt", "tls.crt", "tls.key"]
WISH = Wish(hosts=(parse_host("web"), parse_host("10.1.2.3")))
MOVED = replace(WISH, hosts=(parse_host("web"), parse_host("10.1.2.4")))


def give_ca(folder: Path, ca: SessionCa) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_bytes(ca.chain_pem())
    (folder / "ca-key.pem").write_bytes(ca.key_pem())


@pytest.fixture
def ca() -> SessionCa:
    return issue_session_ca(common_name="session-7", now=NOW, validity=365 * DAY)


@pytest.fixture
def order(tmp_path: Path, ca: SessionCa) -> Order:
    give_ca(tmp_path / "ca", ca)
    return Order(ca_dir=tmp_path / "ca", out=tmp_path / "tls", wish=WISH)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(out: Path) -> frozenset[str]:
    return names_in(x509.load_pem_x509_certificate((out / "tls.crt").read_bytes()))


def test_the_folder_gets_certificate_key_and_root(order: Order, ca: SessionCa) -> None:
    report = issue(order, NOW)

    assert report.state is State.ISSUED
    assert list(contents(order.out)) == FILES
    assert sorted(path.name for path in report.written) == FILES
    assert (mode(order.out / "tls.key"), mode(order.out / "tls.crt"), mode(order.out / "ca.crt")) == (
        0o600,
        0o644,
        0o644,
    )
    assert (order.out / "ca.crt").read_bytes() == ca.root_pem()
    key = load_pem_private_key((order.out / "tls.key").read_bytes(), None)
    assert key.public_key() == report.serving.certificate.public_key()


def test_the_folder_gets_nothing_of_the_cas_key(order: Order, ca: SessionCa) -> None:
    issue(order, NOW)

    lines = ca.key_pem().splitlines()[1:-1]
    assert not any(line in data for line in lines for data in contents(order.out).values())


def test_running_again_changes_nothing(order: Order) -> None:
    issue(order, NOW)
    before = contents(order.out)

    report = issue(order, NOW + DAY)

    assert (report.state, report.written) == (State.KEPT, ())
    assert contents(order.out) == before


@pytest.mark.parametrize(
    ("wish", "later", "because"),
    [
        pytest.param(MOVED, timedelta(0), "it names 10.1.2.3, too, it doesn't name 10.1.2.4", id="another address"),
        pytest.param(WISH, 70 * DAY, "it ends at", id="old"),
        pytest.param(WISH, 100 * DAY, "it was valid from", id="expired"),
    ],
)
def test_a_pair_of_ours_that_no_longer_fits_is_renewed_with_a_new_key(
    order: Order, wish: Wish, later: timedelta, because: str
) -> None:
    issue(order, NOW)
    before = contents(order.out)

    report = issue(replace(order, wish=wish), NOW + later)

    assert report.state is State.RENEWED
    assert (report.because or "").startswith(because)
    assert names(order.out) == {host.name for host in wish.hosts}
    assert contents(order.out)["tls.key"] != before["tls.key"]


def foreign(order: Order) -> None:
    """A pair that another CA has issued."""
    elsewhere = order.ca_dir.with_name("elsewhere")
    give_ca(elsewhere, issue_session_ca(common_name="session-8", now=NOW, validity=365 * DAY))
    issue(replace(order, ca_dir=elsewhere), NOW)


def half(order: Order) -> None:
    issue(order, NOW)
    (order.out / "tls.crt").unlink()


def other_key(order: Order) -> None:
    issue(order, NOW)
    (order.out / "tls.key").write_bytes(issue_session_ca(common_name="x", now=NOW).key_pem())


def notes(order: Order) -> None:
    order.out.mkdir()
    (order.out / "tls.crt").write_text("notes\n")
    (order.out / "tls.key").write_text("notes\n")


def link(order: Order) -> None:
    order.out.mkdir()
    (order.out / "tls.crt").symlink_to("/etc/hostname")


def pipe(order: Order) -> None:
    order.out.mkdir()
    os.mkfifo(order.out / "tls.key")


def huge(order: Order) -> None:
    order.out.mkdir()
    (order.out / "tls.crt").write_bytes(bytes(1 << 20))


@pytest.mark.parametrize("there", [foreign, half, other_key, notes, link, pipe, huge], ids=lambda there: there.__name__)
def test_what_is_not_ours_is_left_as_it_is_and_force_replaces_it(order: Order, there: Callable[[Order], None]) -> None:
    there(order)
    before = {path.name: path.lstat() for path in order.out.iterdir()}

    with pytest.raises(ServingError, match="--force"):
        issue(order, NOW)

    assert {path.name: path.lstat() for path in order.out.iterdir()} == before
    report = issue(replace(order, force=True), NOW)
    assert report.state in (State.ISSUED, State.RENEWED)
    assert list(contents(order.out)) == FILES
    assert issue(order, NOW).state is State.KEPT


def test_other_files_in_the_folder_are_nobodys_business(order: Order) -> None:
    order.out.mkdir()
    (order.out / "dhparam.pem").write_text("own\n")

    issue(order, NOW)

    assert (order.out / "dhparam.pem").read_text() == "own\n"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda out: (out / "ca.crt").unlink(), id="no root"),
        pytest.param(lambda out: (out / "ca.crt").write_text("stale"), id="a stale root"),
        pytest.param(lambda out: (out / "tls.key").chmod(0o644), id="a key for everybody"),
    ],
)
def test_running_again_repairs_what_is_beside_a_good_pair(order: Order, damage: Callable[[Path], None]) -> None:
    issue(order, NOW)
    before = contents(order.out)
    damage(order.out)

    report = issue(order, NOW)

    assert report.state is State.KEPT
    assert report.written
    assert contents(order.out) == before
    assert mode(order.out / "tls.key") == 0o600


def test_modes_and_owner_are_the_workloads(order: Order) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")

    issue(replace(order, key_mode=0o640, owner=(20000, 30000)), NOW)

    owners = {(path.stat().st_uid, path.stat().st_gid) for path in order.out.iterdir()}
    assert owners == {(20000, 30000)}
    assert mode(order.out / "tls.key") == 0o640
    assert issue(replace(order, key_mode=0o640, owner=(20000, 30000)), NOW).written == ()
    assert issue(replace(order, key_mode=0o640, owner=(20000, 20000)), NOW).state is State.KEPT
    assert (order.out / "tls.key").stat().st_gid == 20000


def inside(order: Order) -> Order:
    return replace(order, out=order.ca_dir / "tls")


def around(order: Order) -> Order:
    return replace(order, out=order.ca_dir.parent)


def same(order: Order) -> Order:
    order.out.symlink_to("ca")
    return order


@pytest.mark.parametrize("change", [inside, around, same])
def test_the_workload_must_not_see_the_cas_folder(order: Order, change: Callable[[Order], Order]) -> None:
    before = contents(order.ca_dir)

    with pytest.raises(ServingError, match="neither lies in the other"):
        issue(change(order), NOW)

    assert contents(order.ca_dir) == before


def copied(order: Order, ca: SessionCa) -> Path:
    path = order.out / "backup" / "old.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(ca.chain_pem() + ca.key_pem())
    return path


def rewritten(order: Order, ca: SessionCa) -> Path:
    order.out.mkdir()
    path = order.out / "tls.key"
    path.write_bytes(ca.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    return path


def binary(order: Order, ca: SessionCa) -> Path:
    order.out.mkdir()
    path = order.out / "key.der"
    path.write_bytes(ca.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return path


def mounted_twice(order: Order, ca: SessionCa) -> Path:
    path = order.out / "volume" / "data"
    path.parent.mkdir(parents=True)
    path.hardlink_to(order.ca_dir / "ca-key.pem")
    return path


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "there", [copied, rewritten, binary, mounted_twice], ids=lambda there: there.__name__.replace("_", " ")
)
def test_a_folder_with_the_cas_key_in_it_is_refused_whatever_the_file_is_called(
    order: Order, ca: SessionCa, there: Callable[[Order, SessionCa], Path], force: bool
) -> None:
    path = there(order, ca)

    with pytest.raises(ServingError, match=f"{path} is the key of the CA"):
        issue(replace(order, force=force), NOW)

    assert not (order.out / "tls.crt").exists()


def test_a_folder_that_cannot_be_searched_in_reasonable_time_is_refused(order: Order) -> None:
    order.out.mkdir()
    for number in range(1001):
        (order.out / str(number)).touch()

    with pytest.raises(ServingError, match="more than 1000 files"):
        issue(order, NOW)


@pytest.mark.parametrize("there_before", [False, True])
def test_a_crash_between_the_two_renames_is_finished_by_the_next_run(
    order: Order, monkeypatch: pytest.MonkeyPatch, there_before: bool
) -> None:
    if there_before:
        issue(order, NOW)
    with monkeypatch.context() as patched:
        die_at_rename(patched, order.out / "tls.crt")
        with pytest.raises(Died):
            issue(replace(order, wish=MOVED), NOW)
    key = (order.out / "tls.key").read_bytes()

    report = issue(replace(order, wish=MOVED), NOW)

    assert report.state is State.KEPT
    assert contents(order.out)["tls.key"] == key
    assert list(contents(order.out)) == FILES


def test_a_crash_before_the_first_rename_leaves_the_old_pair(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    issue(order, NOW)
    before = contents(order.out)
    with monkeypatch.context() as patched:
        die_at_rename(patched, order.out / "tls.key")
        with pytest.raises(Died):
            issue(replace(order, wish=MOVED), NOW)

    assert issue(order, NOW).state is State.KEPT
    assert contents(order.out) == before


def test_nothing_is_written_if_the_ca_cannot_be_used(order: Order) -> None:
    with pytest.raises(SidecarError, match="expired"):
        issue(order, NOW + 400 * DAY)

    assert not order.out.exists()


def test_a_mounted_secret_issues_as_well(order: Order, ca: SessionCa) -> None:
    secret = order.ca_dir.with_name("secret")
    secret.mkdir()
    (secret / "tls.crt").write_bytes(ca.chain_pem())
    (secret / "tls.key").write_bytes(ca.key_pem())

    assert issue(replace(order, ca_dir=secret), NOW).ca == ca


def test_two_pods_prove_themselves_to_each_other(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    give_ca(tmp_path / "ca", issue_session_ca(common_name="session-7", now=now, validity=365 * DAY))
    for name in ("web", "api"):
        issue(Order(ca_dir=tmp_path / "ca", out=tmp_path / name, wish=Wish(hosts=(parse_host(name),))), now)

    def context(side: ssl.Purpose, name: str) -> ssl.SSLContext:
        made = ssl.create_default_context(side, cafile=tmp_path / name / "ca.crt")
        made.load_cert_chain(tmp_path / name / "tls.crt", tmp_path / name / "tls.key")
        made.verify_mode = ssl.CERT_REQUIRED
        return made

    server, client = context(ssl.Purpose.CLIENT_AUTH, "web"), context(ssl.Purpose.SERVER_AUTH, "api")

    assert shake_hands(server, client, "web")["subjectAltName"] == (("DNS", "web"),)
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'api'"):
        shake_hands(server, client, "api")


def test_an_end_that_is_the_cas_is_a_warning(order: Order) -> None:
    assert issue(order, NOW).warnings == ()
    give_ca(order.ca_dir, issue_session_ca(common_name="day", now=NOW))

    warning = issue(replace(order, force=True), NOW).warnings[0]

    assert "ends with its CA, at 2026-05-05T13:00:00Z; restart" in warning


def test_a_folder_that_cannot_be_made_is_explained(order: Order, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CannotRun, match="Not a directory"):
        issue(replace(order, out=tmp_path / "file" / "tls"), NOW)


def test_a_folder_out_of_reach_is_explained(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    exists = Path.exists

    def denied(path: Path) -> bool:
        if path == order.out:
            raise PermissionError(13, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", denied)  # root, as which the tests run, is denied nothing

    with pytest.raises(CannotRun, match="Permission denied; name a folder that this user may write to"):
        issue(order, NOW)


def test_the_mode_of_a_volume_stays(order: Order) -> None:
    order.out.mkdir()
    order.out.chmod(0o2777)  # as an emptyDir of a pod with an fsGroup has it

    issue(order, NOW)

    assert mode(order.out) == 0o2777


def run(
    tmp_path: Path, *arguments: str, prefix: Sequence[str] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command, as a process of its own: it gives up its privileges."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    command = [*prefix, sys.executable, "-m", "sidecar", "issue", "--ca-dir", str(tmp_path / "ca"), *arguments]
    environment = kept | {"EGRESS_ISSUE_OUT": str(tmp_path / "tls")} | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


DOWNWARD = {"POD_IP": "10.9.9.9", "POD_IPS": "10.1.2.3,fd00::3", "POD_NAME": "web-0", "POD_NAMESPACE": "agents"}


def test_the_command_reads_the_downward_api_and_openssl_accepts_what_it_writes(tmp_path: Path) -> None:
    give_ca(tmp_path / "ca", issue_session_ca(common_name="session-7", now=datetime.now(UTC), validity=365 * DAY))

    done = run(tmp_path, "--json", EGRESS_ISSUE_SERVICES="web, api", POD_SUBDOMAIN="web", HOSTNAME="web-0", **DOWNWARD)

    assert (done.returncode, done.stderr) == (0, "")
    answer, out = json.loads(done.stdout), tmp_path / "tls"
    assert (answer["certificate"], answer["issuer"], answer["usage"]) == ("issued", "session-7", "both")
    assert set(answer["names"]) == names(out)
    assert {"web.agents.svc", "api.agents.svc.cluster.local", "web-0.web", "10.1.2.3", "fd00::3"} < names(out)
    assert "10.9.9.9" not in names(out)
    for check in (["-verify_ip", "fd00::3"], ["-verify_hostname", "10-1-2-3.agents.pod.cluster.local"]):
        openssl("verify", "-x509_strict", "-no-CApath", *check, "-CAfile", out / "ca.crt", out / "tls.crt")


def test_the_command_says_what_it_did_and_shows_no_key(tmp_path: Path) -> None:
    give_ca(tmp_path / "ca", issue_session_ca(common_name="session-7", now=datetime.now(UTC)))

    first, second = run(tmp_path, "--ip", "10.1.2.3"), run(tmp_path, "--ip", "10.1.2.4")

    assert first.stdout.startswith(f"issued {tmp_path}/tls/tls.crt: by 'session-7', valid until ")
    assert f"for 10.1.2.3\nwrote {tmp_path}/tls/ca.crt\n" in first.stdout
    assert first.stderr.startswith("warning: the certificate ends with its CA")
    assert "because it names 10.1.2.3, too, it doesn't name 10.1.2.4" in second.stdout
    assert "PRIVATE" not in first.stdout + first.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param([], "nothing is known of this pod", id="no name"),
        pytest.param(["--name", "*.web.svc"], "would be a certificate for other pods, too", id="a wildcard"),
        pytest.param(["--name", "10.1.2.3"], "give it with --ip", id="an address as a name"),
        pytest.param(["--ip", "web"], "--ip 'web' is no address", id="a name as an address"),
        pytest.param(["--ip", "10.1.2.3", "--key-mode", "0644"], "isn't for a private key", id="a key for all"),
        pytest.param(["--ip", "10.1.2.3", "--owner", "web"], "write numbers", id="an owner by name"),
        pytest.param(["--ip", "10.1.2.3", "--days", "0"], "--days", id="no life"),
    ],
)
def test_bad_input_ends_with_2_and_writes_nothing(tmp_path: Path, arguments: list[str], says: str) -> None:
    give_ca(tmp_path / "ca", issue_session_ca(common_name="session-7", now=datetime.now(UTC)))

    done = run(tmp_path, *arguments)

    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "tls").exists()


def test_an_owner_that_this_user_may_not_give_files_to_is_explained(tmp_path: Path) -> None:
    give_ca(tmp_path / "ca", issue_session_ca(common_name="session-7", now=datetime.now(UTC)))
    without = ("setpriv", "--bounding-set=-chown", "--") if os.geteuid() == 0 else ()

    done = run(tmp_path, "--ip", "10.1.2.3", "--owner", "20000:20000", prefix=without)

    assert done.returncode == 3
    assert "may not be given to 20000:20000 by this user; run as that user instead" in done.stderr
    assert list((tmp_path / "tls").iterdir()) == []
