"""Watched files: every way in which one can become another is noticed, and told once it is quiet."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from sidecar.runtime.watch import folders_of, watching

SECONDS = 30.0  # for a change to be noticed; far more than it takes


def watch(paths: Callable[[], list[Path]], scene: Callable[["Told"], Awaitable[None]]) -> None:
    """Play *scene* while *paths* are watched."""

    async def play() -> None:
        told = Told(paths)
        async with watching(paths, told.read):
            await scene(told)

    asyncio.run(play())


class Told:
    """Reads the files when it is told to, as what is watching's caller does."""

    def __init__(self, paths: Callable[[], list[Path]]) -> None:
        self._paths = paths
        self.contents: list[str | None] = []
        self._again = asyncio.Event()

    async def read(self) -> None:
        self.contents = [path.read_text() if path.exists() else None for path in self._paths()]
        self._again.set()

    async def until(self, *contents: str | None) -> None:
        async with asyncio.timeout(SECONDS):
            while self.contents != list(contents):
                self._again.clear()
                await self._again.wait()


def test_a_change_of_any_of_several_files_is_told(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "one", tmp_path / "b" / "two"
    for path in (one, two):
        path.parent.mkdir()
    one.write_text("1")

    async def scene(told: Told) -> None:
        await told.until("1", None)  # soon after the start, though nothing has changed
        two.write_text("2")
        await told.until("1", "2")
        one.with_name("fresh").write_text("3")
        one.with_name("fresh").replace(one)
        await told.until("3", "2")
        one.unlink()
        await told.until(None, "2")

    watch(lambda: [one, two], scene)


def test_which_files_are_watched_may_change(tmp_path: Path) -> None:
    files = [tmp_path / "one"]

    async def scene(told: Told) -> None:
        await told.until(None)
        files.append(tmp_path / "elsewhere" / "two")
        files[1].parent.mkdir()
        files[0].write_text("1")
        await told.until("1", None)
        files[1].write_text("2")
        await told.until("1", "2")

    watch(lambda: files, scene)


def test_every_folder_in_which_the_policy_can_change_is_watched(tmp_path: Path) -> None:
    real = tmp_path.resolve()
    for folder in ("mount/..1", "elsewhere"):
        (real / folder).mkdir(parents=True)
    (real / "mount" / "..1" / "policy.yaml").write_text("")
    (real / "mount" / "..data").symlink_to("..1")
    (real / "mount" / "policy.yaml").symlink_to("..data/policy.yaml")
    (real / "elsewhere" / "link.yaml").symlink_to("../mount/policy.yaml")

    assert set(folders_of(real / "mount" / "..1" / "policy.yaml")) == {real / "mount/..1"}
    assert set(folders_of(real / "mount" / "policy.yaml")) == {real / "mount", real / "mount/..1"}
    assert set(folders_of(real / "elsewhere" / "link.yaml")) == {real / "elsewhere", real / "mount", real / "mount/..1"}
    assert set(folders_of(real / "mount" / "gone.yaml")) == {real / "mount"}
    assert set(folders_of(real / "gone" / "policy.yaml")) == {real}
