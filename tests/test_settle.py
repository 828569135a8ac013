"""After start the garbage collector overlooks what is there; what a reload or a rotation replaces is given up still."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta

import pytest

from addons.session_ca import SessionCaAddon
from sidecar.hosts import parse_host
from sidecar.pki.rotation import Take
from sidecar.pki.session_ca import SessionCa, issue_session_ca
from sidecar.policy import Policy, judge_request, parse_policy
from sidecar.reasons import RotationReason
from sidecar.runtime.engine import settle
from sidecar.runtime.session import Session, Settings
from sidecar.upstreams.files import load_upstreams
from sidecar.upstreams.roots import RootFiles

TEXT = "version: 1\nrules:\n  - allow: ['*.example.com', api.test]\n    methods: [GET]\n    paths: ['/a/**']\n"


@dataclass(frozen=True)
class Watched(Policy):
    """A policy that can be watched: it has no slots."""


class Sink:
    def offer(self, line: bytes) -> bool:
        return bool(line)

    def close(self) -> None:
        pass


def policy() -> Policy:
    parsed = parse_policy(TEXT)
    return Watched(**{field.name: getattr(parsed, field.name) for field in fields(parsed)})


def new_ca(name: str) -> SessionCa:
    return issue_session_ca(common_name=name, now=datetime.now(UTC), validity=timedelta(hours=1))


@pytest.fixture
def settled() -> Iterator[Session]:
    """A session that has judged and minted, and is settled then; from there on only references count."""
    first = policy()
    upstreams = load_upstreams(first, RootFiles())
    session = Session(Settings(policy=first, upstreams=upstreams, ca=new_ca("one"), sink=Sink(), session="s"))
    judge_request(session.policy(), parse_host("a.example.com"), 443, "GET", "/a/b")
    del first, upstreams
    settle()
    gc.disable()
    yield session
    gc.enable()
    gc.unfreeze()


def test_a_replaced_policy_is_given_up(settled: Session) -> None:
    old, context = weakref.ref(settled.policy()), weakref.ref(settled.upstreams.context_for(parse_host("api.test")))
    assert old() is not None

    settled.put_in_force(policy(), load_upstreams(settled.policy(), RootFiles()))

    assert old() is None
    assert context() is None
    assert gc.get_freeze_count() > 0, "settle() was without effect"


def test_a_rotated_ca_and_its_contexts_are_given_up(settled: Session) -> None:
    async def rotate() -> None:
        addon, host = SessionCaAddon(settled.minter, settled.ledger), parse_host("api.test")
        old = weakref.ref(settled.minter()), weakref.ref(addon._context(host))

        settled.rotate(new_ca("two"), Take(RotationReason.SAME_ROOT))
        settled.expiry.stop()
        addon._context(host)

        assert [ref() for ref in old] == [None, None]
        assert settled.settings.ca.common_name == "two", "the old key is kept by nobody"

    asyncio.run(rotate())
