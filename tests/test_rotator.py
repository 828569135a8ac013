"""The CA's folder and the trust bundle change, by a clock of the test's: what signs then, and what is said."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sidecar.pki.rotation import OVERLAP
from sidecar.policy import parse_policy
from sidecar.runtime import rotation, watch
from sidecar.runtime.rotation import Mounted, Rotator, read_bundle
from sidecar.runtime.session import Session, Settings
from sidecar.secrets import load_ca
from sidecar.upstreams.files import load_upstreams
from sidecar.upstreams.roots import RootFiles
from tests.pki.authorities import DAY, Authority, authority

SECONDS = 30.0  # for a change to be noticed; far more than it takes
BRIEF = 0.5  # what a test writes at once is whole by then
START = datetime.now(UTC)
VALID: dict[str, Any] = {"begin": START - DAY, "end": START + 90 * DAY}
OLD_ROOT, NEW_ROOT = authority("old root", **VALID), authority("new root", **VALID)
OLD = authority("old", OLD_ROOT, begin=START - DAY, end=START + 9 * DAY)
RENEWED, NEW = authority("renewed", OLD_ROOT, **VALID), authority("new", NEW_ROOT, **VALID)
GONE = authority("gone", OLD_ROOT, begin=START - 2 * DAY, end=START - DAY)


def files(issuing: Authority, root: Authority) -> dict[str, bytes]:
    return {"tls.crt": issuing.pem, "tls.key": issuing.key_pem, "ca.crt": root.pem}


class Scene:
    """A session whose CA's folder and trust bundle are watched."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bundle = folder / "ca", folder / "bundle.pem"
        self.folder.mkdir()
        self.now, self.reads = START, 0
        self.lines: list[dict[str, Any]] = []
        self.write(files(OLD, OLD_ROOT))
        self.trust(OLD_ROOT)
        policy = parse_policy("version: 1\n")
        ca = load_ca(self.folder, START)
        upstreams = load_upstreams(policy, RootFiles())
        self.session = Session(
            Settings(policy=policy, upstreams=upstreams, ca=ca, sink=self, session="s", now=self.clock)
        )

    def clock(self) -> datetime:
        self.reads += 1  # among others by each reading of the CA
        return self.now

    def offer(self, line: bytes) -> bool:
        self.lines.append(orjson.loads(line))
        return True

    def close(self) -> None:
        pass

    def write(self, contents: dict[str, bytes]) -> None:
        for name, content in contents.items():
            (self.folder / name).write_bytes(content)

    def trust(self, *roots: Authority) -> None:
        fresh = self.bundle.with_name("fresh")
        fresh.write_bytes(b"".join(root.pem for root in roots))
        fresh.replace(self.bundle)

    @property
    def signs(self) -> str:
        return self.session.minter().ca.common_name

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == name]

    async def until(self, done: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not done():
                await asyncio.sleep(0.01)

    async def event(self, name: str, count: int = 1) -> dict[str, Any]:
        await self.until(lambda: len(self.events(name)) >= count)
        assert len(self.events(name)) == count
        return self.events(name)[-1]

    async def read_again(self) -> None:
        """Wait for another reading, begun and ended: while something is unsettled, they go on by themselves."""
        before = self.reads
        await self.until(lambda: self.reads >= before + 6)  # three for each

    async def noticed(self, *roots: Authority) -> None:
        """Change the bundle, and wait until it has been read, and what follows has been done."""
        before = self.reads
        self.trust(*roots)
        await self.until(lambda: self.reads >= before + 3)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    monkeypatch.setattr(rotation, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(rotation, "STEADY_SECONDS", 0.01)
    monkeypatch.setattr(watch, "LOOK_AGAIN_MS", 100)  # for what the clock alone changes

    def play(acts: Callable[[Scene], Awaitable[None]], *, bundle: bool = True, patience: float = SECONDS) -> Scene:
        async def run() -> Scene:
            scene = Scene(tmp_path)
            mounted = Mounted(scene.folder, scene.bundle if bundle else None)
            async with Rotator(scene.session, mounted, patience=patience).watch():
                await scene.until(lambda: scene.reads)  # the first reading, soon after the start
                await acts(scene)
            scene.session.close()
            return scene

        return asyncio.run(run())

    return play


def test_a_new_intermediate_under_the_same_root_signs_at_once(play: Callable[..., Scene]) -> None:
    async def acts(scene: Scene) -> None:
        key = scene.session.minter().key
        scene.write(files(RENEWED, OLD_ROOT))
        rotated = await scene.event("ca_rotated")

        assert scene.signs == "renewed"
        assert (rotated["reason"], rotated["root_changed"]) == ("same_root", False)
        assert rotated["subject"] == "CN=renewed" and rotated["chain_length"] == 1
        assert rotated["fingerprint_sha256"] == scene.session.minter().ca.fingerprint()
        assert rotated["old_fingerprint_sha256"] == OLD.certificate.fingerprint(hashes.SHA256()).hex()
        assert datetime.fromisoformat(rotated["not_after"]) == RENEWED.certificate.not_valid_after_utc
        assert scene.session.minter().key is key, "the leaves' key stays"

    play(acts)


def test_a_new_root_waits_for_the_bundle_then_for_the_overlap(play: Callable[..., Scene]) -> None:
    async def acts(scene: Scene) -> None:
        scene.write(files(NEW, NEW_ROOT))
        pending = await scene.event("ca_rotation_pending")
        assert pending["reason"] == "new_root_missing"
        assert datetime.fromisoformat(pending["until"]) == OLD.certificate.not_valid_after_utc
        assert "isn't in" in (scene.session.ca_pending or "")

        scene.trust(OLD_ROOT, NEW_ROOT)
        pending = await scene.event("ca_rotation_pending", 2)
        assert pending["reason"] == "overlap"
        assert datetime.fromisoformat(pending["until"]) == START + OVERLAP

        scene.now += OVERLAP - timedelta(seconds=1)
        await scene.read_again()
        assert scene.signs == "old" and not scene.events("ca_rotated")

        scene.now += timedelta(seconds=1)
        rotated = await scene.event("ca_rotated")
        assert (rotated["reason"], rotated["root_changed"], scene.signs) == ("overlap_over", True, "new")
        assert scene.session.ca_pending is None

    assert len(play(acts).events("ca_rotation_pending")) == 2


def test_a_bundle_that_has_held_both_for_long_enough_needs_no_wait(play: Callable[..., Scene]) -> None:
    async def acts(scene: Scene) -> None:
        await scene.noticed(OLD_ROOT, NEW_ROOT)
        scene.now += OVERLAP
        scene.write(files(NEW, NEW_ROOT))

        assert (await scene.event("ca_rotated"))["reason"] == "overlap_over"

    assert not play(acts).events("ca_rotation_pending")


def test_a_withdrawn_root_is_replaced_at_once(play: Callable[..., Scene]) -> None:
    async def acts(scene: Scene) -> None:
        scene.write(files(NEW, NEW_ROOT))
        await scene.event("ca_rotation_pending")
        scene.trust(NEW_ROOT)
        rotated = await scene.event("ca_rotated")

        assert (rotated["reason"], rotated["root_changed"], scene.signs) == ("old_root_withdrawn", True, "new")

    play(acts)


def test_a_bundle_that_is_being_written_has_withdrawn_nothing(
    play: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []

    def counted(path: Path) -> Any:
        reads.append(path)
        return read_bundle(path)

    async def acts(scene: Scene) -> None:
        scene.trust(OLD_ROOT, NEW_ROOT)
        scene.write(files(NEW, NEW_ROOT))
        await scene.until(lambda: any(e["reason"] == "overlap" for e in scene.events("ca_rotation_pending")))
        monkeypatch.setattr(rotation, "read_bundle", counted)
        scene.bundle.write_bytes(NEW_ROOT.pem)
        await scene.until(lambda: reads)
        scene.bundle.write_bytes(NEW_ROOT.pem + OLD_ROOT.pem)
        await scene.read_again()

    monkeypatch.setattr(rotation, "STEADY_SECONDS", 2.0)
    scene = play(acts)
    assert scene.signs == "old" and not scene.events("ca_rotated")


def test_an_expired_ca_is_replaced_whatever_the_bundle_holds(play: Callable[..., Scene]) -> None:
    async def acts(scene: Scene) -> None:
        scene.write(files(NEW, NEW_ROOT))
        await scene.event("ca_rotation_pending")
        scene.now = OLD.certificate.not_valid_after_utc
        rotated = await scene.event("ca_rotated")

        assert (rotated["reason"], scene.signs) == ("old_ca_expired", "new")

    play(acts)


def test_without_a_bundle_a_new_root_signs_at_once_and_the_log_warns(
    play: Callable[..., Scene], caplog: pytest.LogCaptureFixture
) -> None:
    async def acts(scene: Scene) -> None:
        scene.write(files(NEW, NEW_ROOT))
        rotated = await scene.event("ca_rotated")

        assert (rotated["reason"], rotated["root_changed"], scene.signs) == ("no_trust_bundle", True, "new")

    play(acts, bundle=False)
    assert "without --trust-bundle" in caplog.text


def test_what_waits_is_dropped_when_the_old_ca_comes_back(play: Callable[..., Scene]) -> None:
    async def acts(scene: Scene) -> None:
        scene.write(files(NEW, NEW_ROOT))
        await scene.event("ca_rotation_pending")
        scene.write(files(OLD, OLD_ROOT))
        await scene.until(lambda: scene.session.ca_pending is None)
        await scene.noticed(NEW_ROOT)

    scene = play(acts)
    assert scene.signs == "old" and not scene.events("ca_rotated")


def test_a_bundle_that_cannot_be_read_makes_a_new_root_wait(
    play: Callable[..., Scene], caplog: pytest.LogCaptureFixture
) -> None:
    async def acts(scene: Scene) -> None:
        scene.bundle.write_bytes(b"no certificate")
        await scene.until(lambda: "bundle.pem holds no certificate" in caplog.text)
        scene.write(files(NEW, NEW_ROOT))
        assert (await scene.event("ca_rotation_pending"))["reason"] == "bundle_unreadable"
        scene.trust(NEW_ROOT)
        assert (await scene.event("ca_rotated"))["reason"] == "old_root_withdrawn"

    play(acts)


def test_files_that_do_not_belong_together_yet_are_read_until_they_do(play: Callable[..., Scene]) -> None:
    async def acts(scene: Scene) -> None:
        for name, content in files(NEW, NEW_ROOT).items():
            scene.write({name: content[: len(content) // 2]})
            await scene.read_again()
            scene.write({name: content})
        await scene.event("ca_rotated")

    scene = play(acts, bundle=False)
    assert not scene.events("ca_reload_failed") and not scene.session.ca_problems


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        pytest.param({"tls.key": NEW.key_pem}, "tls.key does not belong to", id="another CA's key"),
        pytest.param({"tls.crt": b"garbage"}, "tls.crt holds no certificate", id="no certificate"),
        pytest.param(
            files(authority("gone", OLD_ROOT, begin=START - 2 * DAY, end=START - DAY), OLD_ROOT),
            "expired at",
            id="expired",
        ),
        pytest.param(files(authority("leaf", OLD_ROOT, ca=False, **VALID), OLD_ROOT), "is not a CA's", id="a leaf"),
        pytest.param({"ca.crt": NEW_ROOT.pem}, "did not issue", id="another root"),
    ],
)
def test_an_invalid_ca_changes_nothing_and_is_told_once(
    play: Callable[..., Scene], contents: dict[str, bytes], says: str
) -> None:
    async def acts(scene: Scene) -> None:
        scene.write(contents)
        failed = await scene.event("ca_reload_failed")
        assert len(failed["problems"]) == 1 and says in failed["problems"][0]
        assert failed["problems"] == list(scene.session.ca_problems)
        assert failed["fingerprint_sha256"] == scene.session.minter().ca.fingerprint()
        scene.write(contents)
        await scene.read_again()
        await scene.event("ca_reload_failed")
        assert scene.signs == "old"

        scene.write(files(RENEWED, OLD_ROOT))
        await scene.event("ca_rotated")
        assert not scene.session.ca_problems

    assert b"PRIVATE" not in b"".join(orjson.dumps(line) for line in play(acts, patience=BRIEF).lines)


def test_a_ca_that_is_not_valid_yet_is_used_when_it_is(play: Callable[..., Scene]) -> None:
    async def acts(scene: Scene) -> None:
        scene.write(files(authority("early", OLD_ROOT, begin=START + DAY, end=START + 9 * DAY), OLD_ROOT))
        assert "not valid before" in (await scene.event("ca_reload_failed"))["problems"][0]
        scene.now += 2 * DAY
        await scene.event("ca_rotated")
        assert scene.signs == "early"

    play(acts, patience=BRIEF)


def test_files_that_are_gone_come_back(play: Callable[..., Scene]) -> None:
    async def acts(scene: Scene) -> None:
        for path in scene.folder.iterdir():
            path.unlink()
        assert "holds no CA" in (await scene.event("ca_reload_failed"))["problems"][0]
        scene.write(files(OLD, OLD_ROOT))
        await scene.until(lambda: not scene.session.ca_problems)
        assert scene.signs == "old"

    assert not play(acts, patience=BRIEF).events("ca_rotated")


def test_a_ca_that_may_not_answer_for_what_the_policy_allows_is_refused(play: Callable[..., Scene]) -> None:
    permitted = x509.NameConstraints([x509.DNSName("example.org")], None)
    constrained = authority("constrained", OLD_ROOT, extra=[(permitted, True)], **VALID)

    async def acts(scene: Scene) -> None:
        scene.session.policy.swap(parse_policy('version: 1\nrules: [{allow: ["api.example.com"]}]\n'))
        scene.write(files(constrained, OLD_ROOT))
        failed = await scene.event("ca_reload_failed")
        assert "'api.example.com' can't be answered for" in failed["problems"][0]
        assert "permit only example.org" in failed["problems"][0]
        assert scene.signs == "old"

    play(acts)
