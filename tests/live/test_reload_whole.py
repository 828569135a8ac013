"""The policy is read while somebody is still writing it, in place: neither half is told of, nor in force."""

from pathlib import Path

import pytest

from sidecar.policy import Policy, load_policy
from sidecar.runtime import reload
from tests.live.inprocess import in_process
from tests.live.mounted import put

pytestmark = pytest.mark.live

BEFORE = "version: 1\n"
WHOLE = 'version: 1\nrules:\n  - deny: ["one.test"]\n  - allow: ["*"]\n'


@pytest.mark.parametrize(
    "half",
    [
        pytest.param(b"", id="nothing yet"),
        pytest.param(WHOLE[:40].encode(), id="a part that is no policy"),
        pytest.param(b"version: 1\nrules: []\n", id="a part that is another policy"),
    ],
)
def test_a_file_that_is_being_written_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: bytes
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(BEFORE)
    read: list[str] = []

    def reading(path: Path, known: Policy | None = None) -> Policy:
        read.append(file.read_text())
        try:
            return load_policy(path, known)
        finally:
            if read[-1] == half.decode():
                file.write_text(WHOLE)  # the writer goes on

    monkeypatch.setattr(reload, "load_policy", reading)
    with in_process(tmp_path, BEFORE, upstream_ca=None, names=(), services=[reload.reloading(file)]) as sidecar:
        put(file, half)
        loaded = sidecar.event("policy_loaded", generation=2)
        told = sidecar.events("policy_reload_failed")

    assert half.decode() in read and read[-1] == WHOLE
    assert loaded["rules"] == 2
    assert told == []
