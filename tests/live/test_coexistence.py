"""What people run in pods, behind the fence and without a proxy variable: it works where policy says so."""

import gzip
import hashlib
import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.intercepted import Intercepted, Zone, intercepted
from tests.live.pod import INTERNET_V4, INTERNET_V6, POD_V4, POD_V6, WORKLOAD_UID, Namespace, Pod, Process
from tests.live.sidecars import SECONDS, until

pytestmark = [pytest.mark.live, pytest.mark.root]

OUTSIDE = (INTERNET_V4[0], INTERNET_V6[0])
NODE_LOCAL, CLUSTER_DNS = "169.254.20.10", "10.96.0.10"  # where the kubelet points pods; neither is a pod's own
SERVICE = "10.96.7.7"

ZONE = Zone(
    names={
        **dict.fromkeys(
            (
                *("api.example.com", "git.example.com", "pypi.example.com", "registry.example.com", "deb.example.com"),
                *(
                    "ssh.example.com",
                    "closed-ssh.example.com",
                    "db.example.com",
                    "closed-db.example.com",
                    "count.example.com",
                ),
                *("truth.example.com", "denied.example.com"),
            ),
            OUTSIDE,
        ),
        **dict.fromkeys(
            ("db-0.db.default.svc.cluster.local", "web.default.svc.cluster.local", "other.default.svc.cluster.local"),
            (SERVICE, INTERNET_V6[1]),
        ),
    },
    resolvers=(NODE_LOCAL, CLUSTER_DNS, INTERNET_V4[2], INTERNET_V6[2]),
    extra_addresses=(SERVICE,),
)

POLICY = """
version: 1
rules:
  - name: refused
    deny: ["denied.example.com"]
  - allow: ["api.example.com", "git.example.com", "pypi.example.com", "registry.example.com", "deb.example.com"]
  - name: shell
    allow: ["ssh.example.com"]
    protocol: tcp
    ports: [22]
  - name: database
    allow: ["db.example.com"]
    protocol: tcp
    ports: [5432]
  - name: counter
    allow: ["count.example.com"]
    protocol: tcp
    ports: [2525]
  - name: in-the-cluster
    allow: ["db-0.db.default.svc.cluster.local", "web.default.svc.cluster.local"]
  - name: truth
    allow: ["truth.example.com"]
    dns: real
network:
  allow_addresses: ["203.0.113.0/24", "2001:db8::/32", "10.96.0.0/16"]
"""

# As the kubelet writes it for a pod of the namespace "default", with NodeLocal DNSCache.
SEARCH = "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"


def need(*tools: str) -> None:
    """Skip where a tool is missing; with ``CI=true`` fail instead."""
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {', '.join(missing)}")


@pytest.fixture(scope="module")
def without_fence() -> list[subprocess.CompletedProcess[str]]:
    """What went through before the rules were there."""
    return []


@pytest.fixture(scope="module")
def scene(
    without_fence: list[subprocess.CompletedProcess[str]],
) -> Iterator[Intercepted]:
    def prepare(pod: Pod) -> None:
        pod.sysctl(**{"net.ipv4.ping_group_range": f"0 {WORKLOAD_UID}"})  # as containerd and CRI-O set it
        if shutil.which("ping"):
            without_fence.append(pod.run(["ping", "-c", "1", "-W", "5", OUTSIDE[0]], uid=WORKLOAD_UID))

    resolv_conf = f"nameserver {NODE_LOCAL}\n{SEARCH}"
    with intercepted(policy=POLICY, zone=ZONE, resolv_conf=resolv_conf, prepare=prepare) as scene:
        yield scene


def serve(scene: Intercepted, name: str) -> Path:
    """The folder that the Internet serves as *name*."""
    folder = scene.www / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- Clients of HTTPS


@pytest.mark.parametrize("options", [(), ("--http1.1",), ("-4",), ("-6",)], ids=" ".join)
def test_curl(scene: Intercepted, options: tuple[str, ...]) -> None:
    done = scene.run("curl", "-sS", *options, "https://api.example.com/curl")

    assert (done.returncode, done.stdout) == (0, "hello from api.example.com\n"), done


