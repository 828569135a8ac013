"""
The clients themselves: Debian's packages must be there; what PyPI and npm have, and what is compiled, is put into a
folder that is kept for the next run (``EGRESS_TEST_CLIENTS=DIR``, else below ``XDG_CACHE_HOME``).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.clients.client import Client

_HERE: Final = Path(__file__).parent
_REQUIREMENTS, _PACKAGE_JSON = _HERE / "requirements.txt", _HERE / "package.json"
_PROGRAMS: Final = _HERE / "programs"

# What each program of programs/ is made by; {source}, {target}, {folder}.
_BUILDS: Final[dict[str, str]] = {
    "get.go": "go build -o {target} {source}",
    "gnutls.c": "cc -o {target} {source} -l:libcurl-gnutls.so.4",
    "soup.c": "cc -o {target} {source} $(pkg-config --cflags --libs libsoup-3.0)",
    "qt.cpp": "c++ -fPIC -o {target} {source} $(pkg-config --cflags --libs Qt5Network)",
    "curl.d": "ldc2 --of={target} {source}",
    "conduit.hs": "ghc -v0 -outputdir {folder}/ghc -o {target} {source}",
    "httpclient.nim": "nim compile --hints:off -d:ssl --nimcache:{folder}/nim -o:{target} {source}",
    "HttpClientGet.java": "javac -d {folder} {source}",
    "UrlConnectionGet.java": "javac -d {folder} {source}",
    "get.cs": "mcs -r:System.Net.Http -out:{target}.exe {source}",
}
_QUICK: Final = ("HttpClientGet.java", "UrlConnectionGet.java")


class Tools:
    """The clients' folder, made on the first use of each part."""

    def __init__(self, folder: Path | None = None) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        self.folder = folder or Path(os.environ.get("EGRESS_TEST_CLIENTS", cache / "egress-test-clients"))
        self.built, self.modules = self.folder / "built", self.folder / "node_modules"
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def places(self) -> dict[str, str]:
        return {
            "python": sys.executable,
            "venv": str(self.folder / "venv" / "bin"),
            "modules": str(self.modules),
            "built": str(self.built),
        }

    def make(self, *, quick: bool) -> None:
        """Install and compile what isn't there yet; *quick*: only what quick clients use."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for source in sorted(_PROGRAMS.iterdir()):
                if source.name in _BUILDS and (source.name in _QUICK or not quick):
                    self._build(source)
            if not quick:
                self._install_python()
                self._install_node()

    def _build(self, source: Path) -> None:
        self.built.mkdir(exist_ok=True)
        words = {"source": source, "target": self.built / source.stem, "folder": self.built}
        command = _BUILDS[source.name].format(**words)
        if self._is_made(source.name, source.read_bytes() + command.encode()):
            return
        environment = {**os.environ, "GOCACHE": str(self.folder / "go"), "GOFLAGS": "-mod=mod"}
        self._run("sh", "-c", command, environment=environment)
        self._made(source.name, source.read_bytes() + command.encode())

    def _install_python(self) -> None:
        if self._is_made("venv", _REQUIREMENTS.read_bytes()):
            return
        shutil.rmtree(self.folder / "venv", ignore_errors=True)
        self._run(sys.executable, "-m", "venv", str(self.folder / "venv"))
        pip = (self.places["venv"] + "/pip", "install", "--quiet", "--only-binary", ":all:")
        self._run(*pip, "-r", str(_REQUIREMENTS))
        self._made("venv", _REQUIREMENTS.read_bytes())

    def _install_node(self) -> None:
        if self._is_made("node", _PACKAGE_JSON.read_bytes()):
            return
        shutil.rmtree(self.modules, ignore_errors=True)
        shutil.copy(_PACKAGE_JSON, self.folder)
        self._run("npm", "install", "--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund")
        self._made("node", _PACKAGE_JSON.read_bytes())

    def _run(self, *command: str, environment: dict[str, str] | None = None) -> None:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=600, cwd=self.folder, env=environment, check=False
        )
        if result.returncode:
            raise AssertionError(
                f"{' '.join(command)}: exit {result.returncode}\n{(result.stdout + result.stderr)[-3000:]}"
            )

    def _is_made(self, part: str, made_from: bytes) -> bool:
        stamp = self.folder / f"{part}.stamp"
        return stamp.exists() and stamp.read_text() == _digest(made_from)

    def _made(self, part: str, made_from: bytes) -> None:
        (self.folder / f"{part}.stamp").write_text(_digest(made_from))


def need(clients: Sequence[Client], *, quick: bool) -> None:
    """Skip where programs are missing; with ``CI=true`` fail instead."""
    programs = {client.command[0] for client in clients if not client.command[0].startswith("{")}
    missing = sorted(program for program in programs if shutil.which(program) is None)
    if not quick:
        missing += [package for package in debian_packages() if not _is_installed(package)]
    if missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {', '.join(missing)}")


def debian_packages() -> list[str]:
    """What the whole matrix takes from Debian."""
    lines = (_HERE / "packages.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _is_installed(package: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${Status}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.endswith(" installed")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
