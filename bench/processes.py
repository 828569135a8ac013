"""Processes as the kernel counts them: CPU and memory of a whole tree, from /proc; which CPU they may run on."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

TICK_MICROSECONDS: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")
SETTLE_SECONDS: Final = 0.06
IDLE_MICROSECONDS: Final = 600  # a tree that has used less than so much of that is idle: 1 % of a CPU
PATIENCE_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0


class BenchError(Exception):
    """The measurement can't be made, or what was measured isn't what was asked for."""


def waited_ticks(stat: str) -> int:
    """
    User and system time of the children that were waited for, in the text of ``/proc/PID/stat``. Clock ticks.

    proc_pid_stat(5), fields 16 and 17; counted from behind the command's name, which may hold spaces and parentheses.
    """
    fields = stat.rpartition(")")[2].split()
    return int(fields[13]) + int(fields[14])


def kilobytes(status: str, field: str = "VmRSS") -> int:
    """A field in the text of ``/proc/PID/status``; 0 for a process that has ended."""
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def tree(pid: int) -> list[int]:
    """*pid* and all of its living descendants."""
    pids = [pid]
    for parent in pids:  # grows while it is walked
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            pids += [int(child) for child in _read(children).split()]
    return pids


def cpu_microseconds(pid: int) -> float:
    """User and system time of the tree so far, by the kernel's clock of each process: finer than its ticks."""
    used = 0.0
    for p in tree(pid):
        try:
            # clock_getcpuclockid(3): CPUCLOCK_SCHED of a process (linux/posix-timers_types.h).
            used += time.clock_gettime_ns((~p << 3) | 2) / 1000
        except OSError:
            continue  # it has ended: its parent has its time
        if stat := _read(Path(f"/proc/{p}/stat")):
            used += waited_ticks(stat) * TICK_MICROSECONDS
    return used


def rss_megabytes(pid: int, field: str = "VmRSS") -> float:
    """Resident memory of the tree; pages that processes share are counted for each. 1 MB is 10^6 bytes."""
    return sum(kilobytes(_read(Path(f"/proc/{p}/status")), field) for p in tree(pid)) * 1024 / 1e6


def peak_rss_megabytes(pid: int) -> float:
    """The sum of the processes' peaks since `forget_peak`."""
    return rss_megabytes(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """The peak is what is resident now; proc_pid_clear_refs(5)."""
    for p in tree(pid):
        Path(f"/proc/{p}/clear_refs").write_text("5")


def file_descriptors(pid: int) -> int:
    return sum(len(list(Path(f"/proc/{p}/fd").iterdir())) for p in tree(pid))


def settled_cpu_microseconds(pid: int) -> float:
    """
    The same once the tree is idle, so that what it still does for the last operation is counted with it.

    Raises:
        BenchError: It doesn't become idle.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    before = cpu_microseconds(pid)
    while time.monotonic() < deadline:
        time.sleep(SETTLE_SECONDS)
        now = cpu_microseconds(pid)
        if now - before < IDLE_MICROSECONDS:
            return now
        before = now
    raise BenchError(f"process {pid} is still busy {PATIENCE_SECONDS:.0f} s after the load has ended")


@contextmanager
def on_cpu(cpu: int | None) -> Iterator[None]:
    """Processes that are started inside run on this CPU alone; on any for None."""
    if cpu is None:
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def two_cpus() -> tuple[int | None, int | None]:
    """One CPU for the proxy, another for client and upstream; no pinning where there is only one."""
    cpus = sorted(os.sched_getaffinity(0))
    return (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)


def stop(process: subprocess.Popen[str]) -> None:
    """End it politely, else at once."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""  # it has ended meanwhile
