"""The policy file is watched: a valid change is put in force whole, an invalid one is reported and changes nothing."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path

from watchfiles import awatch

from sidecar.events.model import PolicyReloadFailed
from sidecar.policy import Policy, PolicyError, lint_policy, load_policy
from sidecar.runtime.engine import Engine, Service
from sidecar.runtime.revocation import end, take_back

QUIET_MS = 100  # without a further change, before the file is read: who writes it in place writes it in pieces
LONGEST_MS = 1_000  # of changes in a row; then it is read all the same
LOOK_AGAIN_MS = 5_000  # for what no notification told: a change between two watches, a file system without any
RETRY_SECONDS = 1.0  # where the file's folder is gone, or can't be watched for the moment
_LINKS = 40  # symbolic links in a row, as Linux has it

type Signature = tuple[int, int, int, int] | None

_log = logging.getLogger(__name__)


class Reloader:
    """
    Puts what is in the file in force, if it differs from what is.

    Args:
        engine: Whose session's policy it is, and whose connections it may revoke.
        path: The policy file.

    Attributes:
        unread: What is in the file isn't known: the system refused to read it, the last time.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        self.unread = False
        self._engine, self._path = engine, path
        self._one_at_a_time = asyncio.Lock()
        self._reported: tuple[str, ...] = ()  # problems of the last failure, which is told once
        self.tasks: set[asyncio.Future[None]] = set()

    def reload(self) -> asyncio.Future[None]:
        """Read the file; a policy that can't be used leaves the last good one in force. Never cancelled half-way."""
        self.tasks.add(task := asyncio.ensure_future(self._reload()))
        task.add_done_callback(self.tasks.discard)
        return asyncio.shield(task)

    async def _reload(self) -> None:
        async with self._one_at_a_time:
            try:
                policy, warnings = await asyncio.to_thread(_load, self._path)
            except PolicyError as e:
                self.unread = isinstance(e.__cause__, OSError)
                self._failed(tuple(str(e).splitlines()))
            except Exception as e:  # a defect in reading must not end the watching
                self.unread = True
                _log.exception("the policy could not be reloaded")
                self._failed((f"{self._path}: can't be read: {type(e).__name__}",))
            else:
                self._reported, self.unread = (), False
                await self._put_in_force(policy, warnings)

    async def _put_in_force(self, policy: Policy, warnings: tuple[str, ...]) -> None:
        session = self._engine.session
        if policy.hash == session.policy().hash:
            return
        # Up to the event nothing awaits: whatever is judged is judged by the old policy, or by the new one.
        policy = session.policy.swap(policy)
        found = take_back(self._engine, policy)
        revoked = sum(revocation.ends_something for _, revocation in found)
        session.announce_policy(policy, warnings, revoked_connections=revoked)
        await end(self._engine, found)

    def _failed(self, problems: tuple[str, ...]) -> None:
        if problems == self._reported:
            return
        self._reported = problems
        session = self._engine.session
        kept = session.policy()
        session.log.emit(
            PolicyReloadFailed(
                source=str(self._path), problems=problems, generation=kept.generation, policy_hash=kept.hash
            )
        )


def reloading(path: Path, *, signals: Collection[signal.Signals] = (), poll: bool = False) -> Service:
    """
    A service that keeps the policy in force the one in *path*.

    Args:
        path: The policy file; it, or any folder above it, may be a symbolic link, as in a mounted ConfigMap.
        signals: Have the file read at once. Only for an engine in the main thread.
        poll: Look at the folder now and then, without the kernel's notifications.
    """

    @asynccontextmanager
    async def service(engine: Engine) -> AsyncIterator[None]:
        loop, reloader = asyncio.get_running_loop(), Reloader(engine, path)
        for number in signals:
            loop.add_signal_handler(number, reloader.reload)
        watching = asyncio.ensure_future(Watch(path, reloader).run(poll=poll))
        try:
            yield
        finally:
            for number in signals:
                # Ignored from here on: the default action would end the process while it drains.
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await asyncio.gather(*reloader.tasks)

    def start(engine: Engine) -> AbstractAsyncContextManager[None]:
        return service(engine)

    return start


class Watch:
    """Has the file read whenever it is, or may be, another one."""

    def __init__(self, path: Path, reloader: Reloader) -> None:
        self._path, self._reloader = path, reloader
        self._seen: Signature = None  # so that the file is read once more: it may have changed since the start

    async def run(self, *, poll: bool = False) -> None:
        while True:
            folders = folders_of(self._path)
            late = asyncio.ensure_future(self._look_late())
            try:
                await self._follow(folders, poll=poll)
            except (OSError, RuntimeError) as e:
                # Too many watches or instances of inotify, usually; and a folder may be gone while it is replaced.
                if not poll and all(folder.is_dir() for folder in folders):
                    _log.warning("the policy's folder can't be watched (%s); it is polled instead", e)
                    poll = True
                else:
                    await asyncio.sleep(RETRY_SECONDS)
            finally:
                late.cancel()

    async def _look_late(self) -> None:
        """What has changed between reading the file and watching (again) is told by nobody."""
        await asyncio.sleep(2 * QUIET_MS / 1000)
        await self._look()

    async def _look(self, *, anyway: bool = False) -> None:
        now = signature(self._path)
        # Unread: a workload that uses up the file descriptors must not keep a stricter policy from coming into force.
        if anyway or now != self._seen or (self._reloader.unread and now is not None):
            self._seen = now
            await self._reloader.reload()

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
                await self._look(anyway=any(Path(name).name == self._path.name for _, name in changed))
                again = folders_of(self._path)
                if again != folders or [identity(folder) for folder in again] != places:
                    return


def _load(path: Path) -> tuple[Policy, tuple[str, ...]]:
    """The policy and its warnings; read again if it was being written meanwhile."""
    for _ in range(5):
        before = signature(path)
        policy = load_policy(path)
        if signature(path) == before:
            break
    return policy, tuple(str(warning) for warning in lint_policy(policy))


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
