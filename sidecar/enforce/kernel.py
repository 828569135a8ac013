"""
What the fence asks of the Linux kernel, where Python has no call for it. Standard library only: it runs in a helper.

Numbers as in linux/prctl.h, linux/capability.h, linux/securebits.h, linux/mount.h and linux/sockios.h.
"""

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct

from sidecar.enforce.syscalls import Program

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 28, 38, 47, 4
_SECCOMP_MODE_FILTER = 2
_NOROOT = 0x1 | 0x2  # the user 0 gets no capabilities by running a program; locked
_NO_AMBIENT = 0x40 | 0x80
_CAPABILITY_VERSION_3 = 0x20080522
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_SLAVE = 0x2, 0x4, 0x8, 0x4000, 0x80000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, *arguments: int) -> None:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    _check(_libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(argument) for argument in padded)))


def map_own_ids(uid: int, gid: int) -> None:
    """Keep the user's own numbers in a new user namespace: files have the owner that they had (user_namespaces(7))."""
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        descriptor = os.open(f"/proc/self/{file}", os.O_WRONLY)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


def mount_own_proc() -> bool:
    """Whether ``/proc`` shows the new process namespace. Not where the outer one is masked, as in most containers."""
    try:
        _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None))
        flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        _check(_libc.mount(b"proc", b"/proc", b"proc", flags, None))
    except OSError:
        return False
    return True


def die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def drop_privileges() -> None:
    """No capability is left in any set, none can be gained, and no other process of this user may look inside."""
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            break  # past the last one that this kernel knows
    _prctl(_PR_SET_SECUREBITS, _NOROOT | _NO_AMBIENT)
    forget_privileges()


def forget_privileges() -> None:
    """
    The part of `drop_privileges` that needs no capability: after a change of user, say, there is none left to use.

    What is in the bounding set can't be had again either, by nobody: with no_new_privs a program that is run gets at
    most what was permitted before, root's and one with file capabilities among them (capabilities(7)).
    """
    _prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def filter_syscalls(program: Program) -> None:
    """Install *program* for this process and all that it starts. Needs `drop_privileges` before."""

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    wanted = Filter(len(program) // 8, program)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(wanted))
