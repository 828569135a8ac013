"""
The few system calls that would lead around a network namespace: a seccomp filter, as the bytes that the kernel takes.

A network namespace holds IP and abstract Unix sockets. Not all else is divided by it: ``AF_VSOCK`` reaches the host of
a virtual machine, and ``TIOCSTI`` types into the terminal, so that the shell outside runs it when the command has
ended. Instructions as in linux/filter.h, data as in linux/seccomp.h, numbers as in asm/unistd.h.
"""

import struct
from dataclasses import dataclass
from errno import EAFNOSUPPORT, ENOSYS, EPERM

type Program = bytes

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data; arguments by their low half

_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: all of them divided by network namespaces
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_X32 = 0x40000000  # the bit of x86-64's second set of numbers


@dataclass(frozen=True, slots=True)
class Machine:
    """One architecture's numbers."""

    audit: int  # AUDIT_ARCH_…, linux/audit.h
    socket: int
    ioctl: int
    io_uring_setup: int = 425


MACHINES = {
    "x86_64": Machine(0xC000003E, socket=41, ioctl=16),
    "aarch64": Machine(0xC00000B7, socket=198, ioctl=29),
    "riscv64": Machine(0xC00000F3, socket=198, ioctl=29),
}


def fence_filter(machine: Machine) -> Program:
    """
    The filter for *machine*: other families' sockets give EAFNOSUPPORT, typing into the terminal EPERM.

    io_uring gives ENOSYS, since it makes sockets that no filter sees; so does every call of another architecture than
    the program's own (32 bit on 64), whose numbers mean something else.
    """
    families = [_load(_FIRST), *(line for family in _FAMILIES for line in _when(family, [_allow()]))]
    ioctls = [_load(_SECOND), *_when(_TIOCSTI, [_refuse(EPERM)]), *_when(_TIOCLINUX, [_refuse(EPERM)]), _allow()]
    lines = [
        _load(_ARCH),
        _line(_JUMP_EQUAL, machine.audit, 1, 0),
        _refuse(ENOSYS),
        _load(_NUMBER),
        _line(_JUMP_GREATER_EQUAL, _X32, 0, 1),
        _refuse(ENOSYS),
        *_when(machine.socket, [*families, _refuse(EAFNOSUPPORT)]),
        *_when(machine.ioctl, ioctls),
        *_when(machine.io_uring_setup, [_refuse(ENOSYS)]),
        _allow(),
    ]
    return b"".join(lines)


def _line(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, k)


def _load(offset: int) -> bytes:
    return _line(_LOAD, offset)


def _allow() -> bytes:
    return _line(_RETURN, _ALLOW)


def _refuse(number: int) -> bytes:
    return _line(_RETURN, _ERRNO | number)


def _when(value: int, then: list[bytes]) -> list[bytes]:
    """*then*, which ends in a return, if what was loaded last is *value*."""
    return [_line(_JUMP_EQUAL, value, 0, len(then)), *then]