def test_curl_trusts_the_bundle_in_the_systems_place(scene: Intercepted) -> None:
    done = scene.run("curl", "-sS", "https://api.example.com/", trusting=False, system_trust=True)
    distrusts = scene.run("curl", "-sS", "https://api.example.com/", trusting=False)

    assert done.stdout == "hello from api.example.com\n", done
    assert distrusts.returncode == 60, distrusts


def test_a_denied_name_is_answered_with_the_reason(scene: Intercepted) -> None:
    done = scene.run("curl", "-sS", "https://denied.example.com/")

    problem = json.loads(done.stdout)
    assert (problem["status"], problem["reason"]) == (403, "rule_deny")
    assert "denied.example.com" not in {request["host"] for request in scene.requests()}


def test_git_clones(scene: Intercepted, tmp_path: Path) -> None:
    need("git")
    work, bare = tmp_path / "work", serve(scene, "git.example.com") / "tiny.git"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "-q", str(work)], check=True)
    (work / "README").write_text("tiny\n")
    subprocess.run([*git, "-C", str(work), "add", "README"], check=True)
    subprocess.run([*git, "-C", str(work), "commit", "-qm", "first"], check=True)
    subprocess.run([*git, "clone", "-q", "--bare", str(work), str(bare)], check=True)
    subprocess.run([*git, "-C", str(bare), "update-server-info"], check=True)

    done = scene.run("git", "clone", "-q", "https://git.example.com/tiny.git", "cloned", GIT_CONFIG_NOSYSTEM="1")

    assert done.returncode == 0, done
    assert (scene.home / "cloned" / "README").read_text() == "tiny\n"
    scene.sidecar.event("request_closed", host="git.example.com", status=200)


def test_pip_installs(scene: Intercepted) -> None:
    wheel = "tiny_wheel-1.0-py3-none-any.whl"
    folder = serve(scene, "pypi.example.com") / "simple" / "tiny-wheel"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        archive.writestr("tiny_wheel.py", "ANSWER = 42\n")
        info = "tiny_wheel-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"tiny_wheel.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    digest = hashlib.sha256((folder / wheel).read_bytes()).hexdigest()
    (folder / "index.html").write_text(f'<!DOCTYPE html><a href="{wheel}#sha256={digest}">{wheel}</a>')

    install = ("install", "-q", "--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--target", "packages")
    index = ("--index-url", "https://pypi.example.com/simple")
    done = scene.run(sys.executable, "-m", "pip", *install, *index, "tiny-wheel", PIP_CONFIG_FILE=os.devnull)

    assert done.returncode == 0, done
    assert (scene.home / "packages" / "tiny_wheel.py").exists()


def test_npm_installs(scene: Intercepted) -> None:
    need("npm")
    registry = serve(scene, "registry.example.com")
    manifest = {"name": "tiny", "version": "1.0.0", "main": "index.js"}
    tarball = registry / "tiny-1.0.0.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        for name, text in (("package.json", json.dumps(manifest)), ("index.js", "module.exports = 42;\n")):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    dist = {"tarball": f"https://registry.example.com/{tarball.name}"}
    dist["shasum"] = hashlib.sha1(tarball.read_bytes()).hexdigest()
    packument = {"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": {**manifest, "dist": dist}}}
    (registry / "tiny").write_text(json.dumps(packument))

    options = ("--no-audit", "--no-fund", "--no-update-notifier", "--prefix", str(scene.home / "app"))
    done = scene.run("npm", "install", "--registry", "https://registry.example.com/", *options, "tiny")

    assert done.returncode == 0, done
    assert (scene.home / "app" / "node_modules" / "tiny" / "index.js").exists()


