"""Examining another container from beside it: with its root as ours, its variables, its user, and no privileges."""

import encodings.idna  # noqa: F401 - looked up by its name when a host is resolved, which is too late
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from sidecar.enforce.kernel import forget_privileges
from sidecar.errors import CannotRun, Exit, SidecarError
from sidecar.trust.roots import public_roots
from sidecar.trust.vouching import vouches

_NEEDS = "run the doctor with the capabilities SYS_CHROOT, SYS_PTRACE, SETUID and SETGID (docs/doctor.md)"
_MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where clients run: a root, the variables there, and as whom; None as we are."""

    root: Path
    environment: Mapping[str, str]
    user: tuple[int, int, tuple[int, ...]] | None  # user, group, supplementary groups


def place_of(pid: int | None, root: Path | None, proc: Path = Path("/proc")) -> Place:
    """
    Where process *pid* is; or in *root*, with our own variables.

    Raises:
        SidecarError: There is no such process, or no such folder.
        CannotRun: We may not look at it.
    """
    if pid is None:
        assert root is not None
        if not root.is_dir():
            raise SidecarError(
                f"--root {str(root)!r} is no folder; write the other container's root, as /proc/PID/root"
            )
        return Place(root, os.environ, None)
    process = proc / str(pid)
    try:
        pairs = (process / "environ").read_bytes().split(b"\0")
        status = (process / "status").read_text()
        (process / "root").stat()
    except (FileNotFoundError, ProcessLookupError):
        raise SidecarError(f"--pid {pid}: no such process here; is the process namespace shared?") from None
    except PermissionError:
        raise CannotRun(f"--pid {pid}: its root and variables can't be read; {_NEEDS}") from None
    decoded = (pair.decode(errors="surrogateescape").partition("=") for pair in pairs)
    uid, gid, groups = (_numbers(status, line) for line in ("Uid", "Gid", "Groups"))
    environment = {name: value for name, equals, value in decoded if equals}
    return Place(root or process / "root", environment, (uid[1], gid[1], groups))


def _numbers(status: str, line: str) -> tuple[int, ...]:
    found = re.search(rf"^{line}:[ \t]*(.*)$", status, re.MULTILINE)
    return tuple(map(int, found[1].split())) if found else ()


def there[T](place: Place, examine: Callable[[], T], shape: type[T]) -> T:
    """
    Call *examine* in a process of its own that has moved to *place* for good, and give what it returns.

    What is run there belongs to the workload, which nobody trusts: with a capability it could leave its root again.
    So all of them are given up first, and what comes back is read as data.

    Raises:
        CannotRun: We may not go there.
        SidecarError: As *examine* raises it.
    """
    adapter = TypeAdapter(shape)
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 70  # our bug, unless something better is known
        try:
            _enter(place)
            with os.fdopen(writing, "wb") as out:
                try:
                    out.write(adapter.dump_json(examine()))
                    code = 0
                except SidecarError as e:
                    out.write(str(e).encode())
                    code = int(e.exit_code)
        except PermissionError:
            code = 71
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as came:
        answer = came.read(_MOST_BYTES)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        return adapter.validate_json(answer)
    if code == 71:
        raise CannotRun(f"{place.root} can't be entered as its user; {_NEEDS}")
    if code == Exit.CANNOT_RUN:
        raise CannotRun(answer.decode())
    if code == Exit.BAD_INPUT:
        raise SidecarError(answer.decode())
    raise RuntimeError(f"the examination in {place.root} has ended with {code}")


def _enter(place: Place) -> None:
    vouches(public_roots(), public_roots())  # cryptography imports what an algorithm needs when it is first met
    # From here on an import would be served by the workload's files. What is needed is there; the rest shall fail.
    sys.path.clear()
    sys.path_importer_cache.clear()
    os.chroot(place.root)
    os.chdir("/")
    if place.user is not None:
        uid, gid, groups = place.user
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    forget_privileges()
