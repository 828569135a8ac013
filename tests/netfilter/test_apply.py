from pathlib import Path

import pytest

from sidecar.errors import CannotRun
from sidecar.netfilter.apply import apply, check, explain_failure, remove
from sidecar.netfilter.ruleset import Ruleset


@pytest.mark.parametrize(
    ("stderr", "says"),
    [
        pytest.param("Operation not permitted (you must be root)\n", "NET_ADMIN", id="no capability"),
        pytest.param(
            "netlink: Error: cache initialization failed: Operation not permitted\n",
            "NET_ADMIN",
            id="no capability, nft 1",
        ),
        pytest.param("Unable to initialize Netlink socket: Protocol not supported\n", "gVisor", id="no netlink family"),
        pytest.param("Error: Could not process rule: Operation not supported\n", "gVisor", id="no rules"),
        pytest.param(
            "Error: Could not process rule: No such file or directory\n", "nft_fib_inet", id="no module"
        ),
        pytest.param("/dev/stdin:1:1-2: Error: syntax error\n", "nft refused the rules: /dev/stdin", id="our mistake"),
    ],
)  # fmt: skip
def test_a_failure_says_what_is_missing(stderr: str, says: str) -> None:
    assert says in explain_failure(stderr)


def test_without_nft_nothing_can_be_done_and_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    for act in (lambda: apply(Ruleset()), lambda: check(Ruleset()), remove):
        with pytest.raises(CannotRun, match="nft is not installed"):
            act()