def test_apt_updates_and_downloads(scene: Intercepted) -> None:
    need("apt-get", "dpkg-deb")
    repository, package = serve(scene, "deb.example.com"), scene.folder / "tiny-deb"
    (package / "DEBIAN").mkdir(parents=True)
    control = "Package: tiny\nVersion: 1.0\nArchitecture: all\nMaintainer: t <t@example.com>\nDescription: tiny\n"
    (package / "DEBIAN" / "control").write_text(control)
    subprocess.run(["dpkg-deb", "--build", str(package), str(repository / "tiny.deb")], check=True, capture_output=True)
    deb = (repository / "tiny.deb").read_bytes()
    index = f"{control}Filename: ./tiny.deb\nSize: {len(deb)}\nSHA256: {hashlib.sha256(deb).hexdigest()}\n"
    (repository / "Packages.gz").write_bytes(gzip.compress(index.encode()))
    # Folders of its own instead of the system's, and none of the system's settings.
    apt = scene.home / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial", "etc"):
        (apt / folder).mkdir(parents=True)
    (apt / "etc" / "sources.list").write_text("deb [trusted=yes] https://deb.example.com ./\n")
    (apt / "etc" / "status").write_text("")
    settings = {"State": "state", "State::status": "etc/status", "Cache": "cache", "Etc": "etc", "Etc::parts": "none"}
    lines = [f'Dir::{key} "{apt / value}";' for key, value in settings.items()]
    (apt / "etc" / "own.conf").write_text("\n".join([*lines, 'APT::Architecture "amd64";', 'Dir::Log "/dev/null";']))
    for path in (apt, *apt.rglob("*")):
        os.chown(path, WORKLOAD_UID, WORKLOAD_UID)

    def apt_get(*words: str) -> subprocess.CompletedProcess[str]:
        # apt reads no variable that says whom to trust.
        return scene.run("apt-get", "-q", *words, system_trust=True, APT_CONFIG=str(apt / "etc" / "own.conf"))

    updated, downloaded = apt_get("update"), apt_get("download", "tiny")

    assert updated.returncode == 0 and "Packages" in updated.stdout, updated
    assert downloaded.returncode == 0, (downloaded, scene.sidecar.events("request_denied")[-3:])
    assert next(scene.home.glob("tiny_1.0_all.deb")).read_bytes() == deb


JAVA = """
import java.net.URI;
import java.net.http.*;

public class Client {
    public static void main(String[] arguments) throws Exception {
        var client = HttpClient.newHttpClient();
        for (var url : arguments) {
            var request = HttpRequest.newBuilder(URI.create(url)).build();
            var response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.statusCode() + " " + response.body().strip());
        }
    }
}
"""


def test_java(scene: Intercepted) -> None:
    need("java")
    source = scene.home / "Client.java"
    source.write_text(JAVA)

    urls = ("https://api.example.com/java", "https://denied.example.com/java")
    done = scene.run("java", str(source), *urls, timeout=90)

    allowed, denied = done.stdout.splitlines()
    assert allowed == "200 hello from api.example.com"
    assert denied.startswith("403 {") and "rule_deny" in denied


# --- Raw TCP by name


