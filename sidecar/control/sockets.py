"""The control socket in the file system, and what is kept beside it."""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from sidecar.control.messages import kept_json, parse_kept
from sidecar.errors import CannotRun
from sidecar.fence.verdict import Report
from sidecar.files import SECRET, CannotWrite, write_file


def bind_control(path: Path, *, mode: int = SECRET, owner: tuple[int, int] | None = None) -> socket.socket:
    """
    A listening Unix socket; one that a killed sidecar has left behind is replaced.

    Args:
        mode: 0600, or 0660 for a fence check of another user in the same group.
        owner: User and group that it's given to; needs root.

    Raises:
        CannotRun: Another sidecar answers there, something else is there, or the folder can't be written.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_way(path)
        # From the first moment on: until chmod, there would be a gap.
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        path.chmod(mode)
        if owner is not None:
            os.chown(path, *owner)
        listener.listen(16)
    except OSError as e:
        listener.close()
        raise CannotRun(f"--control-socket {path}: {e.strerror or e}; name a file in a folder of its own") from None
    except CannotRun:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _make_way(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotRun(f"--control-socket {path}: something else is there; remove it, or name another file")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise CannotRun(f"--control-socket {path}: another sidecar listens there; stop it, or name another file")


class KeptReport:
    """
    The last fence check's report, in a file beside the control socket.

    The check runs once, before the workload. A sidecar that is killed and comes back is in the same network namespace,
    with the same rules; so the report still stands. In another one it doesn't.
    """

    def __init__(self, control: Path) -> None:
        self._path = control.with_name(control.name + ".fence.json")

    def load(self) -> Report | None:
        try:
            return parse_kept(self._path.read_bytes(), network_namespace())
        except OSError:
            return None

    def save(self, report: Report) -> None:
        """Keep it; where that isn't possible, a restart will want a new check, which is safe."""
        with suppress(CannotWrite):
            write_file(self._path, kept_json(report, network_namespace()).encode(), SECRET)


def network_namespace() -> str:
    """Names this process's network namespace among all of this boot; unique where namespaces exist, else empty."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/net').stat().st_ino}"
    except OSError:
        return ""
