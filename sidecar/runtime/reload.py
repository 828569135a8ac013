"""
The policy file is watched, and the files that it and the flags name for upstreams: a valid change is put in force
whole, an invalid one is reported and changes nothing.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from sidecar.errors import SidecarError
from sidecar.events.model import PolicyReloadFailed
from sidecar.policy import Policy, load_policy
from sidecar.runtime.engine import Engine, Service
from sidecar.runtime.revocation import end, take_back
from sidecar.runtime.watch import LONGEST_MS, QUIET_MS, Signature, signature, watching
from sidecar.upstreams.files import Upstreams, files_of, load_upstreams

_log = logging.getLogger(__name__)


class Reloader:
    """
    Puts what is in the files in force, if it differs from what is.

    Args:
        engine: Whose session's policy it is, and whose connections it may revoke.
        path: The policy file.

    Attributes:
        unread: What is in the files isn't known: the system refused to read them, the last time.
        files: The policy file, and those that it named when it was read last, in force or not.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        self.unread = False
        self._engine, self._path = engine, path
        self._root_files = engine.session.upstreams.root_files
        self.files = (path, *files_of(engine.session.policy(), self._root_files))
        self._one_at_a_time = asyncio.Lock()
        self._reported: tuple[str, ...] = ()  # problems of the last failure, which is told once
        self.tasks: set[asyncio.Future[None]] = set()

    def reload(self) -> asyncio.Future[None]:
        """Read the files; a policy that can't be used leaves the last good one in force. Never cancelled half-way."""
        self.tasks.add(task := asyncio.ensure_future(self._reload()))
        task.add_done_callback(self.tasks.discard)
        return asyncio.shield(task)

    async def _reload(self) -> None:
        async with self._one_at_a_time:
            try:
                policy, warnings, upstreams = await self._read_whole()
            except SidecarError as e:
                self.unread = isinstance(e.__cause__, OSError)
                self._failed(tuple(str(e).splitlines()))
            except Exception as e:  # a defect in reading must not end the watching
                self.unread = True
                _log.exception("the policy could not be reloaded")
                self._failed((f"{self._path}: can't be read: {type(e).__name__}",))
            else:
                recovered = bool(self._reported)
                self._reported, self.unread = (), False
                await self._put_in_force(policy, warnings, upstreams, recovered=recovered)

    async def _read_whole(self) -> tuple[Policy, tuple[str, ...], Upstreams]:
        """What is in the files; again if one of them was being written meanwhile, whether it could be used or not."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LONGEST_MS / 1000
        while True:
            before = self._signatures()
            try:
                found = await self._read()
            except SidecarError:
                await asyncio.sleep(QUIET_MS / 1000)  # for whoever has just begun to write
                if self._signatures() == before or loop.time() >= deadline:
                    raise
            else:
                if self._signatures() == before or loop.time() >= deadline:
                    return found

    def _signatures(self) -> dict[Path, Signature]:
        return {file: signature(file) for file in self.files}

    async def _read(self) -> tuple[Policy, tuple[str, ...], Upstreams]:
        session = self._engine.session
        policy = await asyncio.to_thread(load_policy, self._path, session.policy())
        self.files = (self._path, *files_of(policy, self._root_files))
        warnings = await asyncio.to_thread(session.check_policy, policy)
        return policy, warnings, await asyncio.to_thread(load_upstreams, policy, self._root_files)

    async def _put_in_force(
        self, policy: Policy, warnings: tuple[str, ...], upstreams: Upstreams, *, recovered: bool
    ) -> None:
        session = self._engine.session
        if (policy.hash, upstreams.digest) == (session.policy().hash, session.upstreams.digest):
            if recovered:  # who has read of the failure is told of its end
                session.announce_policy(session.policy(), warnings)
            return
        # Up to the event nothing awaits: whatever is judged is judged by the old policy, or by the new one.
        policy = session.put_in_force(policy, upstreams)
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
        try:
            # Unread: a workload that uses up all descriptors must not keep a stricter policy from coming into force.
            async with watching(lambda: reloader.files, reloader.reload, unread=lambda: reloader.unread, poll=poll):
                yield
        finally:
            for number in signals:
                # Ignored from here on: the default action would end the process while it drains.
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)
            await asyncio.gather(*reloader.tasks)

    def start(engine: Engine) -> AbstractAsyncContextManager[None]:
        return service(engine)

    return start
