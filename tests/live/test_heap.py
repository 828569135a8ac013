"""Memory that one piece of a body has used serves the next one, without the kernel."""

from pathlib import Path

import pytest

from tests.live.sidecars import running

pytestmark = pytest.mark.live

# Three buffers are used and given up, again and again: more at the heap's end than glibc leaves there by itself.
USER = """
import ctypes, resource
from pathlib import Path

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def use(size):
    buffers = [libc.malloc(size) for _ in range(3)]
    for buffer in buffers:
        libc.memset(buffer, 1, size)
    for buffer in buffers:
        libc.free(buffer)

use({size})
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({times}):
    use({size})
Path("{told}").write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
addons = []
"""


@pytest.mark.parametrize("size", [130 << 10, 250 << 10, 500 << 10], ids=lambda size: f"{size >> 10} KiB")
def test_buffers_are_not_faulted_in_again_and_again(tmp_path: Path, size: int) -> None:
    told, times = tmp_path / "told", 100
    addon = tmp_path / "user.py"
    addon.write_text(USER.format(size=size, times=times, told=told))

    with running(tmp_path / "sidecar", "version: 1\n", "--addon", str(addon)):
        faults = int(told.read_text())

    pages = 3 * times * size // 4096
    assert faults < pages / 20, f"{faults} of at most {pages}"
