"""Puts the fence into the kernel, asks whether it's there, takes it away: all by nft and, for routes, ip."""

import difflib
import errno
import os
import socket
import subprocess
from collections.abc import Sequence

from sidecar.addresses import SYNTHETIC_V4, SYNTHETIC_V6
from sidecar.errors import CannotRun
from sidecar.netfilter.ruleset import ROUTE_PROTOCOL, TABLE, Ruleset, routes

_TIMEOUT_S = 30


def apply(ruleset: Ruleset) -> None:
    """
    Put the rules into this network namespace in one transaction, then the routes that are missing.

    Raises:
        CannotRun: No nft, no NET_ADMIN, or a kernel without nftables; then nothing has changed.
    """
    _nft("-f", "-", stdin=ruleset.text())
    for arguments in routes(**missing_routes()):
        _ip(*arguments)


def check(ruleset: Ruleset) -> list[str]:
    """
    Say how the rules that are in force differ from *ruleset*.

    nft itself spells the expected rules, in a table that hooks nothing and is gone afterwards: so the two listings are
    comparable whatever the version, and a flushed chain, a changed rule or a dormant table shows.

    Returns:
        Lines of a diff, expected against live, and a line for each missing route; empty if all is in force.

    Raises:
        CannotRun: As `apply`.
    """
    live = _listing(TABLE)
    if live is None:
        return [f"there is no table inet {TABLE}"]
    # A name per process, or two checks at once would delete each other's.
    probe = f"{TABLE}_probe_{os.getpid()}"
    _nft("-f", "-", stdin=ruleset.table(probe, dormant=True))
    try:
        expected = _listing(probe) or []
    finally:
        _nft("delete", "table", "inet", probe)
    expected = [line for line in expected if line.strip() != "flags dormant"]
    expected[0] = expected[0].replace(probe, TABLE)
    differences = list(difflib.unified_diff(expected, live, "expected", "in force", lineterm="", n=0))
    return differences + [
        f"no route to {network}"
        for network, missing in zip((SYNTHETIC_V4, SYNTHETIC_V6), missing_routes().values(), strict=True)
        if missing
    ]


def remove() -> bool:
    """
    Take rules and routes away.

    Returns:
        Whether there were rules.

    Raises:
        CannotRun: As `apply`.
    """
    present = _listing(TABLE) is not None
    if present:
        _nft("delete", "table", "inet", TABLE)
    for arguments in _own_routes():
        _ip(*arguments)
    return present


def missing_routes() -> dict[str, bool]:
    """Families, by `routes`' names, whose synthetic range has no route though the kernel has the family."""
    return {
        "ipv4": _has_loopback(socket.AF_INET, "127.0.0.1") and not _has_route(socket.AF_INET, str(SYNTHETIC_V4[1])),
        "ipv6": _has_loopback(socket.AF_INET6, "::1") and not _has_route(socket.AF_INET6, str(SYNTHETIC_V6[1])),
    }


def _has_loopback(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _has_route(family: socket.AddressFamily, address: str) -> bool:
    """Whether connect() finds a way; on a datagram socket it sends nothing."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return False
    return True


def _own_routes() -> list[tuple[str, ...]]:
    """What deletes the routes that `apply` made, for the families where there is one."""
    found: list[tuple[str, ...]] = []
    for flag, network in (("-4", SYNTHETIC_V4), ("-6", SYNTHETIC_V6)):
        try:
            result = _run("ip", flag, "route", "show", "proto", ROUTE_PROTOCOL, str(network))
        except FileNotFoundError:
            return []  # then it made none either
        if result.stdout.strip():
            found.append((flag, "route", "delete", str(network), "dev", "lo", "proto", ROUTE_PROTOCOL))
    return found


def _listing(table: str) -> list[str] | None:
    """The table as nft writes it, without counters; None where there is no such table."""
    present = _nft("-n", "list", "tables").splitlines()
    if f"table inet {table}" not in present:
        return None
    return [line for line in _nft("-s", "-n", "list", "table", "inet", table).splitlines() if line.strip()]


def _nft(*arguments: str, stdin: str | None = None) -> str:
    try:
        result = _run("nft", *arguments, stdin=stdin)
    except FileNotFoundError:
        raise CannotRun("nft is not installed here; use the sidecar's image, or install nftables") from None
    if result.returncode:
        raise CannotRun(explain_failure(result.stderr))
    return result.stdout


def _ip(*arguments: str) -> None:
    try:
        result = _run("ip", *arguments)
    except FileNotFoundError:
        raise CannotRun(
            f"the pod has no route to {SYNTHETIC_V4} or {SYNTHETIC_V6}, and ip is not installed here to add one; "
            "use the sidecar's image, or install iproute2"
        ) from None
    if result.returncode:
        raise CannotRun(f"ip {' '.join(arguments)}: {_one_line(result.stderr)}; run it with NET_ADMIN")


def _run(*command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}  # the messages are matched
    try:
        return subprocess.run(
            command,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{command[0]} didn't end within {_TIMEOUT_S} s; is the kernel's netlink answering?") from None


_NO_NFTABLES: Sequence[int] = (
    errno.EPROTONOSUPPORT,
    errno.EAFNOSUPPORT,
    errno.EOPNOTSUPP,
    errno.ENOPROTOOPT,
    errno.ENOSYS,
)


def explain_failure(stderr: str) -> str:
    """One message from what nft wrote to standard error: what is missing, and what to do."""
    said = _one_line(stderr)
    if os.strerror(errno.EPERM) in stderr or os.strerror(errno.EACCES) in stderr:
        return f"nft may not change this network namespace; give the init container the capability NET_ADMIN ({said})"
    if any(os.strerror(code) in stderr for code in _NO_NFTABLES):
        return (
            "the kernel here has no nftables, as under gVisor; run the pod on a runtime with a Linux kernel, "
            f"or keep the workload in by a NetworkPolicy and the explicit proxy ({said})"
        )
    if os.strerror(errno.ENOENT) in stderr:
        return (
            "the kernel here lacks a part of nftables; load nft_chain_nat, nft_redir, nft_reject_inet, nft_fib_inet "
            f"and nft_ct on the node ({said})"
        )
    return f"nft refused the rules: {said}"


def _one_line(stderr: str) -> str:
    """The first line that says something."""
    return next((line.strip() for line in stderr.splitlines() if line.strip()), "no message")
