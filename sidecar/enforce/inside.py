"""
The helper that makes the namespaces, and the first process in them. Standard library only, started by `fence`.

Two processes. The outer one makes the namespaces and waits; the inner one is the first process of the new process
namespace: it opens the listening sockets, hands them out, gives up every privilege, starts the command and reaps what
the command leaves behind. Its end ends everything in there, and the sidecar's end ends both.

They talk in lines of JSON over one Unix socket. Out goes ``{"ready": true}`` with the sockets, or ``{"step": …,
"errno": N, "words": …}``; in comes ``{"program", "arguments", "variables"}``; out goes ``{"started": true}``, or
``{"errno": N}``.
"""

import json
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from sidecar.enforce.kernel import (
    die_with_parent,
    drop_privileges,
    filter_syscalls,
    loopback_up,
    map_own_ids,
    mount_own_proc,
)
from sidecar.enforce.syscalls import MACHINES, fence_filter

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_WAITED = frozenset((signal.SIGCHLD, *_FORWARDED))
_BACKLOG = 1024


class _Failed(Exception):
    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(step)
        self.answer = {"step": step, "errno": error.errno or 0, "words": error.strerror or str(error)}


def _do[T](step: str, what: Callable[[], T]) -> T:
    try:
        return what()
    except OSError as e:
        raise _Failed(step, e) from None


def main() -> None:
    """Arguments: the Unix socket's descriptor, the parent's process id, the sockets to open as JSON."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    parent, listen = int(sys.argv[2]), json.loads(sys.argv[3])
    # Blocked here, taken by sigwaitinfo: a signal that comes early waits for the command.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED)
    uid, gid = os.geteuid(), os.getegid()
    try:
        flags = os.CLONE_NEWUSER | os.CLONE_NEWNET | os.CLONE_NEWPID | os.CLONE_NEWNS
        _do("namespaces", lambda: os.unshare(flags))
        _do("ids", lambda: map_own_ids(uid, gid))
        die_with_parent()
        if os.getppid() != parent:
            raise SystemExit(1)
        first = _do("process", os.fork)
        if first == 0:
            os._exit(_first_process(control, listen))
        _do("privileges", drop_privileges)
    except _Failed as e:
        _say(control, e.answer)
        raise SystemExit(1) from None
    control.close()
    os._exit(_until_end(first, reap_all=False))


def _first_process(control: socket.socket, listen: list[list[Any]]) -> int:
    try:
        die_with_parent()
        _do("loopback", loopback_up)
        listeners = _do("listeners", lambda: [_listen(*spec) for spec in listen])
        mount_own_proc()
        _do("privileges", drop_privileges)
        _do("filter", lambda: filter_syscalls(fence_filter(MACHINES[platform.machine()])))
    except _Failed as e:
        _say(control, e.answer)
        return 1
    socket.send_fds(control, [b'{"ready": true}\n'], [listener.fileno() for listener in listeners])
    for listener in listeners:
        listener.close()
    line = control.makefile("rb").readline()
    if not line:
        return 1  # the sidecar has ended
    order = json.loads(line)
    # Python ignores SIGPIPE and SIGXFSZ; programs expect the default.
    defaults = [signal.SIGPIPE, signal.SIGXFSZ, *_WAITED]
    try:
        command = os.posix_spawn(
            order["program"], order["arguments"], order["variables"], setsigmask=(), setsigdef=defaults
        )
    except OSError as e:
        _say(control, {"errno": e.errno})
        return 1
    _say(control, {"started": True})
    return _until_end(command, reap_all=True)


def _listen(address: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, port))
    listener.listen(_BACKLOG)
    return listener


def _until_end(process: int, *, reap_all: bool) -> int:
    """Pass signals on until *process* ends; its exit code, or 128 + N if signal N ended it."""
    while True:
        seen = signal.sigwaitinfo(_WAITED)
        if seen.si_signo != signal.SIGCHLD:
            if seen.si_code <= 0:  # sent by a process; what the terminal sends (SI_KERNEL) reaches the command itself
                os.kill(process, seen.si_signo)
            continue
        while True:
            try:
                ended, status = os.waitpid(-1 if reap_all else process, os.WNOHANG)
            except ChildProcessError:
                return 1
            if ended == 0:
                break
            if ended == process:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _say(control: socket.socket, answer: dict[str, Any]) -> None:
    control.sendall(json.dumps(answer).encode() + b"\n")
