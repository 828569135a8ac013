"""Files are watched: whenever one of them is, or may be, another one, somebody is told and reads them again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

from watchfiles import awatch

QUIET_MS = 100  # without a further change, before the files are read: who writes in place writes in pieces
LONGEST_MS = 1_000  # of changes in a row; then they are read all the same
LOOK_AGAIN_MS = 5_000  # for what no notification told: a change between two watches, a file system without any
RETRY_SECONDS = 1.0  # where a folder is gone, or can't be watched for the moment
_LINKS = 40  # symbolic links in a row, as Linux has it

type Paths = Callable[[], Iterable[Path]]
type Signature = tuple[int, int, int, int] | None

_log = logging.getLogger(__name__)


@asynccontextmanager
async def watching(
    paths: Paths,
    changed: Callable[[], Awaitable[object]],
    *,
    unread: Callable[[], bool] = lambda: False,
    poll: bool = False,
) -> AsyncIterator[None]:
    """
    Watch files for as long as the context is open.

    Args:
        paths: Gives the files, asked anew at each look. They, and any folder above them, may be symbolic links, as in
            a mounted ConfigMap or Secret; a file needn't be there.
        changed: Reads them. Called once soon after the start, since they may have changed since they were read first.
            May be cancelled, and is then called again; must not raise.
        unread: Says that files which haven't changed are read all the same, every few seconds: the system refused to
            read them, or time alone changes what follows from them.
        poll: Look at the folders now and then, without the kernel's notifications.
    """
    task = asyncio.ensure_future(_Watch(paths, changed, unread).run(poll=poll))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class _Watch:
    def __init__(self, paths: Paths, changed: Callable[[], Awaitable[object]], unread: Callable[[], bool]) -> None:
        self._paths, self._changed, self._unread = paths, changed, unread
        self._seen: dict[Path, Signature] = {}
        self._looking = asyncio.Lock()

    async def run(self, *, poll: bool) -> None:
        while True:
            folders = self._folders()
            late = asyncio.ensure_future(self._look_late())
            try:
                await self._follow(folders, poll=poll)
            except (OSError, RuntimeError) as e:
                # Too many watches or instances of inotify, usually; and a folder may be gone while it is replaced.
                if not poll and all(folder.is_dir() for folder in folders):
                    _log.warning("%s can't be watched (%s); it is polled instead", ", ".join(map(str, folders)), e)
                    poll = True
                else:
                    await asyncio.sleep(RETRY_SECONDS)
            finally:
                late.cancel()

    def _folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(folder for path in self._paths() for folder in folders_of(path)))

    async def _look_late(self) -> None:
        """What has changed between reading the files and watching (again) is told by nobody."""
        await asyncio.sleep(2 * QUIET_MS / 1000)
        await self._look(frozenset())

    async def _look(self, told: frozenset[str]) -> None:
        """Have the files read if they are others, or if the kernel has *told* of one of their names."""
        async with self._looking:
            now = {path: signature(path) for path in self._paths()}
            named = any(path.name in told for path in now)
            if named or now != self._seen or (self._unread() and any(now.values())):
                await self._changed()
                self._seen = now

    async def _follow(self, folders: tuple[Path, ...], *, poll: bool) -> None:
        """Returns when the folders to watch are others: a link leads elsewhere, or a folder has been replaced."""
        places = [identity(folder) for folder in folders]
        changes = awatch(
            *folders,
            watch_filter=None,  # the default one leaves out names that editors and ConfigMaps use
            debounce=LONGEST_MS,
            step=QUIET_MS,
            rust_timeout=LOOK_AGAIN_MS,
            yield_on_timeout=True,
            force_polling=poll,
            recursive=False,
        )
        async with aclosing(changes):
            async for changed in changes:
                await self._look(frozenset(Path(name).name for _, name in changed))
                again = self._folders()
                if again != folders or [identity(folder) for folder in again] != places:
                    return


def signature(path: Path) -> Signature:
    """Tells one state of the file from another without reading it; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def identity(folder: Path) -> tuple[int, int] | None:
    """Tells a folder from another one that has taken its name."""
    found = signature(folder)
    return None if found is None else found[:2]


def folders_of(path: Path) -> tuple[Path, ...]:
    """
    The folders in which a change may give *path* another content: its own, and those of every link on the way.

    A ConfigMap's ``policy.yaml`` links to ``..data/policy.yaml``, and ``..data`` to the folder of the version in force.
    """
    folders, todo, links = dict[Path, None](), [path.absolute()], 0
    while todo:
        here = Path("/")
        parts = todo.pop().parts[1:]
        for i, part in enumerate(parts):
            step = here / part
            if links < _LINKS and _true(step.is_symlink):
                links += 1
                folders[here.resolve()] = None
                todo.append((here / step.readlink()).joinpath(*parts[i + 1 :]))
                break
            here = step
        else:
            folders[here.parent.resolve()] = None
    return tuple(folder for folder in folders if _true(folder.is_dir)) or (_nearest(path),)


def _nearest(path: Path) -> Path:
    """The folder closest to *path* that there is: it may come back."""
    return next(folder for folder in path.absolute().parents if _true(folder.is_dir))


def _true(look: Callable[[], bool]) -> bool:
    """What can't be looked at, since a folder above it is closed to the sidecar's user, can't be watched either."""
    try:
        return look()
    except PermissionError:
        return False
