"""
What the process gives up at start, since it holds a CA's key in memory: core dumps, debuggers, new privileges, root.

On Linux; elsewhere only the core dumps.
"""

import ctypes
import logging
import os
import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.errors import CannotRun, SidecarError
from sidecar.limits import Limits

# linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

# linux/capability.h, by number.
_CAPABILITIES: Final = tuple(
    """
    chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service
    net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin
    sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override
    mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore
    """.split()  # noqa: SIM905 - one name a line would fill a screen
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class User:
    """Numbers: names would be those of whichever /etc/passwd is mounted."""

    uid: int
    gid: int


def parse_user(text: str) -> User:
    """
    Parse ``UID`` or ``UID:GID``; without a group, it has the user's number.

    Raises:
        SidecarError: Neither, or root.
    """
    found = re.fullmatch(r"([0-9]{1,10})(?::([0-9]{1,10}))?", text)
    user = User(int(found[1]), int(found[2] or found[1])) if found else None
    if user is None or not 0 < user.uid < 2**32 - 1 or not 0 < user.gid < 2**32 - 1:
        raise SidecarError(f"--user {text!r} isn't UID or UID:GID of an ordinary user; write numbers, as '14137:14137'")
    return user


def harden() -> None:
    """No core dumps, no debugger, no reading of /proc/PID/mem by the same user, no privileges by execve."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_DUMPABLE, 0)


def conceal() -> None:
    """The part of `harden` that a child doesn't inherit: it can't read this process's memory, nor have it dumped."""
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, 0)


def allow_descriptors() -> int:
    """Take as many descriptors as may be had, since each connection takes two; gives how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return descriptors()


def descriptors() -> int:
    """How many descriptors this process may have open."""
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return now if now != resource.RLIM_INFINITY else sys.maxsize


def within_descriptors(limits: Limits, descriptors: int) -> Limits:
    """*limits*, with no more connections than there are descriptors for; a warning where more were asked for."""
    fitting = limits.fitting(descriptors)
    if fitting != limits:
        asked, default = (limits.client_connections, limits.upstream_connections), Limits()
        unasked = asked == (default.client_connections, default.upstream_connections)
        _log.log(
            logging.INFO if unasked else logging.WARNING,
            "%d file descriptors are enough for %d connections of clients and %d to upstreams; raise RLIMIT_NOFILE",
            *(descriptors, fitting.client_connections, fitting.upstream_connections),
        )
    return fitting


def refuse_root(*, transparent: bool, allow_root: bool, user: User | None) -> None:
    """
    Root is no user that the fence could tell from the workload's root.

    Raises:
        CannotRun: Transparent mode would run as UID 0, and nobody has asked for that.
    """
    if transparent and os.getuid() == 0 and user is None and not allow_root:
        raise CannotRun(
            "in transparent mode the sidecar doesn't run as root: the fence lets its user pass, and the workload may "
            "be root, too; run it as a user of its own, as 14137, or give --user 14137, or --allow-root if you must"
        )


def become(user: User) -> None:
    """
    Be *user* from now on, without supplementary groups, for good. Bind what needs privileges before.

    Raises:
        CannotRun: This process may not; nothing is half done.
    """
    if (os.getuid(), os.getgid()) != (user.uid, user.gid):
        try:
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        except PermissionError:
            raise CannotRun(
                f"--user {user.uid}:{user.gid} needs root, or SETUID and SETGID; start the sidecar as that user instead"
            ) from None
    if sys.platform == "linux":
        _prctl(_PR_SET_DUMPABLE, 0)  # what the kernel does at a change of user depends on fs.suid_dumpable


def effective_capabilities(status: Path = Path("/proc/self/status")) -> tuple[str, ...]:
    """The capabilities that are in effect, by name; the sidecar needs none."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return ()
    mask = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    names = [*_CAPABILITIES, *(f"capability {number}" for number in range(len(_CAPABILITIES), 64))]
    return tuple(name for number, name in enumerate(names) if mask >> number & 1)


def report_capabilities(*, transparent: bool) -> None:
    """Warn of capabilities that the sidecar has and needs not. A developer's root shell is no news."""
    if (found := effective_capabilities()) and (transparent or os.getuid() != 0):
        shown = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        _log.warning("the sidecar has capabilities that it doesn't need (%s); drop all", shown)


def _prctl(option: int, value: int) -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    arguments = (ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3)
    if prctl(option, *arguments) != 0:
        raise CannotRun(
            f"prctl({option}, {value}): {os.strerror(ctypes.get_errno())}; does a seccomp profile forbid it?"
        )
