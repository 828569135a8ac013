"""What the fence says where it can't be made, and the filter that it installs."""

import errno
import struct

import pytest

from sidecar.enforce.refusals import refusal
from sidecar.enforce.syscalls import MACHINES, fence_filter


@pytest.mark.parametrize(
    ("step", "number", "sysctls", "says"),
    [
        pytest.param(
            "namespaces", errno.ENOSPC, {"user/max_user_namespaces": "0"}, "sysctl user.max_user_namespaces is 0",
            id="none are granted",
        ),
        pytest.param(
            "namespaces", errno.EPERM, {"kernel/unprivileged_userns_clone": "0", "user/max_user_namespaces": "9"},
            "kernel.unprivileged_userns_clone is 0; have it set to 1", id="Debian's switch is off",
        ),
        pytest.param(
            "ids", errno.EACCES, {"kernel/apparmor_restrict_unprivileged_userns": "1"}, "AppArmor",
            id="AppArmor lets one be made but not used",
        ),
        pytest.param("namespaces", errno.EPERM, {}, "a container's seccomp profile", id="nothing explains it"),
        pytest.param("namespaces", errno.EINVAL, {}, "this kernel has no", id="a kernel without namespaces"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do(step: str, number: int, sysctls: dict[str, str], says: str) -> None:
    text = refusal(step, number, "the kernel's words", sysctls)
    assert text.startswith("--enforce: ")
    assert "(the kernel's words)" in text
    assert says in text
    assert text.endswith("or leave out --enforce, and the command is only asked to use the proxy")


@pytest.mark.parametrize("name", MACHINES)
def test_every_jump_of_the_filter_stays_inside_and_its_last_line_returns(name: str) -> None:
    lines = list(struct.iter_unpack("<HBBI", fence_filter(MACHINES[name])))
    for number, (code, if_true, if_false, _) in enumerate(lines):
        if code & 0x07 == 0x05:
            assert number + 1 + max(if_true, if_false) < len(lines)
    assert lines[-1] == (0x06, 0, 0, 0x7FFF0000)
