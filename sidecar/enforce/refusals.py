"""Why the fence can't be made here, and what to do about it."""

import errno
from collections.abc import Mapping

SYSCTLS = (
    "kernel/apparmor_restrict_unprivileged_userns",
    "kernel/unprivileged_userns_clone",
    "user/max_user_namespaces",
    "user/max_net_namespaces",
)
_OTHERWISE = "or leave out --enforce, and the command is only asked to use the proxy"


def refusal(step: str, number: int, words: str, sysctls: Mapping[str, str]) -> str:
    """
    What to tell the user.

    Args:
        step: What the helper was at, as `sidecar.enforce.inside` names it.
        number: The error's number; *words* say the same.
        sysctls: Values of those among `SYSCTLS` that this kernel has.
    """
    what = {
        "namespaces": "user and network namespaces can't be made",
        "ids": "the user can't be mapped into the new namespace",
        "loopback": "the new namespace's loopback can't be set up",
        "listeners": "the proxy can't listen in the new namespace",
        "privileges": "privileges can't be given up in the new namespace",
        "filter": "the system call filter can't be installed",
    }.get(step, f"{step} failed")
    return f"--enforce: {what} ({words}): {_remedy(step, number, sysctls)}; {_OTHERWISE}"


def _remedy(step: str, number: int, sysctls: Mapping[str, str]) -> str:
    limits = {name: value for name, value in sysctls.items() if name.startswith("user/")}
    if number in (errno.ENOSPC, errno.EUSERS) and limits:
        # One at 0 is the reason; with none at 0, one is used up.
        names = [name for name, value in limits.items() if value == "0"] or list(limits)
        said = " or ".join(f"sysctl {name.replace('/', '.')} is {limits[name]}" for name in names)
        return f"{said}; have it raised"
    if number in (errno.EPERM, errno.EACCES) and step != "filter":
        if sysctls.get("kernel/unprivileged_userns_clone") == "0":
            return "sysctl kernel.unprivileged_userns_clone is 0; have it set to 1"
        if sysctls.get("kernel/apparmor_restrict_unprivileged_userns") == "1":
            return (
                "AppArmor restricts user namespaces; have a profile with `userns,` made for the Python interpreter, "
                "or sysctl kernel.apparmor_restrict_unprivileged_userns set to 0"
            )
        return (
            "a container's seccomp profile, a chroot or a security module forbids it; run outside of the container, "
            "or give it a profile that permits unshare"
        )
    if number in (errno.EINVAL, errno.ENOSYS):
        return "this kernel has no user or network namespaces or no seccomp; use one that has (Linux 4.14 or later)"
    return "see the error"