@contextmanager
def sshd(scene: Intercepted) -> Iterator[Path]:
    """A real server in the Internet that says hello; gives the client's key."""
    folder = scene.folder / "sshd"
    folder.mkdir()
    keys = {name: folder / name for name in ("host", "client")}
    for key in keys.values():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    settings = {
        "HostKey": keys["host"],
        "AuthorizedKeysFile": f"{keys['client']}.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "ForceCommand": "cat; echo hello by ssh",
    }
    (folder / "config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    # Its folder for privilege separation, in a mount namespace of its own.
    inside = 'mount -t tmpfs none /run && mkdir /run/sshd && echo ready && exec "$0" -D -e -f "$1"'
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert sshd is not None
    command = ["unshare", "--mount", "sh", "-c", inside, sshd, str(folder / "config")]
    server = scene.pod.internet.popen(command)
    assert server.line() == "ready"
    listens(scene.pod.internet, 22)
    own = scene.home / "key"
    shutil.copy(keys["client"], own)
    own.chmod(0o600)
    os.chown(own, WORKLOAD_UID, WORKLOAD_UID)
    try:
        yield own
    finally:
        server.kill()


def listens(namespace: Namespace, port: int) -> None:
    """Wait until something listens on *port*."""
    until(lambda: f":{port} " in namespace.run(["ss", "-Hltn"], check=True).stdout, f"listener on {port}")


def test_ssh_is_refused_at_once_and_allowed_by_a_rule_on_its_name(scene: Intercepted) -> None:
    need("ssh", "ssh-keygen")
    if shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        need("sshd")
    with sshd(scene) as key:
        options = ["-F", "none", "-i", str(key), "-l", "root"]
        for option in ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"):
            options += ["-o", option]
        sent = "x" * 100_000
        began = time.monotonic()
        refused = scene.run("ssh", *options, "closed-ssh.example.com", timeout=SECONDS)
        took = time.monotonic() - began
        allowed = scene.run("ssh", *options, "ssh.example.com", input=sent, timeout=SECONDS)

    assert refused.returncode == 255 and took < 5, refused
    assert (allowed.returncode, allowed.stdout) == (0, f"{sent}hello by ssh\n"), allowed
    denied = scene.sidecar.event("connection_denied", host="closed-ssh.example.com")
    assert (denied["port"], bytes.fromhex(denied["first_bytes"])[:4]) == (22, b"SSH-")
    ended = scene.sidecar.event("connection_closed", host="ssh.example.com")
    assert ended["protocol"] == "tcp"
    assert ended["bytes_out"] > len(sent) and ended["bytes_in"] > len(sent)


@contextmanager
def postgresql(scene: Intercepted) -> Iterator[None]:
    """A real server in the Internet, of a user of its own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    user = pwd.getpwnam("postgres")
    folder = scene.folder / "internet" / "postgresql"
    folder.mkdir()
    os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"
    by = scene.pod.internet
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "tester", "--auth=trust", "--no-sync", "-E", "UTF8"]
    by.run(by.command(initdb, uid=user.pw_uid)[4:], check=True, timeout=60)
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all trust\n")
    settings = {"listen_addresses": "*", "unix_socket_directories": "", "fsync": "off", "shared_buffers": "8MB"}
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    server = by.popen([str(programs / "postgres"), "-D", str(data), *options], uid=user.pw_uid)
    listens(by, 5432)
    try:
        yield
    finally:
        server.popen.terminate()
        server.popen.wait(SECONDS)


def test_psql_is_refused_at_once_and_allowed_by_a_rule_on_its_name(scene: Intercepted) -> None:
    need("psql")
    if not Path("/usr/lib/postgresql").is_dir():
        need("postgres")
    with postgresql(scene):
        psql = ("psql", "-X", "-A", "-t", "-U", "tester", "-d", "postgres", "-c", "select 6 * 7")
        began = time.monotonic()
        refused = scene.run(*psql, "-h", "closed-db.example.com", timeout=SECONDS)
        took = time.monotonic() - began
        allowed = scene.run(*psql, "-h", "db.example.com", timeout=SECONDS)

    assert refused.returncode == 2 and took < 5, refused
    assert (allowed.returncode, allowed.stdout) == (0, "42\n"), allowed
    assert scene.sidecar.event("connection_denied", host="closed-db.example.com")["port"] == 5432
    assert scene.sidecar.event("connection_allowed", host="db.example.com")["rule"] == "rules[3] 'database'"


COUNTER = textwrap.dedent(
    """
    import socket
    listener = socket.create_server(("::", 2525), family=socket.AF_INET6, dualstack_ipv6=True)
    print("ready", flush=True)
    while True:
        with listener.accept()[0] as sock:
            size = 0
            while data := sock.recv(65536):
                size += len(data)
            sock.sendall(b"%d bytes" % size)
    """
)

SENDS_AND_WAITS = textwrap.dedent(
    """
    import socket
    with socket.create_connection(("count.example.com", 2525), 10) as sock:
        sock.sendall(b"x" * 1_000_000)
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile() as answer:
            print(answer.read())
    """
)


def test_one_direction_of_raw_tcp_may_end_before_the_other(scene: Intercepted) -> None:
    scene.pod.internet.serve(COUNTER)
    done = scene.run(sys.executable, "-c", SENDS_AND_WAITS)

    assert done.stdout == "1000000 bytes\n", done
    ended = scene.sidecar.event("connection_closed", host="count.example.com")
    assert (ended["bytes_out"], ended["bytes_in"]) == (1_000_000, len("1000000 bytes"))


# --- What isn't TCP


def test_ping_is_refused_at_once(scene: Intercepted, without_fence: list[subprocess.CompletedProcess[str]]) -> None:
    need("ping")
    began = time.monotonic()
    done = scene.run("ping", "-c", "1", "-W", "10", OUTSIDE[0], timeout=SECONDS)

    assert without_fence[0].returncode == 0, "the row counts only if a ping gets through without the rules"
    assert done.returncode != 0 and time.monotonic() - began < 5, done
    assert "not permitted" in done.stderr, done


# --- Names


@pytest.mark.parametrize("nameserver", [NODE_LOCAL, CLUSTER_DNS])
def test_dns_at_an_address_that_the_pod_does_not_have(scene: Intercepted, nameserver: str) -> None:
    scene.pod.resolv_conf(f"nameserver {nameserver}\n{SEARCH}")
    try:
        done = scene.run("curl", "-sS", "https://api.example.com/")
    finally:
        scene.pod.resolv_conf(f"nameserver {NODE_LOCAL}\n{SEARCH}")

    assert done.stdout == "hello from api.example.com\n", done


@pytest.mark.parametrize(
    ("name", "found"),
    [
        pytest.param("db-0.db.default.svc.cluster.local", True, id="a headless service's name that a rule names"),
        pytest.param("db-0.db", True, id="the same by the search list"),
        pytest.param("web", True, id="a service in the same namespace"),
        pytest.param("other", False, id="a service that no rule names"),
        pytest.param("other.default.svc.cluster.local", False, id="the same in full"),
        pytest.param("missing.default.svc.cluster.local", False, id="a name that doesn't exist"),
    ],
)  # fmt: skip
def test_names_of_the_cluster(scene: Intercepted, name: str, found: bool) -> None:
    done = scene.run("curl", "-sS", "-o", "answer", "-w", "%{http_code}", f"http://{name}/")

    assert (done.returncode, done.stdout == "200") == ((0, True) if found else (6, False)), done
    assert found or name not in scene.asked()


def test_an_outside_name_is_not_swallowed_by_the_search_list(scene: Intercepted) -> None:
    before = len(scene.asked())
    done = scene.run("getent", "ahostsv4", "nowhere.example.com")

    assert done.stdout.startswith("198.1"), done  # 198.18.0.0/15
    assert scene.asked()[before:] == [], "an outside name is answered without asking anybody"
    assert not scene.sidecar.events("dns_denied", query="nowhere.example.com")


def test_an_allowed_name_is_answered_with_the_truth_where_the_rule_says_so(scene: Intercepted) -> None:
    found = scene.run("getent", "ahostsv4", "truth.example.com")
    done = scene.run("curl", "-sS", "https://truth.example.com/")

    assert found.stdout.split()[0] == OUTSIDE[0], found
    assert done.stdout == "hello from truth.example.com\n", done


# --- Servers in the workload

INBOUND = ("-m", "http.server", "--directory", "/nonexistent", "8080", "--bind")


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        pytest.param("0.0.0.0", f"http://{POD_V4}:8080/", id="IPv4"),
        pytest.param("::", f"http://[{POD_V6}]:8080/", id="IPv6"),
    ],
)  # fmt: skip
def test_probes_reach_a_server_in_the_workload(scene: Intercepted, bind: str, url: str) -> None:
    with running_server(scene, bind):
        probes = [scene.pod.internet.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url]) for _ in "123"]

    assert [probe.stdout for probe in probes] == ["404"] * 3, probes


@contextmanager
def running_server(scene: Intercepted, bind: str) -> Iterator[None]:
    server: Process = scene.popen(sys.executable, *INBOUND, bind)
    try:
        listens(scene.pod, 8080)
        yield
    finally:
        server.kill()


# --- Pods of one family

V6_ONLY: Callable[[], Pod] = lambda: Pod(ipv4=False)  # noqa: E731


def test_an_ipv6_only_pod() -> None:
    resolv_conf = f"nameserver {INTERNET_V6[2]}\n"
    with intercepted(policy=POLICY, zone=ZONE, make=V6_ONLY, resolv_conf=resolv_conf) as scene:
        done = scene.run("curl", "-sS", "https://api.example.com/")
        denied = scene.run("curl", "-sS", "https://denied.example.com/")
        with running_server(scene, "::"):
            probe = scene.pod.internet.run(
                ["curl", "-s", "-w", "%{http_code}", "-o", "/dev/null", f"http://[{POD_V6}]:8080/"]
            )

        assert done.stdout == "hello from api.example.com\n", done
        assert json.loads(denied.stdout)["reason"] == "rule_deny"
        assert probe.stdout == "404", probe
        assert {request["to"] for request in scene.requests()} == {OUTSIDE[1]}


# --- The sidecar dies

# Resolves once, then connects to that address for each line that it's given, and says what it got.
KEEPS_ITS_ADDRESS = textwrap.dedent(
    """
    import socket, ssl, sys
    name, port = sys.argv[1], int(sys.argv[2])
    address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0][4][:2]
    print(*address, flush=True)
    for line in sys.stdin:
        try:
            with socket.create_connection(address, 10) as sock:
                if port == 443:
                    sock = ssl.create_default_context().wrap_socket(sock, server_hostname=name)
                    sock.sendall(b"GET /kept HTTP/1.1\\r\\nHost: %s\\r\\nConnection: close\\r\\n\\r\\n" % name.encode())
                answer = b""
                while data := sock.recv(4096):
                    answer += data
            print((answer.splitlines() or [b"nothing"])[-1].decode(), flush=True)
        except OSError as e:
            print(type(e).__name__, flush=True)
    """
)

GREETER = textwrap.dedent(
    """
    import socket
    listener = socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True)
    print("ready", flush=True)
    while True:
        sock, _ = listener.accept()
        sock.sendall(b"220 hello\\r\\n")
        sock.close()
    """
)


def test_nothing_leaves_while_the_sidecar_is_dead_and_all_works_again_after_a_restart() -> None:
    wildcard = POLICY.replace('"api.example.com"', '"*.example.com"', 1).replace("dns: real", "dns: synthetic")
    with intercepted(policy=wildcard, zone=ZONE) as scene:
        curl = ("curl", "-sS", "-m", "10", "https://api.example.com/")
        scene.pod.internet.serve(GREETER)
        kept = {
            name: scene.popen(sys.executable, "-c", KEEPS_ITS_ADDRESS, name, port)
            for name, port in (("api.example.com", "443"), ("ssh.example.com", "22"))
        }
        addresses = [process.line() for process in kept.values()]
        assert all(address.startswith(("198.1", "fdd4:")) for address in addresses)

        def again() -> list[str]:
            for process in kept.values():
                process.say("again")
            return [process.line() for process in kept.values()]

        try:
            assert scene.run(*curl).returncode == 0
            assert again() == ["hello from api.example.com", "220 hello"]

            scene.kill()
            before = (scene.requests(), scene.asked())
            attempts = [
                scene.run(*curl),
                scene.run(*curl, "--resolve", f"api.example.com:443:{OUTSIDE[0]}"),
                scene.run("curl", "-sS", "-m", "10", f"http://{OUTSIDE[0]}/"),
                scene.run("curl", "-g", "-sS", "-m", "10", f"http://[{OUTSIDE[1]}]/"),
            ]
            assert [done.returncode for done in attempts] == [6, 7, 7, 7], attempts
            assert again() == ["ConnectionRefusedError"] * 2
            assert (scene.requests(), scene.asked()) == before

            scene.start()
            elsewhere = ("--resolve", f"git.example.com:443:{addresses[0].split()[0]}", "https://git.example.com/")
            assert "identity_mismatch" in scene.run("curl", "-sS", "-m", "10", *elsewhere).stdout
            assert again() == ["hello from api.example.com", "220 hello"], "by the addresses that they have kept"
            assert scene.run(*curl).stdout == "hello from api.example.com\n", "with the bundle from before"
            assert scene.sidecar.event("request_closed", path="/kept")["host"] == "api.example.com"
            spliced = scene.sidecar.event("connection_closed", host="ssh.example.com")
            assert (spliced["protocol"], spliced["reason"]) == ("tcp", None)
        finally:
            for process in kept.values():
                process.kill()
